//! Reads strings, lists, addresses and prefixes, and collects the problems.

use super::super::claims::truncate;
use ipnetwork::IpNetwork;
use serde_json::Value;
use std::{
    fmt::{self, Write as _},
    net::IpAddr,
};

/// The problems found while reading an object.
#[derive(Default)]
pub(super) struct Reading {
    problems: Vec<String>,
    /// Problems beyond the limit.
    more: usize,
}

/// Problems of an object that are named.
const PROBLEMS: usize = 8;
/// Characters of a problem: it can hold a text of the object.
const PROBLEM: usize = 200;

impl Reading {
    /// Notes a part that could not be understood.
    pub(super) fn problem(&mut self, text: impl fmt::Display) {
        let text = start_of(&text);
        if self.problems.contains(&text) {
            // Two fields of an object can have the same text.
        } else if self.problems.len() < PROBLEMS {
            self.problems.push(text);
        } else {
            self.more += 1;
        }
    }

    /// The parts that could not be understood.
    pub(super) fn problems(self) -> Vec<String> {
        let Self { mut problems, more } = self;
        if more > 0 {
            problems.push(format!("{more} more"));
        }
        problems
    }

    pub(super) fn prefix(&mut self, text: &str, what: &str) -> Option<IpNetwork> {
        let network = text.parse().ok().and_then(|prefix: IpNetwork| {
            // An IPv4 prefix can be written as an IPv4-mapped IPv6 prefix.
            let mapped = prefix.prefix().checked_sub(96).filter(|_| prefix.is_ipv6());
            match (prefix.ip().to_canonical(), mapped) {
                (ip @ IpAddr::V4(_), Some(length)) => truncate(ip, length),
                _ => truncate(prefix.ip(), prefix.prefix()),
            }
        });
        match network {
            None => self.problem(format_args!("{what}: `{text}` is not a prefix")),
            // It would put the whole internet into the zone of a node.
            Some(all) if all.prefix() == 0 => {
                self.problem(format_args!("{what}: `{text}` is every address, and not a node's"));
                return None;
            }
            Some(_) => {}
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
            self.problem(format_args!("{what}: `{text}` is not an address"));
            return None;
        };
        let address = address.to_canonical();
        // Link-local addresses are of a link: many nodes have the same ones, and no packet with one is routed.
        let is_link_local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        let is_nobodys = address.is_unspecified() || address.is_loopback() || address.is_multicast();
        (!is_nobodys && !is_link_local).then_some(address)
    }

    /// A string at a path of a custom resource; any other type is a problem.
    pub(super) fn text<'a>(&mut self, at: &'a Value, path: &str) -> Option<&'a str> {
        match at.pointer(path) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => {
                self.problem(format_args!("{path}: not a string"));
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
                self.problem(format_args!("{path}: not a list"));
                &[]
            }
        }
    }

    pub(super) fn texts<'a>(&mut self, at: &'a Value, path: &str) -> Vec<&'a str> {
        let list = self.list(at, path);
        let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
        if texts.len() < list.len() {
            self.problem(format_args!("{path}: not all of it are strings"));
        }
        texts
    }
}

/// The start of a text, without the rest in memory.
fn start_of(text: &impl fmt::Display) -> String {
    struct Start(String, usize);
    impl fmt::Write for Start {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for character in text.chars() {
                if self.1 == 0 {
                    return Err(fmt::Error);
                }
                self.0.push(character);
                self.1 -= 1;
            }
            Ok(())
        }
    }
    let mut start = Start(String::new(), PROBLEM);
    let is_whole = write!(start, "{text}").is_ok();
    start.0 + if is_whole { "" } else { "…" }
}
