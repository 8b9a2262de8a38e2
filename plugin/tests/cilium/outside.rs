//! A server on the internet, as far as the cluster knows: the machine beside the nodes has public addresses, to which
//! packets leave with the addresses of the sender's node.

use crate::{
    NAME,
    cluster::{Cluster, OUTSIDE, until},
};
use std::{
    net::IpAddr,
    process::{Child, Command, Stdio},
};

/// Public addresses, which nothing else in the cluster's networks has.
pub const ADDRESSES: [&str; 2] = ["44.1.2.3", "2600:44::1"];
pub const PORT: u16 = 9000;

/// Whether it is one of its addresses.
pub fn is(address: IpAddr) -> bool {
    ADDRESSES.iter().any(|ours| ours.parse() == Ok(address))
}

/// The running server, one process for each address: answers to datagrams have the address that was asked.
pub struct Server(Vec<Child>);

impl Server {
    pub fn start(cluster: &Cluster) -> Self {
        let traffic = std::env::var("MERIDIAN_TRAFFIC").unwrap();
        let mut server = Self(Vec::new());
        for (address, host) in ADDRESSES.into_iter().zip([ADDRESSES[0].to_owned(), format!("[{}]", ADDRESSES[1])]) {
            cluster.ask(OUTSIDE, &["ip", "address", "add", address, "dev", "lo", "nodad"]);
            let network = format!("--net=/run/netns/{NAME}-{OUTSIDE}");
            let mut process = Command::new("nsenter");
            process.args([&network, &traffic, "serve", &format!("{host}:{PORT}")]);
            server.0.push(process.stdin(Stdio::null()).spawn().unwrap());
            until("the server outside", || {
                let flow = format!("udp:{host}:{PORT}:1:1");
                cluster.in_network(OUTSIDE, &[traffic.as_str(), "send", &flow]).status.success().then_some(())
            });
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
