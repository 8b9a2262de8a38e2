//! `meridian agent --unload`.

use super::{
    super::{Failure, config::Remains, print},
    start::SUMS,
};
use crate::{
    datapath::{self, Alone, Only, Pins},
    feed,
};
use std::{fs, io, path::Path};

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
    print("nothing of Meridian's is left in the kernel and in the state folder\n")
}

fn remove(path: &Path, remove: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Failure> {
    match remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::failed(format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
