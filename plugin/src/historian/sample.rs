//! Histories of known blocks, for tests.

use super::Historian;
use crate::{
    archive::{Archive, Limits},
    cost::PriceTable,
    history::{Block, Builder, Ends, Span, TransferService, Workload},
    zones::{Location, Place},
};
use meridian_abi::Counter;
use std::{fs, path::PathBuf, sync::Arc};

/// A history in a folder that ends with it.
pub(crate) struct Sample {
    pub(crate) folder: PathBuf,
    pub(crate) historian: Arc<Historian>,
}

impl Sample {
    /// A history with these blocks. Its open hour is that of `now`.
    pub(crate) fn new(name: &str, blocks: &[Block], (limits, now): (Limits, u64)) -> Self {
        let folder = std::env::temp_dir().join(format!("meridian-sample-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let mut archive = Archive::open(&folder, limits, Arc::default()).unwrap();
        blocks.iter().for_each(|block| archive.write(block).unwrap());
        drop(archive);
        let historian = Historian::open(&folder, limits, PriceTable::default(), now).unwrap();
        Self { folder, historian: Arc::new(historian) }
    }

    /// The bytes and the recorded seconds of a block; `None` if there is none.
    pub(crate) fn seen(&self, span: Span) -> Option<(u64, u32)> {
        let block = Block::decode(&self.historian.encoded(span).unwrap()?).unwrap();
        Some((block.total().bytes, block.coverage.recorded_seconds))
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A block of one sum, with these recorded seconds.
pub(crate) fn block(span: Span, bytes: u64, recorded: u32) -> Block {
    let mut builder = Builder::new(span, 100);
    let site = Location { provider: None, place: Place::Unknown, class: None };
    let workload = Workload { kind: "Deployment".into(), name: "web".into(), ..Workload::default() };
    let counter = Counter { bytes, packets: 1 };
    builder.add(Ends { workloads: [&workload; 2], sites: [&site; 2] }, TransferService::default(), counter);
    builder.add_recorded(recorded);
    builder.cover("n1", "", recorded);
    builder.block()
}
