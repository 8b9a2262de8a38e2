//! A watch's handling of an API server's responses; the server is a small one on loopback.

use super::*;
use crate::cluster::{
    api_server::{Answer, client},
    messages,
};
use serde_json::{Value, json};
use std::sync::Mutex;

mod trouble;

/// Starts a server, and a watch of its nodes.
async fn watch(
    answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
    timing: Timing,
) -> (Arc<Health>, mpsc::Receiver<Message>) {
    watch_kind(Kind::Node, answer, timing).await
}

/// Starts a server, and a watch of its objects of a kind.
async fn watch_kind(
    kind: Kind,
    answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
    timing: Timing,
) -> (Arc<Health>, mpsc::Receiver<Message>) {
    let client = client(answer).await;
    let (sender, receiver) = messages();
    let health = Arc::new(Health::default());
    let watch = Watch::new(kind, client, LabelKeys::default(), timing, sender, Arc::clone(&health));
    tokio::spawn(watch.run());
    (health, receiver)
}

fn status(code: u16, message: &str) -> Answer {
    Answer(
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "X", "code": code}),
        false,
    )
}

fn list(version: u64, nodes: &[&str]) -> Answer {
    let items: Vec<Value> =
        nodes.iter().map(|name| json!({"metadata": {"name": name, "resourceVersion": "1"}, "spec": {}})).collect();
    let meta = json!({"resourceVersion": version.to_string()});
    Answer(200, json!({"kind": "NodeList", "apiVersion": "v1", "metadata": meta, "items": items}), false)
}

fn bookmark(version: u64, stays: bool) -> Answer {
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"resourceVersion": version.to_string()}});
    Answer(200, json!({"type": "BOOKMARK", "object": object}), stays)
}

/// The next complete list: its nodes and its version.
async fn listed(messages: &mut mpsc::Receiver<Message>) -> (Vec<String>, String) {
    loop {
        if let Message::Listed(_, keys, version) = messages.recv().await.unwrap() {
            let mut names: Vec<String> = keys.iter().map(|key| key.name.to_string()).collect();
            names.sort();
            return (names, version);
        }
    }
}

async fn is(health: &Health, state: State) -> crate::cluster::KindHealth {
    loop {
        if let Some(known) = health.all().remove(&Kind::Node).filter(|known| known.state == state) {
            return known;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_server_that_streams_no_lists_is_no_error() {
    for code in [422, 400, 500] {
        let answer = move |path: &str| match path {
            path if path.contains("sendInitialEvents") => status(code, "not supported"),
            path if path.contains("watch=true") => bookmark(7, true),
            _ => list(7, &["n"]),
        };
        let (health, mut messages) = watch(answer, Timing::default()).await;
        assert_eq!(listed(&mut messages).await, (vec!["n".to_owned()], "7".to_owned()));
        let known = is(&health, State::Watching).await;
        assert_eq!((known.errors, known.error), (0, None), "{code}");
    }
}

#[tokio::test]
async fn an_absent_or_overloaded_server_shows_from_the_first_answer() {
    for code in [503, 429, 504, 502] {
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        let answer = move |_: &str| {
            *count.lock().unwrap() += 1;
            status(code, "currently unable")
        };
        let (health, _messages) = watch(answer, Timing::default()).await;
        let known = is(&health, State::Failing).await;
        assert!(known.error.is_some_and(|error| error.starts_with("currently unable")), "{code}");
        assert_eq!(known.errors, *asked.lock().unwrap(), "the client asks no second time by itself: {code}");
    }
}

#[tokio::test]
async fn a_kind_of_an_aggregated_server_that_is_down_holds_the_table_up_for_the_settle_time_only() {
    let settle = Duration::from_millis(700);
    let timing = || Timing { settle, ..Timing::default() };
    let next = async |messages: &mut mpsc::Receiver<Message>| {
        tokio::time::timeout(Duration::from_secs(20), messages.recv()).await.expect("a message").unwrap()
    };
    // Down for good: the server is not ready at first, and then the table does without the kind.
    for code in [503, 429, 502] {
        let begun = Instant::now();
        let (health, mut messages) =
            watch_kind(Kind::BlockAffinityV3, move |_: &str| status(code, "unable"), timing()).await;
        assert!(matches!(next(&mut messages).await, Message::Unavailable(Kind::BlockAffinityV3)), "{code}");
        assert!(begun.elapsed() >= settle, "{code}");
        assert_eq!(health.all()[&Kind::BlockAffinityV3].state, State::Failing);
    }
    // Forbidden lasts: at once.
    let slow = Timing { settle: Duration::from_secs(3600), ..Timing::default() };
    let (_, mut messages) = watch_kind(Kind::BlockAffinityV3, |_: &str| status(403, "forbidden"), slow.clone()).await;
    assert!(matches!(next(&mut messages).await, Message::Unavailable(Kind::BlockAffinityV3)));
    // The cluster lacks the kind: at once, and no error.
    let (health, mut messages) =
        watch_kind(Kind::BlockAffinityV3, |_: &str| status(404, "no kind"), slow.clone()).await;
    assert!(matches!(next(&mut messages).await, Message::Absent(Kind::BlockAffinityV3)));
    assert_eq!(health.all()[&Kind::BlockAffinityV3].errors, 0);
    // Down for a moment only: its list comes, and nothing else.
    let asked = Mutex::new(0);
    let answer = move |path: &str| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        match path {
            _ if *asked <= 2 => status(503, "unable"),
            path if path.contains("sendInitialEvents") => status(422, "not supported"),
            path if path.contains("watch=true") => bookmark(7, true),
            _ => Answer(
                200,
                json!({"kind": "BlockAffinityList", "apiVersion": "crd.projectcalico.org/v1",
                       "metadata": {"resourceVersion": "7"}, "items": []}),
                false,
            ),
        }
    };
    let (_, mut messages) = watch_kind(Kind::BlockAffinityV3, answer, slow).await;
    assert!(matches!(next(&mut messages).await, Message::Listed(Kind::BlockAffinityV3, keys, _) if keys.is_empty()));
}

#[tokio::test]
async fn a_kind_of_every_cluster_is_never_done_without() {
    let timing = Timing { settle: Duration::ZERO, ..Timing::default() };
    let (health, mut messages) = watch(|_: &str| status(503, "unable"), timing).await;
    while is(&health, State::Failing).await.errors < 2 {
        sleep(Duration::from_millis(20)).await;
    }
    assert!(messages.try_recv().is_err());
}

#[tokio::test]
async fn a_store_that_was_set_back_is_listed_again() {
    // The watch ends; from then on the store is an older one, and a watch from its later version stays silent.
    for is_silent in [true, false] {
        let is_old = Arc::new(Mutex::new(false));
        let answer = move |path: &str| {
            let mut is_old = is_old.lock().unwrap();
            match path {
                path if path.contains("sendInitialEvents") => status(422, "not supported"),
                path if path.contains("watch=true") && path.contains("resourceVersion=90") && *is_old => {
                    if is_silent {
                        bookmark(90, true)
                    } else {
                        status(504, "Too large resource version")
                    }
                }
                path if path.contains("watch=true") => {
                    let was_old = std::mem::replace(&mut *is_old, true);
                    bookmark(if was_old { 41 } else { 90 }, was_old)
                }
                _ if *is_old => list(40, &["n", "restored"]),
                _ => list(80, &["n"]),
            }
        };
        let (health, mut messages) = watch(answer, Timing::default()).await;
        assert_eq!(listed(&mut messages).await, (vec!["n".to_owned()], "80".to_owned()));
        let expected = (vec!["n".to_owned(), "restored".to_owned()], "40".to_owned());
        assert_eq!(listed(&mut messages).await, expected);
        let known = is(&health, State::Watching).await;
        assert_eq!((known.relists, known.errors), (1, 0));
    }
}

#[test]
fn versions_are_compared_as_numbers_and_others_not_at_all() {
    assert!(is_older("99", "100") && !is_older("100", "99") && !is_older("100", "100"));
    assert!(!is_older("", "100") && !is_older("7/8", "9/9") && !is_older("1", "x"));
}

#[test]
fn times_are_spread() {
    let times: HashSet<Duration> = (0..20).map(|_| jittered(Duration::from_secs(3600))).collect();
    assert!(times.len() > 1);
    assert!(times.iter().all(|time| (2700..=4500).contains(&time.as_secs())));
}
