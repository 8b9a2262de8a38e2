//! Bounds: more pairs than there is room for, and names that a shell or a terminal would obey.

use super::{
    cluster::{Cluster, plain},
    *,
};
use crate::{
    catalogue::DataPlane,
    history::{Block, Builder, Ends, Server, Span, TransferService, Workload},
};
use meridian_abi::Counter;

fn block(hour: u64, pairs: usize) -> Block {
    let mut builder = Builder::new(Span::hour_of(hour * 3600), Builder::MAX_ROOM);
    let sites = ["a", "b"].map(|zone| cluster::site(Some("aws"), zone, None));
    let server = cluster::parse_workload("Deployment shop/server");
    let serving = TransferService { service: "shop/server", port: 80, protocol: 6, server: Server::Destination };
    for pair in 0..pairs {
        let client = Workload { name: format!("c{hour}-{pair}"), ..server.clone() };
        let ends = Ends { workloads: [&client, &server], sites: sites.each_ref() };
        builder.add(ends, serving, Counter { bytes: 1000, packets: 1 });
    }
    builder.add_recorded(3600);
    builder.block()
}

#[test]
fn pairs_beyond_the_limit_are_a_sum_that_is_said() {
    let mut traffic = Traffic::default();
    let (hours, pairs) = (3, 100_000);
    (0..hours).for_each(|hour| traffic.add(&block(hour, pairs)));
    assert_eq!(traffic.flows().len(), MAX_PAIRS);
    assert_eq!(traffic.left_out(), (hours * pairs as u64 - MAX_PAIRS as u64) * 1000);
    let advice = Advice { left_out_bytes: traffic.left_out(), recorded_ms: 1, ..Advice::default() };
    assert!(advice.table().contains("of pairs for which there was no room"));
}

#[test]
fn no_name_adds_a_line_or_a_command() {
    let evil = "x'; reboot #\n\u{2028}rm -rf /\u{1b}[2J";
    let mut cluster = Cluster::new("1.34", DataPlane::KubeProxy);
    for (service, server) in [
        (format!("shop/{evil}"), "Deployment shop/web".to_owned()),
        (String::new(), format!("StatefulSet shop/{evil}")),
    ] {
        let port = if service.is_empty() { 5432 } else { 80 };
        cluster = cluster
            .service(&service, &[("a", 1), ("b", 1)], plain)
            .sent(
                &format!("Deployment shop/{evil}@a"),
                &format!("{server}@b"),
                &format!("{service}:{port}"),
                [100, 100],
            )
            .sent(
                &format!("Deployment shop/{evil}@b"),
                &format!("{server}@b"),
                &format!("{service}:{port}"),
                [100, 100],
            );
    }
    let advice = cluster.advice(&Options::all());
    assert_eq!(advice.findings.len(), 2, "{advice:?}");
    let patches = advice.form(OutputFormat::Patch);
    assert!(patches.lines().all(|line| line.is_empty() || line.starts_with('#')), "{patches}");
    for text in [
        patches,
        advice.form(OutputFormat::Table),
        advice.form(OutputFormat::Markdown),
        advice.findings[0].explanation(),
    ] {
        assert!(!text.contains('\u{1b}') && !text.contains('\u{2028}') && !text.contains("\nrm"), "{text}");
    }
}
