//! Two replicas and an API server in memory, on a clock that the tests move.

use std::sync::atomic::{AtomicBool, Ordering};

use kube::client::Body;
use serde_json::{Value, json};

use super::*;

fn lease(holder: Option<&str>, transitions: i32) -> Object {
    let spec = LeaseSpec {
        holder_identity: holder.map(str::to_owned),
        lease_duration_seconds: Some(10),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    };
    Object { spec: Some(spec), ..Object::default() }
}

fn election() -> Election {
    Election { identity: "me".to_owned(), seen: None, led: false }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nobody_holds_is_taken_at_once_and_one_of_this_pod_too() {
    let now = Instant::now();
    assert_eq!(election().next(None, now), Step::Create);
    for holder in [None, Some(""), Some("me")] {
        assert_eq!(election().next(Some(&lease(holder, 1)), now), Step::Take, "{holder:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_life_of_anothers_lease_counts_from_when_it_was_seen_to_change() {
    let (start, mut election) = (Instant::now(), election());
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(election.next(Some(&lease(Some("other"), 1)), at(0)), Step::Wait);
    assert_eq!(election.next(Some(&lease(Some("other"), 1)), at(9)), Step::Wait);
    assert_eq!(election.next(Some(&lease(Some("other"), 2)), at(9)), Step::Wait);
    assert_eq!(election.next(Some(&lease(Some("other"), 2)), at(18)), Step::Wait);
    assert_eq!(election.next(Some(&lease(Some("other"), 2)), at(19)), Step::Take);
}

#[tokio::test(start_paused = true)]
async fn anothers_clock_is_not_asked() {
    let mut lease = lease(Some("other"), 1);
    let (start, mut election) = (Instant::now(), election());
    for renewed in ["1970-01-01T00:00:00Z", "2200-01-01T00:00:00Z"] {
        lease.spec.as_mut().unwrap().renew_time = Some(MicroTime(renewed.parse().unwrap()));
        assert_eq!(election.next(Some(&lease), start), Step::Wait, "{renewed}");
    }
    assert_eq!(election.next(Some(&lease), start + LIFE), Step::Take);
}

/// An API server with one lease, as one replica reaches it.
#[derive(Clone, Default)]
struct Server {
    object: Arc<Mutex<Option<Value>>>,
    cut: Arc<AtomicBool>,
}

impl Server {
    /// The same server, by a way of its own.
    fn by_another_way(&self) -> Self {
        Self { object: Arc::clone(&self.object), cut: Arc::default() }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let answer = move |request: http::Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                if server.cut.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                let (code, answer) = server.answer(&parts.method, serde_json::from_slice(&body).ok());
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, std::convert::Infallible>(http::Response::builder().status(code).body(body).unwrap())
            }
        };
        Client::new(tower::service_fn(answer), "n")
    }

    fn answer(&self, method: &http::Method, sent: Option<Value>) -> (u16, Value) {
        let mut object = self.object.lock().unwrap();
        let version = |o: &Value| o["metadata"]["resourceVersion"].as_str().map(|v| v.parse::<u32>().unwrap());
        let status = |code: u16, reason: &str| {
            (code, json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "" }))
        };
        let before = object.as_ref().and_then(version);
        match (method.as_str(), sent) {
            ("GET", _) => object.clone().map_or_else(|| status(404, "NotFound"), |o| (200, o)),
            ("POST", Some(_)) if before.is_some() => status(409, "AlreadyExists"),
            ("PUT", Some(sent)) if version(&sent) != before => status(409, "Conflict"),
            ("POST" | "PUT", Some(mut sent)) => {
                sent["metadata"]["resourceVersion"] = (before.unwrap_or(0) + 1).to_string().into();
                *object = Some(sent.clone());
                (200, sent)
            }
            other => panic!("{other:?}"),
        }
    }

    fn holder(&self) -> Option<String> {
        self.object.lock().unwrap().as_ref()?["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    fn lease(&self, identity: &str) -> Lease {
        Lease::new(self.client(), "n", "drover", identity)
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_holder_dies_another_has_the_lease_within_fifteen_seconds() {
    let server = Server::default();
    let (a, b) = (server.lease("a"), server.lease("b"));
    let mut held = a.acquire(|| {}).await;
    let alive =
        tokio::time::timeout(Duration::from_mins(1), async { tokio::join!(held.keep(), b.acquire(|| {})) }).await;
    assert!(alive.is_err(), "it is renewed, and nobody else has it");
    let died = Instant::now();
    assert_eq!(server.holder().as_deref(), Some("a"));
    let _held = b.acquire(|| {}).await;
    assert_eq!(server.holder().as_deref(), Some("b"));
    assert!(died.elapsed() <= LIFE + RENEW + LOOK, "{:?}", died.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_that_another_leads_once_it_is_seen_to_renew() {
    let server = Server::default();
    let (a, b) = (server.lease("a"), server.lease("b"));
    let led = AtomicBool::new(false);
    let mut held = a.acquire(|| {}).await;
    let waits = async |for_so_long| {
        let _ = tokio::time::timeout(for_so_long, b.acquire(|| led.store(true, Ordering::Relaxed))).await;
        led.load(Ordering::Relaxed)
    };
    assert!(!waits(LOOK * 5).await, "nobody renews it");
    let (_, told) = tokio::join!(tokio::time::timeout(LIFE, held.keep()), waits(2 * (RENEW + LOOK)));
    assert!(told, "it is renewed");
}

#[tokio::test(start_paused = true)]
async fn who_cannot_ask_knows_of_nobody_that_leads() {
    let server = Server::default();
    server.cut.store(true, Ordering::Relaxed);
    let lease = server.lease("a");
    let waiting = lease.acquire(|| panic!("somebody leads"));
    assert!(tokio::time::timeout(Duration::from_mins(5), waiting).await.is_err());
}

#[test]
fn one_that_is_alone_may_always_write() {
    assert!(Fence::default().is_open() && !Fence::shut().is_open());
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_ends_well_is_followed_at_once() {
    let server = Server::default();
    let (a, b) = (server.lease("a"), server.lease("b"));
    let held = a.acquire(|| {}).await;
    let next = b.acquire(|| {});
    let ending = async {
        tokio::time::advance(Duration::from_millis(3_500)).await;
        held.release().await;
        Instant::now()
    };
    let (_next, ended) = tokio::join!(next, ending);
    assert!(ended.elapsed() <= LOOK, "{:?}", ended.elapsed());
    assert!(!a.fence().is_open() && b.fence().is_open());
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_cut_off_stops_before_another_starts() {
    let server = Server::default();
    let (mine, other) = (server.by_another_way(), server.by_another_way());
    let (a, b) = (mine.lease("a"), other.lease("b"));
    let mut held = a.acquire(|| {}).await;
    let (fence, cut) = (a.fence(), Arc::clone(&mine.cut));
    let losing = async {
        held.keep().await;
        Instant::now()
    };
    let cutting = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(fence.is_open());
        cut.store(true, Ordering::Relaxed);
        Instant::now()
    };
    let taking = async {
        let held = b.acquire(|| {}).await;
        assert!(!fence.is_open(), "two may write");
        (Instant::now(), held)
    };
    let (lost, cut, (taken, _held)) = tokio::join!(losing, cutting, taking);
    assert!(taken.duration_since(lost) >= MARGIN, "{:?}", taken.duration_since(lost));
    assert!(taken.duration_since(cut) <= Duration::from_secs(15), "{:?}", taken.duration_since(cut));
}

#[tokio::test(start_paused = true)]
async fn an_edit_by_hand_is_no_loss_and_another_holder_is() {
    let server = Server::default();
    let a = server.lease("a");
    let mut held = a.acquire(|| {}).await;
    let edit = |field: &'static str, value: Value| {
        let mut object = server.object.lock().unwrap();
        let object = object.as_mut().unwrap();
        object["metadata"]["resourceVersion"] = "100".into();
        object["spec"][field] = value;
    };
    edit("leaseTransitions", 7.into());
    let kept = tokio::time::timeout(Duration::from_secs(20), held.keep()).await;
    assert!(kept.is_err() && a.fence().is_open());
    edit("holderIdentity", "thief".into());
    held.keep().await;
    assert!(!a.fence().is_open());
    held.release().await;
    assert_eq!(server.holder().as_deref(), Some("thief"), "what another holds is not released");
}

#[tokio::test(start_paused = true)]
async fn of_two_that_find_no_lease_one_has_it() {
    let server = Server::default();
    let (a, b) = (server.lease("a"), server.lease("b"));
    let (one, other) = (a.acquire(|| {}), b.acquire(|| {}));
    tokio::select! { _ = one => {}, _ = other => {} }
    assert_ne!(a.fence().is_open(), b.fence().is_open());
}
