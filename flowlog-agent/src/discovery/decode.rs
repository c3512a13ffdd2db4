//! Link messages of rtnetlink, as devices.
//!
//! Only the attributes that matter here are looked at: a new kernel's new attributes cannot break the rest.

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{LinkFlags, LinkHeader, LinkXdp, XdpAttached};
use rtnetlink::packet_core::{
    DecodeError, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlaBuffer, NlasIterator,
    Parseable,
};

use super::device::{Device, DeviceCounters, DeviceKey, XdpAttachment, XdpMode};
use super::namespace::NamespaceId;

/// The length of `struct ifinfomsg`, before the attributes.
const LINK_HEADER_BYTES: usize = 16;
/// Messages in a datagram, and attributes, start at multiples of this.
const ALIGNMENT_BYTES: usize = 4;

// Message types and attributes: linux/rtnetlink.h and linux/if_link.h.
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_WIRELESS: u16 = 11;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_KIND: u16 = 1;

/// Where the devices of a message are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) namespace: NamespaceId,
    pub(super) name: Option<String>,
}

/// What a netlink message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// There is this device, as described, and this is what it has counted.
    Link(Device, Option<DeviceCounters>),
    /// The device of this index is gone, and this is what it has counted.
    LinkGone(u32, Option<DeviceCounters>),
    /// A dump is over; the error number is 0 if it went well.
    Done { error: i32 },
    /// A request failed, with this (negative) error number; 0 is an acknowledgement.
    Error { error: i32 },
    /// Nothing about devices as such: a bridge's view of a port, a wireless event, …
    Other,
}

/// A netlink message with what its header says.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) sequence: u32,
    /// The port of the socket that asked for it; 0 if the kernel spoke by itself.
    pub(super) port: u32,
    /// A dump was interrupted by changes, and may lack devices.
    pub(super) interrupted: bool,
    pub(super) content: Result<Content, DecodeError>,
}

/// The messages of a datagram. After one whose length is wrong there can be no further ones.
pub(super) fn messages<'a>(
    datagram: &'a [u8],
    place: &'a Place,
) -> impl Iterator<Item = Result<Message, DecodeError>> + 'a {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        Some(
            NetlinkBuffer::new_checked(rest)
                .inspect_err(|_| rest = &[])
                .map(|buffer| {
                    let length = (buffer.length() as usize).next_multiple_of(ALIGNMENT_BYTES);
                    rest = rest.get(length..).unwrap_or_default();
                    Message {
                        sequence: buffer.sequence_number(),
                        port: buffer.port_number(),
                        interrupted: buffer.flags() & NLM_F_DUMP_INTR != 0,
                        content: content(buffer.message_type(), buffer.payload(), place),
                    }
                }),
        )
    })
}

fn content(message_type: u16, payload: &[u8], place: &Place) -> Result<Content, DecodeError> {
    match message_type {
        RTM_NEWLINK | RTM_DELLINK => link(message_type, payload, place),
        NLMSG_DONE => Ok(Content::Done {
            error: leading_i32(payload),
        }),
        NLMSG_ERROR => Ok(Content::Error {
            error: leading_i32(payload),
        }),
        _ => Ok(Content::Other),
    }
}

/// The error number at the start of a message; an empty `NLMSG_DONE` is legal and means 0.
fn leading_i32(payload: &[u8]) -> i32 {
    payload
        .first_chunk()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes))
}

fn link(message_type: u16, payload: &[u8], place: &Place) -> Result<Content, DecodeError> {
    let header = LinkHeader::parse(payload)?;
    // A bridge tells of its ports in the same group, with its own family: a "deleted link" there is a port that left the
    // bridge (br_ifinfo_notify in net/bridge/br_netlink.c), not a deleted device.
    if header.interface_family != AddressFamily::Unspec {
        return Ok(Content::Other);
    }
    let attributes = payload.get(LINK_HEADER_BYTES..).unwrap_or_default();
    if message_type == RTM_DELLINK {
        return Ok(Content::LinkGone(header.index, last_counters(attributes)));
    }
    let mut counters = None;
    let mut device = Device {
        key: DeviceKey {
            namespace: place.namespace,
            index: header.index,
        },
        namespace_name: place.name.clone(),
        name: String::new(),
        mac: None,
        alias: None,
        kind: None,
        link_type: header.link_layer_type.into(),
        up: header.flags.contains(LinkFlags::Up),
        mtu: 0,
        xdp_attached: None,
    };
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            // Wireless extensions send their events as links of which nothing else is told
            // (wireless_nlevent_process in net/wireless/wext-core.c).
            IFLA_WIRELESS => return Ok(Content::Other),
            IFLA_IFNAME => device.name = text(attribute.value()),
            IFLA_ADDRESS => device.mac = attribute.value().try_into().ok(),
            IFLA_MTU => device.mtu = number(&attribute)?,
            IFLA_IFALIAS => {
                device.alias = Some(text(attribute.value())).filter(|alias| !alias.is_empty());
            }
            IFLA_STATS64 => counters = device_counters(attribute.value()),
            IFLA_LINKINFO => device.kind = kind(attribute.value())?,
            IFLA_XDP => device.xdp_attached = xdp(attribute.value())?,
            _ => {}
        }
    }
    if device.name.is_empty() || header.index == 0 {
        return Err("a link without a name or an index".into());
    }
    Ok(Content::Link(device, counters))
}

/// The counters of a device that is gone. That it is gone is true whatever else the message says.
fn last_counters(attributes: &[u8]) -> Option<DeviceCounters> {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == IFLA_STATS64)
        .and_then(|attribute| device_counters(attribute.value()))
}

/// The first fields of a `struct rtnl_link_stats64`, to which kernels add at its end; none if there are fewer.
fn device_counters(stats: &[u8]) -> Option<DeviceCounters> {
    let (fields, _) = stats.as_chunks();
    let mut fields = fields.iter().map(|field| u64::from_ne_bytes(*field));
    let mut next = || fields.next();
    Some(DeviceCounters {
        rx_packets: next()?,
        tx_packets: next()?,
        rx_bytes: next()?,
        tx_bytes: next()?,
        rx_errors: next()?,
        tx_errors: next()?,
        rx_dropped: next()?,
        tx_dropped: next()?,
    })
}

/// A string that may end with a NUL.
fn text(value: &[u8]) -> String {
    let end = value
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

fn number(attribute: &NlaBuffer<&[u8]>) -> Result<u32, DecodeError> {
    let wrong = || {
        DecodeError::from(format!(
            "attribute {} is not 4 bytes long",
            attribute.kind()
        ))
    };
    attribute
        .value()
        .try_into()
        .map(u32::from_ne_bytes)
        .map_err(|_| wrong())
}

fn kind(link_info: &[u8]) -> Result<Option<String>, DecodeError> {
    for attribute in NlasIterator::new(link_info) {
        let attribute = attribute?;
        if attribute.kind() == IFLA_INFO_KIND {
            return Ok(Some(text(attribute.value())));
        }
    }
    Ok(None)
}

fn xdp(nested: &[u8]) -> Result<Option<XdpAttachment>, DecodeError> {
    let (mut mode, mut single, mut native, mut generic, mut offloaded) =
        (None, None, None, None, None);
    for attribute in NlasIterator::new(nested) {
        match LinkXdp::parse(&attribute?)? {
            LinkXdp::Attached(attached) => mode = xdp_mode(attached),
            LinkXdp::ProgId(id) => single = Some(id),
            LinkXdp::DrvProgId(id) => native = Some(id),
            LinkXdp::SkbProgId(id) => generic = Some(id),
            LinkXdp::HwProgId(id) => offloaded = Some(id),
            _ => {}
        }
    }
    let program_id = single.or(native).or(generic).or(offloaded);
    Ok(mode.map(|mode| XdpAttachment { mode, program_id }))
}

fn xdp_mode(attached: XdpAttached) -> Option<XdpMode> {
    match attached {
        XdpAttached::None => None,
        XdpAttached::Driver => Some(XdpMode::Native),
        XdpAttached::SocketBuffer => Some(XdpMode::Generic),
        XdpAttached::Hardware => Some(XdpMode::Offloaded),
        XdpAttached::Multiple => Some(XdpMode::Multiple),
        XdpAttached::Other(number) => Some(XdpMode::Other(number)),
        // The enum may grow; what is attached in a way this version cannot name is still attached.
        _ => Some(XdpMode::Other(u8::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            namespace: NamespaceId {
                device: 4,
                inode: 7,
            },
            name: None,
        }
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT_BYTES), 0);
        bytes
    }

    fn message(message_type: u16, family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![family, 0, 1, 0];
        for word in [42_u32, 1, 0] {
            body.extend_from_slice(&word.to_ne_bytes());
        }
        body.extend(attributes.concat());
        let length = u32::try_from(body.len() + 16).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&message_type.to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend(body);
        bytes
    }

    fn decode(datagram: &[u8]) -> Vec<Result<Content, DecodeError>> {
        messages(datagram, &place())
            .map(|message| message.and_then(|message| message.content))
            .collect()
    }

    #[test]
    fn a_link_with_every_attribute() {
        let xdp = [attribute(2, &[2]), attribute(4, &99_u32.to_ne_bytes())].concat();
        let bytes = message(
            RTM_NEWLINK,
            0,
            &[
                attribute(IFLA_IFNAME, b"eni0\0"),
                attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]),
                attribute(IFLA_MTU, &1500_u32.to_ne_bytes()),
                attribute(IFLA_IFALIAS, b"eni-1"),
                attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, b"veth\0")),
                attribute(IFLA_XDP, &xdp),
                attribute(IFLA_STATS64, &stats(25)),
                attribute(9999, b"from a later kernel"),
            ],
        );
        let decoded = decode(&bytes);
        let expected = Device {
            key: DeviceKey {
                namespace: place().namespace,
                index: 42,
            },
            namespace_name: None,
            name: "eni0".into(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            alias: Some("eni-1".into()),
            kind: Some("veth".into()),
            link_type: 1,
            up: true,
            mtu: 1500,
            xdp_attached: Some(XdpAttachment {
                mode: XdpMode::Generic,
                program_id: Some(99),
            }),
        };
        assert!(
            matches!(&decoded[..], [Ok(Content::Link(device, counters))] if *device == expected && *counters == COUNTERS),
            "{decoded:?}"
        );
    }

    /// A `struct rtnl_link_stats64` with so many fields: 1, 2, 3, …
    fn stats(fields: u64) -> Vec<u8> {
        (1..=fields).flat_map(u64::to_ne_bytes).collect()
    }

    const COUNTERS: Option<DeviceCounters> = Some(DeviceCounters {
        rx_packets: 1,
        tx_packets: 2,
        rx_bytes: 3,
        tx_bytes: 4,
        rx_errors: 5,
        tx_errors: 6,
        rx_dropped: 7,
        tx_dropped: 8,
    });

    #[test]
    fn a_device_that_is_gone_leaves_its_counters() {
        for (stats, counters) in [(stats(8), COUNTERS), (stats(7), None)] {
            let attributes = [
                attribute(IFLA_IFNAME, b"eni0\0"),
                attribute(IFLA_STATS64, &stats),
            ];
            let decoded = decode(&message(RTM_DELLINK, 0, &attributes));
            assert!(
                matches!(&decoded[..], [Ok(Content::LinkGone(42, told))] if *told == counters),
                "{decoded:?}"
            );
        }
    }

    #[test]
    fn a_port_that_leaves_its_bridge_and_a_wireless_event_are_no_news_of_devices() {
        let name = attribute(IFLA_IFNAME, b"eni0\0");
        let bridge = message(RTM_DELLINK, 7, std::slice::from_ref(&name));
        let wireless = message(RTM_NEWLINK, 0, &[name, attribute(IFLA_WIRELESS, &[0; 8])]);
        let decoded = decode(&[bridge, wireless, message(RTM_DELLINK, 0, &[])].concat());
        assert!(
            matches!(
                &decoded[..],
                [
                    Ok(Content::Other),
                    Ok(Content::Other),
                    Ok(Content::LinkGone(42, None))
                ]
            ),
            "{decoded:?}"
        );
    }

    #[test]
    fn a_damaged_message_is_an_error_and_the_next_one_is_read() {
        let nameless = message(RTM_NEWLINK, 0, &[]);
        let short_mtu = message(RTM_NEWLINK, 0, &[attribute(IFLA_MTU, &[1])]);
        let decoded = decode(&[nameless, short_mtu, message(RTM_DELLINK, 0, &[])].concat());
        assert!(
            matches!(
                &decoded[..],
                [Err(_), Err(_), Ok(Content::LinkGone(42, None))]
            ),
            "{decoded:?}"
        );
    }

    #[test]
    fn no_cut_of_a_datagram_panics_or_passes_for_a_device() {
        let bytes = message(
            RTM_NEWLINK,
            0,
            &[
                attribute(IFLA_IFNAME, b"eni0\0"),
                attribute(IFLA_MTU, &[0; 4]),
            ],
        );
        for length in 1..bytes.len() {
            let decoded = decode(&bytes[..length]);
            assert!(
                matches!(&decoded[..], [Err(_)]),
                "cut at {length}: {decoded:?}"
            );
        }
    }
}
