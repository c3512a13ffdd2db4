//! What is known of a network device.

use std::path::Path;

use super::namespace::{NamespaceId, NamespaceRef};

/// The identity of a device: its namespace and its index there.
///
/// An index is given anew after a device is gone only if someone asks for it; that shows as [`DeviceEvent::Vanished`]
/// followed by [`DeviceEvent::Appeared`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceKey {
    /// The network namespace the device is in.
    pub namespace: NamespaceId,
    /// The interface index (`ifindex`), unique within the namespace, never 0.
    pub index: u32,
}

/// A network device, as rtnetlink last told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Which device this is.
    pub key: DeviceKey,
    /// The name of its namespace in the folder of named namespaces; `None` in the host's.
    pub namespace_name: Option<String>,
    /// Its name (`eth0`), at most 15 bytes; bytes that are not UTF-8 are shown as U+FFFD.
    pub name: String,
    /// Its hardware address, where that has six bytes.
    pub mac: Option<[u8; 6]>,
    /// Its alias (`ip link set dev … alias …`), at most 255 bytes; bytes that are not UTF-8 are shown as U+FFFD.
    /// The kernel does not announce the alias of a device that is down (`do_setlink` in net/core/rtnetlink.c): it is seen
    /// with the next change, at the latest when the device goes up.
    pub alias: Option<String>,
    /// What made it: `veth`, `tun`, `bridge`, …; `None` for devices of hardware drivers and the loopback.
    pub kind: Option<String>,
    /// The hardware type, an `ARPHRD_*` number: 1 is Ethernet, 772 the loopback, 65534 none.
    pub link_type: u16,
    /// Whether it is administratively up (`IFF_UP`).
    pub up: bool,
    /// The largest packet it sends, in bytes, without the link-layer header.
    pub mtu: u32,
    /// The XDP program on it. The kernel does not announce programs attached through BPF links, so this may lag behind
    /// until the device changes otherwise; a fresh listing is right.
    pub xdp_attached: Option<XdpAttachment>,
}

impl Device {
    /// The namespace the device is in, for [`super::in_namespace`]. `folder` is the folder of named namespaces that the
    /// device was discovered with.
    #[must_use]
    pub fn namespace_ref(&self, folder: &Path) -> NamespaceRef {
        match &self.namespace_name {
            None => NamespaceRef::Host,
            Some(name) => NamespaceRef::Named {
                path: folder.join(name),
                id: self.key.namespace,
            },
        }
    }
}

/// An XDP program on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpAttachment {
    /// Where in the receive path it runs.
    pub mode: XdpMode,
    /// The kernel's id of the program; with [`XdpMode::Multiple`], of the first of native, generic and offloaded.
    pub program_id: Option<u32>,
}

/// Where in the receive path an XDP program runs (`XDP_ATTACHED_*` of `linux/if_link.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack, after the packet's buffer is made.
    Generic,
    /// In the network card.
    Offloaded,
    /// In more than one of these places.
    Multiple,
    /// A mode this version does not know, by the kernel's number.
    Other(u8),
}

/// What a device has counted since it was made, as the kernel tells it (`struct rtnl_link_stats64` of `linux/if_link.h`): packets, and
/// octets of frames as the device counts them. They stay with a device that is moved to another namespace.
///
/// They are no part of what a device is: they change all the time, and that is not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Octets received.
    pub rx_bytes: u64,
    /// Octets sent.
    pub tx_bytes: u64,
    /// Packets received that were bad, and are mostly not among `rx_packets`.
    pub rx_errors: u64,
    /// Packets that could not be sent for an error, and are not among `tx_packets`.
    pub tx_errors: u64,
    /// Packets received for which there was no room further up; whether they are among `rx_packets` too depends on the driver.
    pub rx_dropped: u64,
    /// Packets for which the device or its peer had no room, and that are not among `tx_packets`.
    pub tx_dropped: u64,
}

impl DeviceCounters {
    /// The higher of each: counters only grow, so that is the later reading, unless the kernel could not tell the whole any more.
    #[must_use]
    pub(super) fn highest(self, other: Self) -> Self {
        Self {
            rx_packets: self.rx_packets.max(other.rx_packets),
            tx_packets: self.tx_packets.max(other.tx_packets),
            rx_bytes: self.rx_bytes.max(other.rx_bytes),
            tx_bytes: self.tx_bytes.max(other.tx_bytes),
            rx_errors: self.rx_errors.max(other.rx_errors),
            tx_errors: self.tx_errors.max(other.tx_errors),
            rx_dropped: self.rx_dropped.max(other.rx_dropped),
            tx_dropped: self.tx_dropped.max(other.tx_dropped),
        }
    }
}

/// A change, with what the device had counted then, as far as it is known: never less than was told or asked before. Events of one
/// namespace come in the order of the changes; between namespaces no order is promised (a device moved to another namespace may appear
/// there before it vanishes here).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// A device that was not known.
    Appeared(Device, Option<DeviceCounters>),
    /// A known device has another name, address, alias, state, … than before.
    Changed(Device, Option<DeviceCounters>),
    /// A known device is gone: deleted, moved to another namespace, or its namespace is gone or no longer wanted. The counters are the
    /// last that are known. The kernel tells them after it has shut the device, so that mostly they are final. They are not if the message
    /// was lost; nor is what one end of a veth pair has received, unless it uses NAPI: that is counted at the other end, from which it is
    /// parted first (`veth_dellink` in drivers/net/veth.c), and so it is what it was when it was last told or asked for.
    Vanished(DeviceKey, Option<DeviceCounters>),
    /// A wanted namespace cannot be watched now. It is tried again, and as soon as there is one of the name; told once per
    /// name and reason.
    NamespaceUnavailable {
        /// The namespace's name.
        name: String,
        /// Why, as one sentence without a final stop.
        reason: String,
    },
    /// A namespace that was watched is no longer there under its name. Its devices have been told to vanish before.
    NamespaceGone {
        /// The namespace's name.
        name: String,
    },
}
