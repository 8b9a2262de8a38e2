//! Writes notices to the log and queues them for Events. Their number per reason is bounded, so that a fault that every
//! node of a large cluster has fills neither the log nor the API server.

use super::{
    health::Health,
    model::{CONFLICT, Notice},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// The limit of notices that wait to become Events; further ones are only logged.
const WAITING: usize = 256;
/// The limit of notices of one reason at once.
const AT_ONCE: u32 = 32;
/// The time after which a reason has room for one more notice.
const ONE_MORE: Duration = Duration::from_secs(60);
/// The shortest time between two log lines about the withheld notices of a reason.
const REMINDER: Duration = Duration::from_secs(3600);

/// The way of notices to the log and to Events.
#[derive(Clone, Debug)]
pub struct Notices {
    queue: mpsc::Sender<Notice>,
    health: Arc<Health>,
    room: Arc<Mutex<BTreeMap<&'static str, Room>>>,
}

/// The notices that a reason has room for.
#[derive(Debug)]
struct Room {
    left: u32,
    /// The time up to which room was added.
    filled: Instant,
    /// The notices withheld since the last log line about them, and the time of that line.
    withheld: u64,
    logged: Option<Instant>,
}

impl Room {
    const fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, filled: now, withheld: 0, logged: None }
    }

    /// Takes the room for a notice. Returns whether there was any.
    fn take(&mut self, now: Instant) -> bool {
        let more = now.duration_since(self.filled).as_secs() / ONE_MORE.as_secs();
        if more > 0 {
            self.left = self.left.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)).min(AT_ONCE);
            self.filled = now;
        }
        let has_room = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has_room
    }

    /// The number of withheld notices to log now.
    fn due(&mut self, now: Instant) -> Option<u64> {
        let is_due = self.withheld > 0 && self.logged.is_none_or(|at| now.duration_since(at) >= REMINDER);
        is_due.then(|| {
            self.logged = Some(now);
            std::mem::take(&mut self.withheld)
        })
    }
}

impl Notices {
    /// The way of notices, and the queue of those that become Events.
    pub fn new(health: Arc<Health>) -> (Self, mpsc::Receiver<Notice>) {
        let (queue, notices) = mpsc::channel(WAITING);
        (Self { queue, health, room: Arc::default() }, notices)
    }

    /// Logs the notices and queues them for Events, up to the limit of each reason.
    pub fn report(&self, notices: impl IntoIterator<Item = Notice>) {
        let now = Instant::now();
        let mut last = None;
        for notice in notices {
            if !self.has_room(notice.reason, now) {
                continue;
            }
            // A message for several objects is logged once.
            if last.as_ref() != Some(&notice.message) || notice.reason != CONFLICT {
                tracing::warn!(object = %notice.object, reason = notice.reason, "{}", notice.message);
            }
            last = Some(notice.message.clone());
            // If the queue is full, the log still has it.
            let _ = self.queue.try_send(notice);
        }
        for (reason, withheld) in self.due(now) {
            tracing::warn!(
                reason,
                withheld,
                "further notices with this reason are only counted (meridian_notices_withheld_total)"
            );
        }
    }

    fn has_room(&self, reason: &'static str, now: Instant) -> bool {
        let mut rooms = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let room = rooms.entry(reason).or_insert_with(|| Room::new(now));
        let has_room = room.take(now);
        if !has_room {
            room.withheld += 1;
            self.health.count_withheld(reason);
        }
        has_room
    }

    fn due(&self, now: Instant) -> Vec<(&'static str, u64)> {
        let mut rooms = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.iter_mut().filter_map(|(reason, room)| Some((*reason, room.due(now)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(node: usize, reason: &'static str) -> Notice {
        Notice { reason, ..Notice::hook_changed(&format!("n-{node}"), "tcx", "netfilter saw 0 %") }
    }

    #[test]
    fn a_reason_has_room_for_some_notices_and_others_have_their_own() {
        let health = Arc::new(Health::default());
        let (notices, mut queue) = Notices::new(Arc::clone(&health));
        notices.report((0..3000).map(|node| notice(node, "HookChanged")));
        notices.report((0..3000).map(|node| notice(node, "HookChanged")));
        notices.report((0..3).map(|node| notice(node, "Unreadable")));
        let mut queued = Vec::new();
        while let Ok(notice) = queue.try_recv() {
            queued.push(notice.reason);
        }
        let of = |reason| queued.iter().filter(|queued| **queued == reason).count();
        assert_eq!((of("HookChanged"), of("Unreadable")), (AT_ONCE as usize, 3));
        let withheld: Vec<_> = health.withheld().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(withheld, [("HookChanged", 6000 - u64::from(AT_ONCE))]);
    }

    #[test]
    fn room_comes_back_with_time_and_the_rest_is_logged_once_an_hour() {
        let start = Instant::now();
        let mut room = Room::new(start);
        let taken = |room: &mut Room, at: Instant| (0..100).filter(|_| room.take(at)).count();
        assert_eq!(taken(&mut room, start), AT_ONCE as usize);
        assert_eq!(taken(&mut room, start + ONE_MORE / 2), 0);
        assert_eq!(taken(&mut room, start + 3 * ONE_MORE), 3);
        assert_eq!(taken(&mut room, start + 1000 * ONE_MORE), AT_ONCE as usize);
        assert_eq!(room.due(start), None);
        room.withheld = 7;
        assert_eq!(room.due(start), Some(7));
        room.withheld = 5;
        assert_eq!(room.due(start + REMINDER / 2), None);
        room.withheld += 1;
        assert_eq!(room.due(start + REMINDER), Some(6));
    }
}
