//! Waits for packets that the kernel announces.
//!
//! The kernel wakes a reader that has read all of the ring buffer with the first event after that. A reader that
//! came at once for each would be woken for each: it waits a while after it was woken, and what comes meanwhile is
//! there when it comes again.

use super::Error;
use crate::datapath::Readable;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How often events are read at most.
const EVENT_GAP: Duration = Duration::from_millis(100);

/// Tells when packets have been announced.
pub(super) struct Announcements {
    ring_buffer: Readable,
    /// No reading before.
    next: Instant,
}

impl Announcements {
    /// Of this ring buffer, from now on.
    pub(super) fn new(ring_buffer: Readable) -> Self {
        Self { ring_buffer, next: Instant::now() }
    }

    /// Waits until there are events. They must be read to the last one then. Can be dropped at any time.
    pub(super) async fn ready(&mut self) -> Result<(), Error> {
        sleep_until(self.next).await;
        let failed = |source| Error::Wait { what: "announced packets", source };
        self.ring_buffer.ready().await.map_err(failed)?;
        self.next = Instant::now() + EVENT_GAP;
        Ok(())
    }
}
