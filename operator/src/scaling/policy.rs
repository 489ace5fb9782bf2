//! What a person wants of the number of workers. Data only.

/// Bounds and aims.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// Share of its time that a replica is to be busy.
    pub target_utilization: f64,
    /// A backlog should be gone within so many seconds.
    pub catch_up: f64,
    /// Seconds for which a larger recommendation outlives a smaller one.
    pub cooldown: f64,
    /// What runs while the hub cannot be read, if nothing ran.
    pub fallback: u32,
}

impl Policy {
    /// Within the bounds; where they contradict each other, the upper one holds.
    #[must_use]
    pub fn clamp(&self, replicas: u32) -> u32 {
        replicas.max(self.min).min(self.max)
    }
}
