//! A device's own counters: what the tests compare everything with.

use std::fs;

use super::Namespace;
use crate::{Error, Result};

/// What a device counted since it was made. Octets are of whole frames, with the Ethernet header; a segmentation super-packet is
/// one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceStats {
    /// Octets received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Packets lost on the way in for want of room, or dropped behind TC ingress because no protocol of the stack wanted them.
    pub rx_dropped: u64,
    /// Octets sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Send errors.
    pub tx_errors: u64,
    /// Packets that the device refused to send.
    pub tx_dropped: u64,
}

impl DeviceStats {
    /// What was counted after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            rx_bytes: self.rx_bytes.wrapping_sub(earlier.rx_bytes),
            rx_packets: self.rx_packets.wrapping_sub(earlier.rx_packets),
            rx_errors: self.rx_errors.wrapping_sub(earlier.rx_errors),
            rx_dropped: self.rx_dropped.wrapping_sub(earlier.rx_dropped),
            tx_bytes: self.tx_bytes.wrapping_sub(earlier.tx_bytes),
            tx_packets: self.tx_packets.wrapping_sub(earlier.tx_packets),
            tx_errors: self.tx_errors.wrapping_sub(earlier.tx_errors),
            tx_dropped: self.tx_dropped.wrapping_sub(earlier.tx_dropped),
        }
    }
}

impl std::ops::AddAssign for DeviceStats {
    fn add_assign(&mut self, later: Self) {
        self.rx_bytes += later.rx_bytes;
        self.rx_packets += later.rx_packets;
        self.rx_errors += later.rx_errors;
        self.rx_dropped += later.rx_dropped;
        self.tx_bytes += later.tx_bytes;
        self.tx_packets += later.tx_packets;
        self.tx_errors += later.tx_errors;
        self.tx_dropped += later.tx_dropped;
    }
}

/// Reads the counters of `device` in `namespace`.
///
/// A veth's receive counters are raised when its peer sends, before TC ingress sees the packet.
///
/// # Errors
/// If there is no such device.
pub fn device_stats(namespace: &Namespace, device: &str) -> Result<DeviceStats> {
    // Of the thread, not of the process: /proc/net and /sys/class/net do not follow setns.
    let path = "/proc/thread-self/net/dev";
    let table = namespace
        .enter(|| fs::read_to_string(path))?
        .map_err(Error::system(format!("read {path}")))?;
    table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == device)
        .and_then(|(_, columns)| parse(columns))
        .ok_or_else(|| {
            Error::Invalid(format!(
                "no device {device} in network namespace {:?}",
                namespace.name()
            ))
        })
}

/// The columns of `/proc/net/dev`, as the kernel writes them in net/core/net-procfs.c (`dev_seq_printf_stats`).
fn parse(columns: &str) -> Option<DeviceStats> {
    let values: Vec<u64> = columns
        .split_whitespace()
        .map_while(|value| value.parse().ok())
        .collect();
    let &[
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        _,
        _,
        _,
        _,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
        ..,
    ] = values.as_slice()
    else {
        return None;
    };
    Some(DeviceStats {
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::{DeviceStats, parse};

    #[test]
    fn columns_are_told_apart() {
        let read = parse(" 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16").expect("a full line");
        let expected = DeviceStats {
            rx_bytes: 1,
            rx_packets: 2,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 9,
            tx_packets: 10,
            tx_errors: 11,
            tx_dropped: 12,
        };
        assert_eq!(read, expected);
        assert_eq!(parse("1 2 3"), None);
    }
}
