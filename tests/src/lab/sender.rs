//! Whole Ethernet frames out of a device, by a packet socket.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, send, socket};

use super::Namespace;
use crate::{Error, Result};

/// How long a full device is waited for.
const FULL_LIMIT: Duration = Duration::from_secs(2);
/// How long a CPU's backlog is waited for.
const BACKLOG_LIMIT: Duration = Duration::from_secs(30);

/// Sends complete Ethernet frames out of one device. They pass the device's qdisc and TC egress as any packet does
/// (`PACKET_QDISC_BYPASS` is never set).
///
/// The kernel takes frames of 14 octets and more (shorter ones it fills up with zeros), up to the device's MTU and 14 octets of
/// header, or 18 if the frame has a VLAN tag.
#[derive(Debug)]
pub struct FrameSender {
    socket: OwnedFd,
    device: String,
    refused: u64,
}

impl FrameSender {
    /// A sender out of `device` in `namespace`; it may be used from any thread.
    ///
    /// # Errors
    /// If there is no such device, or without root.
    pub fn open(namespace: &Namespace, device: &str) -> Result<Self> {
        let socket = namespace.enter(|| open_bound(device))??;
        Ok(Self {
            socket,
            device: device.to_owned(),
            refused: 0,
        })
    }

    /// Sends one frame. If the device has no room it is tried again, the CPU being yielded between, for 2 s at most.
    ///
    /// # Errors
    /// If the device stays full (or a program at TC egress drops the frame: the kernel tells the two apart no more than we do),
    /// is down or gone, or the frame is longer than it takes.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        match self.try_send(frame) {
            Ok(()) => Ok(()),
            Err(Errno::ENOBUFS | Errno::EAGAIN) => self.send_patiently(frame),
            Err(errno) => Err(self.failure(frame, errno)),
        }
    }

    /// Sends one frame, once. False if it was not taken: the device has no room, or a program at TC egress drops it.
    ///
    /// # Errors
    /// If the device is down or gone, or the frame is longer than it takes.
    pub fn offer(&mut self, frame: &[u8]) -> Result<bool> {
        match self.try_send(frame) {
            Ok(()) => Ok(true),
            Err(Errno::ENOBUFS | Errno::EAGAIN) => Ok(false),
            Err(errno) => Err(self.failure(frame, errno)),
        }
    }

    /// How many times the device refused a frame for want of room. Each such frame had passed TC egress before, and passed it
    /// again when it was sent: counts at egress are exact only if this is 0.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn try_send(&self, frame: &[u8]) -> nix::Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).map(drop)
    }

    #[cold]
    fn send_patiently(&mut self, frame: &[u8]) -> Result<()> {
        let deadline = Instant::now() + FULL_LIMIT;
        self.refused += 1;
        loop {
            thread::yield_now();
            match self.try_send(frame) {
                Ok(()) => return Ok(()),
                Err(Errno::ENOBUFS | Errno::EAGAIN) if Instant::now() < deadline => {
                    self.refused += 1;
                }
                Err(errno) => return Err(self.failure(frame, errno)),
            }
        }
    }

    fn failure(&self, frame: &[u8], errno: Errno) -> Error {
        Error::system(format!(
            "send a frame of {} octets out of {}",
            frame.len(),
            self.device
        ))(errno)
    }
}

/// Tells when a CPU has taken all packets from its backlog that it has put there before: a datagram to ourselves, over `lo`, goes
/// through the same queue behind them.
#[derive(Debug)]
pub(super) struct Backlog(UdpSocket);

impl Backlog {
    /// To be waited for over `lo` of this namespace.
    pub(super) fn of(namespace: &Namespace) -> Result<Self> {
        let socket = namespace
            .enter(|| {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
                socket.set_read_timeout(Some(BACKLOG_LIMIT))?;
                socket.connect(socket.local_addr()?)?;
                Ok::<_, std::io::Error>(socket)
            })?
            .map_err(Error::system("open a UDP socket on lo"))?;
        Ok(Self(socket))
    }

    /// Waits for the CPU that the calling thread is on; the thread has to be pinned.
    pub(super) fn wait(&self) -> Result<()> {
        self.0
            .send(&[0])
            .and_then(|_| self.0.recv(&mut [0]))
            .map(drop)
            .map_err(Error::system("await a datagram over lo"))
    }
}

/// A packet socket that is bound to `device` in the calling thread's namespace, and receives nothing (its protocol is 0).
fn open_bound(device: &str) -> Result<OwnedFd> {
    let address = link_address(device)?;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(Error::system("open a packet socket"))?;
    bind(socket.as_raw_fd(), &address)
        .map_err(Error::system(format!("bind a packet socket to {device}")))?;
    Ok(socket)
}

fn link_address(device: &str) -> Result<LinkAddr> {
    getifaddrs()
        .map_err(Error::system("list network devices"))?
        .filter(|interface| interface.interface_name == device)
        .find_map(|interface| {
            interface
                .address
                .and_then(|address| address.as_link_addr().copied())
        })
        .ok_or_else(|| Error::Invalid(format!("no network device {device} in this namespace")))
}
