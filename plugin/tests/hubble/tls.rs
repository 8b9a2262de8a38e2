//! TLS of Hubble's services: which clients are accepted, which are refused and why, and the streams when certificates
//! change.

use crate::{
    certificates::{Authority, Issued, SERVERS},
    cli::{Server, command, serve},
    ports::free_address,
    recorded::flows,
    relay::Lab,
};
use meridian::{
    hubble::services::{observer_client::ObserverClient, peer_client::PeerClient},
    proto::{observer::GetFlowsRequest, peer::NotifyRequest},
};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const TIMEOUT: Duration = Duration::from_secs(60);
/// A server's name that the certificate covers.
const NAME: &str = "node-1.default.hubble-grpc.cilium.io";

/// A server with this certificate, for clients whose certificates the authority has signed.
fn server(lab: &Lab, issued: &Issued, clients: &Path, args: &[&str]) -> Server {
    let [certificate, key] = issued.files();
    let tls = ["--hubble-tls-cert-file", certificate, "--hubble-tls-key-file", key];
    let clients = ["--hubble-tls-client-ca-files", clients.to_str().unwrap()];
    lab.ours_at(0, free_address(), &[&tls[..], &clients[..], args].concat())
}

/// `hubble status` over TLS: exit code and output.
fn status(lab: &Lab, server: &Server, authority: &Path, name: &str, client: Option<&Issued>) -> String {
    let mut command = command(&lab.hubble, &server.at, &lab.folder, "status --tls");
    command.args(["--tls-ca-cert-files", authority.to_str().unwrap(), "--tls-server-name", name]);
    if let Some(client) = client {
        let [certificate, key] = client.files();
        command.args(["--tls-client-cert-file", certificate, "--tls-client-key-file", key]);
    }
    let output = command.output().unwrap();
    format!("exit {:?}: {}", output.status.code(), String::from_utf8_lossy(&output.stderr))
}

fn wait_for_line(server: &Server, text: &str) {
    let end = Instant::now() + TIMEOUT;
    while !server.log().contains(text) {
        assert!(Instant::now() < end, "it does not say {text}:\n{}", server.log());
        sleep(Duration::from_millis(20));
    }
}

/// The value of a series of a server's metrics.
fn metric(at: &str, series: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(at).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
#[ignore = "needs the programs of conformance/hubble: scripts/test.sh hubble"]
fn the_log_has_the_reason_of_a_refused_connection() {
    let lab = Lab::new("tls");
    let (ours, other) = (Authority::new(&lab.folder, "ours"), Authority::new(&lab.folder, "other"));
    let http = free_address();
    let good = server(&lab, &ours.until("server", SERVERS, 2040), &ours.file, &["--http-listen", &http]);
    let client = ours.issue("client", "*.hubble-relay.cilium.io");
    let output = status(&lab, &good, &ours.file, NAME, Some(&client));
    assert!(output.starts_with("exit Some(0)"), "{output}\n{}", good.log());
    let expires = metric(&http, "meridian_tls_certificate_expiry_timestamp_seconds{server=\"hubble\"}");
    assert_eq!(expires, Some(2_208_988_800.0), "the first of January of 2040");

    let (foreign, old) = (other.issue("foreign", "somebody"), ours.expired("old", "somebody"));
    let refused = [
        (status(&lab, &good, &ours.file, NAME, None), "peer sent no certificates"),
        (status(&lab, &good, &ours.file, NAME, Some(&foreign)), "invalid peer certificate: UnknownIssuer"),
        (status(&lab, &good, &ours.file, NAME, Some(&old)), "invalid peer certificate: certificate expired"),
        // The client refuses, and the server logs the client's alert.
        (status(&lab, &good, &ours.file, "somebody.else", Some(&client)), "received fatal alert: BadCertificate"),
        (status(&lab, &good, &other.file, NAME, Some(&client)), "received fatal alert"),
    ];
    for (output, reason) in &refused {
        assert!(output.starts_with("exit Some(1)"), "{reason}: {output}");
        wait_for_line(&good, reason);
    }
    let plain = lab.says(&good, "status");
    assert!(plain.starts_with("exit Some(1)"), "{plain}");
    wait_for_line(&good, "the TLS handshake failed server=\"hubble\"");
    let counted = metric(&http, "meridian_tls_refused_connections_total{server=\"hubble\"}").unwrap();
    assert!(counted >= refused.len() as f64, "{counted}");

    // A server with an expired certificate or another name: its clients report the reason.
    let over = server(&lab, &ours.expired("over", SERVERS), &ours.file, &[]);
    let output = status(&lab, &over, &ours.file, NAME, Some(&client));
    assert!(output.contains("certificate has expired"), "{output}");
    let somebody = server(&lab, &ours.issue("somebody", "somebody.example"), &ours.file, &[]);
    let output = status(&lab, &somebody, &ours.file, NAME, Some(&client));
    assert!(output.contains("certificate is valid for somebody.example, not"), "{output}");

    // A certificate that does not exist yet.
    let late = Issued { certificate: lab.folder.join("late.crt"), key: lab.folder.join("late.key") };
    let waiting = server(&lab, &late, &ours.file, &[]);
    wait_for_line(&waiting, "the certificate can't be read yet");
    let output = status(&lab, &waiting, &ours.file, NAME, Some(&client));
    assert!(output.starts_with("exit Some(1)"), "{output}");
    wait_for_line(&waiting, "there is no certificate yet");
    ours.issue("late", SERVERS);
    let output = status(&lab, &waiting, &ours.file, NAME, Some(&client));
    assert!(output.starts_with("exit Some(0)"), "{output}");
}

#[test]
#[ignore = "needs the programs of conformance/hubble: scripts/test.sh hubble"]
fn a_relay_and_its_peers_know_each_other() {
    let lab = Lab::new("mtls");
    let (ours, other) = (Authority::new(&lab.folder, "ours"), Authority::new(&lab.folder, "other"));
    let issued = ours.issue("server", SERVERS);
    let [certificate, key] = issued.files().map(str::to_owned);
    let clients = ours.file.to_str().unwrap().to_owned();
    let tls = [
        "--hubble-tls-cert-file",
        &certificate,
        "--hubble-tls-key-file",
        &key,
        "--hubble-tls-client-ca-files",
        &clients,
    ];
    let places: Vec<String> = (0..3).map(|_| free_address()).collect();
    let peers: Vec<String> = places.iter().enumerate().map(|(n, at)| format!("node-{}={at}", n + 1)).collect();
    let peers: Vec<&str> = peers.iter().flat_map(|peer| ["--peer", peer]).collect();
    let servers: Vec<Server> =
        places.iter().enumerate().map(|(n, at)| lab.ours_at(n, at.clone(), &[&tls[..], &peers[..]].concat())).collect();
    let client = ours.issue("client", "*.hubble-relay.cilium.io");
    let relay = |client: &Issued, authority: &Path| {
        let [certificate, key] = client.files();
        let args = [
            ["--tls-hubble-client-cert-file", certificate],
            ["--tls-hubble-client-key-file", key],
            ["--tls-hubble-server-ca-files", authority.to_str().unwrap()],
        ];
        lab.relay_of(&servers[0].at, &args.concat())
    };
    let good = relay(&client, &ours.file);
    lab.until(&good, "status", |output| output.contains("Connected Nodes: 3/3"));
    assert_eq!(
        lab.says(&good, "observe --all -o jsonpb").lines().filter(|line| line.contains("\"flow\"")).count(),
        900
    );
    let nodes = lab.says(&good, "list nodes -o json");
    assert_eq!(nodes.matches("\"enabled\": true").count() + nodes.matches("\"enabled\":true").count(), 3, "{nodes}");
    assert!(nodes.contains("node-3.default.hubble-grpc.cilium.io"), "{nodes}");
    drop(good);
    // A relay with a foreign certificate, and one that trusts a foreign authority.
    let stranger = relay(&other.issue("stranger", "*.hubble-relay.cilium.io"), &ours.file);
    wait_for_line(&servers[0], "invalid peer certificate: UnknownIssuer");
    drop(stranger);
    let _mistaken = relay(&client, &other.file);
    wait_for_line(&servers[0], "received fatal alert");
}

async fn channel(at: &str, authority: &Path, client: &Issued) -> Result<Channel, tonic::transport::Error> {
    let read = |path: &Path| fs::read(path).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(authority)))
        .identity(Identity::from_pem(read(&client.certificate), read(&client.key)))
        .domain_name(NAME);
    Endpoint::from_shared(format!("https://{at}")).unwrap().tls_config(tls).unwrap().connect().await
}

#[test]
#[ignore = "needs the programs of conformance/hubble: scripts/test.sh hubble"]
fn new_certificates_end_no_stream() {
    const CONNECTIONS: usize = 20;
    const STREAMS: usize = 50;
    let folder = std::env::temp_dir().join(format!("meridian-rotation-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let ours = Authority::new(&folder, "ours");
    let issued = ours.issue("server", SERVERS);
    let [certificate, key] = issued.files();
    let clients = folder.join("clients.crt");
    fs::copy(&ours.file, &clients).unwrap();
    let (at, mut command) = (free_address(), Command::new(env!("CARGO_BIN_EXE_meridian")));
    command.args(["replay", "-", "--listen", &at, "--hubble-tls-cert-file", certificate]);
    command.args(["--hubble-tls-key-file", key, "--hubble-tls-client-ca-files", clients.to_str().unwrap()]);
    let mut server = serve(command, at, "serving Hubble's clients");
    let lines: Vec<String> = flows(43, 60).lines().map(|line| format!("{line}\n")).collect();
    let client = ours.issue("client", "relay");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let channel = channel(&server.at, &ours.file, &client).await.unwrap();
            for _ in 0..STREAMS {
                let request = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
                let stream = ObserverClient::new(channel.clone()).get_flows(request).await.unwrap();
                streams.push(stream.into_inner());
            }
        }
        let (before, after) = lines.split_at(30);
        server.stdin().write_all(before.concat().as_bytes()).unwrap();
        for stream in &mut streams {
            for _ in before {
                stream.message().await.unwrap().unwrap();
            }
        }

        // A new authority for servers and clients, as when all certificates of a cluster are replaced.
        let new = Authority::new(&folder, "new");
        let new_client = new.issue("new-client", "relay");
        assert!(channel(&server.at, &new.file, &new_client).await.is_err(), "it is not known yet");
        fs::copy(&new.file, &clients).unwrap();
        new.issue("server", SERVERS);
        let end = Instant::now() + TIMEOUT;
        let fresh = loop {
            if let Ok(channel) = channel(&server.at, &new.file, &new_client).await
                && let Ok(peers) = PeerClient::new(channel.clone()).notify(NotifyRequest {}).await
            {
                break (channel, peers);
            }
            assert!(Instant::now() < end, "the new certificate is not in use:\n{}", server.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!(server.log().contains("the new certificate is in use"), "{}", server.log());
        // Certificates of the old authority are refused from now on.
        let old = async {
            let channel = channel(&server.at, &new.file, &client).await.map_err(drop)?;
            PeerClient::new(channel).notify(NotifyRequest {}).await.map_err(drop)
        };
        assert!(old.await.is_err());

        server.stdin().write_all(after.concat().as_bytes()).unwrap();
        for stream in &mut streams {
            for _ in after {
                stream.message().await.unwrap().unwrap();
            }
        }
        assert_eq!(streams.len(), 1000);
        drop(fresh);
    });
    fs::remove_dir_all(folder).unwrap();
}
