//! Veth pairs: two ENIs and the wire between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use super::{Mac, Namespace, Offload, set_offload};
use crate::{Error, Result};

/// How long the carrier is awaited.
const CARRIER_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at the carrier: there is no event to await without a netlink library.
const CARRIER_LOOK: Duration = Duration::from_millis(2);
/// Longest device name, in octets (`IFNAMSIZ` less the terminating zero).
const MAX_NAME: usize = 15;

/// One end of a pair.
#[derive(Clone, Debug)]
pub struct EndPlan {
    /// Where this end is.
    pub namespace: Namespace,
    /// Name of the device, up to 15 characters.
    pub name: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses and the lengths of their prefixes. Without an IPv6 address the device has no IPv6 at all.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A pair to be made.
#[derive(Clone, Debug)]
pub struct VethPlan {
    /// One end.
    pub left: EndPlan,
    /// The other end.
    pub right: EndPlan,
    /// MTU of both ends, in octets of IP datagram; 68 to 65,535, and 1,280 at least for IPv6.
    pub mtu: u32,
}

impl VethPlan {
    /// An ordinary pair: `left0` (02:f1:00:00:00:01, 10.77.0.1/24, fd00:77::1/64) in `left`, `right0` (the same with 2) in
    /// `right`, and an MTU of 1,500.
    #[must_use]
    pub fn between(left: &Namespace, right: &Namespace) -> Self {
        let end = |namespace: &Namespace, name: &str, host: u8| EndPlan {
            namespace: namespace.clone(),
            name: name.to_owned(),
            mac: [0x02, 0xf1, 0, 0, 0, host],
            addresses: vec![
                (Ipv4Addr::new(10, 77, 0, host).into(), 24),
                (
                    Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, host.into()).into(),
                    64,
                ),
            ],
        };
        Self::new(end(left, "left0", 1), end(right, "right0", 2))
    }

    /// A pair with an MTU of 1,500.
    #[must_use]
    pub fn new(left: EndPlan, right: EndPlan) -> Self {
        Self {
            left,
            right,
            mtu: 1500,
        }
    }
}

/// Two connected devices, up and with carrier; deleted when dropped.
///
/// Nothing crosses them but what is sent on purpose: each end knows the other's addresses by heart and never asks (ARP and ND are
/// off); without an IPv6 address there is no IPv6, with one there are no solicitations, duplicate address detection, link-local
/// addresses or multicast listener reports.
#[derive(Debug)]
pub struct VethPair {
    plan: VethPlan,
}

impl VethPair {
    /// Makes the pair.
    ///
    /// # Errors
    /// If a name is in use or too long, the kernel has no veth, or the carrier does not come within 10 s. Nothing is left behind.
    pub fn create(plan: VethPlan) -> Result<Self> {
        for end in [&plan.left, &plan.right] {
            if end.name.is_empty() || end.name.len() > MAX_NAME {
                return Err(Error::Invalid(format!(
                    "device name `{}`: 1 to {MAX_NAME} characters are allowed",
                    end.name
                )));
            }
        }
        add(&plan)?;
        // From here on dropping it deletes the devices.
        let pair = Self { plan };
        let VethPlan {
            left,
            right,
            mtu: _,
        } = &pair.plan;
        for end in [left, right] {
            quieten(end)?;
            for (address, prefix) in &end.addresses {
                let address = format!("{address}/{prefix}");
                // Duplicate address detection exists in IPv6 alone, but `ip` takes the word for both.
                end.namespace
                    .ip(&["address", "add", &address, "dev", &end.name, "nodad"])?;
            }
            end.namespace.ip(&["link", "set", &end.name, "up"])?;
        }
        for (end, other) in [(left, right), (right, left)] {
            await_carrier(end)?;
            for (address, _) in &other.addresses {
                let (address, mac) = (address.to_string(), mac_text(&other.mac));
                let neighbour = [
                    &address,
                    "lladdr",
                    &mac,
                    "dev",
                    &end.name,
                    "nud",
                    "permanent",
                ];
                end.namespace
                    .ip(&[&["neighbour", "replace"], &neighbour[..]].concat())?;
            }
        }
        Ok(pair)
    }

    /// Switches all offloads of both ends off: what crosses is what a wire carries, and the devices count it so.
    ///
    /// # Errors
    /// If a device is gone, or its kernel does not know an offload.
    pub fn without_offloads(&self) -> Result<()> {
        for end in [self.left(), self.right()] {
            set_offload(&end.namespace, &end.name, &Offload::ALL, false)?;
        }
        Ok(())
    }

    /// The left end, as planned.
    #[must_use]
    pub fn left(&self) -> &EndPlan {
        &self.plan.left
    }

    /// The right end, as planned.
    #[must_use]
    pub fn right(&self) -> &EndPlan {
        &self.plan.right
    }
}

impl Drop for VethPair {
    fn drop(&mut self) {
        let VethPlan {
            left,
            right,
            mtu: _,
        } = &self.plan;
        // Deleting one end deletes both. A test may have deleted or renamed either; then the namespaces' end is the devices' end.
        if left.namespace.ip(&["link", "delete", &left.name]).is_err() {
            let _ = right.namespace.ip(&["link", "delete", &right.name]);
        }
    }
}

/// Adds both devices, each in its namespace.
fn add(plan: &VethPlan) -> Result<()> {
    // `ip` must be told the peer's namespace by name: an end in the unnamed one is the one to run it from.
    let (near, far) = if plan.right.namespace.name().is_some() {
        (&plan.left, &plan.right)
    } else {
        (&plan.right, &plan.left)
    };
    let (near_mac, far_mac, mtu) = (
        mac_text(&near.mac),
        mac_text(&far.mac),
        plan.mtu.to_string(),
    );
    let mut args = vec![
        "link", "add", &near.name, "address", &near_mac, "mtu", &mtu, "type", "veth",
    ];
    args.extend(["peer", "name", &far.name, "address", &far_mac, "mtu", &mtu]);
    if let Some(name) = far.namespace.name() {
        args.extend(["netns", name]);
    }
    near.namespace.ip(&args).map(drop)
}

/// Keeps the kernel from sending anything by itself over a device that is still down.
fn quieten(end: &EndPlan) -> Result<()> {
    let set = |key: &str, value: &str| {
        end.namespace
            .set_sysctl(&format!("ipv6/conf/{}/{key}", end.name), value)
    };
    // Without ARP and ND an address does not join its solicited-node group either, which would be reported by MLD.
    end.namespace
        .ip(&["link", "set", &end.name, "arp", "off"])?;
    if !end.addresses.iter().any(|(address, _)| address.is_ipv6()) {
        return set("disable_ipv6", "1");
    }
    // 1 is IN6_ADDR_GEN_MODE_NONE: no link-local address.
    set("addr_gen_mode", "1")?;
    for key in [
        "router_solicitations",
        "accept_dad",
        "dad_transmits",
        "accept_ra",
        "autoconf",
    ] {
        set(key, "0")?;
    }
    Ok(())
}

/// Waits until the device is operational and its queue is in place: before that the kernel drops in silence what is sent.
fn await_carrier(end: &EndPlan) -> Result<()> {
    let deadline = Instant::now() + CARRIER_LIMIT;
    loop {
        let line = end
            .namespace
            .ip(&["-oneline", "link", "show", "dev", &end.name])?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let is = |key: &str, wanted: fn(&str) -> bool| {
            words
                .windows(2)
                .any(|pair| pair[0] == key && wanted(pair[1]))
        };
        if is("state", |state| state == "UP") && is("qdisc", |qdisc| qdisc != "noop") {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::Deadline {
                what: format!("the carrier of {}", end.name),
                limit: CARRIER_LIMIT,
            });
        }
        thread::sleep(CARRIER_LOOK);
    }
}

fn mac_text(mac: &Mac) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
