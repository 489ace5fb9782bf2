//! Names of the queues that a pipeline may have beside its source. Pure.

/// Steps of the way that suspects take: each is a queue of its own with fewer messages in flight, the last with one.
pub const SUSPECT_STEPS: u8 = 2;

/// The queue of a source's suspects at a step, from 1.
#[must_use]
pub fn suspects_queue(source: &str, step: u8) -> String {
    format!("{source}.{}", suspects_key(step))
}

/// Key of the pipeline's exchange that leads to the suspects of a step, from 1.
#[must_use]
pub fn suspects_key(step: u8) -> String {
    format!("suspects-{step}")
}

/// The queue in which a source's messages wait for so many seconds.
#[must_use]
pub fn delay_queue(source: &str, seconds: u32) -> String {
    format!("{source}.{}", delay_key(seconds))
}

/// Key of the pipeline's exchange that leads to a wait of so many seconds.
#[must_use]
pub fn delay_key(seconds: u32) -> String {
    format!("delay-{seconds}")
}

/// The queue that copies of what arrives at a source go to while a revision is tried.
#[must_use]
pub fn mirror_queue(source: &str, revision: &str) -> String {
    format!("{source}.mirror-{revision}")
}
