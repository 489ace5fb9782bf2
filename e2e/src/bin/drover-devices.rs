//! Simulated devices: each publishes JSON over MQTT to `devices/<id>`, at least once, one message at a time, and repeats a
//! message until the broker has acknowledged it. It must not know what becomes of the messages.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Parser;
use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Packet, QoS};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tokio_util::task::TaskTracker;
use url::Url;

/// Where the devices say they are; a small set, so that grouping by it makes sense.
const PREFECTURES: [&str; 8] = ["hokkaido", "miyagi", "tokyo", "nagano", "kyoto", "osaka", "hiroshima", "fukuoka"];

/// How long a device waits before it connects again.
const RECONNECT: Duration = Duration::from_secs(1);

/// How often a line says how far things are.
const PROGRESS: Duration = Duration::from_secs(5);

/// Simulated devices that publish JSON over MQTT.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The broker: mqtt://user:password@host:port
    #[arg(long, env = "DROVER_MQTT_URI", hide_env_values = true)]
    mqtt: Url,
    /// How many devices there are, each with a connection of its own
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    devices: u32,
    /// Messages per second, of all devices together
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// Stop after so many messages; without it they go on until they are told to stop
    #[arg(long)]
    count: Option<u64>,
}

/// What all devices share.
struct Fleet {
    /// Makes the ids of this run differ from those of the last.
    run: u64,
    count: u64,
    begun: AtomicU64,
    acknowledged: AtomicU64,
    reconnects: AtomicU64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drover-devices: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.rate.is_finite() && args.rate > 0.0, "--rate must be more than 0");
    let host = args.mqtt.host_str().context("--mqtt names no host")?;
    let period = Duration::from_secs_f64(f64::from(args.devices) / args.rate);
    let fleet = Arc::new(Fleet {
        run: now_ms(),
        count: args.count.unwrap_or(u64::MAX),
        begun: AtomicU64::new(0),
        acknowledged: AtomicU64::new(0),
        reconnects: AtomicU64::new(0),
    });
    println!("{} devices, {} messages/s to {host}", args.devices, args.rate);
    let devices = TaskTracker::new();
    for number in 0..args.devices {
        let name = format!("device-{number:04}");
        let mut options = MqttOptions::new(&name, host, args.mqtt.port().unwrap_or(1883));
        options.set_credentials(args.mqtt.username(), args.mqtt.password().unwrap_or_default());
        options.set_keep_alive(Duration::from_secs(30));
        let offset = period * number / args.devices;
        devices.spawn(device(Arc::clone(&fleet), name, number, options, offset, period));
    }
    devices.close();
    let mut progress = interval(PROGRESS);
    progress.tick().await;
    loop {
        tokio::select! {
            () = devices.wait() => break,
            _ = progress.tick() => report(&fleet),
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    report(&fleet);
    Ok(())
}

fn report(fleet: &Fleet) {
    println!(
        "{} messages acknowledged, {} reconnects",
        fleet.acknowledged.load(Ordering::Relaxed),
        fleet.reconnects.load(Ordering::Relaxed),
    );
}

/// Publishes until the fleet's count is reached; a message that was begun is acknowledged before the next.
async fn device(
    fleet: Arc<Fleet>,
    name: String,
    number: u32,
    options: MqttOptions,
    offset: Duration,
    period: Duration,
) {
    sleep(offset).await;
    let mut due = interval(period);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unacknowledged = None;
    let mut sequence = 0;
    loop {
        let (client, mut connection) = AsyncClient::new(options.clone(), 1);
        let ended = loop {
            if unacknowledged.is_none() {
                if let Err(error) = idle(&mut connection, &mut due).await {
                    break error;
                }
                if fleet.begun.fetch_add(1, Ordering::Relaxed) >= fleet.count {
                    return;
                }
                unacknowledged = Some(body(&fleet, &name, number, sequence));
                sequence += 1;
            }
            let message = unacknowledged.clone().unwrap_or_default();
            if let Err(error) = publish(&client, &mut connection, &name, message).await {
                break error;
            }
            fleet.acknowledged.fetch_add(1, Ordering::Relaxed);
            unacknowledged = None;
        };
        if fleet.reconnects.fetch_add(1, Ordering::Relaxed).is_multiple_of(100) {
            eprintln!("{name}: {ended}; connecting again every {} s", RECONNECT.as_secs());
        }
        sleep(RECONNECT).await;
    }
}

/// Keeps the connection alive until the next message is due.
async fn idle(connection: &mut EventLoop, due: &mut Interval) -> Result<(), ConnectionError> {
    loop {
        tokio::select! {
            _ = due.tick() => return Ok(()),
            event = connection.poll() => { event?; }
        }
    }
}

async fn publish(
    client: &AsyncClient,
    connection: &mut EventLoop,
    name: &str,
    message: String,
) -> Result<(), ConnectionError> {
    // One message at a time: the channel of one has room for it.
    if client.try_publish(format!("devices/{name}"), QoS::AtLeastOnce, false, message).is_err() {
        return Err(ConnectionError::RequestsDone);
    }
    loop {
        if let Event::Incoming(Packet::PubAck(_)) = connection.poll().await? {
            return Ok(());
        }
    }
}

fn body(fleet: &Fleet, name: &str, number: u32, sequence: u32) -> String {
    // A slow wave, shifted from device to device: plausible, and the same in every run.
    let phase = f64::from(sequence) / 50.0 + f64::from(number);
    let temp = (2150.0 + 450.0 * phase.sin()).round() / 100.0;
    let humidity = (5500.0 + 1500.0 * (phase / 3.0).cos()).round() / 100.0;
    serde_json::json!({
        "id": format!("{name}-{:x}-{sequence}", fleet.run),
        "deviceId": name,
        "timestamp": now_ms(),
        "payloads": {
            "pref": PREFECTURES[number as usize % PREFECTURES.len()],
            "temp": temp,
            "humidity": humidity,
        },
    })
    .to_string()
}

#[expect(clippy::disallowed_methods, reason = "a device stamps its messages: time enters here")]
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
