//! A store whose standby takes over, as a managed one does it: one address, which leads to the other server afterwards.

use std::{net::SocketAddr, process::Command};

use drover_worker::store::{self, StoreAddress};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_postgres::Client;

use crate::surroundings::{APPEND, Lane, env, eventually, file};

fn control(server: &str, what: &str) -> String {
    let output =
        Command::new(env("DROVER_TEST_CTL")).args([env("DROVER_TEST_SET").as_str(), server, what]).output().unwrap();
    assert!(output.status.success(), "{server} {what}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Two servers of the test's own, the second a synchronous standby of the first; they end with the test, whatever becomes of it.
struct Pair;

impl Pair {
    fn new() -> Self {
        let pair = Self;
        for server in ["primary", "standby"] {
            control(server, "kill");
        }
        for server in ["primary", "standby"] {
            control(server, "start");
        }
        pair
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for server in ["primary", "standby"] {
            let _ = Command::new(env("DROVER_TEST_CTL")).args([&env("DROVER_TEST_SET"), server, "kill"]).status();
        }
    }
}

/// An address that leads to a server, and to another from some moment on.
struct Switch {
    here: SocketAddr,
    there: watch::Sender<String>,
    task: JoinHandle<()>,
}

impl Switch {
    async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let (there, told) = watch::channel(control(server, "address"));
        let task = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let server = told.borrow().clone();
                tokio::spawn(async move {
                    // Of a server that is gone the client sees what it sees of the address: its connection ends.
                    if let Ok(mut server) = TcpStream::connect(server).await {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { here, there, task }
    }

    fn turn(&self, server: &str) {
        self.there.send(control(server, "address")).unwrap();
    }

    /// What is in a variable, by way of this address.
    fn uri(&self, variable: &str) -> String {
        let mut uri: url::Url = env(variable).parse().unwrap();
        uri.set_ip_host(self.here.ip()).unwrap();
        uri.set_port(Some(self.here.port())).unwrap();
        uri.into()
    }

    async fn owner(&self) -> Client {
        let address = StoreAddress::from_uri(&self.uri("DROVER_TEST_STORE_URI"), Some(file("DROVER_TEST_CA"))).unwrap();
        store::connect(&address, "drover-test").await.unwrap()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn count(owner: &Client) -> u64 {
    let row = owner.query_typed_one("SELECT count(*) FROM failover", &[]).await.unwrap();
    u64::try_from(row.get::<_, i64>(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: makes a pair of PostgreSQL"]
async fn a_standby_that_takes_over_costs_no_message_and_doubles_none() {
    let _pair = Pair::new();
    let switch = Switch::to("primary").await;
    let owner = switch.owner().await;
    // A statement takes so long that the primary ends in the midst of some.
    let table = "CREATE TABLE failover (message_id text PRIMARY KEY, n bigint);
         GRANT SELECT, INSERT ON failover TO drover_worker;
         CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END $$;
         CREATE TRIGGER slowly AFTER INSERT ON failover FOR EACH STATEMENT EXECUTE FUNCTION slowly()";
    owner.batch_execute(table).await.unwrap();
    let lane = Lane::new("failover").await;
    lane.publish_numbered(0..10_000).await;
    let uri = switch.uri("DROVER_TEST_STORE_WORKER_URI");
    let worker = lane.worker(APPEND, &[("DROVER_SINK_URI", &uri), ("DROVER_CONCURRENCY", "2")]).await;
    eventually("some rows", || async { (count(&owner).await > 500).then_some(()) }).await;
    control("primary", "kill");
    worker.await_holding("ConnectionLost").await;
    lane.publish_numbered(10_000..11_000).await;
    switch.turn("standby");
    worker.await_holding("ReadOnly").await;
    let owner = switch.owner().await;
    let copied = count(&owner).await;
    assert!((500..10_000).contains(&copied), "the primary ended in the midst: {copied} rows");
    control("standby", "promote");
    owner.batch_execute("DROP TRIGGER slowly ON failover").await.unwrap();
    eventually("all rows", || async { (count(&owner).await == 11_000).then_some(()) }).await;
    // Nothing is in flight any more: what had its row already when the primary ended was recognized.
    let status = eventually("an empty queue", || async {
        let status = worker.status().await;
        (lane.ready(&lane.name).await == 0 && status.in_flight + status.held == 0).then_some(status)
    })
    .await;
    worker.stop().await;
    assert_eq!((status.dead_lettered, lane.ready(&lane.name).await, lane.ready(&lane.dead()).await), (0, 0, 0));
    assert_eq!((status.holding.map(|holding| holding.reason), count(&owner).await), (None, 11_000));
    lane.close().await;
}
