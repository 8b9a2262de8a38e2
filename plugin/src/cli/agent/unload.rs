//! `meridian agent --unload`.

use super::{
    super::{
        Failure,
        config::Remains,
        print,
        process::{PATIENCE, Signal, signals},
    },
    start::SUMS,
};
use crate::{
    datapath::{self, Alone, Only, Pins},
    feed,
    flows::Ring,
    metrics::{self, Families, Listen, Outputs, Process, Sources},
};
use std::{
    fs, io,
    path::Path,
    sync::{Arc, atomic::Ordering},
};
use tokio::{net::TcpListener, runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;

/// Takes away what agents have left behind.
pub(super) fn run(remains: &Remains) -> Result<(), Failure> {
    let _only = Only::claim(Alone::Pinned).map_err(|error| Failure::failed(format!("{error}; end it first")))?;
    if let Some(root) = &remains.pin_dir {
        let pins = Pins::open(root).map_err(Failure::failed)?;
        datapath::unload(&pins).map_err(Failure::failed)?;
    }
    for name in [SUMS, feed::SAVED_TABLE] {
        remove(&remains.state_dir.join(name), |path| fs::remove_file(path))?;
    }
    // Something else may be in it.
    let _ = fs::remove_dir(&remains.state_dir);
    print("nothing of Meridian's is left in the kernel and in the state folder\n")?;
    remains.stay.map_or(Ok(()), stay)
}

/// Says on the port for health that it is done, until a signal.
fn stay(listen: Listen) -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(Failure::failed)?;
    let received = signals(&runtime)?;
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
    let shutdown = CancellationToken::new();
    let failed = |error| Failure::failed(format!("listening on {} for health: {error}", listen.0));
    let listener = runtime.block_on(TcpListener::bind(listen.0)).map_err(failed)?;
    runtime.spawn(metrics::serve(sources, listener, shutdown.clone()));
    while received.recv().is_ok_and(|signal| signal != Signal::End) {}
    shutdown.cancel();
    runtime.shutdown_timeout(PATIENCE);
    Ok(())
}

fn remove(path: &Path, remove: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Failure> {
    match remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::failed(format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
