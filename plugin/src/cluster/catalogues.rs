//! Catalogues of the cluster: the objects of the watches, and Cilium's settings.

use super::cilium_settings::CiliumSettings;
use crate::catalogue::{Catalogue, CatalogueSource, DataPlane};
use futures_util::future::BoxFuture;
use kube::Client;
use std::{fmt, time::Duration};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::Instant,
};

/// Requests that wait.
const WAITING: usize = 4;
/// How long Cilium's settings are taken for current.
const FRESH: Duration = Duration::from_secs(60);

/// Requests for catalogues, which the publisher answers. The default has none.
#[derive(Debug)]
pub struct CatalogueRequests(mpsc::Receiver<oneshot::Sender<Option<Catalogue>>>);

impl Default for CatalogueRequests {
    fn default() -> Self {
        Self(mpsc::channel(1).1)
    }
}

impl CatalogueRequests {
    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<oneshot::Sender<Option<Catalogue>>> {
        self.0.recv().await
    }
}

/// Asks for catalogues.
pub struct Catalogues {
    requests: mpsc::Sender<oneshot::Sender<Option<Catalogue>>>,
    client: Client,
    cilium: Mutex<Option<(Instant, CiliumSettings)>>,
}

impl Catalogues {
    /// Both ends.
    pub fn new(client: Client) -> (Self, CatalogueRequests) {
        let (requests, received) = mpsc::channel(WAITING);
        (Self { requests, client, cilium: Mutex::new(None) }, CatalogueRequests(received))
    }

    async fn cilium(&self) -> CiliumSettings {
        let mut known = self.cilium.lock().await;
        match &*known {
            Some((read, settings)) if read.elapsed() < FRESH => *settings,
            _ => {
                let settings = CiliumSettings::read(&self.client).await;
                *known = Some((Instant::now(), settings));
                settings
            }
        }
    }
}

impl fmt::Debug for Catalogues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogues").finish_non_exhaustive()
    }
}

impl CatalogueSource for Catalogues {
    fn catalogue(&self) -> BoxFuture<'_, Option<Catalogue>> {
        Box::pin(async {
            let (reply, answer) = oneshot::channel();
            self.requests.send(reply).await.ok()?;
            let mut catalogue = answer.await.ok()??;
            if let DataPlane::Cilium { version, topology } = &mut catalogue.data_plane {
                let settings = self.cilium().await;
                (*version, *topology) = (settings.version, settings.topology);
            }
            Some(catalogue)
        })
    }
}
