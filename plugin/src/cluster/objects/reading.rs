//! Reads strings, lists, addresses and prefixes, and collects the problems.

use super::super::claims::truncate;
use ipnetwork::IpNetwork;
use serde_json::Value;
use std::net::IpAddr;

/// The problems found while reading an object.
#[derive(Default)]
pub(super) struct Reading(pub(super) Vec<String>);

impl Reading {
    pub(super) fn prefix(&mut self, text: &str, what: &str) -> Option<IpNetwork> {
        let network = text.parse().ok().and_then(|prefix: IpNetwork| {
            // An IPv4 prefix can be written as an IPv4-mapped IPv6 prefix.
            let mapped = prefix.prefix().checked_sub(96).filter(|_| prefix.is_ipv6());
            match (prefix.ip().to_canonical(), mapped) {
                (ip @ IpAddr::V4(_), Some(length)) => truncate(ip, length),
                _ => truncate(prefix.ip(), prefix.prefix()),
            }
        });
        if network.is_none() {
            self.0.push(format!("{what}: `{text}` is not a prefix"));
        }
        network
    }

    /// An address that traffic can come from; `None` without a problem if the text means that there is none.
    pub(super) fn address(&mut self, text: &str, what: &str) -> Option<IpAddr> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let Ok(address) = text.parse::<IpAddr>() else {
            self.0.push(format!("{what}: `{text}` is not an address"));
            return None;
        };
        let address = address.to_canonical();
        let is_nobodys = address.is_unspecified() || address.is_loopback() || address.is_multicast();
        (!is_nobodys).then_some(address)
    }

    /// A string at a path of a custom resource; any other type is a problem.
    pub(super) fn text<'a>(&mut self, at: &'a Value, path: &str) -> Option<&'a str> {
        match at.pointer(path) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => {
                self.0.push(format!("{path}: not a string"));
                None
            }
        }
    }

    /// A list at a path of a custom resource; any other type is a problem.
    pub(super) fn list<'a>(&mut self, at: &'a Value, path: &str) -> &'a [Value] {
        match at.pointer(path) {
            None | Some(Value::Null) => &[],
            Some(Value::Array(list)) => list,
            Some(_) => {
                self.0.push(format!("{path}: not a list"));
                &[]
            }
        }
    }

    pub(super) fn texts<'a>(&mut self, at: &'a Value, path: &str) -> Vec<&'a str> {
        let list = self.list(at, path);
        let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
        if texts.len() < list.len() {
            self.0.push(format!("{path}: not all of it are strings"));
        }
        texts
    }
}
