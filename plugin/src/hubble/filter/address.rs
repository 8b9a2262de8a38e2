//! Filters by IP address: equal text, or inside a prefix.

use super::{
    field::{FlowCheck, ip},
    go::quote,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `number` is the field number of the address in `flow.IP`.
pub(super) fn check(texts: &[String], number: u64) -> Result<FlowCheck, String> {
    let (mut addresses, mut prefixes) = (Vec::new(), Vec::new());
    for text in texts {
        if text.contains('/') {
            let prefix =
                Prefix::parse(text).map_err(|error| format!("invalid IP prefix {} in filter: {error}", quote(text)))?;
            prefixes.push(prefix);
        } else {
            parse_address(text).map_err(|error| format!("invalid IP address {} in filter: {error}", quote(text)))?;
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

/// An address, for IPv6 with an optional zone.
fn parse_address(text: &str) -> Result<IpAddr, String> {
    let failed = |why: &str| Err(format!("ParseAddr({}): {why}", quote(text)));
    // The first separator decides the version, as in Go.
    match text.chars().find(|char| matches!(char, '.' | ':' | '%')) {
        Some('.') => parse_v4(text).map(IpAddr::V4).or_else(|why| failed(&why)),
        Some(':') => {
            let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
            if zone == Some("") {
                return failed("zone must be a non-empty string");
            }
            address.parse::<Ipv6Addr>().map(IpAddr::V6).or_else(|_| failed("unable to parse IP"))
        }
        Some(_) => failed("missing IPv6 address"),
        None => failed("unable to parse IP"),
    }
}

fn parse_v4(text: &str) -> Result<Ipv4Addr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let at = |rest: &str| format!("unexpected character (at {})", quote(rest));
    let (mut fields, mut value, mut digits) = (0, 0u32, 0);
    for (index, char) in text.char_indices() {
        match char {
            '0'..='9' => {
                if digits == 1 && value == 0 {
                    return Err("IPv4 field has octet with leading zero".into());
                }
                value = value * 10 + char as u32 - '0' as u32;
                digits += 1;
                if value > 255 {
                    return Err("IPv4 field has value >255".into());
                }
            }
            '.' => {
                if index == 0 || index == text.len() - 1 || text.as_bytes()[index - 1] == b'.' {
                    return Err(format!("IPv4 field must have at least one digit (at {})", quote(&text[index..])));
                }
                if fields == 3 {
                    return Err("IPv4 address too long".into());
                }
                (fields, value, digits) = (fields + 1, 0, 0);
            }
            _ => return Err(at(&text[index..])),
        }
    }
    Err("IPv4 address too short".into())
}

/// An address and its number of leading bits that count.
struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    fn parse(text: &str) -> Result<Self, String> {
        let failed = |why: String| Err(format!("netip.ParsePrefix({}): {why}", quote(text)));
        let Some((address, bits_text)) = text.rsplit_once('/') else { return failed("no '/'".into()) };
        let address = match parse_address(address) {
            Ok(_) if address.contains('%') => return failed("IPv6 zones cannot be present in a prefix".into()),
            Ok(address) => address,
            Err(why) => return failed(why),
        };
        let bad = || failed(format!("bad bits after slash: {}", quote(bits_text)));
        let digits = bits_text.bytes().all(|byte| byte.is_ascii_digit());
        if bits_text.is_empty() || !digits || (bits_text.len() > 1 && bits_text.starts_with('0')) {
            return bad();
        }
        let longest = if address.is_ipv4() { 32 } else { 128 };
        match bits_text.parse::<u64>() {
            Ok(bits) if bits <= longest => Ok(Self { address, bits: bits as u8 }),
            Ok(_) => failed("prefix length out of range".into()),
            Err(_) => bad(),
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
