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

/// A change. Events of one namespace come in the order of the changes; between namespaces no order is promised (a device
/// moved to another namespace may appear there before it vanishes here).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// A device that was not known.
    Appeared(Device),
    /// A known device has another name, address, alias, state, … than before.
    Changed(Device),
    /// A known device is gone: deleted, moved to another namespace, or its namespace is gone or no longer wanted.
    Vanished(DeviceKey),
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
