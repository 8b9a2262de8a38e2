//! Waits for packets that the kernel announces.
//!
//! The kernel wakes a reader that has read the whole ring buffer at the next event. A reader that read at once would
//! be woken for every event, so this one waits after it was woken, and reads the events that arrived in the meantime
//! together.

use super::Error;
use crate::datapath::Readable;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The shortest time between two reads of events.
const EVENT_GAP: Duration = Duration::from_millis(100);

/// Waits for announced packets.
pub(super) struct Announcements {
    ring_buffer: Readable,
    /// The earliest time of the next read.
    next: Instant,
}

impl Announcements {
    /// Waits on this ring buffer. Must be called inside a runtime.
    pub(super) fn new(ring_buffer: Readable) -> Self {
        Self { ring_buffer, next: Instant::now() }
    }

    /// Waits until there are events. The caller must then read all of them. Cancel safe.
    pub(super) async fn ready(&mut self) -> Result<(), Error> {
        sleep_until(self.next).await;
        let failed = |source| Error::Wait { what: "announced packets", source };
        self.ring_buffer.ready().await.map_err(failed)?;
        self.next = Instant::now() + EVENT_GAP;
        Ok(())
    }
}
