//! `meridian zones`: asks a table which zone an address is in.

use super::{Failure, print};
use crate::zones::{Placement, StaticTable};
use clap::{Args, Subcommand};
use ipnetwork::IpNetwork;
use meridian_abi::zone::PrefixKind;
use std::{fmt::Write, net::IpAddr, path::PathBuf};

/// Questions to a table.
#[derive(Debug, Subcommand)]
pub(super) enum Zones {
    /// The zone of an address and the prefix that says so.
    Lookup {
        /// An IPv4 or IPv6 address.
        ip: IpAddr,
        #[command(flatten)]
        table: Table,
    },
    /// Every prefix, its zone and region.
    List {
        #[command(flatten)]
        table: Table,
    },
}

#[derive(Debug, Args)]
pub(super) struct Table {
    /// The static table to ask.
    #[arg(long, env = "MERIDIAN_ZONES_FILE", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    zones_file: PathBuf,
}

impl Table {
    fn read(&self) -> Result<StaticTable, Failure> {
        StaticTable::read(&self.zones_file).map_err(|error| Failure::Usage(error.to_string()))
    }
}

pub(super) fn run(command: &Zones) -> Result<(), Failure> {
    match command {
        Zones::Lookup { ip, table } => {
            let table = table.read()?;
            let line = table.zones.lookup(*ip).map_or_else(
                || format!("{ip} is in no prefix\n"),
                |(prefix, placement)| format!("{ip}  {}", line(&prefix, placement)),
            );
            print(&line)
        }
        Zones::List { table } => {
            let table = table.read()?;
            let mut text = String::new();
            for (prefix, placement) in table.zones.prefixes() {
                // Writing to a string can't fail.
                let _ = write!(text, "{}", line(prefix, placement));
            }
            print(&text)
        }
    }
}

fn line(prefix: &IpNetwork, placement: &Placement) -> String {
    let region = placement.place.zone().map_or("-", |zone| zone.region.as_str());
    let kind = match placement.kind {
        PrefixKind::Default => "default",
        PrefixKind::Cluster => "cluster",
        PrefixKind::External => "external",
    };
    format!("{:<24} {:<12} {region:<10} {kind}\n", prefix.to_string(), placement.place.to_string())
}
