//! A watch of a server that is slow, flaps, or ends everything early. The clock is tokio's, paused.

use super::*;
use crate::cluster::api_server::delayed;

const SECOND: Duration = Duration::from_secs(1);
/// The simulated time of a test.
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// The requests that a server has answered.
#[derive(Clone, Default)]
struct Requests(Arc<Mutex<Vec<Request>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    StreamedList,
    List,
    /// A list of one object, which shows the version of the store.
    Version,
    Watch,
}

impl Request {
    fn of(path: &str) -> Self {
        match path {
            path if path.contains("sendInitialEvents") => Self::StreamedList,
            path if path.contains("watch=true") => Self::Watch,
            path if path.contains("limit=1&") || path.ends_with("limit=1") => Self::Version,
            _ => Self::List,
        }
    }
}

impl Requests {
    fn count(&self, wanted: &[Request]) -> usize {
        self.0.lock().unwrap().iter().filter(|request| wanted.contains(request)).count()
    }

    fn lists(&self) -> usize {
        self.count(&[Request::StreamedList, Request::List])
    }

    fn all(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A watch of nodes, its messages so far, and the requests of its server.
struct Watched {
    health: Arc<Health>,
    messages: Arc<Mutex<Vec<Message>>>,
    requests: Requests,
}

impl Watched {
    fn start(timing: Timing, answer: impl Fn(Request) -> (Duration, Answer) + Send + Sync + 'static) -> Self {
        let requests = Requests::default();
        let asked = requests.clone();
        let client = delayed(move |path| {
            let request = Request::of(path);
            asked.0.lock().unwrap().push(request);
            answer(request)
        });
        let (sender, mut receiver) = messages();
        let (health, messages) = (Arc::new(Health::default()), Arc::new(Mutex::new(Vec::new())));
        let watch = Watch::new(Kind::Node, client, LabelKeys::default(), timing, sender, Arc::clone(&health));
        tokio::spawn(watch.run());
        let kept = Arc::clone(&messages);
        tokio::spawn(async move {
            while let Some(message) = receiver.recv().await {
                kept.lock().unwrap().push(message);
            }
        });
        Self { health, messages, requests }
    }

    fn health(&self) -> crate::cluster::KindHealth {
        self.health.all().remove(&Kind::Node).unwrap()
    }

    /// The newest version of which the watch has learned.
    fn version(&self) -> Option<String> {
        let messages = self.messages.lock().unwrap();
        messages.iter().rev().find_map(|message| match message {
            Message::Bookmark(_, version) | Message::Listed(_, _, version) => Some(version.clone()),
            _ => None,
        })
    }

    fn complete_lists(&self) -> usize {
        self.messages.lock().unwrap().iter().filter(|message| matches!(message, Message::Listed(..))).count()
    }

    /// Whether an object was ever taken out of force: only a server that works may do that.
    fn has_removed(&self) -> bool {
        let messages = self.messages.lock().unwrap();
        messages.iter().any(|message| {
            matches!(message, Message::Gone(..) | Message::Absent(_) | Message::Unavailable(_))
                || matches!(message, Message::Listed(_, keys, _) if keys.is_empty())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_resumes_and_lists_now_and_then() {
    let timing = Timing { relist: 1000 * SECOND, ..Timing::default() };
    let watched = Watched::start(timing, |request| {
        let answer = match request {
            Request::StreamedList => status(422, "not supported"),
            Request::Watch => bookmark(9, true),
            Request::Version => list(9, &["n"]),
            Request::List => list(8, &["n", "m"]),
        };
        (Duration::ZERO, answer)
    });
    sleep(10 * TEN_MINUTES).await;
    let (lists, watches) = (watched.requests.count(&[Request::List]), watched.requests.count(&[Request::Watch]));
    // A list is due after 750 to 1,250 s, and is made when a watch of 290 s has ended.
    assert!((4..=7).contains(&lists), "{lists}");
    assert!((19..=21).contains(&watches), "{watches}");
    let known = watched.health();
    assert_eq!((known.state, known.relists, known.errors), (State::Watching, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_five_seconds_for_each_answer_is_listed_once_and_followed() {
    let watched = Watched::start(Timing::default(), |request| {
        let answer = match request {
            Request::StreamedList => status(422, "not supported"),
            Request::Watch => bookmark(9, true),
            Request::Version => list(9, &["n"]),
            Request::List => list(8, &["n", "m"]),
        };
        (5 * SECOND, answer)
    });
    sleep(TEN_MINUTES * 4).await;
    assert_eq!(watched.requests.count(&[Request::List]), 1);
    assert_eq!(watched.requests.count(&[Request::Watch]), 8);
    assert_eq!(watched.version().as_deref(), Some("9"));
    let known = watched.health();
    assert_eq!((known.state, known.relists, known.errors, watched.has_removed()), (State::Watching, 0, 0, false));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_flaps_is_followed_again_and_not_listed_again() {
    // Fails for some seconds, works for some: then each watch that it has open ends.
    for (fails, works) in [(3, 4), (10, 10), (40, 20), (1, 1)] {
        let start = Instant::now();
        let version = move || 10 + start.elapsed().as_secs();
        let watched = Watched::start(Timing::default(), move |request| {
            let phase = start.elapsed().as_secs() % (fails + works);
            let is_over = start.elapsed() > TEN_MINUTES;
            let answer = match request {
                _ if phase < fails && !is_over => status(503, "currently unable"),
                Request::StreamedList => status(422, "not supported"),
                Request::Watch => bookmark(version(), is_over),
                Request::Version | Request::List => list(version(), &["n"]),
            };
            (Duration::from_millis(20), answer)
        });
        sleep(TEN_MINUTES).await;
        let asked = watched.requests.all();
        assert!(asked < 600, "{fails} {works}: {asked} requests");
        assert_eq!(watched.complete_lists(), 1, "{fails} {works}");
        // In order again: everything is known after the longest wait.
        sleep(LONGEST_WAIT + SECOND).await;
        let known: u64 = watched.version().unwrap().parse().unwrap();
        assert!(known >= 10 + TEN_MINUTES.as_secs(), "{fails} {works}: {known}");
        assert_eq!((watched.health().state, watched.has_removed()), (State::Watching, false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_everything_early_is_not_asked_in_a_tight_loop() {
    // An event of a streamed list, which then ends before it is complete.
    let cut = || {
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "resourceVersion": "1"}});
        Answer(200, json!({"type": "ADDED", "object": object}), false)
    };
    let gone = || {
        let status = json!({"kind": "Status", "status": "Failure", "message": "too old", "code": 410});
        Answer(200, json!({"type": "ERROR", "object": status}), false)
    };
    type Watching = Box<dyn Fn() -> Answer + Send + Sync>;
    let cases: [(&str, bool, Watching); 5] = [
        ("each list is cut off", true, Box::new(cut)),
        ("each watch ends at once", false, Box::new(|| bookmark(9, false))),
        ("each watch has expired", false, Box::new(|| status(410, "too old"))),
        ("each watch expires at once", false, Box::new(gone)),
        ("each watch is refused", false, Box::new(|| status(500, "no"))),
    ];
    for (case, streams, watching) in cases {
        let watched = Watched::start(Timing::default(), move |request| {
            let answer = match request {
                Request::StreamedList if streams => cut(),
                Request::StreamedList => status(422, "not supported"),
                Request::Watch => watching(),
                Request::Version | Request::List => list(9, &["n"]),
            };
            (Duration::from_millis(1), answer)
        });
        sleep(TEN_MINUTES).await;
        let (lists, all) = (watched.requests.lists(), watched.requests.all());
        assert!(lists <= 50 && all <= 120, "{case}: {lists} lists, {all} requests");
        assert!(all >= 20, "{case}: it is asked again: {all}");
    }
}
