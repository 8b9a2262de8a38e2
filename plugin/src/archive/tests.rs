//! What becomes of a folder when files change, disks fill and processes end.

use super::*;
use crate::{
    history::{Ends, TransferService, Workload},
    zones::{Location, Place},
};
use meridian_abi::Counter;
use std::{fs, path::PathBuf, sync::Arc};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("meridian-archive-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self) -> Result<Archive, Error> {
        Archive::open(&self.0, Limits::default(), Arc::default())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn block(span: Span, bytes: u64) -> Block {
    let mut builder = Builder::new(span, 100);
    let site = Location { provider: None, place: Place::Unknown, class: None };
    let workload = Workload { kind: "Deployment".into(), name: "web".into(), ..Workload::default() };
    let counter = Counter { bytes, packets: 1 };
    builder.add(Ends { workloads: [&workload; 2], sites: [&site; 2] }, TransferService::default(), counter);
    builder.add_recorded(span.seconds);
    builder.block()
}

fn sum(path: &Path, from: u64, to: u64) -> (u64, usize) {
    let mut bytes = 0;
    let damaged = read_range(path, from, to, |block| bytes += block.total().bytes).unwrap();
    (bytes, damaged.len())
}

const HOUR: u64 = Span::HOUR as u64;
const DAY: u64 = Span::DAY as u64;

#[test]
fn hours_become_a_day_and_the_sum_stays() {
    let scratch = Scratch::new("days");
    let mut archive = scratch.open().unwrap();
    for hour in 0..30 {
        archive.write(&block(Span::hour_of(hour * HOUR), 1 << hour)).unwrap();
    }
    archive.maintain(2 * DAY).unwrap();
    assert_eq!(archive.len(), 31);
    assert_eq!(archive.read(Span::day_of(0)).unwrap().total().bytes, (1 << 24) - 1);
    assert_eq!(sum(&scratch.0, 0, 3 * DAY), ((1 << 30) - 1, 0));
    assert_eq!(sum(&scratch.0, HOUR, DAY), ((1 << 24) - 2, 0), "a part of a day is its hours");
    // A month later the hours are gone, and the day is there.
    archive.maintain(40 * DAY).unwrap();
    assert_eq!(archive.len(), 2);
    assert_eq!(sum(&scratch.0, 0, 3 * DAY), ((1 << 30) - 1, 0));
    drop(archive);
    assert_eq!(scratch.open().unwrap().len(), 2);
}

#[test]
fn a_changed_byte_costs_its_own_hour_and_no_wrong_number_is_shown() {
    let scratch = Scratch::new("flips");
    let mut archive = scratch.open().unwrap();
    archive.write(&block(Span::hour_of(0), 1000)).unwrap();
    archive.write(&block(Span::hour_of(HOUR), 500)).unwrap();
    let file = scratch.0.join("1970-01-01T00.block");
    let bytes = fs::read(&file).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&file, changed).unwrap();
        assert_eq!(sum(&scratch.0, 0, DAY), (500, 1), "byte {at}");
    }
    assert!(archive.read(Span::hour_of(0)).is_none());
    assert_eq!((archive.len(), archive.tally.damaged.load(Ordering::Relaxed)), (1, 1));
    assert!(scratch.0.join("1970-01-01T00.damaged").exists() && !file.exists());
    // A block under another name is not taken for that hour.
    fs::copy(scratch.0.join("1970-01-01T01.block"), scratch.0.join("1970-01-01T02.block")).unwrap();
    assert_eq!(sum(&scratch.0, 0, DAY), (500, 1));
    archive.write(&block(Span::hour_of(0), 7)).unwrap();
    assert_eq!(archive.read(Span::hour_of(0)).unwrap().total().bytes, 7);
}

#[test]
fn one_process_writes_and_others_read() {
    let scratch = Scratch::new("lock");
    let mut archive = scratch.open().unwrap();
    archive.write(&block(Span::hour_of(0), 1)).unwrap();
    let error = scratch.open().unwrap_err().to_string();
    assert!(error.ends_with("another process writes this history: each needs a folder of its own"), "{error}");
    assert_eq!(sum(&scratch.0, 0, DAY), (1, 0));
    drop(archive);
    assert!(scratch.open().is_ok());
    let missing = read_range(&scratch.0.join("missing"), 0, 1, |_| {}).unwrap_err().to_string();
    assert!(missing.contains("there is no history here"), "{missing}");
}

#[test]
fn an_unfinished_file_is_no_block() {
    let scratch = Scratch::new("begun");
    drop(scratch.open().unwrap());
    let bytes = block(Span::hour_of(0), 1).encode();
    fs::write(scratch.0.join("1970-01-01T00.new"), &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(sum(&scratch.0, 0, DAY), (0, 0));
    assert!(scratch.open().unwrap().is_empty());
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1, "the lock alone");
}

#[test]
fn a_block_that_has_no_room_leaves_the_one_before() {
    let scratch = Scratch::new("full");
    let mut archive = scratch.open().unwrap();
    archive.write(&block(Span::hour_of(0), 1)).unwrap();
    // A folder in the place of the file that is written first.
    fs::create_dir(scratch.0.join("1970-01-01T00.new")).unwrap();
    assert!(archive.write(&block(Span::hour_of(0), 2)).is_err());
    assert_eq!(archive.read(Span::hour_of(0)).unwrap().total().bytes, 1);
    assert_eq!(archive.tally.failed.load(Ordering::Relaxed), 1);
}
