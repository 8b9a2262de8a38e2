//! The screen on a terminal in memory: keys and updates go in, lines of text come out.

use super::*;
use crate::{
    cli::{
        plain::tests::{HOSTILE, is_harmless},
        top::{
            amount::{Price, Prices},
            keys::{KeyAction, press},
            update::{Advice, Finding, Update},
        },
    },
    proto::v1::{Counter, Place, PlacedEndpoint, PodPair, Reason, WatchResponse, ZonePair},
};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::{Terminal, backend::TestBackend};

fn place(zone: &str) -> Option<Place> {
    Some(Place { zone: zone.into(), region: "eu-1".into() })
}

fn end(pod: &str, workload: &str, zone: &str) -> Option<PlacedEndpoint> {
    let (namespace, kind) = ("shop".to_owned(), "Deployment".to_owned());
    Some(PlacedEndpoint {
        namespace,
        pod: pod.into(),
        workload_kind: kind,
        workload: workload.into(),
        place: place(zone),
    })
}

fn zones(from: &str, to: &str, locality: &str, bytes: u64) -> ZonePair {
    let counter = Some(Counter { bytes, packets: bytes / 100 });
    let (source, destination) = (place(from), place(to));
    ZonePair { source, destination, locality: locality.into(), ip_version: 4, counter, direction: "egress".into() }
}

fn pair(from: [&str; 3], to: [&str; 3], locality: &str, bytes: u64) -> PodPair {
    let [source, destination] = [from, to].map(|[pod, workload, zone]| end(pod, workload, zone));
    PodPair { source, destination, locality: locality.into(), counter: Some(Counter { bytes, packets: bytes / 100 }) }
}

const CART: [&str; 3] = ["cart-0", "cart", "eu-1a"];
const DB: [&str; 3] = ["db-0", "db", "eu-1b"];
const WEB: [&str; 3] = ["web-7f9c-x1", "web", "eu-1a"];

/// Counters after some seconds at a megabyte a second across zones.
fn counters(second: i64) -> WatchResponse {
    let bytes = |per_second: u64| per_second * u64::try_from(second).unwrap();
    WatchResponse {
        time: Some(prost_types::Timestamp { seconds: 3600 + second, nanos: 0 }),
        nodes: vec!["node-a".into()],
        zones: vec![
            zones("eu-1a", "eu-1b", "cross-zone", bytes(1_000_000)),
            zones("eu-1a", "eu-1a", "same-zone", bytes(3_000_000)),
            zones("eu-1b", "unknown", "unknown", bytes(1000)),
        ],
        pairs: vec![
            pair(CART, DB, "cross-zone", bytes(900_000)),
            pair(WEB, DB, "cross-zone", bytes(100_000)),
            pair(WEB, CART, "same-zone", bytes(3_000_000)),
        ],
        other_pairs: Some(Counter { bytes: 1000, packets: 1 }),
        reasons: vec![Reason {
            name: "unattributed".into(),
            outside: false,
            counter: Some(Counter { bytes: 5000, packets: 1 }),
        }],
        missed: 0,
    }
}

fn state() -> State {
    let mut state = State::new("node-a:4344".to_owned());
    let price = |usd_per_byte| Some(Price { usd_per_byte, is_partial: false });
    let key = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let prices =
        [(key("eu-1a", "eu-1b"), price(2e-11)), (key("eu-1a", "eu-1a"), price(0.0)), (key("eu-1b", "unknown"), None)];
    state.update(Update::Prices(Ok(Prices::from(prices))));
    for second in [10, 12] {
        state.update(Update::Counters(Box::new(counters(second))));
    }
    state
}

/// The screen as lines of text.
fn drawn(state: &mut State, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen(frame, state)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

fn keys(state: &mut State, text: &str) -> KeyAction {
    let codes = text.chars().map(|character| match character {
        '\n' => KeyCode::Enter,
        '\u{1b}' => KeyCode::Esc,
        '↓' => KeyCode::Down,
        '⇟' => KeyCode::PageDown,
        '⇞' => KeyCode::PageUp,
        character => KeyCode::Char(character),
    });
    codes.fold(KeyAction::Show, |_, code| press(state, KeyEvent::new(code, KeyModifiers::NONE)))
}

fn has(lines: &[String], text: &str) -> bool {
    lines.iter().any(|line| line.contains(text))
}

#[test]
fn the_first_screen_has_the_matrix_and_its_pairs_of_zones() {
    let lines = drawn(&mut state(), 80, 20);
    let expected = "\
 Meridian  node-a:4344  node-a                                live 01:00:12 UTC
  1 Zones   2 Pairs   3 Workloads   4 Findings    bytes a second
  across zones and regions: 1.0 MB/s of 4.0 MB/s (25 %) · unattributed 5.0 kB
  FROM \\ TO       eu-1a       eu-1b     unknown
  eu-1a        3.0 MB/s    1.0 MB/s           ·
  eu-1b               ·           ·    1.0 kB/s
  unknown             ·           ·           ·

  FROM   TO       LOCALITY       RATE↓    BYTES      COST   $/MONTH
  eu-1a  eu-1a    same-zone   3.0 MB/s  36.0 MB        $0        $0
  eu-1a  eu-1b    cross-zone  1.0 MB/s  12.0 MB  $0.00024    $52.56
  eu-1b  unknown  unknown     1.0 kB/s  12.0 kB  unpriced  unpriced
  1 of 3






 q quit  ? help  / filter  s sort  r reverse  u unit  p pause  Enter pairs";
    assert_eq!(lines.join("\n").trim_start(), expected);
}

#[test]
fn keys_change_the_view_the_unit_the_order_and_the_filter() {
    let mut state = state();
    keys(&mut state, "2");
    let first = |state: &mut State| drawn(state, 80, 20)[4].clone();
    assert!(first(&mut state).contains("shop/web-7f9c-x1"), "{}", first(&mut state));
    keys(&mut state, "r");
    assert!(first(&mut state).ends_with("100.0 kB/s"), "{}", first(&mut state));
    keys(&mut state, "ru");
    assert!(first(&mut state).ends_with("36.0 MB"), "{}", first(&mut state));
    keys(&mut state, "uu");
    assert!(
        first(&mut state).contains("shop/cart-0") && first(&mut state).ends_with("$47.30"),
        "{}",
        first(&mut state)
    );
    keys(&mut state, "/CART db\n");
    let lines = drawn(&mut state, 80, 20);
    assert!(lines[4].contains("shop/cart-0") && lines[5].starts_with("  1 of 1"), "{lines:#?}");
    keys(&mut state, "/x\n");
    assert!(has(&drawn(&mut state, 80, 20), "No line holds `CART dbx`"));
    keys(&mut state, "\u{1b}");
    assert!(has(&drawn(&mut state, 80, 20), "1 of 3"));
    // Letters are commands again, and `q` in a filter is a letter.
    assert_eq!(keys(&mut state, "/q"), KeyAction::Show);
    assert_eq!(keys(&mut state, "\nq"), KeyAction::End);
    assert_eq!(press(&mut state, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), KeyAction::End);
}

#[test]
fn a_line_stays_chosen_while_others_overtake_it_and_its_detail_is_its_own() {
    let mut state = state();
    keys(&mut state, "2↓\n");
    let lines = drawn(&mut state, 80, 24);
    for text in [
        "from          shop/cart-0",
        "Deployment db, zone eu-1b, region eu-1",
        "10.8 MB (10,800,000 B)",
        "108,000, 100 bytes",
        "900.0 kB/s",
    ] {
        assert!(has(&lines, text), "{text}: {lines:#?}");
    }
    // The first becomes the last.
    let mut next = counters(14);
    next.pairs[2].counter = counters(12).pairs[2].counter;
    state.update(Update::Counters(Box::new(next)));
    assert!(has(&drawn(&mut state, 80, 24), "12.6 MB (12,600,000 B)"));
    // A pair that is not listed any more has no detail, and nothing is chosen in its place unseen.
    let mut gone = counters(16);
    gone.pairs.remove(0);
    state.update(Update::Counters(Box::new(gone)));
    assert!(!has(&drawn(&mut state, 80, 24), "(12,600,000 B)"));
}

#[test]
fn paused_numbers_stay_and_the_latest_come_back() {
    let mut state = state();
    keys(&mut state, "up");
    state.update(Update::Counters(Box::new(counters(20))));
    let paused = drawn(&mut state, 80, 20);
    assert!(has(&paused, "PAUSED at 01:00:12") && has(&paused, "12.0 MB") && !has(&paused, "20.0 MB"), "{paused:#?}");
    keys(&mut state, " ");
    let live = drawn(&mut state, 80, 20);
    assert!(has(&live, "live 01:00:20") && has(&live, "20.0 MB"), "{live:#?}");
}

#[test]
fn workloads_have_what_they_send_and_receive_across_zones() {
    let mut state = state();
    keys(&mut state, "3u");
    let lines = drawn(&mut state, 80, 20);
    assert!(lines[4].starts_with("  shop/db") && lines[4].contains("0 B   12.0 MB"), "{lines:#?}");
    assert!(lines[5].starts_with("  shop/cart") && lines[5].contains("10.8 MB       0 B"), "{lines:#?}");
    assert!(
        lines[6].starts_with("  shop/web") && lines[6].contains("1.2 MB"),
        "traffic in its zone counts not: {lines:#?}"
    );
    keys(&mut state, "\n");
    assert!(has(&drawn(&mut state, 80, 20), "1 of 2"));
}

#[test]
fn enter_shows_the_pairs_of_a_line_and_no_others() {
    // Of a workload those across zones, as it counts: not from web to cart.
    let mut state = state();
    keys(&mut state, "3↓\n");
    let lines = drawn(&mut state, 80, 20);
    assert!(has(&lines, "1 of 1") && lines[4].contains("shop/cart-0") && lines[4].contains("shop/db-0"), "{lines:#?}");
    assert!(lines[19].starts_with("  shop/cart  q quit"), "{lines:#?}");
    keys(&mut state, "/web\n");
    assert!(has(&drawn(&mut state, 80, 20), "No line holds `web`"));
    keys(&mut state, "\u{1b}");
    assert!(has(&drawn(&mut state, 80, 20), "1 of 3"));
    // Of a pair of zones that one alone, and in its direction.
    keys(&mut state, "1\n");
    let lines = drawn(&mut state, 80, 20);
    assert!(has(&lines, "1 of 1") && lines[4].contains("shop/web") && lines[4].contains("shop/cart-0"), "{lines:#?}");
    keys(&mut state, "1↓↓\n");
    assert!(has(&drawn(&mut state, 80, 20), "No listed pair of pods belongs to `eu-1b → unknown`"));
    keys(&mut state, "2");
    assert!(has(&drawn(&mut state, 80, 20), "1 of 3"));
}

#[test]
fn an_absent_server_absent_prices_and_absent_advice_are_named_and_the_last_numbers_stay() {
    let mut fresh = State::new("node-a:4344".to_owned());
    assert!(has(&drawn(&mut fresh, 80, 20), "Connecting to node-a:4344"));
    fresh.update(Update::Away("node-a:4344: no server answers".to_owned()));
    let lines = drawn(&mut fresh, 80, 20);
    assert!(
        has(&lines, "AWAY") && has(&lines, "No counters: node-a:4344 is away") && has(&lines, "trying again"),
        "{lines:#?}"
    );
    fresh.update(Update::Counters(Box::new(counters(10))));
    assert!(has(&drawn(&mut fresh, 80, 20), "live 01:00:10"));
    fresh.update(Update::Prices(Err("no history is kept here".to_owned())));
    keys(&mut fresh, "uu");
    let lines = drawn(&mut fresh, 80, 20);
    assert!(has(&lines, "no prices: no history is kept here") && !has(&lines, "$0"), "{lines:#?}");
    fresh.update(Update::Advice(Err("no history is kept here".to_owned())));
    keys(&mut fresh, "4");
    assert!(has(&drawn(&mut fresh, 80, 20), "No advice: no history is kept here"));

    let mut state = state();
    state.update(Update::Away("broken".to_owned()));
    state.update(Update::Prices(Err("broken".to_owned())));
    let lines = drawn(&mut state, 80, 20);
    assert!(has(&lines, "the numbers are of 01:00:12; trying again: broken") && has(&lines, "$52.56"), "{lines:#?}");
    let early = Advice { findings: Vec::new(), recorded: 90, needed: 86_400 };
    state.update(Update::Advice(Ok(early)));
    keys(&mut state, "4");
    assert!(has(&drawn(&mut state, 80, 20), "Advice needs 24 h of recorded time; 90 s are recorded"));
    assert_eq!(keys(&mut state, "a"), KeyAction::Ask);
}

#[test]
fn a_finding_is_shown_with_its_evidence_its_risk_and_its_patch() {
    let mut state = state();
    let finding = Finding {
        id: "R1-1".into(),
        rule: "R1".into(),
        subject: "Service shop/cart".into(),
        action: "Prefer endpoints in the client's zone".into(),
        confidence: "high".into(),
        usd_per_month: 87.084,
        bytes_per_month: 4_354_200_000_000,
        evidence: vec!["word ".repeat(60).trim().to_owned(), "second".into()],
        risk: vec!["connections stay".into()],
        patch: "kubectl -n shop patch service cart".into(),
    };
    state.update(Update::Advice(Ok(Advice { findings: vec![finding], recorded: 1, needed: 0 })));
    keys(&mut state, "4");
    assert!(drawn(&mut state, 80, 24)[4].ends_with("$87.08"));
    keys(&mut state, "\n");
    let lines = drawn(&mut state, 80, 24);
    for text in [
        "R1            Service shop/cart",
        "$87.08 a month",
        "evidence      word word",
        "│               word",
        "risk          connections stay",
        "kubectl -n shop patch service cart",
    ] {
        assert!(has(&lines, text), "{text}: {lines:#?}");
    }
    // On a low screen page keys reach its end, and go no further.
    assert!(!has(&drawn(&mut state, 80, 14), "advise --explain R1-1"));
    keys(&mut state, "⇟⇟");
    for _ in 0..2 {
        let lines = drawn(&mut state, 80, 14);
        assert!(has(&lines, "advise --explain R1-1") && !has(&lines, "Service shop/cart "), "{lines:#?}");
        keys(&mut state, "⇟⇟⇟⇟");
    }
    drawn(&mut state, 80, 14);
    keys(&mut state, "⇞");
    assert!(!has(&drawn(&mut state, 80, 14), "advise --explain R1-1"));
}

#[test]
fn zones_beyond_the_screen_are_summed_and_no_size_breaks_it() {
    let mut answer = counters(10);
    for n in 0..40u64 {
        answer.zones.push(zones("eu-1a", &format!("zone-{n:02}"), "cross-zone", 1000 + n));
    }
    let mut state = State::new("unix:/run/meridian/hubble.sock".to_owned());
    state.update(Update::Counters(Box::new(answer)));
    keys(&mut state, "u");
    let lines = drawn(&mut state, 80, 24);
    assert!(has(&lines, "(others)"), "{lines:#?}");
    for cover in ["", "?", "x2\n", "\u{1b}4\n", "/abc"] {
        keys(&mut state, cover);
        for (width, height) in [(1, 1), (2, 3), (10, 4), (20, 6), (39, 12), (80, 24), (300, 100), (500, 2)] {
            drawn(&mut state, width, height);
        }
    }
}

#[test]
fn hostile_names_neither_move_nor_colour_the_screen() {
    let names = [
        HOSTILE.to_owned(),
        "\u{202e}\u{5d0}\u{200b}\u{301}\u{e0041}".to_owned(),
        "a".repeat(5000),
        "<b>\"'&\n\t".to_owned(),
    ];
    for name in names {
        let mut answer = counters(10);
        answer.nodes = vec![name.clone()];
        let place = Some(Place { zone: name.clone(), region: name.clone() });
        answer.zones[0] = ZonePair { destination: place.clone(), locality: name.clone(), ..answer.zones[0].clone() };
        let workload_kind = name.clone();
        let end =
            PlacedEndpoint { namespace: name.clone(), pod: name.clone(), workload: name.clone(), workload_kind, place };
        answer.pairs[0] = PodPair { source: Some(end), ..answer.pairs[0].clone() };
        answer.reasons[0].name.clone_from(&name);
        let mut state = state();
        state.update(Update::Counters(Box::new(answer)));
        for (view, width) in
            ["1", "2", "2\n", "\u{1b}3"].into_iter().flat_map(|view| [80, 160].map(|width| (view, width)))
        {
            keys(&mut state, view);
            let lines = drawn(&mut state, width, 24);
            assert!(lines.iter().all(|line| is_harmless(line)), "{lines:#?}");
            assert!(lines[0].ends_with("UTC") && lines[23].starts_with(" q quit"), "{lines:#?}");
        }
    }
}
