//! A channel with room for one value. Thousands of streams wait at one most of the time, and tokio's has room for 32
//! values, whatever its bound.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio_stream::Stream;

/// The receiver is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody receives")]
pub struct Closed;

/// Sends values, one after the other. One task waits at it.
pub struct Sender<T>(Arc<Shared<T>>);

/// Receives values, until the sender is dropped.
pub struct Receiver<T>(Arc<Shared<T>>);

struct Shared<T>(Mutex<State<T>>);

struct State<T> {
    value: Option<T>,
    /// Whether one of the two is gone.
    is_over: bool,
    sender: Option<Waker>,
    receiver: Option<Waker>,
}

/// Both ends.
pub fn handoff<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Shared(Mutex::new(State { value: None, is_over: false, sender: None, receiver: None }));
    let shared = Arc::new(shared);
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing in here can panic between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Keeps the waker of the task that waits.
fn wait<R>(at: &mut Option<Waker>, cx: &Context<'_>) -> Poll<R> {
    match at {
        Some(known) if known.will_wake(cx.waker()) => {}
        _ => *at = Some(cx.waker().clone()),
    }
    Poll::Pending
}

impl<T> Sender<T> {
    /// Waits until there is room for a value. Cancel safe.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn room(&self) -> Result<(), Closed> {
        poll_fn(|cx| {
            let mut state = self.0.lock();
            match (state.is_over, &state.value) {
                (true, _) => Poll::Ready(Err(Closed)),
                (false, None) => Poll::Ready(Ok(())),
                (false, Some(_)) => wait(&mut state.sender, cx),
            }
        })
        .await
    }

    /// Sends a value when there is room for it. It is lost if the receiver is gone, or if this is cancelled.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn send(&self, value: T) -> Result<(), Closed> {
        self.room().await?;
        let mut state = self.0.lock();
        if state.is_over {
            return Err(Closed);
        }
        state.value = Some(value);
        let receiver = state.receiver.take();
        drop(state);
        wake(receiver);
        Ok(())
    }

    /// Waits until the receiver is gone. Cancel safe.
    pub async fn closed(&self) {
        poll_fn(|cx| {
            let mut state = self.0.lock();
            if state.is_over { Poll::Ready(()) } else { wait(&mut state.sender, cx) }
        })
        .await;
    }
}

impl<T> Receiver<T> {
    /// The next value; `None` when the sender is gone and its last value was received.
    pub fn poll_receive(&self, cx: &Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        match state.value.take() {
            Some(value) => {
                let sender = state.sender.take();
                drop(state);
                wake(sender);
                Poll::Ready(Some(value))
            }
            None if state.is_over => Poll::Ready(None),
            None => wait(&mut state.receiver, cx),
        }
    }
}

impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_receive(cx)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_over = true;
        // The last value is still received.
        let receiver = state.receiver.take();
        drop(state);
        wake(receiver);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_over = true;
        let (left, sender) = (state.value.take(), state.sender.take());
        drop(state);
        wake(sender);
        // Outside the lock: it may do anything.
        drop(left);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio_stream::StreamExt;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn values_arrive_in_order_and_the_last_one_outlives_its_sender() {
        let (sender, mut receiver) = handoff();
        let sending = tokio::spawn(async move {
            for n in 0..10_000u32 {
                sender.send(n).await.unwrap();
            }
        });
        for n in 0..10_000 {
            assert_eq!(receiver.next().await, Some(n));
        }
        sending.await.unwrap();
        assert_eq!(receiver.next().await, None);
        let (sender, mut receiver) = handoff();
        sender.send(7).await.unwrap();
        drop(sender);
        assert_eq!((receiver.next().await, receiver.next().await), (Some(7), None));
    }

    #[tokio::test]
    async fn there_is_room_for_one_value() {
        let (sender, mut receiver) = handoff();
        sender.send(1).await.unwrap();
        assert_eq!(sender.send(2).now_or_never(), None);
        assert_eq!(sender.room().now_or_never(), None);
        assert_eq!(receiver.next().await, Some(1), "what is cancelled is not sent");
        assert_eq!(sender.room().now_or_never(), Some(Ok(())));
        assert_eq!(receiver.next().now_or_never(), None);
    }

    #[tokio::test]
    async fn a_sender_learns_at_once_that_nobody_receives() {
        let (sender, receiver) = handoff();
        let value = Arc::new(());
        sender.send(Arc::clone(&value)).await.unwrap();
        assert_eq!(sender.closed().now_or_never(), None);
        let waiting = tokio::spawn(async move {
            sender.closed().await;
            (sender.room().await, sender.send(Arc::default()).await)
        });
        tokio::task::yield_now().await;
        drop(receiver);
        assert_eq!(waiting.await.unwrap(), (Err(Closed), Err(Closed)));
        assert_eq!(Arc::strong_count(&value), 1, "it holds what nobody received no more");
    }
}
