//! Reads and writes encoded messages in place, for code that needs a few fields of many messages.

use prost::bytes::BufMut;
use prost::encoding::{WireType, decode_varint, encode_varint, encoded_len_varint};

/// An encoded message. Reading stops at the first malformed field.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a>(pub &'a [u8]);

/// A field of an encoded message.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// The field's number.
    pub number: u64,
    /// The field's value.
    pub value: Value<'a>,
    /// The encoded field, its key included.
    pub whole: &'a [u8],
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, a bool or an enum's value.
    Varint(u64),
    /// A double or another number of eight bytes.
    Fixed64(u64),
    /// A float or another number of four bytes.
    Fixed32(u32),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
}

impl<'a> Message<'a> {
    /// The fields in the order of their encoding.
    pub const fn fields(self) -> Fields<'a> {
        Fields(self.0)
    }

    /// The values of a field.
    pub fn values(self, number: u64) -> impl Iterator<Item = Value<'a>> {
        self.fields().filter(move |field| field.number == number).map(|field| field.value)
    }

    /// The first value of a field, if it is set. Messages encoded by this process have each field once; protobuf would
    /// take the last value.
    pub fn value(self, number: u64) -> Option<Value<'a>> {
        self.values(number).next()
    }

    /// A number, a bool or an enum's value; 0 if it is unset.
    pub fn varint(self, number: u64) -> u64 {
        match self.value(number) {
            Some(Value::Varint(value)) => value,
            _ => 0,
        }
    }

    /// A bool; false if it is unset.
    pub fn bool(self, number: u64) -> bool {
        self.varint(number) != 0
    }

    /// The strings of a field.
    pub fn strings(self, number: u64) -> impl Iterator<Item = &'a str> {
        self.values(number).map(Value::text)
    }

    /// A string; empty if it is unset.
    pub fn string(self, number: u64) -> &'a str {
        self.value(number).map_or("", Value::text)
    }

    /// The messages of a field.
    pub fn messages(self, number: u64) -> impl Iterator<Item = Self> {
        self.values(number).map(Value::message)
    }

    /// The message in a field, if it is set.
    pub fn message(self, number: u64) -> Option<Self> {
        self.value(number).map(Value::message)
    }
}

impl<'a> Value<'a> {
    const fn bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// The value as a string; empty if it is none.
    pub fn text(self) -> &'a str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }

    /// The value as a message; empty if it is none.
    pub const fn message(self) -> Message<'a> {
        Message(self.bytes())
    }
}

/// The fields of a message.
#[derive(Clone, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let start = std::mem::take(&mut self.0);
        let mut rest = start;
        let key = varint(&mut rest)?;
        let value = match WireType::try_from(key & 7).ok()? {
            WireType::Varint => Value::Varint(varint(&mut rest)?),
            WireType::SixtyFourBit => Value::Fixed64(u64::from_le_bytes(*rest.split_off(..8)?.as_array()?)),
            WireType::ThirtyTwoBit => Value::Fixed32(u32::from_le_bytes(*rest.split_off(..4)?.as_array()?)),
            WireType::LengthDelimited => {
                let len = usize::try_from(varint(&mut rest)?).ok()?;
                Value::Bytes(rest.split_off(..len)?)
            }
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        self.0 = rest;
        Some(Field { number: key >> 3, value, whole: &start[..start.len() - rest.len()] })
    }
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    // Nearly all keys and lengths are one byte.
    if let [first @ ..0x80, rest @ ..] = from {
        *from = rest;
        return Some(u64::from(*first));
    }
    decode_varint(from).ok()
}

/// Appends a number, a bool or an enum's value.
pub fn put_varint(number: u64, value: u64, to: &mut impl BufMut) {
    encode_varint(number << 3, to);
    encode_varint(value, to);
}

/// Appends a double.
pub fn put_double(number: u64, value: f64, to: &mut impl BufMut) {
    encode_varint(number << 3 | WireType::SixtyFourBit as u64, to);
    to.put_f64_le(value);
}

/// Appends a string, bytes or a message.
pub fn put_bytes(number: u64, bytes: &[u8], to: &mut impl BufMut) {
    put_len(number, bytes.len(), to);
    to.put_slice(bytes);
}

/// Appends the key and length that precede a string, bytes or a message.
pub fn put_len(number: u64, len: usize, to: &mut impl BufMut) {
    let key = number << 3 | WireType::LengthDelimited as u64;
    // In one call: a buffer that grows for each byte is slow. Nearly all keys and lengths are short.
    match (key, len) {
        (..0x80, ..0x80) => to.put_slice(&[key as u8, len as u8]),
        (..0x80, ..0x4000) => to.put_slice(&[key as u8, len as u8 | 0x80, (len >> 7) as u8]),
        _ => {
            encode_varint(key, to);
            encode_varint(len as u64, to);
        }
    }
}

/// The encoded size of a string, bytes or a message of this length, key and length included.
pub const fn len_of_bytes(number: u64, len: usize) -> usize {
    encoded_len_varint(number << 3) + encoded_len_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{
        flow::{Endpoint, Flow, TcpFlags},
        number,
    };
    use prost::Message as _;

    #[test]
    fn fields_are_read_by_number() {
        let labels = vec!["a=b".to_owned(), "c".to_owned()];
        let source = Endpoint { id: 300, labels, namespace: "shop".into(), ..Endpoint::default() };
        let flow = Flow { source: Some(source.clone()), verdict: 2, ..Flow::default() };
        let bytes = flow.encode_to_vec();
        let message = Message(&bytes);
        assert_eq!(message.varint(number::flow::VERDICT), 2);
        let end = message.message(number::flow::SOURCE).unwrap();
        assert_eq!((end.varint(number::endpoint::ID), end.string(number::endpoint::NAMESPACE)), (300, "shop"));
        assert!(end.strings(number::endpoint::LABELS).eq(["a=b", "c"]));
        assert!(message.message(number::flow::DESTINATION).is_none());
        let whole: Vec<u8> = message.fields().flat_map(|field| field.whole.to_vec()).collect();
        assert_eq!(whole, bytes);
    }

    #[test]
    fn encoded_messages_can_be_decoded() {
        let mut bytes = Vec::new();
        put_bytes(number::endpoint::NAMESPACE, b"shop", &mut bytes);
        assert_eq!(bytes.len(), len_of_bytes(number::endpoint::NAMESPACE, 4));
        let expected = Endpoint { namespace: "shop".into(), ..Endpoint::default() };
        assert_eq!(Endpoint::decode(bytes.as_slice()).unwrap(), expected);
        for len in [0, 1, 127, 128, 16_383, 16_384, 2_097_152] {
            let (mut bytes, text) = (Vec::new(), "x".repeat(len));
            put_bytes(number::flow::UUID, text.as_bytes(), &mut bytes);
            assert_eq!(bytes.len(), len_of_bytes(number::flow::UUID, len));
            assert_eq!(Flow::decode(bytes.as_slice()).unwrap().uuid.len(), len);
        }
        let mut flags = Vec::new();
        put_varint(number::tcpflags::SYN, 1, &mut flags);
        assert!(TcpFlags::decode(flags.as_slice()).unwrap().syn);
    }

    #[test]
    fn a_message_that_is_cut_ends_without_a_panic() {
        let flow = Flow { uuid: "u".repeat(200), ..Flow::default() };
        let bytes = flow.encode_to_vec();
        for len in 0..bytes.len() {
            assert!(Message(&bytes[..len]).fields().count() <= 1);
        }
        assert_eq!(Message(&[0x0b, 0x0c]).fields().count(), 0, "groups are not used");
        assert_eq!(Message(&[0xff; 20]).fields().count(), 0);
    }
}
