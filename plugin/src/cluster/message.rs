//! Messages from the watches to the publisher of the table.

use super::{
    facts::{Key, Kind},
    objects::ReadObject,
};
use std::collections::HashSet;
use tokio::sync::mpsc;

/// Messages of the watches that wait to be taken.
pub(super) const WAITING: usize = 1024;

/// A change seen by a watch, and its version.
#[derive(Debug)]
pub enum Message {
    /// An object as it is now.
    Set(Kind, ReadObject),
    /// An object is no more.
    Gone(Kind, Key, String),
    /// A list is whole: these are all.
    Listed(Kind, HashSet<Key>, String),
    /// Nothing has changed up to this version.
    ReadObject(Kind, String),
    /// The cluster does not have the kind.
    Absent(Kind),
    /// Nothing can be known of the kind for now.
    Unavailable(Kind),
}

/// What watches say, and who hears it: who says more than can be taken waits.
pub fn messages() -> (mpsc::Sender<Message>, mpsc::Receiver<Message>) {
    mpsc::channel(WAITING)
}
