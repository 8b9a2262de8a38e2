//! The page in its two forms: OpenMetrics, and the older text form of Prometheus.

use super::{Page, Samples};
use prometheus_client::{encoding::text, registry::Registry};
use std::fmt;

/// The form of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    OpenMetrics,
    Prometheus,
}

impl Form {
    /// What a client asks for: OpenMetrics only if it says so.
    pub(super) fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The page of the samples as they are now.
pub(super) fn page(samples: &Samples, form: Form) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(samples.clone())));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(match form {
        Form::OpenMetrics => page,
        Form::Prometheus => older(&page),
    })
}

/// OpenMetrics names a counter without `_total` where it describes it; the older form does not, and
/// knows neither units nor an end mark.
fn older(page: &str) -> String {
    let mut counters: Vec<&str> = Vec::new();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")) {
            counters.push(name);
        }
    }
    let mut older = String::with_capacity(page.len());
    for line in page.lines() {
        let described = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        match described.and_then(|rest| rest.split_once(' ')) {
            Some((name, rest)) if counters.contains(&name) => {
                older.push_str(&format!("{}{name}_total {rest}\n", &line[..7]));
            }
            None if line.starts_with("# ") => {}
            _ => {
                older.push_str(line);
                older.push('\n');
            }
        }
    }
    older
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        demo::topology::place,
        metrics::{Sample, TableState},
        zones::{Matrix, Pair, Place},
    };
    use meridian_abi::{Counter, IpVersion, stats::Stat};
    use std::time::{Duration, UNIX_EPOCH};
    use tokio::sync::watch;

    fn samples() -> Samples {
        let mut matrix = Matrix::default();
        let pair = |to| Pair { source: place(0), destination: to, version: IpVersion::V4 };
        matrix.add(pair(place(2)), Counter { bytes: 1500, packets: 3 });
        matrix.add(pair(Place::Unknown), Counter { bytes: 40, packets: 1 });
        let sample = Sample {
            node: "node-1".into(),
            hook: "netfilter",
            matrix,
            stats: Stat::ALL.into_iter().map(|stat| (stat, Counter { bytes: 7, packets: 1 })).collect(),
            flow_entries: (2, 131_072),
            ring: (5, 4095, 9),
            table: TableState {
                prefixes: 25,
                loaded: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
                reloads: (1, 2),
            },
            drain_seconds: 0.25,
        };
        // The sender may go: the last value stays.
        watch::Sender::new(vec![sample]).subscribe()
    }

    #[test]
    fn the_older_form_is_what_prometheus_checks() {
        let page = page(&samples(), Form::Prometheus).unwrap();
        for line in [
            "# TYPE meridian_zone_bytes_total counter",
            r#"meridian_zone_bytes_total{source_zone="eu-1a",source_region="eu-1",destination_zone="eu-1b",destination_region="eu-1",locality="cross-zone",ip_version="4",direction="egress",node="node-1"} 1500"#,
            r#"meridian_zone_packets_total{source_zone="eu-1a",source_region="eu-1",destination_zone="unknown",destination_region="",locality="unknown",ip_version="4",direction="egress",node="node-1"} 1"#,
            r#"meridian_outside_packets_total{reason="delivered",node="node-1"} 1"#,
            r#"meridian_noted_bytes_total{reason="unattributed",node="node-1"} 7"#,
            r#"meridian_zone_table_reloads_total{result="refused",node="node-1"} 2"#,
            r#"meridian_drain_duration_seconds{node="node-1"} 0.25"#,
        ] {
            assert!(page.lines().any(|has| has == line), "{line}\nis not in\n{page}");
        }
        assert!(!page.contains("# EOF") && !page.contains("# UNIT"));
    }

    #[test]
    fn open_metrics_is_for_those_who_ask() {
        assert_eq!(Form::accepted("text/plain;version=0.0.4"), Form::Prometheus);
        assert_eq!(Form::accepted("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"), Form::OpenMetrics);
        let page = page(&samples(), Form::OpenMetrics).unwrap();
        assert!(page.contains("# UNIT meridian_zone_bytes bytes\n") && page.ends_with("# EOF\n"));
    }
}
