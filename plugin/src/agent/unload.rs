//! Removes everything that agents left behind.

use super::{Error, start::SUMS};
use crate::{
    datapath::{self, Only, Pins},
    feed,
    metrics::{self, Page},
    servers::listen,
};
use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use tokio_util::sync::CancellationToken;

/// The pins and files that an agent leaves behind.
#[derive(Debug)]
pub struct AgentArtifacts {
    /// The folder of pinned counters and programs.
    pub pin_dir: Option<PathBuf>,
    /// The folder of state that outlives an agent.
    pub state_dir: PathBuf,
}

/// Removes everything that agents left behind in the kernel and in the state folder.
///
/// # Errors
/// An agent still counts here, or the kernel or the file system refuses.
pub fn unload(remains: &AgentArtifacts) -> Result<(), Error> {
    let pins = remains.pin_dir.as_deref().map(Pins::open).transpose()?;
    let only = pins.as_ref().map(Only::of_pins).transpose().map_err(Error::InUse)?;
    if let Some(pins) = &pins {
        datapath::unload(pins)?;
    }
    for name in [SUMS, feed::SAVED_TABLE] {
        remove(&remains.state_dir.join(name))?;
    }
    drop(only);
    // The folder may have other files.
    let _ = fs::remove_dir(&remains.state_dir);
    Ok(())
}

/// Reports on the health port that the removal is complete, until `shutdown`.
///
/// # Errors
/// The port can't be opened.
pub async fn stay(at: SocketAddr, shutdown: CancellationToken) -> Result<(), Error> {
    let page = Page::default();
    page.ready.set(true);
    let listener = listen(at, "health").await?;
    tokio::spawn(metrics::serve(page, listener, shutdown.clone()));
    shutdown.cancelled().await;
    Ok(())
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Remove { path: path.to_owned(), source }),
        _ => Ok(()),
    }
}
