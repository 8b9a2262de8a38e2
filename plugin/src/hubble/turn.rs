//! Turns: how long a reader examines records before others continue.
//!
//! One thread serves all clients, so a reader that examines many records, or evaluates a costly filter, delays the
//! others. A turn ends by time. Readers with costly filters take their turns one after the other, and the server
//! serves everything else that is ready between two of them, so many of them delay a client no longer than one.

use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::yield_now,
};

/// How long a turn lasts. Then the record in work is still examined.
const TURN: Duration = Duration::from_millis(1);
/// How many records a reader without a costly filter examines for each look at the clock, which takes longer than most
/// filters.
const RECORDS_PER_LOOK: u32 = 8;

/// The turn, which one costly reader at a time has.
#[derive(Clone, Debug)]
pub(super) struct CostlyTurn(Arc<Semaphore>);

impl Default for CostlyTurn {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// The turns of a reader.
#[derive(Debug)]
pub(super) struct Turn {
    /// Present for a reader with a costly filter.
    costly: Option<CostlyTurn>,
    held: Option<OwnedSemaphorePermit>,
    began: Option<Instant>,
    /// Records since the last look at the clock.
    unlooked: Cell<u32>,
}

impl Turn {
    /// The turns of a reader, whose filter may be costly.
    pub(super) const fn new(costly: Option<CostlyTurn>) -> Self {
        Self { costly, held: None, began: None, unlooked: Cell::new(0) }
    }

    /// Waits until the reader may examine records.
    pub(super) async fn begin(&mut self) {
        let is_new = self.began.is_none();
        if !is_new && !self.is_over() {
            return;
        }
        self.rest();
        if let Some(CostlyTurn(turn)) = &self.costly {
            // The semaphore is never closed.
            self.held = Arc::clone(turn).acquire_owned().await.ok();
            // Held, so that everything else that is ready comes before this turn.
            yield_now().await;
        } else if !is_new {
            yield_now().await;
        }
        self.began = Some(Instant::now());
    }

    /// Whether the turn has lasted long enough.
    pub(super) fn is_over(&self) -> bool {
        let Some(began) = self.began else { return true };
        let unlooked = self.unlooked.get() + 1;
        if self.costly.is_none() && unlooked < RECORDS_PER_LOOK {
            self.unlooked.set(unlooked);
            return false;
        }
        let is_over = began.elapsed() >= TURN;
        if !is_over {
            self.unlooked.set(0);
        }
        // The next question looks again after a turn that was over: whoever found it over lets others go on first.
        is_over
    }

    /// Ends the turn of a reader that waits.
    pub(super) fn rest(&mut self) {
        (self.held, self.began) = (None, None);
    }

    /// Ends the turn of a costly reader that answers: it may never be asked for more.
    pub(super) fn answered(&mut self) {
        if self.costly.is_some() {
            self.rest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    /// Ten turns of a reader with costly filters, each as long as a turn may be.
    async fn ten_turns(turns: &CostlyTurn, happened: &Cell<(u32, u32)>) {
        let mut turn = Turn::new(Some(turns.clone()));
        for _ in 0..10 {
            turn.begin().await;
            let (costly, others) = happened.get();
            happened.set((costly + 1, others));
            sleep(TURN);
            assert!(turn.is_over());
        }
        turn.rest();
    }

    #[tokio::test]
    async fn others_go_on_between_any_two_costly_turns() {
        let (turns, happened) = (CostlyTurn::default(), Cell::new((0, 0)));
        let other = async {
            while happened.get().0 < 30 {
                let (costly, others) = happened.get();
                assert!(costly <= others + 1, "{costly} costly turns, and {others} of others");
                happened.set((costly, others + 1));
                yield_now().await;
            }
        };
        let costly = || ten_turns(&turns, &happened);
        tokio::join!(other, costly(), costly(), costly());
    }

    #[tokio::test]
    async fn a_turn_ends_a_few_records_after_its_time() {
        let mut turn = Turn::new(None);
        assert!(turn.is_over(), "it has not begun");
        turn.begin().await;
        sleep(TURN);
        assert!((0..RECORDS_PER_LOOK).any(|_| turn.is_over()));
        assert!(turn.is_over(), "until the next one begins");
        let others = Cell::new(0);
        let other = async { others.set(1) };
        let next = async {
            turn.begin().await;
            assert_eq!(others.get(), 1, "others came before it");
        };
        tokio::join!(next, other);
    }

    #[tokio::test]
    async fn a_costly_reader_that_is_not_asked_for_more_keeps_no_turn() {
        let turns = CostlyTurn::default();
        let (mut stuck, mut next) = (Turn::new(Some(turns.clone())), Turn::new(Some(turns)));
        stuck.begin().await;
        stuck.answered();
        next.begin().await;
        assert!(next.held.is_some());
    }
}
