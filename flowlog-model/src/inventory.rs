//! The inventory: which device is which ENI.
//!
//! A TOML file of `[[eni]]` entries:
//!
//! | key | meaning |
//! |---|---|
//! | `eni-id`, `vswitch-id`, `vpc-id`, `account-id` | identity; required; each an [`Id`](crate::text::Id) |
//! | `vm-id`, `region` | identity; optional |
//! | `match.name` | pattern of the device's name, see [`crate::glob`] |
//! | `match.mac` | the device's MAC address, in either case |
//! | `match.alias` | pattern of the device's alias (`ip link set … alias …`) |
//! | `match.namespace` | the named network namespace in which the device is; the host's if absent |
//! | `side` | `guest` (default): the device is the ENI; `host`: it is the host's end of the VM's veth or tap |
//! | `hook` | `tc` (default) or `xdp`: what counts ingress |
//! | `netfilter` | `true` (default): what the host's firewall drops is REJECT; `false`: it is ACCEPT, or not recorded |
//! | `security-mode`, `security-group-ids`, `private-ip-addresses`, `ipv6-addresses` | see [`crate::security_group`] |
//!
//! and of `[[security-group]]` and `[[prefix-list]]`, which [`crate::security_group`] describes. An ENI of another host that is a member
//! of a group is a `[[remote-eni]]`: an `eni-id`, its groups and its addresses, and no device.
//!
//! `match` has at least one key, and a device matches if it fits all that are given. A device that two entries match is ambiguous:
//! no order or narrowness of patterns decides, for a wrong guess would put one customer's traffic in another's records.
use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;

use crate::glob::Glob;
use crate::input::{Document, InputError};
use crate::record::Eni;
use crate::security_group::{Attachment, Policy, SecurityGroups};
use crate::text::Text;
use crate::{spelled_enum, text_type};

mod raw;

/// Most entries that an inventory can have.
pub const MAX_ENTRIES: usize = 65_536;

/// Most ENIs of other hosts that an inventory can have.
pub const MAX_REMOTE_ENIS: usize = 65_536;

/// Longest device name in bytes: Linux's `IFNAMSIZ` without the ending zero (`include/uapi/linux/if.h`).
pub const MAX_DEVICE_NAME_BYTES: usize = 15;

/// Longest device alias in bytes: Linux's `IFALIASZ` without the ending zero (`include/uapi/linux/if.h`).
pub const MAX_ALIAS_BYTES: usize = 255;

/// The pattern of a device's name.
pub type NamePattern = Glob<64>;

/// The pattern of a device's alias.
pub type AliasPattern = Glob<MAX_ALIAS_BYTES>;

/// The inventory of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    entries: Vec<EniEntry>,
    security_groups: SecurityGroups,
}

/// One entry: an ENI, and how to know its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EniEntry {
    /// The identity.
    pub eni: Eni,
    /// Which device it is.
    pub device: DeviceMatch,
    /// Which end of the VM's link the device is.
    pub side: Side,
    /// What counts ingress.
    pub hook: Hook,
    /// Whether the host firewall's verdicts on its packets are recorded.
    pub netfilter: bool,
    /// Its security groups.
    pub security: Attachment,
    /// Line of the file in which the entry begins, from 1.
    pub line: usize,
}

/// What is known of an ENI's device: at least one of the four.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DeviceMatch {
    /// Pattern of its name.
    pub name: Option<NamePattern>,
    /// Its MAC address.
    pub mac: Option<MacAddr>,
    /// Pattern of its alias; a device without one does not match.
    pub alias: Option<AliasPattern>,
    /// The named network namespace in which it is; the host's if none.
    pub namespace: Option<NamespaceName>,
}

spelled_enum! {
    /// Which end of the VM's link a device is.
    #[derive(Default)]
    pub enum Side {
        /// The device is the ENI: its ingress is the ENI's `in`.
        #[default]
        Guest = "guest",
        /// The device is the host's end of the VM's veth or tap: its ingress is the ENI's `out`.
        Host = "host",
    }
}

spelled_enum! {
    /// What counts ingress.
    #[derive(Default)]
    pub enum Hook {
        /// A TC program: TCX, or clsact on older kernels.
        #[default]
        Tc = "tc",
        /// An XDP program; egress stays on TC.
        Xdp = "xdp",
    }
}

/// What tells one device of a host from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceIdentity<'a> {
    /// Name.
    pub name: &'a str,
    /// MAC address; none where it has none (a tunnel, for instance).
    pub mac: Option<[u8; 6]>,
    /// Alias.
    pub alias: Option<&'a str>,
    /// Name of its network namespace; none for the host's.
    pub namespace: Option<&'a str>,
}

/// Which ENI a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match<'a> {
    /// This one.
    One(&'a EniEntry),
    /// None.
    None,
    /// It could be each of these, by eni-id in the order of the file; so it is captured as none of them.
    Ambiguous(Vec<&'a str>),
}

impl Inventory {
    /// Reads an inventory; `file` is only for errors.
    ///
    /// # Errors
    /// [`InputError`] for something that is not allowed, such as two entries of one eni-id.
    pub fn parse(text: &str, file: &str) -> Result<Self, InputError> {
        raw::parse(&Document::new(text, file))
    }

    /// All entries, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> &[EniEntry] {
        &self.entries
    }

    /// Which ENI the device is.
    #[must_use]
    pub fn find(&self, device: &DeviceIdentity<'_>) -> Match<'_> {
        let mut matching = self
            .entries
            .iter()
            .filter(|entry| entry.device.matches(device));
        match (matching.next(), matching.next()) {
            (None, _) => Match::None,
            (Some(only), None) => Match::One(only),
            (Some(first), Some(second)) => Match::Ambiguous(
                [first, second]
                    .into_iter()
                    .chain(matching)
                    .map(|entry| entry.eni.eni_id.as_str())
                    .collect(),
            ),
        }
    }

    /// The entry of this eni-id.
    #[must_use]
    pub fn entry(&self, eni_id: &str) -> Option<&EniEntry> {
        self.entries.iter().find(|entry| entry.eni.eni_id == eni_id)
    }

    /// The security groups, with their members.
    #[must_use]
    pub const fn security_groups(&self) -> &SecurityGroups {
        &self.security_groups
    }

    /// What the security groups of an entry of this inventory say together.
    #[must_use]
    pub fn policy(&self, entry: &EniEntry) -> Policy {
        self.security_groups.policy(&entry.security.group_ids)
    }

    /// The named network namespaces in which ENIs are.
    #[must_use]
    pub fn namespaces(&self) -> BTreeSet<&str> {
        self.entries
            .iter()
            .filter_map(|entry| entry.device.namespace.as_ref())
            .map(NamespaceName::as_str)
            .collect()
    }
}

impl DeviceMatch {
    /// Whether the device fits all that is given.
    #[must_use]
    pub fn matches(&self, device: &DeviceIdentity<'_>) -> bool {
        let Self {
            name,
            mac,
            alias,
            namespace,
        } = self;
        namespace.as_ref().map(NamespaceName::as_str) == device.namespace
            && mac.is_none_or(|mac| device.mac == Some(mac.octets()))
            && name.as_ref().is_none_or(|name| name.matches(device.name))
            && alias
                .as_ref()
                .is_none_or(|pattern| device.alias.is_some_and(|alias| pattern.matches(alias)))
    }

    fn is_empty(&self) -> bool {
        let Self {
            name,
            mac,
            alias,
            namespace,
        } = self;
        name.is_none() && mac.is_none() && alias.is_none() && namespace.is_none()
    }
}

/// A MAC address, written `aa:bb:cc:dd:ee:ff` in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// Its octets, in the order of the wire.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl Text for MacAddr {
    fn allowed() -> String {
        "allowed are six octets in hexadecimal, as in aa:bb:cc:dd:ee:ff".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut octets = [0; 6];
        let mut digits = text.split(':');
        for octet in &mut octets {
            // `from_str_radix` alone would take `+f` too.
            let pair = digits.next().filter(|pair| {
                pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit())
            })?;
            *octet = u8::from_str_radix(pair, 16).ok()?;
        }
        digits.next().is_none().then_some(Self(octets))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The name of a network namespace, which is also the name of a file (`ip netns add NAME` makes `/run/netns/NAME`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceName(String);

impl NamespaceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for NamespaceName {
    fn allowed() -> String {
        "allowed are names as `ip netns` lists them: 1 to 255 bytes without `/`".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let is_file_name = (1..=255).contains(&text.len()) && text != "." && text != "..";
        (is_file_name && !text.contains(|c: char| c == '/' || c.is_control()))
            .then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for NamespaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(MacAddr, NamespaceName);

#[cfg(test)]
mod tests;
