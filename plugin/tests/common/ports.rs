//! Free ports for programs that are started with their port.

use std::{
    net::{Ipv4Addr, TcpListener},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below the ports of outgoing connections, one of which could take a port before the program does.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

/// A TCP port that is free on every address. No other call in this process returns it before all others were returned.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Processes begin at different ports.
        let number = process::id().wrapping_mul(101).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + number).unwrap();
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// A free port of the loopback address.
pub fn free_address() -> String {
    format!("{}:{}", Ipv4Addr::LOCALHOST, free_port())
}
