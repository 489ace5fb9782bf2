//! The load trace, shortened: how decisions do where workers take time to start and loads are noisy.

#[path = "../benches/load_trace/ours.rs"]
mod ours;
#[path = "../benches/load_trace/simulation.rs"]
#[expect(dead_code, reason = "the rules of others look at more")]
mod simulation;

use simulation::{Outcome, run};

fn drover(trace: &[(f64, f64)]) -> Outcome {
    run(trace, &mut ours::Drover::default())
}

#[test]
fn a_step_from_zero_and_a_step_up_are_served_within_seconds_and_without_flapping() {
    let outcome = drover(&[(500.0, 240.0), (2_000.0, 240.0), (500.0, 240.0), (0.0, 240.0), (500.0, 240.0)]);
    assert!(outcome.changes <= 16, "{outcome:?}");
    assert!(outcome.longest < 15.0, "{outcome:?}");
    // What the load itself needs at full utilisation is 1.11 hours for each of the five parts of 240 s.
    assert!(outcome.pod_hours < 240.0 / 3_600.0 * (7.0 * 3.0 + 28.0) + 1.0, "{outcome:?}");
}

#[test]
fn a_steady_noisy_load_is_not_followed() {
    for load in [40.0, 160.0, 480.0, 560.0, 1_000.0] {
        let outcome = drover(&[(load, 1_800.0)]);
        assert!(outcome.changes <= 5, "{load}: {outcome:?}");
    }
}
