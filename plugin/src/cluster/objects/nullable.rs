//! Fields that are null. The API server leaves out a field without a value; other servers and clients write null, and one
//! object must not make the list of all unreadable.

use serde::{Deserialize, Deserializer};

/// A value, or the default where it is null.
///
/// # Errors
/// It is neither.
pub(super) fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
