//! Takes away what agents have left behind.

use super::{Error, start::SUMS};
use crate::{
    datapath::{self, Alone, Only, Pins},
    feed,
    flows::Ring,
    metrics::{self, Families, Outputs, Process, Sources},
    servers::listen,
};
use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The pins and files that an agent leaves behind.
#[derive(Debug)]
pub struct Remains {
    /// Where counters and programs are pinned.
    pub pin_dir: Option<PathBuf>,
    /// The folder of what outlasts an agent.
    pub state_dir: PathBuf,
}

/// Takes away what agents have left behind in the kernel and in the state folder.
///
/// # Errors
/// An agent counts here, or the kernel's or the file system's answer.
pub fn unload(remains: &Remains) -> Result<(), Error> {
    let _only = Only::claim(Alone::Pinned).map_err(Error::InUse)?;
    if let Some(root) = &remains.pin_dir {
        let pins = Pins::open(root)?;
        datapath::unload(&pins)?;
    }
    for name in [SUMS, feed::SAVED_TABLE] {
        remove(&remains.state_dir.join(name))?;
    }
    // Something else may be in it.
    let _ = fs::remove_dir(&remains.state_dir);
    Ok(())
}

/// Says on the port for health that all is taken away, until `shutdown`.
///
/// # Errors
/// The port can't be had.
pub async fn stay(at: SocketAddr, shutdown: CancellationToken) -> Result<(), Error> {
    let process = Arc::new(Process::default());
    process.ready.store(true, Ordering::Relaxed);
    let sources = Sources {
        samples: watch::Sender::new(Arc::from([])).subscribe(),
        ring: Arc::new(Ring::new(1)),
        process,
        families: Families::NONE,
        tls: Vec::new(),
        outputs: Outputs::default(),
    };
    let listener = listen(at, "health").await?;
    tokio::spawn(metrics::serve(sources, listener, shutdown.clone()));
    shutdown.cancelled().await;
    Ok(())
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Remove { path: path.to_owned(), source }),
        _ => Ok(()),
    }
}
