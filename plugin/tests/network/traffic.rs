//! Known traffic between two namespaces.

use meridian::netlab::namespace::Namespace;
use socket2::{Domain, Socket, Type};
use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

/// Sends one datagram for each pair of a source port and a destination port.
pub fn datagrams(
    from: &Namespace,
    source: IpAddr,
    destination: IpAddr,
    payload: usize,
    ports: impl IntoIterator<Item = (u16, u16)> + Send,
) {
    let send = || {
        let payload = vec![0; payload];
        for (from, to) in ports {
            let socket = bind(source, from);
            socket.send_to(&payload, (destination, to)).unwrap();
        }
    };
    from.run(send).unwrap();
}

/// A socket on a port that was closed a moment ago: a child process that another test starts may still hold it.
fn bind(address: IpAddr, port: u16) -> UdpSocket {
    for _ in 0..1000 {
        match UdpSocket::bind((address, port)) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => thread::sleep(Duration::from_millis(1)),
            bound => return bound.unwrap(),
        }
    }
    panic!("{address} port {port} stays in use")
}

/// Receives datagrams on a port without answering, so that the kernel sends no ICMP error.
pub fn sink(namespace: &Namespace, address: IpAddr, port: u16) -> UdpSocket {
    namespace.run(|| UdpSocket::bind((address, port))).unwrap().unwrap()
}

/// Answers each datagram with one of `size` bytes, until it is dropped.
pub struct Echo {
    stop: UdpSocket,
    thread: Option<thread::JoinHandle<std::io::Result<()>>>,
    address: SocketAddr,
}

impl Echo {
    pub fn new(namespace: &Namespace, address: IpAddr, port: u16, size: usize) -> Self {
        let socket = sink(namespace, address, port);
        let stop = socket.try_clone().unwrap();
        let address = socket.local_addr().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let answer = move || {
            let mut datagram = [0; 1 << 16];
            while let Ok((len, client)) = socket.recv_from(&mut datagram) {
                if len == 0 {
                    break;
                }
                socket.send_to(&datagram[..size], client).unwrap();
            }
        };
        let thread = Some(namespace.spawn(answer).unwrap());
        Self { stop, thread, address }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // The socket belongs to the namespace, whichever thread uses it.
        let _ = self.stop.send_to(&[], self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends datagrams one by one and waits for each answer.
pub fn requests(from: &Namespace, source: IpAddr, to: SocketAddr, count: usize, payload: usize) {
    let send = || {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (payload, mut answer) = (vec![1; payload], [0; 1 << 16]);
        for _ in 0..count {
            socket.send(&payload).unwrap();
            socket.recv(&mut answer).unwrap();
        }
    };
    from.run(send).unwrap();
}

/// Sends `bytes` over TCP in one connection, and waits until both ends are done.
pub fn tcp(from: (&Namespace, IpAddr), to: (&Namespace, SocketAddr), bytes: usize) {
    let ((client, source), (server, address)) = (from, to);
    let domain = Domain::for_address(address);
    let listener = server.run(|| {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // A window that fits into the backlog of the receiving CPU: packets dropped there would be missing on the
        // wire.
        socket.set_recv_buffer_size(400_000)?;
        socket.bind(&address.into())?;
        socket.listen(16)?;
        Ok::<_, std::io::Error>(TcpListener::from(socket))
    });
    let listener = listener.unwrap().unwrap();
    let receive = move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 18];
        while stream.read(&mut buffer).unwrap() > 0 {}
    };
    let receiver = server.spawn(receive).unwrap();
    let send = || {
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        let chunk = vec![7; 1 << 18];
        let mut left = bytes;
        while left > 0 {
            let part = left.min(chunk.len());
            stream.write_all(&chunk[..part]).unwrap();
            left -= part;
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Waits until the receiver has closed.
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    };
    client.run(send).unwrap();
    receiver.join().unwrap().unwrap();
}
