//! The answer to a what-if, as a table and as JSON.

use super::{
    finding::Monthly,
    form::line,
    json::amount,
    whatif::{Preferred, WhatIf, ZoneEndpoints, ZoneTraffic},
};
use crate::units::human;
use serde_json::{Value, json};
use std::fmt::Write;

impl WhatIf {
    /// The answer for people.
    pub fn table(&self) -> String {
        let preference = self.change.preference.map_or("no preference", Preferred::name);
        let mut text = format!("Service {} with {preference}\n", line(&self.change.service));
        // Writing to a string can't fail.
        if let Some(reason) = &self.ignored {
            let _ = writeln!(text, "The preference would change nothing: {}.", line(reason));
        }
        let _ = writeln!(
            text,
            "\n{:<16} {:<16} {:>12} {:>10} {:>12} {:>10}",
            "CLIENTS IN", "SERVERS IN", "A MONTH NOW", "USD", "THEN", "USD"
        );
        for ([clients, servers], ZoneTraffic { before, after }) in &self.pairs {
            let _ = writeln!(text, "{:<16} {:<16} {} {}", line(clients), line(servers), cells(before), cells(after));
        }
        let ZoneTraffic { before, after } = &self.crossing;
        let _ = writeln!(text, "{:<33} {} {}", "between zones", cells(before), cells(after));
        let _ = writeln!(
            text,
            "\n{:<16} {:>10} {:>10} {:>14} {:>14}",
            "ENDPOINTS IN", "NOW", "THEN", "EACH NOW", "EACH THEN"
        );
        for (zone, ZoneEndpoints { count, bytes }) in &self.endpoints {
            let each = |side: usize| bytes[side].checked_div(count[side].into()).map_or_else(|| "-".to_owned(), human);
            let zone = if zone.is_empty() { "no zone" } else { zone };
            let _ =
                writeln!(text, "{:<16} {:>10} {:>10} {:>14} {:>14}", line(zone), count[0], count[1], each(0), each(1));
        }
        text
    }

    /// The answer as JSON.
    pub fn json(&self) -> Value {
        let pair = |([clients, servers], traffic): (&[String; 2], &ZoneTraffic)| {
            json!({
                "client_zone": clients, "server_zone": servers,
                "before": amount(&traffic.before), "after": amount(&traffic.after),
            })
        };
        let endpoints = |(zone, of): (&String, &ZoneEndpoints)| {
            json!({
                "zone": zone, "endpoints_before": of.count[0], "endpoints_after": of.count[1],
                "bytes_per_month_before": of.bytes[0], "bytes_per_month_after": of.bytes[1],
            })
        };
        json!({
            "service": self.change.service,
            "preference": self.change.preference.map(Preferred::name),
            "ignored": self.ignored,
            "pairs": self.pairs.iter().map(pair).collect::<Vec<_>>(),
            "endpoints": self.endpoints.iter().map(endpoints).collect::<Vec<_>>(),
            "crossing": {"before": amount(&self.crossing.before), "after": amount(&self.crossing.after)},
        })
    }
}

/// Bytes and dollars.
fn cells(monthly: &Monthly) -> String {
    let usd = if monthly.bytes > 0 && monthly.unpriced_bytes == monthly.bytes {
        "unpriced".to_owned()
    } else {
        monthly.cost.rounded(2)
    };
    format!("{:>12} {usd:>10}", human(monthly.bytes))
}
