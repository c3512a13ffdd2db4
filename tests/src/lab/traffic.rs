//! Ordinary traffic between two namespaces, by ordinary sockets. Everything is bounded in count and in time.

use std::io::{self, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::time::{Duration, Instant};
use std::{panic, thread};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::Namespace;
use crate::{Error, Result};

/// How long one answer is awaited.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// How long a whole TCP transfer may take.
const TRANSFER_LIMIT: Duration = Duration::from_secs(60);
/// The most octets a request or echo carries: it fits in one datagram without fragments on the smallest IPv6 MTU.
const MAX_PAYLOAD: usize = 1200;

/// A UDP conversation that took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpExchange {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The server's address and port.
    pub server: SocketAddr,
    /// Requests the server received, and answers the client received.
    pub round_trips: u64,
}

/// Sends `round_trips` UDP requests of `payload_bytes` octets from `client` to the server's `address` (port 0 for any), one at a
/// time; the server answers each with as many octets.
///
/// # Errors
/// If an address cannot be had or one message does not arrive within 20 s.
pub fn udp_exchange(
    client: &Namespace,
    server: (&Namespace, SocketAddr),
    round_trips: u64,
    payload_bytes: usize,
) -> Result<UdpExchange> {
    let payload = payload(payload_bytes)?;
    let (server, address) = server;
    let doing = format!("exchange UDP with {address}");
    let there = server
        .enter(|| UdpSocket::bind(address))?
        .map_err(Error::system(doing.clone()))?;
    let here = client
        .enter(|| UdpSocket::bind(any(address.ip())))?
        .map_err(Error::system(doing.clone()))?;
    udp_round_trips(&here, &there, round_trips, &payload).map_err(Error::system(doing))
}

fn udp_round_trips(
    here: &UdpSocket,
    there: &UdpSocket,
    round_trips: u64,
    payload: &[u8],
) -> io::Result<UdpExchange> {
    let mut buffer = [0; MAX_PAYLOAD];
    here.set_read_timeout(Some(ANSWER_LIMIT))?;
    there.set_read_timeout(Some(ANSWER_LIMIT))?;
    here.connect(there.local_addr()?)?;
    let done = UdpExchange {
        client: here.local_addr()?,
        server: there.local_addr()?,
        round_trips,
    };
    for _ in 0..round_trips {
        here.send(payload)?;
        let (_, from) = there.recv_from(&mut buffer)?;
        there.send_to(payload, from)?;
        here.recv(&mut buffer)?;
    }
    Ok(done)
}

/// A TCP transfer that took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpTransfer {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The server's address and port.
    pub server: SocketAddr,
    /// Octets of payload the client sent.
    pub sent: u64,
    /// Octets of payload the server received.
    pub received: u64,
}

/// Sends `bytes` octets over one TCP connection from `client` to the server's `address` (port 0 for any). Both ends have closed
/// when it returns.
///
/// # Errors
/// If an address cannot be had, the connection breaks, or it takes longer than 60 s.
pub fn tcp_transfer(
    client: &Namespace,
    server: (&Namespace, SocketAddr),
    bytes: u64,
) -> Result<TcpTransfer> {
    let (server, address) = server;
    let doing = format!("transfer {bytes} octets by TCP to {address}");
    let connect = || -> Result<io::Result<(TcpStream, TcpStream)>> {
        let listener = match server.enter(|| TcpListener::bind(address))? {
            Ok(listener) => listener,
            Err(error) => return Ok(Err(error)),
        };
        let connected =
            client.enter(|| TcpStream::connect_timeout(&listener.local_addr()?, ANSWER_LIMIT))?;
        // The kernel has completed the handshake, so this does not wait.
        Ok(connected.and_then(|stream| Ok((stream, listener.accept()?.0))))
    };
    let (here, there) = connect()?.map_err(Error::system(doing.clone()))?;
    tcp_one_way(&here, &there, bytes).map_err(Error::system(doing))
}

fn tcp_one_way(here: &TcpStream, there: &TcpStream, bytes: u64) -> io::Result<TcpTransfer> {
    let deadline = Instant::now() + TRANSFER_LIMIT;
    here.set_write_timeout(Some(ANSWER_LIMIT))?;
    here.set_read_timeout(Some(ANSWER_LIMIT))?;
    there.set_read_timeout(Some(ANSWER_LIMIT))?;
    let (sent, received) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let received = drain(there, deadline);
            // So that a writer that is still at it ends at once if the reader gave up.
            let _ = there.shutdown(Shutdown::Both);
            received
        });
        let sent = fill(here, bytes, deadline);
        let received = reader
            .join()
            .unwrap_or_else(|payload| panic::resume_unwind(payload));
        (sent, received)
    });
    let done = TcpTransfer {
        client: here.local_addr()?,
        server: there.local_addr()?,
        sent: sent?,
        received: received?,
    };
    // Until the other end's FIN has come, so that no packet is still to follow.
    drain(here, deadline)?;
    Ok(done)
}

fn fill(mut stream: &TcpStream, bytes: u64, deadline: Instant) -> io::Result<u64> {
    let chunk = [0x5a; 64 * 1024];
    let mut sent = 0;
    while sent < bytes {
        in_time(deadline)?;
        let next = (bytes - sent).min(chunk.len() as u64) as usize;
        stream.write_all(&chunk[..next])?;
        sent += next as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(sent)
}

/// Reads to the end and returns how many octets there were.
fn drain(mut stream: &TcpStream, deadline: Instant) -> io::Result<u64> {
    let mut buffer = vec![0; 64 * 1024];
    let mut received = 0;
    loop {
        in_time(deadline)?;
        match stream.read(&mut buffer)? {
            0 => return Ok(received),
            octets => received += octets as u64,
        }
    }
}

fn in_time(deadline: Instant) -> io::Result<()> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("it takes longer than {TRANSFER_LIMIT:?}"),
    ))
}

/// Pings `address` from `client` `count` times with `payload_bytes` octets each, one at a time, and returns how many replies
/// came: always `count`, or it is an error. Each request and each reply is an IP datagram of its header and 8 + `payload_bytes`
/// octets.
///
/// # Errors
/// Without root, or if a reply does not arrive within 20 s.
pub fn ping(client: &Namespace, address: IpAddr, count: u16, payload_bytes: usize) -> Result<u16> {
    let payload = payload(payload_bytes)?;
    let doing = format!("ping {address}");
    let socket = client
        .enter(|| icmp_socket(address))?
        .map_err(Error::system(doing.clone()))?;
    for sequence in 0..count {
        let request = echo_request(address, sequence, &payload);
        echo(&socket, address, &request).map_err(Error::system(doing.clone()))?;
    }
    Ok(count)
}

/// A raw ICMP socket, in the clothes of a UDP socket: its calls are the same.
fn icmp_socket(address: IpAddr) -> io::Result<UdpSocket> {
    let (family, protocol) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let socket = UdpSocket::from(socket(
        family,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )?);
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    socket.connect(SocketAddr::new(address, 0))?;
    Ok(socket)
}

fn echo_request(address: IpAddr, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let kind = if address.is_ipv4() { 8 } else { 128 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(ECHO_ID.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(payload);
    if address.is_ipv4() {
        // For ICMPv6 the kernel does it, since its sum covers the addresses (RFC 3542 §3.1).
        let checksum = internet_checksum(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    message
}

/// Identifier of our echo requests: the raw socket is connected, so it need not be unique.
const ECHO_ID: u16 = 0xf10e;

fn echo(socket: &UdpSocket, address: IpAddr, request: &[u8]) -> io::Result<()> {
    let mut buffer = [0; 60 + 8 + MAX_PAYLOAD];
    let deadline = Instant::now() + ANSWER_LIMIT;
    socket.send(request)?;
    while Instant::now() < deadline {
        let length = socket.recv(&mut buffer)?;
        let datagram = &buffer[..length];
        // A raw IPv4 socket gives the IP header too.
        let (reply, message) = match address {
            IpAddr::V4(_) => (0, datagram.get(usize::from(buffer[0] & 0xf) * 4..)),
            IpAddr::V6(_) => (129, Some(datagram)),
        };
        // Identifier, sequence and payload come back as sent.
        if message.is_some_and(|m| m.first() == Some(&reply) && m.get(4..) == request.get(4..)) {
            return Ok(());
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no reply came"))
}

/// RFC 1071.
fn internet_checksum(message: &[u8]) -> u16 {
    let mut sum: u32 = message
        .chunks(2)
        .map(|pair| {
            u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

fn payload(bytes: usize) -> Result<Vec<u8>> {
    if bytes > MAX_PAYLOAD {
        return Err(Error::Invalid(format!(
            "payload_bytes = {bytes}: 0 to {MAX_PAYLOAD} are allowed"
        )));
    }
    Ok(vec![0x5a; bytes])
}

/// Any address and port of the same family as `address`.
fn any(address: IpAddr) -> SocketAddr {
    let unspecified = if address.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    };
    SocketAddr::new(unspecified, 0)
}
