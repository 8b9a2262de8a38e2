//! Three nodes, each a network namespace in its own zone, behind a router, which is the lab's namespace.

use crate::{
    feed::{AUDIENCE, authority},
    lab::{AGENT, CONTROLLER, Lab, NAMESPACE},
    objects::Object,
};
use meridian::netlab::{
    links::{configure, sysctl},
    namespace::Namespace,
};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use std::{
    cell::RefCell,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    path::Path,
    rc::Rc,
};
use tokio::net::{TcpListener, TcpStream};

const NAME: &str = "meridian-controller";

pub const ZONES: [&str; 3] = ["eu-1a", "eu-1b", "eu-1c"];
/// The name of the cluster, which agents and controllers have.
pub const CLUSTER: &str = "shops";
/// The controllers' address on every node.
pub const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub const PORT: u16 = 9000;

pub fn pod(node: usize, which: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, node as u8 + 1, which)
}

/// A node: a namespace with the addresses of two pods.
pub struct Node {
    pub name: String,
    pub namespace: Namespace,
    pub sockets: Vec<UdpSocket>,
}

impl Node {
    fn new(n: usize, router: &Namespace) -> Self {
        let name = format!("node-{}", ["a", "b", "c"][n]);
        let namespace = Namespace::new(&name).unwrap();
        let third = n as u8 + 1;
        let (own, gateway) = (Ipv4Addr::new(10, 99, third, 2), Ipv4Addr::new(10, 99, third, 1));
        let peer = format!("to-{name}");
        configure(&namespace, "setting up", async |links| {
            links.veth("up0", &peer, router.as_raw_fd()).await?;
            links.up("lo", None).await?;
            links.up("up0", None).await?;
            links.address("up0", own.into(), 24).await?;
            links.address("lo", pod(n, 1).into(), 32).await?;
            links.address("lo", pod(n, 2).into(), 32).await?;
            links.route("0.0.0.0/0".parse().unwrap(), gateway.into()).await
        })
        .unwrap();
        configure(router, "setting up", async |links| {
            links.up(&peer, None).await?;
            links.address(&peer, gateway.into(), 24).await?;
            links.route(format!("10.98.{third}.0/24").parse().unwrap(), own.into()).await
        })
        .unwrap();
        // Each socket receives everything, so that the kernel sends no ICMP errors.
        let bind = || [1, 2].map(|which| UdpSocket::bind((pod(n, which), PORT)).unwrap());
        let sockets = namespace.run(bind).unwrap().into();
        Self { name, namespace, sockets }
    }

    async fn objects(n: usize, lab: &Lab) {
        let name = format!("node-{}", ["a", "b", "c"][n]);
        let third = n + 1;
        let address = format!("10.99.{third}.2");
        lab.put(Object::node(&name, ZONES[n], &[&format!("10.98.{third}.0/24")], &[&address])).await;
        for which in [1, 2] {
            let ip = pod(n, which).to_string();
            lab.put(Object::pod(&format!("pod-{third}-{which}"), &name, "Running", &[&ip])).await;
        }
        let agent = Object::pod(&format!("agent-{third}"), &name, "Running", &[])
            .with("/metadata/namespace", json!(NAMESPACE))
            .with("/spec/serviceAccountName", json!(AGENT));
        lab.put(agent).await;
    }
}

/// Acts like a Service for agents: one port, and a connection goes to any replica.
pub async fn service(port: u16, replicas: Rc<RefCell<Vec<String>>>) {
    let listener = TcpListener::bind((CONTROL, port)).await.unwrap();
    tokio::task::spawn_local(async move {
        for turn in 0.. {
            let Ok((mut from, _)) = listener.accept().await else { return };
            let replicas = replicas.borrow().clone();
            tokio::task::spawn_local(async move {
                for n in 0..replicas.len() {
                    if let Ok(mut to) = TcpStream::connect(&replicas[(turn + n) % replicas.len()]).await {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                        return;
                    }
                }
            });
        }
    });
}

/// The certificates and tokens of controllers and agents.
pub struct Trust {
    pub args: Vec<String>,
    pub agents: Vec<Vec<String>>,
}

impl Trust {
    pub async fn new(lab: &Lab) -> Self {
        let (issuer, ca) = authority(lab, "ours");
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![NAME.into()]).unwrap().signed_by(&key, &issuer).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let certificate = text(&lab.folder.file("tls.crt", certificate.pem().as_bytes()));
        let key = text(&lab.folder.file("tls.key", key.serialize_pem().as_bytes()));
        let token = text(&lab.folder.file("replica", lab.token(CONTROLLER, None, AUDIENCE).await.as_bytes()));
        let ca = text(&ca);
        let args = [
            ["--tls-cert", &certificate],
            ["--tls-key", &key],
            ["--replica-ca", &ca],
            ["--replica-name", NAME],
            ["--replica-token", &token],
            ["--pair-log-interval", "1s"],
        ];
        let mut agents = Vec::new();
        for n in 1..=3 {
            let token = lab.token(AGENT, Some(&format!("agent-{n}")), AUDIENCE).await;
            let token = text(&lab.folder.file(&format!("agent-{n}"), token.as_bytes()));
            let args = [["--controller-ca", &ca], ["--controller-name", NAME], ["--controller-token", &token]];
            agents.push(args.concat().into_iter().map(str::to_owned).collect());
        }
        Self { args: args.concat().into_iter().map(str::to_owned).collect(), agents }
    }
}

/// Makes the nodes as namespaces, and as objects in the cluster.
pub async fn lay_out(lab: &Lab) -> Vec<Node> {
    let router = Namespace::current("router").unwrap();
    configure(&router, "setting up", async |links| links.address("lo", CONTROL.into(), 32).await).unwrap();
    sysctl(&router, "ipv4/ip_forward", "1").unwrap();
    lab.put(Object::namespace("shop")).await;
    lab.put(Object::account("shop", "default")).await;
    for n in 0..3 {
        Node::objects(n, lab).await;
    }
    (0..3).map(|n| Node::new(n, &router)).collect()
}
