//! What devices have counted, when asked: a netlink socket of its own for each namespace, so that an answer does not have to be looked
//! for among notifications.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::decode::{Content, Place, messages};
use super::device::DeviceCounters;
use super::links::{Wanted, open_socket, receive, send_request};

/// A socket to ask by.
#[derive(Debug)]
pub(super) struct CounterSocket {
    socket: OwnedFd,
    sequence: u32,
}

impl CounterSocket {
    /// Opens one in the namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: open_socket()?,
            sequence: 0,
        })
    }

    /// What the device of an index has counted until now; none if there is no such device, or it cannot be known. `place` is the
    /// socket's namespace, and `buffer` is for the answer.
    pub(super) fn read(
        &mut self,
        index: u32,
        place: &Place,
        buffer: &mut [u8],
    ) -> Option<DeviceCounters> {
        self.ask(index, place, buffer)
            .inspect_err(|error| {
                tracing::debug!(namespace = %place.namespace, index, %error, "a device's counters cannot be read");
            })
            .ok()
            .flatten()
    }

    fn ask(
        &mut self,
        index: u32,
        place: &Place,
        buffer: &mut [u8],
    ) -> io::Result<Option<DeviceCounters>> {
        self.sequence = self.sequence.wrapping_add(1);
        send_request(&self.socket, self.sequence, Wanted::One(index))?;
        // The kernel answers such a request while it takes it, so nothing is waited for: without an answer this ends with EAGAIN.
        loop {
            let Some(length) = receive(&self.socket, buffer)? else {
                continue;
            };
            for message in messages(buffer.get(..length).unwrap_or_default(), place) {
                let message = message.map_err(io::Error::other)?;
                // What is left of a request that failed half-way is passed over.
                if message.sequence != self.sequence {
                    continue;
                }
                return match message.content.map_err(io::Error::other)? {
                    Content::Link(_, counters) => Ok(counters),
                    Content::Error { error } if error == -(Errno::ENODEV as i32) => Ok(None),
                    Content::Error { error } => Err(io::Error::from_raw_os_error(-error)),
                    _ => Err(io::Error::other("an answer of another kind")),
                };
            }
        }
    }
}
