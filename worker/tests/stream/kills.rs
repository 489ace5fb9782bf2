//! Workers are killed and stopped at any moment, hub and store restart; the rows are those of an undisturbed computation.

use std::{collections::BTreeMap, process::Command, time::Duration};

use drover_worker::{
    settings::POD,
    stream::settings::{BATCH_MESSAGES, LEASE_SECONDS, TICK_MILLIS},
};

use crate::{
    load::{QUERY, Random, assert_exact, assert_exact_with, events},
    process::Process,
    surroundings::{Lane, Sent, env, eventually, now},
};

/// Small batches, a short lease and real ticks: many places to be killed at.
const MORE: [(&str, &str); 3] = [(BATCH_MESSAGES, "150"), (LEASE_SECONDS, "2"), (TICK_MILLIS, "300")];

fn random() -> Random {
    let seed = std::env::var("DROVER_KILL_SEED").ok().and_then(|s| s.parse().ok());
    Random(seed.unwrap_or(0x9e37_79b9_7f4a_7c15))
}

/// Two workers; so many times one of them is killed, and a fifth as often one stands still for longer than its lease and goes on.
async fn disturb(lane: &Lane, random: &mut Random, kills: u32) -> Vec<Process> {
    let start = || Process::start(lane, QUERY, &MORE);
    let mut workers = vec![start(), start()];
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(150 + random.below(500))).await;
        let at = usize::try_from(random.below(2)).unwrap();
        workers[at] = start();
        if kill % 5 == 4 {
            workers[1 - at].pause();
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            workers[1 - at].resume();
        }
    }
    workers
}

/// Publishes in so many portions, with a breath after each.
async fn publish(lane: &Lane, events: &[Sent], portions: usize) {
    for some in events.chunks(events.len() / portions + 1) {
        lane.publish(some).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn end(workers: Vec<Process>) {
    for worker in workers {
        assert!(worker.terminate().await);
    }
}

/// Events that were taken; 0 while there is no state.
async fn counted(lane: &Lane) -> u64 {
    if lane.ask(&format!("to_regclass('\"{}\".partition') IS NOT NULL", lane.schema())).await != "true" {
        return 0;
    }
    let sum = "SELECT COALESCE(sum(on_time + adjusted + dropped + dead_lettered), 0) FROM @.partition";
    lane.ask(sum).await.parse().unwrap()
}

async fn disturbed(name: &str, messages: u64, kills: u32) {
    let mut random = random();
    let lane = Lane::new(name, 4).await;
    let all = events(&mut random, now(), messages, messages / 60 + 1, 4);
    let portions = usize::try_from(kills * 2).unwrap();
    let ((), workers) = tokio::join!(publish(&lane, &all, portions), disturb(&lane, &mut random, kills));
    assert_exact(&lane, QUERY, &MORE, now() + 3_600_000).await;
    end(workers).await;
    assert_eq!(counted(&lane).await, messages);
    assert_eq!(lane.ask("SELECT sum(skipped + lost) FROM @.partition").await, "0");
    lane.close().await;
}

/// Restarts a service that all tests share; ends when it answers again.
async fn restart(service: &'static str) {
    let control = move || {
        Command::new(env("DROVER_TEST_CTL"))
            .args([env("DROVER_TEST_SET").as_str(), service, "restart"])
            .status()
            .unwrap()
    };
    let status = tokio::task::spawn_blocking(control).await.unwrap();
    assert!(status.success(), "{service}");
}

/// Publishes one half, restarts a service under the workers, and publishes the other half.
async fn publish_around_a_restart(lane: Lane, events: &[Sent], portions: usize, service: &'static str) -> Lane {
    let (before, after) = events.split_at(events.len() / 2);
    publish(&lane, before, portions / 2).await;
    restart(service).await;
    let lane = Lane::again(&lane.name, lane.partitions).await;
    publish(&lane, after, portions / 2).await;
    lane
}

/// Kills and pauses through two halves, a restart in each, and between them a stream that is deleted and declared again.
async fn restarted(name: &str, messages: u64, kills: u32) {
    let mut random = random();
    let lane = Lane::new(name, 4).await;
    let all = events(&mut random, now(), messages, messages / 60 + 1, 4);
    let portions = usize::try_from(kills).unwrap();
    let (first, second) = all.split_at(all.len() / 2);
    // What workers are started with; its connections do not outlive the restarts.
    let variables = Lane::again(name, 4).await;
    let (lane, workers) = tokio::join!(
        publish_around_a_restart(lane, first, portions, "rabbitmq"),
        disturb(&variables, &mut random, kills / 2)
    );
    eventually("the first half is read", || async { (counted(&lane).await == messages / 2).then_some(()) }).await;
    end(workers).await;
    // Nobody writes or reads now: all that counts of the stream is before the offset that would be read next.
    let next = lane.ask("SELECT next_offset FROM @.partition WHERE part = 0").await.parse::<i64>().unwrap();
    let gone = BTreeMap::from([(0, lane.read_before(0, next).await)]);
    lane.delete_stream(0).await;
    lane.declare_stream(0).await;
    let (lane, workers) = tokio::join!(
        publish_around_a_restart(lane, second, portions, "postgres"),
        disturb(&variables, &mut random, kills / 2)
    );
    assert_exact_with(&lane, QUERY, &MORE, now() + 3_600_000, gone).await;
    end(workers).await;
    assert_eq!(counted(&lane).await, messages);
    assert_eq!(
        lane.ask("SELECT concat_ws(',', sum(generation), sum(lost), sum(skipped)) FROM @.partition").await,
        "1,1,0"
    );
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: 200 kills over a million events, and restarts of the hub and the store that all tests share"]
async fn rows_are_exact_with_200_kills_restarts_of_hub_and_store_and_a_stream_declared_anew() {
    restarted("kills_restarts", 1_000_000, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stands_still_inside_a_transaction_costs_a_lease_and_no_row() {
    let lane = Lane::new("kills_inside", 1).await;
    let mut random = random();
    let all = events(&mut random, now(), 4_000, 200, 1);
    let (before, after) = all.split_at(1_000);
    let worker = Process::start(&lane, QUERY, &MORE);
    lane.publish(before).await;
    eventually("all read", || async { (counted(&lane).await == 1000).then_some(()) }).await;
    // The next batch has its fence, and waits for its partial aggregates.
    let mut blocker = Lane::stranger().await;
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute(&format!("LOCK TABLE \"{}\".partial IN SHARE MODE", lane.schema())).await.unwrap();
    lane.publish(after).await;
    let waits = format!(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO \"{}\".partial %'",
        lane.schema()
    );
    eventually("a batch that waits", || async { (lane.ask(&waits).await == "true").then_some(()) }).await;
    worker.pause();
    lock.rollback().await.unwrap();
    let other = Process::start(&lane, QUERY, &[(POD, "other"), MORE[0], MORE[1], MORE[2]]);
    eventually("the other reads all", || async { (counted(&lane).await == 4000).then_some(()) }).await;
    worker.resume();
    assert_exact(&lane, QUERY, &MORE, now() + 3_600_000).await;
    end(vec![worker, other]).await;
    assert_eq!(counted(&lane).await, 4_000);
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
