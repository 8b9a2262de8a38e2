//! The Lease against a mocked API server. The clock is tokio's, paused: it runs ahead while all tasks wait.

use super::*;
use hyper::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::time::{advance, sleep};

mod trouble;

type Answer = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// A failure of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// Every request has this status.
    Status(u16),
    /// Writes have this status.
    Write(u16),
    /// No request has an answer.
    Silence,
}

/// An API server with one Lease, or none.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    failure: Option<Failure>,
    requests: usize,
    /// The time before a request is carried out, and the time from there to its answer.
    delays: (Duration, Duration),
}

impl tower_service::Service<Request<Body>> for Server {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let server = self.clone();
        Box::pin(async move {
            let method = request.method().as_str().to_owned();
            let body = request.into_body().collect_bytes().await.unwrap();
            let (before, after) = server.0.lock().unwrap().delays;
            sleep(before).await;
            let answer = server.0.lock().unwrap().answer(&method, &body);
            let Some((code, value)) = answer else {
                return std::future::pending().await;
            };
            sleep(after).await;
            Ok(Response::builder().status(code).body(value.to_string().into_bytes().into()).unwrap())
        })
    }
}

impl State {
    fn answer(&mut self, method: &str, body: &[u8]) -> Option<(u16, Value)> {
        self.requests += 1;
        let failed = |code: u16| {
            let reason = if code == 404 { "NotFound" } else { "Refused" };
            let status =
                json!({"kind": "Status", "status": "Failure", "message": "no", "reason": reason, "code": code});
            Some((code, status))
        };
        match self.failure {
            Some(Failure::Silence) => return None,
            Some(Failure::Status(code)) => return failed(code),
            Some(Failure::Write(code)) if method != "GET" => return failed(code),
            _ => {}
        }
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        let sent = || serde_json::from_slice::<Value>(body).unwrap();
        match (method, &self.lease) {
            ("GET", Some(lease)) => Some((200, lease.clone())),
            ("GET" | "PUT", None) => failed(404),
            ("POST", Some(_)) => failed(409),
            ("PUT", Some(lease)) if version(lease) != version(&sent()) => failed(409),
            ("POST" | "PUT", _) => Some((200, self.write(sent()))),
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, mut lease: Value) -> Value {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.lease = Some(lease.clone());
        lease
    }
}

impl Server {
    fn fail(&self, failure: impl Into<Option<Failure>>) {
        self.0.lock().unwrap().failure = failure.into();
    }

    /// Another replica writes the Lease, with the clock of its own machine.
    fn renewed_by(&self, holder: &str, second: u32, seconds: i32) {
        let metadata = json!({"name": "lease", "annotations": {FEED: "10.0.0.2:4343", API: "10.0.0.2:4344"}});
        let time = format!("1999-01-01T00:{:02}:{:02}.000000Z", second / 60, second % 60);
        let spec = json!({
            "holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": 3, "renewTime": time,
        });
        self.0.lock().unwrap().write(json!({"metadata": metadata, "spec": spec}));
    }

    fn spec(&self) -> Value {
        self.0.lock().unwrap().lease.as_ref().unwrap()["spec"].clone()
    }

    fn requests(&self) -> usize {
        self.0.lock().unwrap().requests
    }
}

#[derive(Default)]
struct Reports {
    is_blank: AtomicBool,
    missed: AtomicUsize,
}

impl Knowledge for Reports {
    fn is_blank(&self) -> bool {
        self.is_blank.load(Ordering::Relaxed)
    }

    fn missed_a_term(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }
}

/// A replica that runs for the Lease.
struct Replica {
    role: watch::Receiver<Role>,
    reports: Arc<Reports>,
    soon: Arc<Notify>,
    shutdown: CancellationToken,
    run: tokio::task::JoinHandle<()>,
}

impl Replica {
    fn start(server: &Server) -> Self {
        Self::with(server.clone())
    }

    /// A replica with its own way to the server.
    fn with<S>(server: S) -> Self
    where
        S: tower_service::Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answer>,
        S: Send + Clone + 'static,
    {
        let client = Client::new(server, "meridian");
        let place = Leader { name: "a".into(), feed: "10.0.0.1:4343".into(), api: "10.0.0.1:4344".into() };
        let (reports, soon, shutdown) =
            (Arc::new(Reports::default()), Arc::new(Notify::new()), CancellationToken::new());
        let names = ("meridian".to_owned(), "lease".to_owned());
        let lease = Lease::new(client, names, place, (Arc::clone(&reports) as _, Arc::clone(&soon)));
        let (sender, role) = watch::channel(Role::Standby(None));
        let run = tokio::spawn(lease.run(sender, shutdown.clone()));
        Self { role, reports, soon, shutdown, run }
    }

    fn is_leader(&self) -> bool {
        self.role.borrow().is_leader()
    }

    /// The time until this replica is the leader, or is no longer.
    async fn time_until(&self, leads: bool) -> Duration {
        let start = Instant::now();
        while self.is_leader() != leads {
            assert!(start.elapsed() < Duration::from_secs(600), "it never happens");
            sleep(Duration::from_millis(10)).await;
        }
        start.elapsed()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_free_lease_is_acquired_at_once_and_renewed() {
    let server = Server::default();
    let replica = Replica::start(&server);
    assert!(replica.time_until(true).await < SECOND);
    let first = server.spec();
    assert_eq!((&first["leaseTransitions"], &first["leaseDurationSeconds"]), (&json!(0), &json!(15)));
    let requests = server.requests();
    for _ in 0..600 {
        sleep(SECOND / 10).await;
        assert!(replica.is_leader());
    }
    // Each renewal is one request.
    let renewals = server.requests() - requests;
    assert!((29..=41).contains(&renewals), "{renewals}");
    let last = server.spec();
    assert_eq!((&last["acquireTime"], &last["leaseTransitions"]), (&first["acquireTime"], &json!(0)));
    assert_ne!(last["renewTime"], first["renewTime"]);
    assert_eq!(replica.reports.missed.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_taken_over_once_it_was_unchanged_for_its_duration_whatever_its_clock() {
    // A duration that the holder sets below ours counts as ours.
    for (seconds, blank, expected) in [(15, false, 15), (15, true, 20), (40, false, 40), (-1, false, 15)] {
        let server = Server::default();
        server.renewed_by("b_1", 0, seconds);
        let replica = Replica::start(&server);
        replica.reports.is_blank.store(blank, Ordering::Relaxed);
        for second in 0..60 {
            server.renewed_by("b_1", second, seconds);
            sleep(SECOND).await;
            assert!(!replica.is_leader(), "it is renewed, though in 1999");
        }
        let leader = Leader { name: "b".into(), feed: "10.0.0.2:4343".into(), api: "10.0.0.2:4344".into() };
        assert_eq!(*replica.role.borrow(), Role::Standby(Some(leader)));
        let waited = replica.time_until(true).await;
        // The last renewal may be a second old, and the replica looks every two seconds.
        let range = Duration::from_secs(expected - 1)..=Duration::from_secs(expected + 4);
        assert!(range.contains(&waited), "{seconds} {blank}: {waited:?}");
        assert_eq!(server.spec()["leaseTransitions"], 4);
        // The holder's reports are not those of this replica, at its first renewal and at its end.
        assert_eq!(replica.reports.missed.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_about_to_be_released_is_acquired_within_moments() {
    let server = Server::default();
    server.renewed_by("b_1", 0, 15);
    let replica = Replica::start(&server);
    sleep(SECOND * 5).await;
    replica.soon.notify_one();
    sleep(SECOND / 2).await;
    assert!(!replica.is_leader());
    server.renewed_by("", 1, 15);
    assert!(replica.time_until(true).await < SECOND / 4);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_lost_the_race_stands_by_and_a_leader_survives_one_conflict() {
    let server = Server::default();
    server.fail(Failure::Write(409));
    let replica = Replica::start(&server);
    sleep(SECOND * 5).await;
    assert_eq!(*replica.role.borrow(), Role::Standby(None), "another replica creates it each time");
    server.fail(None);
    replica.time_until(true).await;
    server.fail(Failure::Write(409));
    sleep(SECOND * 3).await;
    assert!(replica.is_leader(), "the term lasts");
    server.fail(None);
    sleep(SECOND * 60).await;
    assert!(replica.is_leader());
    server.fail(Failure::Write(409));
    assert!(replica.time_until(false).await <= DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_can_not_renew_gives_up_before_another_may_take_over_and_returns() {
    let failures = [403, 500, 503].map(Failure::Status).into_iter();
    for failure in failures.chain([Failure::Write(403), Failure::Write(500), Failure::Silence]) {
        let server = Server::default();
        let replica = Replica::start(&server);
        replica.time_until(true).await;
        sleep(SECOND * 20).await;
        server.fail(failure);
        let held = replica.time_until(false).await;
        // The last renewal was at most one interval ago.
        assert!(held > DEADLINE - RETRY - SECOND / 10 && held <= DEADLINE, "{failure:?}: {held:?}");
        sleep(SECOND * 60).await;
        assert_eq!(*replica.role.borrow(), Role::Standby(None), "{failure:?}");
        server.fail(None);
        assert!(replica.time_until(true).await <= RESPONSE_TIMEOUT + RETRY, "{failure:?}");
        assert_eq!(server.spec()["leaseTransitions"], 0, "nobody else had it: {failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_clock_jumped_is_none_before_it_runs_again() {
    for taken_over in [false, true] {
        let server = Server::default();
        let replica = Replica::start(&server);
        replica.time_until(true).await;
        if taken_over {
            server.renewed_by("b_1", 0, 15);
        }
        // The process was frozen: no task has run since.
        let jump = advance(Duration::from_secs(3600));
        let frozen = Arc::new(replica.role.borrow().clone());
        jump.await;
        assert!(!frozen.is_leader(), "the role of before, at the first moment");
        sleep(SECOND * 3).await;
        assert_eq!(replica.is_leader(), !taken_over);
        assert_eq!(replica.reports.missed.load(Ordering::Relaxed), usize::from(taken_over));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_ends_releases_the_lease_and_a_standby_leaves_it_alone() {
    let server = Server::default();
    let replica = Replica::start(&server);
    replica.time_until(true).await;
    replica.shutdown.cancel();
    replica.run.await.unwrap();
    assert_eq!((&server.spec()["holderIdentity"], replica.role.borrow().is_leader()), (&Value::Null, false));
    // Another replica acquires it at once.
    let next = Replica::start(&server);
    assert!(next.time_until(true).await < SECOND);
    assert_eq!(server.spec()["leaseTransitions"], 1);
    server.renewed_by("b_1", 0, 15);
    next.time_until(false).await;
    next.shutdown.cancel();
    next.run.await.unwrap();
    assert_eq!(server.spec()["holderIdentity"], "b_1");
}
