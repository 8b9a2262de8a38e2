//! Filters by IP address: equal text, or inside a prefix.

use super::{
    field::{FlowCheck, ip},
    go::quote,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `number` is the field number of the address in `flow.IP`.
pub(super) fn check(texts: &[String], number: u64) -> Result<FlowCheck, Box<InvalidIp>> {
    let (mut addresses, mut prefixes) = (Vec::new(), Vec::new());
    for text in texts {
        if text.contains('/') {
            let refused = |source| Box::new(InvalidIp::Prefix { text: text.clone(), source });
            prefixes.push(Prefix::parse(text).map_err(refused)?);
        } else {
            parse_address(text).map_err(|source| Box::new(InvalidIp::Address { text: text.clone(), source }))?;
            addresses.push(text.clone());
        }
    }
    Ok(Box::new(move |flow| {
        let Some(has) = ip(flow).map(|ip| ip.string(number)).filter(|has| !has.is_empty()) else { return false };
        // Addresses are compared as text, as in Hubble: another notation of an address does not match.
        if addresses.iter().any(|address| address == has) {
            return true;
        }
        !prefixes.is_empty()
            && has.parse().is_ok_and(|address: IpAddr| prefixes.iter().any(|prefix| prefix.contains(address)))
    }))
}

/// A text that is no address or prefix, in Hubble's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIp {
    /// It is no address.
    #[error("invalid IP address {} in filter: {source}", quote(text))]
    Address {
        /// The text.
        text: String,
        /// Why.
        source: InvalidAddress,
    },
    /// It is no prefix.
    #[error("invalid IP prefix {} in filter: netip.ParsePrefix({}): {source}", quote(text), quote(text))]
    Prefix {
        /// The text.
        text: String,
        /// Why.
        source: InvalidPrefix,
    },
}

/// A text that is no address, as Go's `netip.ParseAddr` has it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ParseAddr({}): {fault}", quote(text))]
pub struct InvalidAddress {
    text: String,
    fault: AddressFault,
}

/// The fault of an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum AddressFault {
    #[error("unable to parse IP")]
    Unreadable,
    #[error("missing IPv6 address")]
    OnlyZone,
    #[error("zone must be a non-empty string")]
    EmptyZone,
    #[error("unexpected character (at {})", quote(.0))]
    Unexpected(String),
    #[error("IPv4 field has octet with leading zero")]
    LeadingZero,
    #[error("IPv4 field has value >255")]
    Large,
    #[error("IPv4 field must have at least one digit (at {})", quote(.0))]
    NoDigit(String),
    #[error("IPv4 address too long")]
    Long,
    #[error("IPv4 address too short")]
    Short,
}

/// The fault of a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrefix {
    /// It has no length.
    #[error("no '/'")]
    NoLength,
    /// Its address has a zone.
    #[error("IPv6 zones cannot be present in a prefix")]
    Zone,
    /// Its address is none.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// Its length is no number.
    #[error("bad bits after slash: {}", quote(.0))]
    Bits(String),
    /// Its length is more than an address has.
    #[error("prefix length out of range")]
    Long,
}

/// An address, for IPv6 with an optional zone.
fn parse_address(text: &str) -> Result<IpAddr, InvalidAddress> {
    let failed = |fault| Err(InvalidAddress { text: text.to_owned(), fault });
    // The first separator decides the version, as in Go.
    match text.chars().find(|char| matches!(char, '.' | ':' | '%')) {
        Some('.') => parse_v4(text).map(IpAddr::V4).or_else(failed),
        Some(':') => {
            let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
            if zone == Some("") {
                return failed(AddressFault::EmptyZone);
            }
            address.parse::<Ipv6Addr>().map(IpAddr::V6).or_else(|_| failed(AddressFault::Unreadable))
        }
        Some(_) => failed(AddressFault::OnlyZone),
        None => failed(AddressFault::Unreadable),
    }
}

fn parse_v4(text: &str) -> Result<Ipv4Addr, AddressFault> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (mut fields, mut value, mut digits) = (0, 0u32, 0);
    for (index, char) in text.char_indices() {
        match char {
            '0'..='9' => {
                if digits == 1 && value == 0 {
                    return Err(AddressFault::LeadingZero);
                }
                value = value * 10 + char as u32 - '0' as u32;
                digits += 1;
                if value > 255 {
                    return Err(AddressFault::Large);
                }
            }
            '.' => {
                if index == 0 || index == text.len() - 1 || text.as_bytes()[index - 1] == b'.' {
                    return Err(AddressFault::NoDigit(text[index..].to_owned()));
                }
                if fields == 3 {
                    return Err(AddressFault::Long);
                }
                (fields, value, digits) = (fields + 1, 0, 0);
            }
            _ => return Err(AddressFault::Unexpected(text[index..].to_owned())),
        }
    }
    Err(AddressFault::Short)
}

/// An address and its number of leading bits that count.
struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    fn parse(text: &str) -> Result<Self, InvalidPrefix> {
        let (address, bits_text) = text.rsplit_once('/').ok_or(InvalidPrefix::NoLength)?;
        let has_zone = address.contains('%');
        let address = parse_address(address)?;
        if has_zone {
            return Err(InvalidPrefix::Zone);
        }
        let bad = || InvalidPrefix::Bits(bits_text.to_owned());
        let digits = bits_text.bytes().all(|byte| byte.is_ascii_digit());
        if bits_text.is_empty() || !digits || (bits_text.len() > 1 && bits_text.starts_with('0')) {
            return Err(bad());
        }
        let longest = if address.is_ipv4() { 32 } else { 128 };
        match bits_text.parse::<u64>() {
            Ok(bits) if bits <= longest => Ok(Self { address, bits: bits as u8 }),
            Ok(_) => Err(InvalidPrefix::Long),
            Err(_) => Err(bad()),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u8| (a ^ b).checked_shr((width - self.bits).into()).unwrap_or(0) == 0;
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}
