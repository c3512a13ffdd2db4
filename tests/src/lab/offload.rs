//! A device's offloads, switched as `ethtool -K` does: by the kernel's ethtool netlink family
//! (Documentation/networking/ethtool-netlink.rst), so that the `ethtool` program need not be installed.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::Namespace;
use crate::{Error, Result};

/// An offload, which is one or more of the kernel's features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// The device segments TCP: a super-packet reaches it whole.
    Tso,
    /// The kernel segments, as late as it can.
    Gso,
    /// Received packets are merged into super-packets. On a veth it makes the device poll (NAPI).
    Gro,
    /// The device computes checksums; without it there is no [`Offload::Tso`] either.
    TxChecksum,
}

impl Offload {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tso, Self::Gso, Self::Gro, Self::TxChecksum];

    /// Names of net/ethtool/common.c (`netdev_features_strings`).
    fn features(self) -> &'static [&'static str] {
        match self {
            Self::Tso => &[
                "tx-tcp-segmentation",
                "tx-tcp-ecn-segmentation",
                "tx-tcp-mangleid-segmentation",
                "tx-tcp6-segmentation",
            ],
            Self::Gso => &["tx-generic-segmentation"],
            Self::Gro => &["rx-gro"],
            Self::TxChecksum => &["tx-checksum-ip-generic"],
        }
    }
}

// include/uapi/linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLA_F_NESTED: u16 = 1 << 15;
// include/uapi/linux/genetlink.h
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
// include/uapi/linux/ethtool_netlink_generated.h
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
const ETHTOOL_A_HEADER_FLAGS: u16 = 3;
const ETHTOOL_FLAG_OMIT_REPLY: u32 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

/// Octets of a netlink and a generic netlink header.
const HEADERS: usize = 16 + 4;
/// The longest answer that is looked for, in octets; that of the controller about a family is the longest.
const MAX_ANSWER: usize = 16 * 1024;

/// Switches offloads of `device` in `namespace` on or off.
///
/// # Errors
/// If there is no such device, or the kernel knows no ethtool netlink. A feature that the device cannot change stays as it is
/// without an error, as with `ethtool -K`.
pub fn set_offload(
    namespace: &Namespace,
    device: &str,
    offloads: &[Offload],
    on: bool,
) -> Result<()> {
    let mut bits = Vec::new();
    for name in offloads.iter().flat_map(|offload| offload.features()) {
        let mut bit = attribute(ETHTOOL_A_BITSET_BIT_NAME, &terminated(name));
        if on {
            bit.extend(attribute(ETHTOOL_A_BITSET_BIT_VALUE, &[]));
        }
        bits.extend(nested(ETHTOOL_A_BITSET_BITS_BIT, &bit));
    }
    let mut header = attribute(ETHTOOL_A_HEADER_DEV_NAME, &terminated(device));
    header.extend(attribute(
        ETHTOOL_A_HEADER_FLAGS,
        &ETHTOOL_FLAG_OMIT_REPLY.to_ne_bytes(),
    ));
    let mut body = nested(ETHTOOL_A_FEATURES_HEADER, &header);
    body.extend(nested(
        ETHTOOL_A_FEATURES_WANTED,
        &nested(ETHTOOL_A_BITSET_BITS, &bits),
    ));

    let doing = || {
        format!(
            "switch {offloads:?} of {device} {}",
            if on { "on" } else { "off" }
        )
    };
    let socket = namespace.enter(open)?.map_err(Error::system(doing()))?;
    let family =
        family_id(&socket).map_err(Error::system("find the kernel's ethtool netlink family"))?;
    request(&socket, family, ETHTOOL_MSG_FEATURES_SET, NLM_F_ACK, &body)
        .map(drop)
        .map_err(Error::system(doing()))
}

fn open() -> nix::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkGeneric,
    )?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(2, 0))?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

fn family_id(socket: &OwnedFd) -> std::io::Result<u16> {
    let name = attribute(CTRL_ATTR_FAMILY_NAME, &terminated("ethtool"));
    let answer = request(socket, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0, &name)?;
    let mut rest = answer.get(HEADERS..).unwrap_or_default();
    while let [a, b, c, d, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let (Some(attribute), true) = (rest.get(4..length), length >= 4) else {
            break;
        };
        if let (CTRL_ATTR_FAMILY_ID, &[low, high]) = (u16::from_ne_bytes([c, d]), attribute) {
            return Ok(u16::from_ne_bytes([low, high]));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Err(std::io::Error::other("the answer has no family id"))
}

/// Sends a request and returns the answer to it.
fn request(
    socket: &OwnedFd,
    family: u16,
    command: u8,
    flags: u16,
    body: &[u8],
) -> std::io::Result<Vec<u8>> {
    let length = (HEADERS + body.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Sequence number and port 0: the socket has one request under way at a time.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(body);
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;

    let mut answer = vec![0; MAX_ANSWER];
    let received = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(received);
    if let [
        _,
        _,
        _,
        _,
        a,
        b,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        e0,
        e1,
        e2,
        e3,
        ..,
    ] = *answer.as_slice()
        && u16::from_ne_bytes([a, b]) == NLMSG_ERROR
    {
        let errno = i32::from_ne_bytes([e0, e1, e2, e3]);
        if errno != 0 {
            return Err(std::io::Error::from_raw_os_error(-errno));
        }
    }
    Ok(answer)
}

/// A netlink attribute, padded to a multiple of 4 octets.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, attributes)
}

fn terminated(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}
