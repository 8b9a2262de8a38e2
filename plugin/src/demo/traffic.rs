//! The demo's traffic: the pairs, the volumes, over TCP and UDP, IPv4 and IPv6. It always passes between nodes, so
//! that every hook sees the same.
//!
//! The traffic in flight stays below the kernel's backlog, so that no packet is dropped between the hook and the
//! wire.

use super::{
    Error,
    topology::{OUTSIDER, Topology, pod_addresses},
    truth::set_option,
};
use crate::netlab::namespace::Namespace;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// The pause between two rounds of a client.
const PAUSE: Duration = Duration::from_millis(250);
/// The interval at which a thread checks whether it should stop.
const TICK: Duration = Duration::from_millis(50);
/// How long a peer may stay silent.
const IO_TIMEOUT: Duration = Duration::from_secs(10);
/// The receive window: the kernel doubles it, and eight clients stay below a backlog of 1,000 packets.
const WINDOW: usize = 64 << 10;

/// The payload of a UDP datagram, and the number of datagrams in one super-packet.
const DATAGRAM: usize = 1200;
const BURST: usize = 16;
/// A server sends one answer for this many datagrams.
const PER_ANSWER: usize = 8;
const ANSWER: usize = 64;

#[derive(Clone, Copy, Debug)]
enum Transport {
    /// Over this many connections.
    Tcp(usize),
    Udp,
}
use Transport::{Tcp, Udp};

/// Node and pod, each from 0; `None` is the outsider.
type Pod = (usize, usize);

#[derive(Clone, Copy, Debug)]
struct Talk {
    client: Pod,
    server: Option<Pod>,
    port: u16,
    transport: Transport,
    request: usize,
    reply: usize,
}

const fn talk(client: Pod, server: Option<Pod>, port: u16, transport: Transport, request: usize, reply: usize) -> Talk {
    Talk { client, server, port, transport, request, reply }
}

const TALKS: [Talk; 17] = [
    // web → orders, web → cart: same zone
    talk((0, 0), Some((1, 1)), 8080, Tcp(1), 220_000, 60_000),
    talk((1, 0), Some((0, 1)), 6379, Tcp(4), 4_000, 30_000),
    // orders, cart → orders-db: a database that is read across zones
    talk((1, 1), Some((2, 0)), 5432, Tcp(1), 20_000, 340_000),
    talk((0, 1), Some((2, 0)), 5432, Tcp(1), 30_000, 120_000),
    // orders → prometheus: traces, cross-zone
    talk((1, 1), Some((2, 1)), 4317, Udp, 8 * BURST * DATAGRAM, 0),
    // prometheus, collector → web, cart, orders: the same pages are fetched twice, from another zone and another region
    scrape((2, 1), (0, 0)),
    scrape((2, 1), (0, 1)),
    scrape((2, 1), (1, 0)),
    scrape((2, 1), (1, 1)),
    scrape((3, 1), (0, 0)),
    scrape((3, 1), (0, 1)),
    scrape((3, 1), (1, 0)),
    scrape((3, 1), (1, 1)),
    // orders → ledger, orders-db → collector: cross-region
    talk((1, 1), Some((3, 0)), 5432, Tcp(1), 90_000, 150_000),
    talk((2, 0), Some((3, 1)), 4317, Udp, 5 * BURST * DATAGRAM, 0),
    // orders-db → a host that no table names, ledger → the same: unknown
    talk((2, 0), None, 5432, Tcp(1), 50_000, 120_000),
    talk((3, 0), None, 514, Udp, BURST * DATAGRAM, 0),
];

/// A scraper that fetches a page of metrics.
const fn scrape(scraper: Pod, target: Pod) -> Talk {
    talk(scraper, Some(target), 9090, Tcp(1), 400, 50_000)
}

type Worker = JoinHandle<io::Result<io::Result<()>>>;

/// The running clients and servers.
pub struct Traffic {
    clients: Vec<Worker>,
    servers: Vec<Worker>,
    stop_clients: Arc<AtomicBool>,
    stop_servers: Arc<AtomicBool>,
}

impl Traffic {
    /// Starts the servers, then the clients.
    ///
    /// # Errors
    /// A thread or a port is not available.
    pub fn start(topology: &Topology) -> Result<Self, Error> {
        let (stop_clients, stop_servers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut traffic = Self { clients: Vec::new(), servers: Vec::new(), stop_clients, stop_servers };
        let mut served = Vec::new();
        for talk in &TALKS {
            let address = (talk.server, talk.port);
            if !served.contains(&address) {
                served.push(address);
                traffic.serve(namespace(topology, talk.server), talk)?;
            }
        }
        for node in 0..topology.nodes.len() {
            for pod in 0..topology.nodes[node].pods.len() {
                let talks: Vec<Talk> = TALKS.into_iter().filter(|talk| talk.client == (node, pod)).collect();
                if !talks.is_empty() {
                    let stop = Arc::clone(&traffic.stop_clients);
                    let client = topology.nodes[node].pods[pod].spawn(move || converse(&talks, &stop))?;
                    traffic.clients.push(client);
                }
            }
        }
        Ok(traffic)
    }

    fn serve(&mut self, namespace: &Namespace, talk: &Talk) -> Result<(), Error> {
        let stop = Arc::clone(&self.stop_servers);
        let (port, transport) = (talk.port, talk.transport);
        // The port is open before the first client connects.
        let failed = |source| namespace.failed("opening a server's port", source);
        match transport {
            Tcp(_) => {
                let listener = namespace.run(|| listen(port))?.map_err(failed)?;
                self.servers.push(namespace.spawn(move || serve_tcp(&listener, &stop))?);
            }
            // One socket for each address, so that the answer comes from the address that was asked.
            Udp => {
                for address in addresses(talk.server) {
                    let socket = namespace.run(|| UdpSocket::bind((address, port)))?.map_err(failed)?;
                    let stop = Arc::clone(&stop);
                    self.servers.push(namespace.spawn(move || serve_udp(&socket, &stop))?);
                }
            }
        }
        Ok(())
    }

    /// Ends the clients after their current round, then the servers.
    ///
    /// # Errors
    /// The first error of a client or server.
    pub fn stop(mut self) -> Result<(), Error> {
        self.end().map_err(|source| Error::Traffic { source })
    }

    fn end(&mut self) -> io::Result<()> {
        self.stop_clients.store(true, Ordering::Relaxed);
        let clients = join(&mut self.clients);
        self.stop_servers.store(true, Ordering::Relaxed);
        clients.and(join(&mut self.servers))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn join(workers: &mut Vec<Worker>) -> io::Result<()> {
    let ends: Vec<io::Result<()>> = workers
        .drain(..)
        .map(|worker| worker.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))).and_then(|end| end))
        .collect();
    ends.into_iter().collect()
}

fn namespace(topology: &Topology, pod: Option<Pod>) -> &Namespace {
    pod.map_or(&topology.outsider, |(node, pod)| &topology.nodes[node].pods[pod])
}

fn addresses(pod: Option<Pod>) -> [IpAddr; 2] {
    pod.map_or(OUTSIDER, |(node, pod)| pod_addresses(node, pod))
}

/// Runs rounds of all talks, each over IPv4 and IPv6, until `stop`; at least one round.
fn converse(talks: &[Talk], stop: &AtomicBool) -> io::Result<()> {
    loop {
        for talk in talks {
            for address in addresses(talk.server) {
                let server = SocketAddr::new(address, talk.port);
                let result = match talk.transport {
                    Tcp(connections) => (0..connections).try_for_each(|_| ask_tcp(server, talk.request, talk.reply)),
                    Udp => ask_udp(server, talk.request),
                };
                result.map_err(|error| io::Error::new(error.kind(), format!("{server}: {error}")))?;
            }
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
}

fn ask_tcp(server: SocketAddr, request: usize, reply: usize) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_recv_buffer_size(WINDOW)?;
    socket.connect_timeout(&server.into(), IO_TIMEOUT)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    stream.write_all(&(request as u64).to_be_bytes())?;
    stream.write_all(&(reply as u64).to_be_bytes())?;
    io::copy(&mut io::repeat(b'?').take(request as u64), &mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    let got = io::copy(&mut stream, &mut io::sink())?;
    if got == reply as u64 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_recv_buffer_size(WINDOW)?;
    // The connections of an earlier run may not have timed out yet.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port).into())?;
    socket.listen(64)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn serve_tcp(listener: &TcpListener, stop: &AtomicBool) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => answer_tcp(stream)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}

fn answer_tcp(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    let mut lengths = [0; 16];
    stream.read_exact(&mut lengths)?;
    let lengths = u128::from_be_bytes(lengths);
    let (request, reply) = ((lengths >> 64) as u64, lengths as u64);
    let got = io::copy(&mut (&mut stream).take(request), &mut io::sink())?;
    if got != request {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    io::copy(&mut io::repeat(b'!').take(reply), &mut stream)?;
    Ok(())
}

fn ask_udp(server: SocketAddr, request: usize) -> io::Result<()> {
    let here: IpAddr = if server.is_ipv4() { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((here, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(TICK))?;
    // UDP segmentation offload: the kernel cuts one write into datagrams.
    set_option(&SockRef::from(&socket), libc::SOL_UDP, libc::UDP_SEGMENT, DATAGRAM as libc::c_int)?;
    let burst = vec![b'?'; BURST * DATAGRAM];
    let mut answer = [0; ANSWER];
    for chunk in burst.chunks(burst.len()).cycle().take(request.div_ceil(burst.len())) {
        socket.send(chunk)?;
        for _ in 0..BURST / PER_ANSWER {
            match socket.recv(&mut answer) {
                Ok(_) => {}
                // A datagram may be lost beyond the wire.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn serve_udp(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    socket.set_read_timeout(Some(TICK))?;
    let (mut datagram, mut received) = ([0; 2048], 0usize);
    loop {
        match socket.recv_from(&mut datagram) {
            Ok((_, client)) => {
                received += 1;
                if received.is_multiple_of(PER_ANSWER) {
                    socket.send_to(&[b'!'; ANSWER], client)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
            // The client ended before its answer arrived.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
}
