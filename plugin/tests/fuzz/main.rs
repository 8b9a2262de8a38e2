//! Bytes from outside, against everything that reads them: no panic, and no answer that differs the second time.
//!
//! The corpus is in `fuzz/corpus`, a folder for each target. `cargo test --test fuzz` replays it with a fixed number of
//! mutations of each file. `make fuzz` mutates it at random for as long as MERIDIAN_FUZZ_SECONDS, and keeps inputs whose
//! outcome is new: this machine's stable compiler has no coverage to guide it, so the outcome guides it instead (an
//! error without its operands, or the shape of what was read).

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails here")]

mod mutation;
mod seeds;
mod targets;

use mutation::Mutator;
use std::{
    collections::HashSet,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use targets::{TARGETS, Target};

/// Mutations of each file of the corpus that every run tries.
const MUTATIONS: usize = 20;
/// Files of the corpus of a target, so that a replay takes seconds; the largest of them that is kept.
const FILES: usize = 24;
const LARGEST_KEPT: usize = 8 << 10;
/// The largest input.
const LARGEST: usize = 64 << 10;

fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target.name)
}

/// The corpus of a target, in the order of the files' names.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder(target))
        .unwrap_or_else(|error| panic!("the corpus of {}: {error}", target.name))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// The outcome of an input. An input that panics is kept as `crash`, with its bytes in hexadecimal in the message.
fn outcome(target: &Target, input: &[u8]) -> String {
    match catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        Ok(outcome) => outcome,
        Err(_) => {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            if env::var_os("MERIDIAN_FUZZ_SECONDS").is_some() {
                keep(target, input, "crash");
            }
            panic!("{} panics for {hex}", target.name);
        }
    }
}

/// The first plain words of an outcome, which are seldom operands.
fn shape(outcome: &str) -> String {
    let is_word = |word: &&str| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_lowercase());
    outcome.split(' ').filter(is_word).take(6).collect::<Vec<_>>().join(" ")
}

fn keep(target: &Target, input: &[u8], prefix: &str) {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    fs::write(folder(target).join(format!("{prefix}-{:016x}", hasher.finish())), input).unwrap();
}

fn replay(target: &Target) {
    let corpus = corpus(target);
    assert!(!corpus.is_empty());
    let mut mutator = Mutator::new(1, LARGEST);
    let (mut outcomes, mut good) = (HashSet::new(), 0);
    for input in &corpus {
        let first = outcome(target, input);
        assert_eq!(first, outcome(target, input), "the same input has another outcome");
        good += usize::from(first.starts_with("ok"));
        outcomes.insert(shape(&first));
        for _ in 0..MUTATIONS {
            outcomes.insert(shape(&outcome(target, &mutator.mutate(input, &corpus))));
        }
    }
    assert!(good > 0, "no input of the corpus is good");
    assert!(outcomes.len() > 1, "every input has the same outcome: {outcomes:?}");
}

/// Writes the inputs with which the corpus begins.
fn plant(target: &Target) {
    fs::create_dir_all(folder(target)).unwrap();
    for (n, seed) in seeds::of(target.name).iter().enumerate() {
        fs::write(folder(target).join(format!("seed-{n}")), seed).unwrap();
    }
}

/// Mutates the corpus at random for a time, and keeps inputs with new outcomes.
fn grow(target: &Target, duration: Duration, seed: u64) {
    let mut corpus = corpus(target);
    let mut known: HashSet<String> = corpus.iter().map(|input| shape(&outcome(target, input))).collect();
    let (mut mutator, began, mut tried, mut kept) = (Mutator::new(seed, LARGEST), Instant::now(), 0u64, 0);
    while began.elapsed() < duration {
        let base = mutator.index(corpus.len());
        let input = mutator.mutate(&corpus[base], &corpus);
        tried += 1;
        let is_new = known.insert(shape(&outcome(target, &input)));
        if is_new && corpus.len() < FILES && input.len() <= LARGEST_KEPT {
            keep(target, &input, "found");
            corpus.push(input);
            kept += 1;
        }
    }
    println!("{}: {tried} inputs with the seed {seed}, {kept} kept, {} in the corpus", target.name, corpus.len());
}

fn target(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    match env::var("MERIDIAN_FUZZ_SECONDS") {
        Ok(seconds) => {
            plant(target);
            let seed = env::var("MERIDIAN_FUZZ_SEED").ok().map_or_else(rand::random, |seed| seed.parse().unwrap());
            grow(target, Duration::from_secs(seconds.parse().unwrap()), seed);
        }
        Err(_) => replay(target),
    }
}

#[test]
fn requests_for_flows_hold() {
    target("filters");
}

#[test]
fn cel_expressions_hold() {
    target("cel");
}

#[test]
fn zone_files_hold() {
    target("zones");
}

#[test]
fn price_files_hold() {
    target("prices");
}

#[test]
fn budget_files_hold() {
    target("budgets");
}

#[test]
fn files_of_headers_hold() {
    target("headers");
}

#[test]
fn settings_files_hold() {
    target("settings");
}

#[test]
fn files_of_metrics_hold() {
    target("metrics-file");
}

#[test]
fn files_of_flow_logs_hold() {
    target("logs-file");
}

#[test]
fn outputs_of_clouds_hold() {
    target("cloud-output");
}

#[test]
fn bills_hold() {
    target("bill");
}

#[test]
fn flow_logs_hold() {
    target("flow-log");
}

#[test]
fn blocks_of_the_history_hold() {
    target("history");
}

#[test]
fn updates_of_the_feed_hold() {
    target("feed");
}

#[test]
fn reports_hold() {
    target("report");
}

#[test]
fn mirrored_messages_hold() {
    target("mirror");
}

#[test]
fn saved_tables_hold() {
    target("saved-table");
}

#[test]
fn saved_sums_hold() {
    target("saved-sums");
}

#[test]
fn masks_hold() {
    target("mask");
}
