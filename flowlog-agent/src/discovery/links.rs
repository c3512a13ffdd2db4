//! One namespace's netlink socket: subscription, dumps, and recovery from what was lost.
//!
//! The subscription comes before the dump, and both come through the same socket, so that nothing is missed between. When
//! the socket overruns (`ENOBUFS`), the kernel drops *every* further notification, without another error, until its queue has
//! been read empty (`netlink_rcv_wake` in net/netlink/af_netlink.c). So the queue is read empty first and the devices are
//! dumped then; a dump asked for at once could be older than what is dropped after it.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    recvmsg, sendto, setsockopt, socket, sockopt,
};
use rtnetlink::packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use tokio::io::unix::AsyncFd;
use tokio::time::{Sleep, sleep};

use super::counters::CounterSocket;
use super::decode::{Content, Message, Place, messages};
use super::device::{Device, DeviceCounters, DeviceEvent};
use super::table::DeviceTable;
use crate::readiness::register;

/// The bit of `RTNLGRP_LINK` (group 1) in the address that a socket is bound to.
const LINK_GROUP: u32 = 1;
/// The length of the buffer that datagrams are read into. The kernel fills dumps up to 32 KiB, and a notification is shorter.
pub(super) const DATAGRAM_BYTES: usize = 64 * 1024;
/// How long to wait before a failed dump is tried again: the first time, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_LONGEST: Duration = Duration::from_secs(1);

/// The sockets of one namespace.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Bound to the link group.
    links: OwnedFd,
    counters: CounterSocket,
}

impl Sockets {
    /// Opens them in the namespace of the calling thread.
    pub(super) fn open(receive_buffer_bytes: usize) -> io::Result<Self> {
        Ok(Self {
            links: open_link_socket(receive_buffer_bytes)?,
            counters: CounterSocket::open()?,
        })
    }
}

fn open_link_socket(receive_buffer_bytes: usize) -> io::Result<OwnedFd> {
    let socket = open_socket()?;
    // Beyond the system's limit where we may; a smaller buffer only means more dumps.
    setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer_bytes)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &receive_buffer_bytes))?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINK_GROUP))?;
    Ok(socket)
}

/// A socket of rtnetlink in the namespace of the calling thread, not blocking and bound to nothing.
pub(super) fn open_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkRoute,
    )?)
}

/// The devices of one namespace, followed.
#[derive(Debug)]
pub(super) struct LinkWatch {
    place: Place,
    socket: AsyncFd<OwnedFd>,
    /// The socket's port number, by which replies to our requests are known.
    port: u32,
    table: DeviceTable,
    counters: CounterSocket,
    sequence: u32,
    /// The dump being read, if any.
    dump: Option<DumpProgress>,
    /// A dump is needed, as soon as the queue is empty and the time to wait is over.
    dump_needed: bool,
    /// Something was lost, and the queue has not been empty since.
    congested: bool,
    retry: Option<Pin<Box<Sleep>>>,
    failures: u32,
    /// Complete dumps so far.
    complete_dumps: u64,
}

#[derive(Debug, Default)]
struct DumpProgress {
    incomplete: bool,
}

impl LinkWatch {
    /// Follows the namespace that the sockets are in. Must be called within an async runtime.
    pub(super) fn new(sockets: Sockets, place: Place) -> io::Result<Self> {
        let Sockets { links, counters } = sockets;
        let port = getsockname::<NetlinkAddr>(links.as_raw_fd())?.pid();
        Ok(Self {
            place,
            socket: register(links)?,
            counters,
            port,
            table: DeviceTable::default(),
            sequence: 0,
            dump: None,
            dump_needed: true,
            congested: false,
            retry: None,
            failures: 0,
            complete_dumps: 0,
        })
    }

    /// Where the devices are.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The devices told of so far.
    pub(super) fn devices(&self) -> impl Iterator<Item = &Device> {
        self.table.devices()
    }

    /// How often the devices have been dumped completely. The first time is the start, further ones are recoveries.
    pub(super) fn complete_dumps(&self) -> u64 {
        self.complete_dumps
    }

    /// What the device of an index has counted until now; none if there is no such device any more.
    pub(super) fn counters(&mut self, index: u32, buffer: &mut [u8]) -> Option<DeviceCounters> {
        let counters = self.counters.read(index, &self.place, buffer)?;
        Some(self.table.counted(index, counters))
    }

    /// Ends the watch: the sockets are closed, so that they do not keep the namespace alive, and every device vanishes.
    pub(super) fn close(self, buffer: &mut [u8], events: &mut VecDeque<DeviceEvent>) {
        let Self {
            mut table,
            mut counters,
            place,
            ..
        } = self;
        table.clear(|index| counters.read(index, &place, buffer), events);
    }

    /// Reads until there is something to tell, or (pending) nothing to read. Ready only if `events` has grown or a dump
    /// is complete.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        events: &mut VecDeque<DeviceEvent>,
    ) -> Poll<()> {
        let before = (events.len(), self.complete_dumps);
        loop {
            self.dump_if_due(cx);
            // An error here means that the runtime is shutting down.
            let Ok(mut guard) = ready!(self.socket.poll_read_ready(cx)) else {
                return Poll::Pending;
            };
            match guard.try_io(|socket| receive(socket.get_ref(), buffer)) {
                // The queue is empty.
                Err(_would_block) => self.congested = false,
                Ok(Ok(Some(length))) => self.read(buffer.get(..length).unwrap_or_default(), events),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => self.lost(&error),
            }
            if (events.len(), self.complete_dumps) != before {
                return Poll::Ready(());
            }
        }
    }

    /// Something was lost: the socket overran, or a dump could not go on for want of memory.
    fn lost(&mut self, error: &io::Error) {
        tracing::debug!(namespace = %self.place.namespace, %error, "netlink messages were lost; the devices are read again");
        self.dump_needed = true;
        self.congested = true;
        if let Some(dump) = &mut self.dump {
            dump.incomplete = true;
        }
    }

    fn dump_if_due(&mut self, cx: &mut Context<'_>) {
        if let Some(retry) = &mut self.retry
            && retry.as_mut().poll(cx).is_ready()
        {
            self.retry = None;
        }
        if !self.dump_needed || self.congested || self.dump.is_some() || self.retry.is_some() {
            return;
        }
        self.sequence = self.sequence.wrapping_add(1);
        match send_request(self.socket.get_ref(), self.sequence, Wanted::Every) {
            Ok(()) => {
                self.dump_needed = false;
                self.dump = Some(DumpProgress::default());
                self.table.begin_dump();
            }
            Err(error) => {
                tracing::debug!(namespace = %self.place.namespace, %error, "the devices cannot be asked for; will try again");
                self.wait_to_retry();
                // Registers the wake-up.
                self.dump_if_due(cx);
            }
        }
    }

    fn wait_to_retry(&mut self) {
        let delay = RETRY_FIRST
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(RETRY_LONGEST);
        self.failures = (self.failures + 1).min(16);
        self.retry = Some(Box::pin(sleep(delay)));
    }

    fn read(&mut self, datagram: &[u8], events: &mut VecDeque<DeviceEvent>) {
        let place = self.place.clone();
        for message in messages(datagram, &place) {
            match message {
                Ok(message) => self.take(message, events),
                Err(error) => self.damaged(&error),
            }
        }
    }

    /// A message could not be read; what it said must be had in another way.
    fn damaged(&mut self, error: &DecodeError) {
        tracing::debug!(namespace = %self.place.namespace, %error, "a netlink message cannot be read; asking again");
        self.dump_needed = true;
        if let Some(dump) = &mut self.dump {
            dump.incomplete = true;
        } else if self.retry.is_none() {
            self.wait_to_retry();
        }
    }

    fn take(&mut self, message: Message, events: &mut VecDeque<DeviceEvent>) {
        let Message {
            sequence,
            port,
            interrupted,
            content,
        } = message;
        let reply = port == self.port && sequence == self.sequence && self.dump.is_some();
        if reply
            && interrupted
            && let Some(dump) = &mut self.dump
        {
            dump.incomplete = true;
        }
        match content {
            Ok(Content::Link(device, counters)) if reply => self.table.dumped(device, counters),
            Ok(Content::Link(device, counters)) => self.table.notified(device, counters, events),
            Ok(Content::LinkGone(index, counters)) => self.table.gone(index, counters, events),
            Ok(Content::Done { error } | Content::Error { error }) if reply => {
                self.finish_dump(error == 0, events);
            }
            Ok(_) => {}
            Err(error) => self.damaged(&error),
        }
    }

    fn finish_dump(&mut self, succeeded: bool, events: &mut VecDeque<DeviceEvent>) {
        let Some(DumpProgress { incomplete }) = self.dump.take() else {
            return;
        };
        let complete = succeeded && !incomplete;
        self.table.end_dump(complete, events);
        if complete {
            self.failures = 0;
            self.complete_dumps += 1;
        } else {
            self.dump_needed = true;
            self.wait_to_retry();
        }
    }
}

/// Reads one datagram; `None` if it is not from the kernel. A datagram longer than the buffer is cut, and found damaged.
pub(super) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let mut parts = [IoSliceMut::new(buffer)];
    let received =
        recvmsg::<NetlinkAddr>(socket.as_raw_fd(), &mut parts, None, MsgFlags::MSG_DONTWAIT)?;
    let from_kernel = received.address.is_some_and(|address| address.pid() == 0);
    Ok(from_kernel.then_some(received.bytes))
}

/// Which devices are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    Every,
    /// The one of this index.
    One(u32),
}

/// Asks for devices.
pub(super) fn send_request(socket: &OwnedFd, sequence: u32, wanted: Wanted) -> io::Result<()> {
    let mut link = LinkMessage::default();
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = sequence;
    match wanted {
        Wanted::Every => header.flags |= NLM_F_DUMP,
        Wanted::One(index) => link.header.index = index,
    }
    let mut message = NetlinkMessage::new(
        header,
        NetlinkPayload::from(RouteNetlinkMessage::GetLink(link)),
    );
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let sent = sendto(
        socket.as_raw_fd(),
        &bytes,
        &NetlinkAddr::new(0, 0),
        MsgFlags::MSG_DONTWAIT,
    )?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(Errno::EMSGSIZE.into())
    }
}
