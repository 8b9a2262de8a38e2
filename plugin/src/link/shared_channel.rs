//! The connection of an agent's feed, which its reports share: a controller of thousands of agents then has one
//! connection of each, and not two.

use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};
use tonic::transport::Channel;

/// The connection of a feed, while it is open.
#[derive(Clone, Debug)]
pub struct SharedChannel(Arc<watch::Sender<Option<Channel>>>);

impl Default for SharedChannel {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl SharedChannel {
    /// Shares a connection that works.
    pub fn offer(&self, channel: Channel) {
        self.0.send_replace(Some(channel));
    }

    /// Ends the sharing: the feed goes to another connection.
    pub fn withdraw(&self) {
        self.0.send_if_modified(|offered| offered.take().is_some());
    }

    /// Waits for a connection, for this long.
    pub async fn within(&self, limit: Duration) -> SharedUse {
        let mut offered = self.0.subscribe();
        let found = timeout(limit, offered.wait_for(Option::is_some)).await;
        let channel = found.ok().and_then(|found| found.ok()?.clone());
        SharedUse { channel, offered }
    }
}

/// The use of a shared connection.
#[derive(Debug)]
pub struct SharedUse {
    /// The connection; `None` if none was shared in time.
    pub channel: Option<Channel>,
    offered: watch::Receiver<Option<Channel>>,
}

impl SharedUse {
    /// Waits until another connection is shared, or this one no more.
    pub async fn changed(&mut self) {
        // A feed that ends with its agent leaves its connection to the last report.
        if self.offered.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> Channel {
        Channel::from_static("http://127.0.0.1:1").connect_lazy()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_shared_until_the_feed_goes_to_another_one() {
        let (shared, limit) = (SharedChannel::default(), Duration::from_secs(5));
        let waiting = tokio::spawn({
            let shared = shared.clone();
            async move { shared.within(limit).await }
        });
        tokio::task::yield_now().await;
        shared.offer(channel());
        let mut used = waiting.await.unwrap();
        assert!(used.channel.is_some());
        assert!(timeout(limit, used.changed()).await.is_err(), "it stays");
        shared.withdraw();
        used.changed().await;
        // Also where another one is offered at once.
        shared.offer(channel());
        let mut used = shared.within(limit).await;
        shared.withdraw();
        shared.offer(channel());
        used.changed().await;
        let mut used = shared.within(limit).await;
        drop(shared);
        assert!(timeout(limit, used.changed()).await.is_err(), "the agent ends");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_feed_nothing_is_shared_until_there_is_one() {
        let (shared, limit) = (SharedChannel::default(), Duration::from_secs(5));
        let begun = tokio::time::Instant::now();
        let mut used = shared.within(limit).await;
        assert!(used.channel.is_none());
        assert_eq!(begun.elapsed(), limit);
        shared.withdraw();
        assert!(timeout(limit, used.changed()).await.is_err(), "there was none");
        shared.offer(channel());
        used.changed().await;
    }
}
