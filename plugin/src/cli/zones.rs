//! `meridian zones`: asks a table which zone an address is in.

use super::{Failure, config::SOCKET, print, usage};
use crate::{
    api::{self, Client, Target},
    proto::v1::Prefix,
    zones::StaticTable,
};
use clap::{Args, Subcommand};
use std::{fmt::Write, net::IpAddr, path::PathBuf};

/// Questions to a table.
#[derive(Debug, Subcommand)]
pub(super) enum Zones {
    /// The zone of an address, the prefix that says so and where that comes from.
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

/// Where the table is: that of the running agent, if nothing else is said.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Table {
    /// A static table to ask, without any agent.
    #[arg(long, env = "MERIDIAN_ZONES_FILE", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    zones_file: Option<PathBuf>,
    /// The agent to ask: HOST:PORT or unix:PATH.
    #[arg(long, env = "MERIDIAN_SERVER", value_name = "ADDRESS", default_value_t = Target::Unix(SOCKET.into()))]
    server: Target,
}

impl Table {
    fn file(&self) -> Result<Option<StaticTable>, Failure> {
        self.zones_file.as_deref().map(StaticTable::read).transpose().map_err(usage)
    }

    async fn lookup(&self, ip: IpAddr) -> Result<Option<Prefix>, Failure> {
        if let Some(table) = self.file()? {
            return Ok(table.zones.lookup(ip).map(|(network, placement)| api::prefix(&network, placement)));
        }
        let client = Client::connect(self.server.clone()).await.map_err(Failure::failed)?;
        client.lookup(ip.to_string()).await.map_err(Failure::failed)
    }

    async fn list(&self) -> Result<Vec<Prefix>, Failure> {
        if let Some(table) = self.file()? {
            return Ok(table.zones.prefixes().map(|(network, placement)| api::prefix(network, placement)).collect());
        }
        let client = Client::connect(self.server.clone()).await.map_err(Failure::failed)?;
        let mut prefixes = client.list().await.map_err(Failure::failed)?;
        let mut all = Vec::new();
        while let Some(prefix) = prefixes.next().await.map_err(Failure::failed)? {
            all.push(prefix);
        }
        Ok(all)
    }
}

pub(super) fn run(command: &Zones) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    let text = runtime.block_on(async {
        Ok(match command {
            Zones::Lookup { ip, table } => table
                .lookup(*ip)
                .await?
                .map_or_else(|| format!("{ip} is in no prefix\n"), |prefix| format!("{ip}  {}", line(&prefix))),
            Zones::List { table } => {
                let mut text = String::new();
                for prefix in table.list().await? {
                    // Writing to a string can't fail.
                    let _ = write!(text, "{}", line(&prefix));
                }
                text
            }
        })
    })?;
    print(&text)
}

fn line(prefix: &Prefix) -> String {
    let Prefix { cidr, zone, region, kind, origin } = prefix;
    let region = if region.is_empty() { "-" } else { region };
    format!("{cidr:<24} {zone:<12} {region:<10} {kind:<8} {origin}\n")
}
