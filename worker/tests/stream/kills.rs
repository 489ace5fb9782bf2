//! Workers are killed and stopped at any moment; the rows are those of an undisturbed computation.

use std::time::Duration;

use drover_worker::stream::settings::{BATCH_MESSAGES, LEASE_SECONDS, TICK_MILLIS};

use crate::{
    load::{QUERY, Random, assert_exact, events},
    process::Process,
    surroundings::{Lane, now},
};

/// Small batches, a short lease and real ticks: many places to be killed at.
const MORE: [(&str, &str); 3] = [(BATCH_MESSAGES, "150"), (LEASE_SECONDS, "2"), (TICK_MILLIS, "300")];

/// Two workers; so many times one of them is killed, or stands still for longer than its lease and goes on.
async fn disturbed(name: &str, messages: u64, kills: u32) {
    let seed = std::env::var("DROVER_KILL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x9e37_79b9_7f4a_7c15);
    let mut random = Random(seed);
    let lane = Lane::new(name, 4).await;
    let from = now();
    let all = events(&mut random, from, messages, messages / 60 + 1, 4);
    let start = || Process::start(&lane, QUERY, &MORE);
    let publish = async {
        for some in all.chunks(usize::try_from(messages / u64::from(kills) / 2 + 1).unwrap()) {
            lane.publish(some).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let disturb = async {
        let mut workers = vec![start(), start()];
        for kill in 0..kills {
            tokio::time::sleep(Duration::from_millis(150 + random.below(500))).await;
            let at = usize::try_from(random.below(2)).unwrap();
            if kill % 5 == 4 {
                workers[at].pause();
                tokio::time::sleep(Duration::from_millis(2_500)).await;
                workers[at].resume();
            } else {
                workers[at] = start();
            }
        }
        workers
    };
    let ((), workers) = tokio::join!(publish, disturb);
    assert_exact(&lane, QUERY, &MORE, now() + 3_600_000).await;
    for worker in workers {
        assert!(worker.terminate().await);
    }
    let counted = "SELECT sum(on_time + adjusted + dropped + dead_lettered) FROM @.partition";
    assert_eq!(lane.ask(counted).await, messages.to_string());
    assert_eq!(lane.ask("SELECT sum(skipped + lost) FROM @.partition").await, "0");
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_exact_with_20_kills_and_pauses() {
    disturbed("kills_20", 20_000, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: 200 kills over a million events"]
async fn rows_are_exact_with_200_kills_and_pauses_over_a_million_events() {
    disturbed("kills_200", 1_000_000, 200).await;
}
