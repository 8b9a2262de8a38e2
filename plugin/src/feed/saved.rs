//! The last table on disk: an agent that starts classifies by it until a controller answers.
//!
//! The file is a magic word, the SHA-256 of the rest, then one protobuf message. It is written beside
//! and renamed, so there is never half of it.

use super::{Changes, Position, buckets::Bucket, client::buckets, wire::Reader};
use crate::{
    identity::Index,
    proto::{v1::SavedTable, wire::put_bytes},
    zones::SharedTable,
};
use prost::Message;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Says what the file is, and which form it has.
const MAGIC: &[u8; 8] = b"mrdntbl1";
/// The number of `SavedTable.updates`.
const UPDATES: u64 = 3;
/// The name in the state folder.
const NAME: &str = "table";

/// A table that was saved.
#[derive(Debug)]
pub struct Saved {
    /// Where it was in the controller's state.
    pub position: Position,
    /// When it was last known to be what the controller says.
    pub confirmed: SystemTime,
    /// All of it.
    pub changes: Changes,
}

/// A saved table that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In which way.
        reason: String,
    },
}

/// A table that is about to be saved.
#[derive(Debug)]
pub struct Saving {
    buckets: Vec<Bucket>,
    position: Position,
    confirmed: SystemTime,
}

impl Saving {
    /// Writes it.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(self, folder: &Path) -> Result<(), SavedError> {
        let saved = SavedTable {
            position: Some(self.position.into()),
            confirmed: Some(self.confirmed.into()),
            updates: Vec::new(),
        };
        let mut body = saved.encode_to_vec();
        // Bucket by bucket: the whole table as messages would be several times as large.
        self.buckets.iter().for_each(|bucket| put_bytes(UPDATES, &bucket.encode_added(), &mut body));
        let (path, new) = (folder.join(NAME), folder.join(format!("{NAME}.new")));
        let write = || {
            fs::create_dir_all(folder)?;
            let mut file = File::create(&new)?;
            file.write_all(MAGIC)?;
            file.write_all(digest(&SHA256, &body).as_ref())?;
            file.write_all(&body)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(|source| SavedError::Io { path: path.clone(), source })
    }
}

impl Saved {
    /// What is in force, to be written.
    pub fn prepare(table: &SharedTable, index: &Index, position: Position, confirmed: SystemTime) -> Saving {
        Saving { buckets: buckets(table, index), position, confirmed }
    }

    /// Reads what was saved; `None` if nothing was.
    ///
    /// # Errors
    /// The file system's, or the file is not what was written.
    pub fn read(folder: &Path) -> Result<Option<Self>, SavedError> {
        let path = folder.join(NAME);
        let damaged = |reason: &str| SavedError::Damaged { path: path.clone(), reason: reason.to_owned() };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SavedError::Io { path, source }),
        };
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("it is no saved table of this version"))?;
        let (sum, body) =
            rest.split_at_checked(SHA256_OUTPUT_LEN).ok_or_else(|| damaged("it ends before its checksum"))?;
        if digest(&SHA256, body).as_ref() != sum {
            return Err(damaged("its checksum is wrong"));
        }
        let saved = SavedTable::decode(body).map_err(|error| damaged(&error.to_string()))?;
        let (mut reader, mut changes) = (Reader::default(), Changes::default());
        for update in saved.updates {
            let (_, mut part) = reader.read(update).map_err(|error| damaged(&error.to_string()))?;
            changes.zones.append(&mut part.zones);
            changes.identities.append(&mut part.identities);
        }
        let confirmed = saved.confirmed.and_then(|time| SystemTime::try_from(time).ok());
        Ok(Some(Self {
            position: saved.position.unwrap_or_default().into(),
            confirmed: confirmed.unwrap_or(SystemTime::UNIX_EPOCH),
            changes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::Endpoint,
        zones::{Place, Placement, Zone},
    };
    use meridian_abi::zone::PrefixKind;
    use std::{sync::Arc, time::Duration};

    #[test]
    fn what_was_saved_is_read_and_damage_is_noticed() {
        let folder = std::env::temp_dir().join(format!("meridian-saved-{}", std::process::id()));
        assert!(Saved::read(&folder).unwrap().is_none());
        let (table, index) = (SharedTable::default(), Index::default());
        let zone = Place::Zone(Arc::new(Zone { name: "eu-1a".into(), region: "eu-1".into() }));
        let placement = Placement { place: zone, kind: PrefixKind::Cluster, origin: "Node a".into() };
        let changes = Changes {
            zones: vec![("10.0.1.0/24".parse().unwrap(), Some(placement))],
            identities: vec![("10.0.1.1".parse().unwrap(), Some(Arc::new(Endpoint::node("a"))))],
        };
        table.write().apply(changes.zones.clone());
        index.apply(changes.identities.clone());
        let confirmed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let position = Position { instance: 7, version: 9 };
        Saved::prepare(&table, &index, position, confirmed).write(&folder).unwrap();
        let saved = Saved::read(&folder).unwrap().unwrap();
        assert_eq!((saved.position, saved.confirmed, saved.changes), (position, confirmed, changes));

        let path = folder.join(NAME);
        let good = fs::read(&path).unwrap();
        let damage = |bytes: &[u8], reason: &str| {
            fs::write(&path, bytes).unwrap();
            let error = Saved::read(&folder).unwrap_err().to_string();
            assert!(error.ends_with(reason), "{error}");
        };
        damage(b"", "it is no saved table of this version");
        damage(&good[..20], "it ends before its checksum");
        damage(&good[..good.len() - 1], "its checksum is wrong");
        let mut flipped = good.clone();
        flipped[60] ^= 1;
        damage(&flipped, "its checksum is wrong");
        fs::remove_dir_all(folder).unwrap();
    }
}
