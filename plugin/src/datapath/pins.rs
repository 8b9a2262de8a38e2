//! State that stays in the kernel when an agent ends, in a folder of the bpf file system: the counters, and the links
//! of the programs.
//!
//! A folder belongs to one network namespace, whose inode is in its name, and to one layout of the maps. A link pinned
//! for a removed namespace would keep the namespace alive.

use super::{Error, Hook, sys};
use aya::maps::MapData;
use std::{
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// Increased when a pinned map changes its layout or its meaning.
const LAYOUT: &str = "v4";

/// The pinned maps: the counters, and the maps that are needed to read and continue them.
pub(super) const MAPS: [&str; 13] = [
    "ZONE_MATRIX",
    "STATS",
    "FLOWS_V4",
    "FLOWS_V6",
    "INDEX_V4",
    "INDEX_V6",
    "FREE_V4",
    "FREE_V6",
    "NUMBERS",
    "PINNED_STATE",
    "ZONE_NAMES",
    "CORES",
    "EGRESS_CORES",
];

/// `BPF_FS_MAGIC`.
const BPF_FS: i64 = 0xcafe_4a11;

/// The folder of the pins.
#[derive(Clone, Debug)]
pub struct Pins {
    /// The folder of the network namespace.
    namespace: PathBuf,
}

impl Pins {
    /// The folder for the calling thread's network namespace below `root`, made if it is missing.
    ///
    /// # Errors
    /// `root` is not in a bpf file system, or is not writable.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Pins { path: root.into(), source };
        let parent = root.ancestors().find(|path| path.exists()).unwrap_or(root);
        let kind = nix::sys::statfs::statfs(parent).map_err(|errno| failed(errno.into()))?.filesystem_type();
        #[allow(clippy::unnecessary_cast, reason = "its type is another one on other machines")]
        if kind.0 as i64 != BPF_FS {
            return Err(failed(io::Error::other("it is not in a bpf file system (mount -t bpf bpf /sys/fs/bpf)")));
        }
        let namespace = fs::metadata("/proc/thread-self/ns/net").map_err(failed)?.ino();
        let pins = Self { namespace: root.join(format!("net-{namespace}")) };
        pins.make().map_err(failed)?;
        Ok(pins)
    }

    fn make(&self) -> io::Result<()> {
        for folder in [self.maps(), self.links()] {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        // Only root may open the pins, or lock their folder; an earlier version may have made it.
        fs::set_permissions(&self.namespace, fs::Permissions::from_mode(0o700))
    }

    /// The folder of the pins of this network namespace.
    pub(super) fn folder(&self) -> &Path {
        &self.namespace
    }

    fn layout(&self) -> PathBuf {
        self.namespace.join(LAYOUT)
    }

    fn maps(&self) -> PathBuf {
        self.layout().join("maps")
    }

    fn links(&self) -> PathBuf {
        self.layout().join("links")
    }

    /// The folders of other layouts, left by other versions of this program.
    pub(super) fn other_layouts(&self) -> Vec<PathBuf> {
        names(&self.namespace).filter(|name| name != LAYOUT).map(|name| self.namespace.join(name)).collect()
    }

    /// A pinned map.
    pub(super) fn map(&self, name: &str) -> Result<Option<MapData>, Error> {
        let path = self.maps().join(name);
        if !path.exists() {
            return Ok(None);
        }
        let failed = |error| Error::Pins { path: path.clone(), source: io::Error::other(error) };
        MapData::from_pin(&path).map(Some).map_err(failed)
    }

    /// Pins a map.
    pub(super) fn pin_map(&self, name: &str, map: BorrowedFd<'_>) -> Result<(), Error> {
        self.pin(&self.maps().join(name), map)
    }

    /// [`Pins::hook`] of the calling thread's network namespace below `root`; nothing is made.
    pub fn pinned_hook(root: &Path) -> Option<Hook> {
        let namespace = fs::metadata("/proc/thread-self/ns/net").ok()?.ino();
        Self { namespace: root.join(format!("net-{namespace}")) }.hook()
    }

    /// The hook of an earlier agent whose programs are still attached; never clsact, which has no pins.
    pub fn hook(&self) -> Option<Hook> {
        let names = self.link_names();
        if names.iter().any(|name| name.ends_with("_egress")) {
            Some(Hook::Tcx)
        } else {
            names.iter().any(|name| name.starts_with("netfilter_")).then_some(Hook::Netfilter)
        }
    }

    /// The names of the pinned links.
    pub(super) fn link_names(&self) -> Vec<String> {
        names(&self.links()).collect()
    }

    /// A pinned link.
    pub(super) fn link(&self, name: &str) -> Option<OwnedFd> {
        sys::get_pinned(&self.links().join(name)).ok()
    }

    /// Pins a link.
    pub(super) fn pin_link(&self, name: &str, link: BorrowedFd<'_>) -> Result<(), Error> {
        self.pin(&self.links().join(name), link)
    }

    /// Detaches a link and removes its pin.
    pub(super) fn remove_link(&self, name: &str) -> Result<(), Error> {
        remove_link(&self.links().join(name))
    }

    /// Removes all pins of every layout, links first.
    ///
    /// # Errors
    /// A pin can't be removed.
    pub fn remove(&self) -> Result<(), Error> {
        for layout in names(&self.namespace) {
            remove_layout(&self.namespace.join(layout))?;
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Pins { path, source }
        };
        fs::remove_dir(&self.namespace).map_err(failed(&self.namespace))?;
        // Another namespace's folder may be beside it, or it is the root of a file system.
        let root = self.namespace.parent().unwrap_or(&self.namespace);
        match fs::remove_dir(root) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound | io::ErrorKind::ResourceBusy
                ) =>
            {
                Err(failed(root)(error))
            }
            _ => Ok(()),
        }
    }

    fn pin(&self, path: &Path, object: BorrowedFd<'_>) -> Result<(), Error> {
        sys::pin(object, path).map_err(|source| Error::Pins { path: path.into(), source })
    }
}

/// Removes a layout's links and maps.
pub(super) fn remove_layout(layout: &Path) -> Result<(), Error> {
    let links = layout.join("links");
    for link in names(&links) {
        remove_link(&links.join(link))?;
    }
    let failed = |path: PathBuf| move |source| Error::Pins { path, source };
    let maps = layout.join("maps");
    for map in names(&maps) {
        let map = maps.join(map);
        fs::remove_file(&map).map_err(failed(map))?;
    }
    for folder in [links, maps, layout.to_owned()] {
        if folder.exists() {
            fs::remove_dir(&folder).map_err(failed(folder))?;
        }
    }
    Ok(())
}

fn remove_link(path: &Path) -> Result<(), Error> {
    // The device may be gone, and then the link is detached already.
    if let Ok(link) = sys::get_pinned(path)
        && let Err(error) = sys::detach_link(std::os::fd::AsFd::as_fd(&link))
    {
        tracing::debug!(link = %path.display(), %error, "the link is not attached");
    }
    match fs::remove_file(path) {
        // It is taken away already, by a step that was refused later on.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|source| Error::Pins { path: path.into(), source }),
    }
}

fn names(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names.into_iter()
}
