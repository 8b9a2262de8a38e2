//! `meridian zones`: asks a table which zone an address is in, and makes static tables.

use super::{Failure, plain::plain, print, server::connect, trust::TrustArgs, usage};
use crate::{
    api::Target,
    atomic_file, bounded_file,
    proto::v1::{self, LookupResponse, Prefix, StatusResponse},
    wire,
    zones::{
        StaticTable,
        import::{CloudOutput, ImportAs},
    },
};
use clap::{Args, Subcommand};
use std::{fmt::Write, net::IpAddr, path::PathBuf};

/// The size limit of a file to import.
const MAX_IMPORT: u64 = 256 << 20;

/// Queries of a zone table.
#[derive(Debug, Subcommand)]
pub(super) enum Zones {
    /// Prints the zone of an address, the prefix and the object that decide, and the endpoint behind the address.
    Lookup {
        /// An IPv4 or IPv6 address.
        ip: IpAddr,
        #[command(flatten)]
        table: Table,
        #[command(flatten)]
        trust: TrustArgs,
    },
    /// Lists every prefix with its zone and region.
    List {
        #[command(flatten)]
        table: Table,
        #[command(flatten)]
        trust: TrustArgs,
    },
    /// Prints the state of a controller's watches, and the agents that are behind.
    Status {
        /// Controller to query, HOST:PORT or unix:PATH. Default: as for `lookup`.
        #[arg(long, env = "MERIDIAN_SERVER", value_name = "ADDRESS")]
        server: Option<Target>,
        #[command(flatten)]
        trust: TrustArgs,
    },
    /// Makes a static table, zones.yaml, of the JSON that a cloud's own command line prints.
    #[command(subcommand)]
    Import(Import),
}

/// The output to import.
#[derive(Debug, Subcommand)]
pub(super) enum Import {
    /// Imports the output of `aws ec2 describe-subnets`: a subnet is in one zone, so every address of the network gets
    /// one.
    AwsSubnets(ImportArgs),
    /// Imports the output of `aws ec2 describe-instances`.
    AwsInstances(ImportArgs),
    /// Imports the output of `gcloud compute instances list --format=json`.
    GcpInstances(ImportArgs),
}

/// The file to import, and the one to write.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// File with the output.
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Write external prefixes of the class `vm`: machines without an agent. Without it, prefixes of zones.
    #[arg(long)]
    external: bool,
    /// File to write instead of stdout.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
}

impl Import {
    /// Imports, and checks the table as an agent would.
    fn run(&self) -> Result<(), Failure> {
        let (source, args) = match self {
            Self::AwsSubnets(args) => (CloudOutput::AwsSubnets, args),
            Self::AwsInstances(args) => (CloudOutput::AwsInstances, args),
            Self::GcpInstances(args) => (CloudOutput::GcpInstances, args),
        };
        let of_file = |error: &dyn std::fmt::Display| usage(plain(&format!("{}: {error}", args.file.display())));
        let json = bounded_file::read(&args.file, MAX_IMPORT).map_err(|error| of_file(&error))?;
        let kind = if args.external { ImportAs::Machines } else { ImportAs::Zones };
        let table = source.table(&json, kind).map_err(|error| of_file(&error))?;
        StaticTable::parse(&args.file, table.as_bytes()).map_err(usage)?;
        match &args.output {
            None => print(&table),
            Some(path) => atomic_file::replace(path, &[table.as_bytes()], true).map_err(Failure::failed),
        }
    }
}

/// The source of the table: by default the agent or controller of this machine.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Table {
    /// File with a static table to query, without an agent.
    #[arg(long, env = "MERIDIAN_ZONES_FILE", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    zones_file: Option<PathBuf>,
    /// Agent or controller to query, HOST:PORT or unix:PATH. Default: the agent's socket, or 127.0.0.1:4344 if there is
    /// none, as in a controller's pod.
    #[arg(long, env = "MERIDIAN_SERVER", value_name = "ADDRESS")]
    server: Option<Target>,
}

impl Table {
    fn file(&self) -> Result<Option<StaticTable>, Failure> {
        self.zones_file.as_deref().map(StaticTable::read).transpose().map_err(usage)
    }

    async fn lookup(&self, ip: IpAddr, trust: &TrustArgs) -> Result<Option<LookupResponse>, Failure> {
        let ip = ip.to_canonical();
        if let Some(table) = self.file()? {
            let endpoint = table.endpoints.iter().find(|entry| entry.ip == ip);
            let endpoint = endpoint.map(|entry| wire::endpoint_message(ip, &entry.into()));
            let found = table.zones.lookup(ip).map(|(network, placement)| wire::prefix(&network, placement));
            return Ok(found.map(|prefix| LookupResponse { prefix: Some(prefix), endpoint }));
        }
        let client = connect(self.server.as_ref(), trust).await?;
        client.lookup(ip.to_string()).await.map_err(Failure::failed)
    }

    async fn list(&self, trust: &TrustArgs) -> Result<Vec<Prefix>, Failure> {
        if let Some(table) = self.file()? {
            return Ok(table.zones.prefixes().map(|(network, placement)| wire::prefix(network, placement)).collect());
        }
        let client = connect(self.server.as_ref(), trust).await?;
        let mut prefixes = client.list().await.map_err(Failure::failed)?;
        let mut all = Vec::new();
        while let Some(prefix) = prefixes.next().await.map_err(Failure::failed)? {
            all.push(prefix);
        }
        Ok(all)
    }
}

pub(super) fn run(command: &Zones) -> Result<(), Failure> {
    if let Zones::Import(import) = command {
        return import.run();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    let text = runtime.block_on(async {
        Ok::<_, Failure>(match command {
            Zones::Lookup { ip, table, trust } => table
                .lookup(*ip, trust)
                .await?
                .map_or_else(|| format!("{ip} is in no prefix\n"), |answer| found(*ip, &answer)),
            Zones::List { table, trust } => {
                let mut text = String::new();
                for prefix in table.list(trust).await? {
                    // Writing to a string can't fail.
                    let _ = write!(text, "{}", line(&prefix));
                }
                text
            }
            Zones::Status { server, trust } => {
                let client = connect(server.as_ref(), trust).await?;
                status(&client.status().await.map_err(Failure::failed)?)
            }
            Zones::Import(_) => String::new(),
        })
    })?;
    print(&text)
}

fn found(ip: IpAddr, answer: &LookupResponse) -> String {
    let prefix = answer.prefix.as_ref().map(line).unwrap_or_default();
    let endpoint = answer
        .endpoint
        .as_ref()
        .map(|endpoint| format!("{ip}  {}\n", plain(&endpoint_line(endpoint))))
        .unwrap_or_default();
    format!("{ip}  {prefix}{endpoint}")
}

fn endpoint_line(endpoint: &v1::Endpoint) -> String {
    let v1::Endpoint { namespace, pod, workload_kind, workload, services, node, .. } = endpoint;
    if pod.is_empty() {
        return format!("{workload_kind} {workload}");
    }
    let mut parts = vec![format!("Pod {namespace}/{pod}")];
    if !workload.is_empty() {
        parts.push(format!("{workload_kind} {workload}"));
    }
    if !services.is_empty() {
        parts.push(format!("Service {}", services.join(", ")));
    }
    if !node.is_empty() {
        parts.push(format!("on {node}"));
    }
    parts.join(", ")
}

fn status(status: &StatusResponse) -> String {
    let version = status.position.map_or(0, |position| position.version);
    let mut text = format!("{:<22} {:<14} OBJECTS\n", "KIND", "STATE");
    for kind in &status.kinds {
        let error = if kind.error.is_empty() { String::new() } else { format!("  {}", kind.error) };
        // Writing to a string can't fail.
        let _ = writeln!(text, "{}", plain(&format!("{:<22} {:<14} {}{error}", kind.name, kind.state, kind.objects)));
    }
    let behind: Vec<_> = status.agents.iter().filter(|agent| agent.acknowledged < version).collect();
    let (agents, late) = (status.agents.len(), behind.len());
    let _ = writeln!(text, "\nversion {version}, {agents} agents follow this replica, {late} of them behind");
    let nodes = status.kinds.iter().find(|kind| kind.name == "Node").map_or(0, |kind| kind.objects);
    if let Some(others @ 1..) = nodes.checked_sub(agents as u64) {
        let _ = writeln!(text, "the agents of {others} more nodes follow other replicas of the controller, or none");
    }
    for agent in behind {
        let _ = writeln!(text, "{} has version {}", plain(&agent.node), agent.acknowledged);
    }
    text
}

fn line(prefix: &Prefix) -> String {
    let Prefix { cidr, zone, region, kind, origin } = prefix;
    let region = if region.is_empty() { "-" } else { region };
    plain(&format!("{cidr:<24} {zone:<12} {region:<10} {kind:<8} {origin}")) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::plain::tests::{HOSTILE, is_harmless},
        proto::v1::{Position, status_response},
    };

    #[test]
    fn the_status_names_the_controller_of_its_agents() {
        let kind =
            status_response::Kind { name: "Node".into(), state: "watching".into(), objects: 3, ..Default::default() };
        let agent =
            |node: &str, acknowledged| status_response::Agent { node: node.into(), acknowledged, connected: None };
        let answer = StatusResponse {
            position: Some(Position { instance: 1, version: 9 }),
            kinds: vec![kind],
            agents: vec![agent("a", 9), agent("b", 7)],
        };
        let text = status(&answer);
        assert!(text.contains("\nversion 9, 2 agents follow this replica, 1 of them behind\n"), "{text}");
        assert!(
            text.contains("the agents of 1 more nodes follow other replicas of the controller, or none\nb has"),
            "{text}"
        );
        let all = StatusResponse { agents: vec![agent("a", 9); 3], ..answer };
        assert!(!status(&all).contains("other replicas"));
    }

    #[test]
    fn no_answer_holds_anything_that_a_terminal_obeys() {
        let name = || HOSTILE.to_owned();
        let prefix = Prefix { cidr: name(), zone: name(), region: name(), kind: name(), origin: name() };
        let endpoint = v1::Endpoint {
            address: name(),
            namespace: name(),
            pod: name(),
            workload_kind: name(),
            workload: name(),
            services: vec![name()],
            node: name(),
            ..v1::Endpoint::default()
        };
        let node = v1::Endpoint { pod: String::new(), ..endpoint.clone() };
        let ip = IpAddr::from([10, 0, 0, 9]);
        for endpoint in [endpoint, node] {
            let answer = LookupResponse { prefix: Some(prefix.clone()), endpoint: Some(endpoint) };
            let text = found(ip, &answer);
            assert!(is_harmless(&text) && text.lines().count() == 2, "{text}");
        }
        let kind = status_response::Kind { name: name(), state: name(), error: name(), ..Default::default() };
        let agents = vec![status_response::Agent { node: name(), ..Default::default() }];
        let position = Some(v1::Position { instance: 1, version: 1 });
        let text = status(&StatusResponse { position, kinds: vec![kind], agents });
        assert!(is_harmless(&text), "{text}");
    }
}
