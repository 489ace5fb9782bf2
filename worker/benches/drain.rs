//! Drain: messages of 200 bytes from a quorum queue into PostgreSQL with a unique index, by the worker as it ships, beside a
//! bare loop that does the same and its two halves alone, and by the worker where it tells a collector of traces. Needs the hub and
//! store of the tests. Its last line is JSON.

#![expect(clippy::cast_precision_loss, reason = "rates")]

#[path = "shared/process.rs"]
mod process;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use drover_worker::{
    hub::{self, HubAddress},
    status::WorkerStatus,
    store::{self, StoreAddress},
    tls::Material,
};
use futures::{FutureExt, StreamExt, future::try_join_all};
use lapin::{
    BasicProperties, Channel, Connection, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use process::Process;

const QUEUE: &str = "bench-drain";
const MESSAGES: usize = 30_000;
const RUNS: usize = 5;
/// Prefetch of both, and rows of the bare loop's batches.
const PREFETCH: u16 = 200;
const AIM: f64 = 0.8;
const AIM_TRACED: f64 = 0.9;
const AIM_MEMORY: f64 = 40.0;
const PORT: u16 = 18_347;
const COLLECTOR: u16 = 18_348;

const INSERT: &str = "INSERT INTO \"bench-drain\" (message_id, deviceid, ts, temp, humidity, note)
    SELECT v.a::text, v.b::text, v.c::timestamptz, v.d::float8, v.e::int, v.f::text
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) AS v (a, b, c, d, e, f)
    ON CONFLICT (message_id) DO NOTHING";

#[derive(serde::Deserialize)]
struct Reading {
    #[serde(rename = "deviceId")]
    device_id: String,
    ts: String,
    temp: f64,
    humidity: i32,
    note: String,
}

fn body(n: usize) -> Vec<u8> {
    let mut body = format!(
        r#"{{"deviceId":"device-{:06}","ts":"2026-01-02T03:04:05.678Z","temp":{}.5,"humidity":{},"note":""#,
        n % 10_000,
        n % 40,
        n % 100
    );
    while body.len() < 198 {
        body.push('x');
    }
    body.push_str("\"}");
    body.into_bytes()
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: make bench sets it"))
}

fn ca() -> String {
    std::fs::read_to_string(env("DROVER_TEST_CA")).expect("the CA can be read")
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

struct Bench {
    hub: Connection,
    channel: Channel,
    owner: Client,
    worker: Client,
}

impl Bench {
    async fn new() -> Self {
        let tls = Material { ca: Some(ca()), ..Material::default() };
        let address = HubAddress { uri: env("DROVER_TEST_HUB_URI"), tls };
        let hub = hub::connect(&address, QUEUE).await.expect("the hub is there");
        let channel = hub.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let store = async |variable| {
            let address = StoreAddress::from_uri(&env(variable), Some(ca())).expect("an address");
            store::connect(&address, QUEUE).await.expect("the store is there")
        };
        Self {
            hub,
            channel,
            owner: store("DROVER_TEST_STORE_URI").await,
            worker: store("DROVER_TEST_STORE_WORKER_URI").await,
        }
    }

    /// An empty table and a full queue.
    async fn fill(&self) {
        let table = "DROP TABLE IF EXISTS \"bench-drain\"; CREATE TABLE \"bench-drain\" (message_id text PRIMARY KEY, deviceid text,
            ts timestamptz, temp float8, humidity int, note text); GRANT SELECT, INSERT ON \"bench-drain\" TO drover_worker";
        self.owner.batch_execute(table).await.expect("a table");
        self.channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await.expect("no queue");
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(QUEUE.into(), durable, arguments).await.expect("a queue");
        let exchange = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let name = format!("{QUEUE}.drover");
        let kind = ExchangeKind::Direct;
        self.channel
            .exchange_declare(name.as_str().into(), kind, exchange, FieldTable::default())
            .await
            .expect("an exchange");
        let numbers: Vec<usize> = (0..MESSAGES).collect();
        for some in numbers.chunks(1000) {
            let sent = some.iter().map(|n| async move {
                let properties =
                    BasicProperties::default().with_message_id(format!("m-{n:08}").into()).with_delivery_mode(2);
                self.channel
                    .basic_publish("".into(), QUEUE.into(), BasicPublishOptions::default(), &body(*n), properties)
                    .await
            });
            try_join_all(try_join_all(sent).await.expect("sent")).await.expect("confirmed");
        }
        self.owner.batch_execute("CHECKPOINT").await.ok();
    }

    async fn rows(&self) -> usize {
        let row = self.owner.query_one("SELECT count(*) FROM \"bench-drain\"", &[]).await.expect("a count");
        usize::try_from(row.get::<_, i64>(0)).expect("a count")
    }

    /// Messages a second of a loop without anything else; with or without the insert.
    async fn bare(&self, insert: bool) -> f64 {
        let channel = self.hub.create_channel().await.expect("a channel");
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("a prefetch");
        let start = now();
        let options = BasicConsumeOptions::default();
        let mut consumer = channel
            .basic_consume(QUEUE.into(), QUEUE.into(), options, FieldTable::default())
            .await
            .expect("a consumer");
        let mut done = 0;
        while done < MESSAGES {
            let mut batch = vec![consumer.next().await.expect("a delivery").expect("a delivery")];
            while batch.len() < usize::from(PREFETCH) {
                let Some(Some(Ok(delivery))) = consumer.next().now_or_never() else { break };
                batch.push(delivery);
            }
            if insert {
                let id = |d: &lapin::message::Delivery| d.properties.message_id().as_ref().map(ToString::to_string);
                self.insert(batch.iter().map(|d| (id(d).unwrap_or_default(), &d.data[..]))).await;
            }
            let last = batch.last().expect("one at least").delivery_tag;
            channel.basic_ack(last, BasicAckOptions { multiple: true }).await.expect("acknowledged");
            done += batch.len();
        }
        let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
        channel.close(200, "done".into()).await.expect("closed");
        rate
    }

    async fn insert<'b>(&self, messages: impl Iterator<Item = (String, &'b [u8])>) {
        let mut columns: [Vec<String>; 6] = std::array::from_fn(|_| Vec::new());
        for (id, body) in messages {
            let r: Reading = serde_json::from_slice(body).expect("the bodies are valid");
            let values = [id, r.device_id, r.ts, r.temp.to_string(), r.humidity.to_string(), r.note];
            columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        }
        let parameters = columns.each_ref().map(|column| (column as &(dyn ToSql + Sync), Type::TEXT_ARRAY));
        self.worker.batch_execute("BEGIN").await.expect("a transaction");
        self.worker.execute_typed(INSERT, &parameters).await.expect("inserted");
        self.worker.batch_execute("COMMIT").await.expect("committed");
    }

    /// Rows a second of the insert alone.
    async fn insert_only(&self) -> f64 {
        let bodies: Vec<Vec<u8>> = (0..MESSAGES).map(body).collect();
        let start = now();
        for (n, some) in bodies.chunks(PREFETCH.into()).enumerate() {
            self.insert(some.iter().enumerate().map(|(m, body)| (format!("m-{:08}", n * 200 + m), &body[..]))).await;
        }
        MESSAGES as f64 / start.elapsed().as_secs_f64()
    }

    /// Messages a second of the worker, and its peak memory in MiB; `traced` is the share that it tells the collector of.
    async fn ours(&self, traced: Option<&str>) -> (f64, f64) {
        let (child, start) = start(traced);
        while status().is_none_or(|status| status.processed < MESSAGES as u64) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
        let memory = child.peak_memory();
        drop(child);
        (rate, memory)
    }
}

/// A collector that takes everything.
async fn collect() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", COLLECTOR)).await.expect("the port is free");
    let router = axum::Router::new().fallback(|| async {});
    tokio::spawn(async move { axum::serve(listener, router).await });
}

/// Ends when it consumes, and tells when that was.
fn start(traced: Option<&str>) -> (Process, Instant) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover-worker"));
    if let Some(share) = traced {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{COLLECTOR}"));
        command.env("OTEL_TRACES_SAMPLER_ARG", share);
    }
    let child = command
        .arg("ingest")
        .env("DROVER_HUB_URI", env("DROVER_TEST_HUB_URI"))
        .env("DROVER_HUB_CA", ca())
        .env("DROVER_SOURCE_QUEUE", QUEUE)
        .env("DROVER_SOURCE_PREFETCH", PREFETCH.to_string())
        .env("DROVER_SINK", r#"{"postgres":{"table":"bench-drain","idColumn":"message_id"}}"#)
        .env("DROVER_SINK_URI", env("DROVER_TEST_STORE_WORKER_URI"))
        .env("DROVER_SINK_CA", ca())
        .env("DROVER_LISTEN", format!("127.0.0.1:{PORT}"))
        .env("RUST_LOG", "warn")
        .stdout(Stdio::inherit())
        .spawn()
        .expect("the worker starts");
    let worker = Process(child);
    while !status().is_some_and(|status| status.consuming) {
        std::thread::sleep(Duration::from_millis(1));
    }
    (worker, now())
}

fn status() -> Option<WorkerStatus> {
    let mut stream = TcpStream::connect(("127.0.0.1", PORT)).ok()?;
    stream.write_all(b"GET /status HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[derive(Default)]
struct Figures {
    bare: Vec<f64>,
    ours: Vec<f64>,
    /// One message in a hundred is traced.
    sampled: Vec<f64>,
    /// Each is.
    traced: Vec<f64>,
    memory: Vec<f64>,
    consume: Vec<f64>,
    insert: Vec<f64>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let bench = Bench::new().await;
    let mut figures = Figures::default();
    collect().await;
    // By turns, so that a machine that slows down slows all of them.
    for run in 1..=RUNS {
        bench.fill().await;
        figures.bare.push(bench.bare(true).await);
        assert_eq!(bench.rows().await, MESSAGES);
        bench.fill().await;
        let (rate, memory) = bench.ours(None).await;
        figures.ours.push(rate);
        figures.memory.push(memory);
        assert_eq!(bench.rows().await, MESSAGES);
        for (share, rates) in [("0.01", &mut figures.sampled), ("1", &mut figures.traced)] {
            bench.fill().await;
            rates.push(bench.ours(Some(share)).await.0);
            assert_eq!(bench.rows().await, MESSAGES);
        }
        bench.fill().await;
        figures.consume.push(bench.bare(false).await);
        bench.fill().await;
        figures.insert.push(bench.insert_only().await);
        let last = |values: &[f64]| values.last().copied().unwrap_or(0.0);
        eprintln!(
            "run {run}: bare {:.0}, ours {:.0}, with traces of one in a hundred {:.0}, of all {:.0}, consume {:.0}, insert {:.0} msg/s, {:.1} MiB",
            last(&figures.bare),
            last(&figures.ours),
            last(&figures.sampled),
            last(&figures.traced),
            last(&figures.consume),
            last(&figures.insert),
            last(&figures.memory)
        );
    }
    bench.channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await.expect("no queue");
    bench.owner.batch_execute("DROP TABLE \"bench-drain\"").await.expect("no table");
    report(figures);
}

fn report(figures: Figures) {
    let (bare, ours, memory) = (median(figures.bare), median(figures.ours), median(figures.memory));
    let (sampled, traced) = (median(figures.sampled), median(figures.traced));
    let rows = serde_json::json!([
        { "what": "queue to PostgreSQL, 200-byte messages", "floor": bare, "peer": null, "ours": ours, "unit": "msg/s",
          "aim": "≥ 0.8 of the bare loop", "met": ours >= AIM * bare },
        { "what": "the bare loop's half: consume and acknowledge", "floor": median(figures.consume), "peer": null, "ours": ours,
          "unit": "msg/s", "aim": "for comparison", "met": true },
        { "what": "the bare loop's half: insert", "floor": median(figures.insert), "peer": null, "ours": ours, "unit": "msg/s",
          "aim": "for comparison", "met": true },
        { "what": "worker memory under that load, peak", "floor": null, "peer": null, "ours": memory, "unit": "MiB",
          "aim": "≤ 40 MiB", "met": memory <= AIM_MEMORY },
        { "what": "the same, one message in a hundred traced, beside none", "floor": ours, "peer": null, "ours": sampled, "unit": "msg/s",
          "aim": "≥ 0.9 of it", "met": sampled >= AIM_TRACED * ours },
        { "what": "the same, each traced, spans that have no room dropped", "floor": ours, "peer": null, "ours": traced, "unit": "msg/s",
          "aim": "for comparison", "met": true },
    ]);
    println!("{}", serde_json::json!({ "bench": "drain", "rows": rows }));
}
