//! Messages from the watches to the publisher of the table.

use super::{
    facts::{Key, Kind},
    objects::ReadObject,
};
use std::collections::HashSet;
use tokio::sync::mpsc;

/// The limit of messages that wait for the publisher.
pub(super) const WAITING: usize = 1024;

/// A change seen by a watch, and its version.
#[derive(Debug)]
pub enum Message {
    /// The new state of an object.
    Set(Kind, ReadObject),
    /// An object was deleted.
    Gone(Kind, Key, String),
    /// A list is complete, with these objects.
    Listed(Kind, HashSet<Key>, String),
    /// Nothing has changed up to this version.
    Bookmark(Kind, String),
    /// The cluster does not have the kind.
    Absent(Kind),
    /// The kind's objects can't be read for now.
    Unavailable(Kind),
}

/// The channel from the watches to the publisher; a full channel makes watches wait.
pub fn messages() -> (mpsc::Sender<Message>, mpsc::Receiver<Message>) {
    mpsc::channel(WAITING)
}
