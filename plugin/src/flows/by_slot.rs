//! Values by the slots of flow entries.

use super::entry::SlotId;

/// The slots whose values are allocated together.
const CHUNK: usize = 16;

/// Values by slot: an array in chunks, because entries are spread over all slots. A drain goes through the slots in their
/// order, and so through this memory.
#[derive(Debug)]
pub struct BySlot<T> {
    chunks: Vec<Option<Box<[Option<T>; CHUNK]>>>,
}

impl<T> Default for BySlot<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> BySlot<T> {
    /// The place of a slot's value.
    pub fn entry(&mut self, SlotId(slot): SlotId) -> &mut Option<T> {
        let chunk = slot / CHUNK;
        if chunk >= self.chunks.len() {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let chunk = self.chunks[chunk].get_or_insert_with(|| Box::new(std::array::from_fn(|_| None)));
        &mut chunk[slot % CHUNK]
    }

    /// Removes the value of a slot.
    pub fn remove(&mut self, SlotId(slot): SlotId) {
        if let Some(chunk) = self.chunks.get_mut(slot / CHUNK)
            && let Some(values) = chunk
        {
            values[slot % CHUNK] = None;
            if values.iter().all(Option::is_none) {
                *chunk = None;
            }
        }
    }

    /// The slots that have values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (SlotId, &T)> {
        let chunks = self.chunks.iter().enumerate();
        chunks.flat_map(|(chunk, values)| {
            let values = values.iter().flat_map(|values| values.iter().enumerate());
            values.filter_map(move |(at, value)| value.as_ref().map(|value| (SlotId(chunk * CHUNK + at), value)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_that_of_its_slot_until_it_is_removed() {
        let mut values = BySlot::default();
        for slot in [300, 7, 0, 8, 299] {
            *values.entry(SlotId(slot)) = Some(slot);
        }
        values.remove(SlotId(8));
        values.remove(SlotId(1_000_000));
        let all: Vec<_> = values.iter().map(|(SlotId(slot), value)| (slot, *value)).collect();
        assert_eq!(all, [(0, 0), (7, 7), (299, 299), (300, 300)]);
        assert_eq!((*values.entry(SlotId(8)), *values.entry(SlotId(9))), (None, None));
    }
}
