//! The last table on disk: a starting agent uses it until a controller answers.

use super::{Position, buckets::Bucket, client::buckets};
use crate::{
    atomic_file,
    identity::Index,
    proto::{v1::SavedTable, wire::put_bytes},
    wire::{Changes, Reader},
    zones::SharedTable,
};
use prost::Message;
use std::{path::Path, time::SystemTime};

const MAGIC: &atomic_file::Magic = b"mrdntbl1";
/// The field number of `SavedTable.updates`.
const UPDATES: u64 = 3;
/// The file's name in the state folder.
pub const NAME: &str = "table";

/// A saved table.
#[derive(Debug)]
pub struct Saved {
    /// The table's position in the controller's state.
    pub position: Position,
    /// The last time at which the table was known to agree with the controller.
    pub confirmed: SystemTime,
    /// The whole table.
    pub changes: Changes,
}

/// A table to be saved.
#[derive(Debug)]
pub struct Saving {
    buckets: Vec<Bucket>,
    position: Position,
    confirmed: SystemTime,
}

impl Saving {
    /// Writes the file.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(self, folder: &Path) -> Result<(), atomic_file::Error> {
        let saved = SavedTable {
            position: Some(self.position.into()),
            confirmed: Some(self.confirmed.into()),
            updates: Vec::new(),
        };
        let mut body = saved.encode_to_vec();
        // One bucket at a time: messages of the whole table would take several times the memory.
        self.buckets.iter().for_each(|bucket| put_bytes(UPDATES, &bucket.encode_added(), &mut body));
        atomic_file::write(&folder.join(NAME), MAGIC, &body, true)
    }
}

impl Saved {
    /// Prepares the table in force for saving.
    pub fn prepare(table: &SharedTable, index: &Index, position: Position, confirmed: SystemTime) -> Saving {
        Saving { buckets: buckets(table, index), position, confirmed }
    }

    /// Reads the saved table; `None` if there is none.
    ///
    /// # Errors
    /// The file can't be read, or is damaged.
    pub fn read(folder: &Path) -> Result<Option<Self>, atomic_file::Error> {
        let path = folder.join(NAME);
        let Some(body) = atomic_file::read(&path, MAGIC)? else { return Ok(None) };
        let damaged = |reason: &str| atomic_file::damaged(&path, reason);
        let saved = SavedTable::decode(body.as_slice()).map_err(|error| damaged(&error.to_string()))?;
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
    use std::{fs, sync::Arc, time::Duration};

    #[test]
    fn a_saved_table_is_read_and_a_damaged_one_is_refused() {
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
        damage(b"", "the file is of another version");
        damage(&good[..20], "the file ends before its checksum");
        damage(&good[..good.len() - 1], "its checksum is wrong");
        let mut flipped = good.clone();
        flipped[60] ^= 1;
        damage(&flipped, "its checksum is wrong");
        fs::remove_dir_all(folder).unwrap();
    }
}
