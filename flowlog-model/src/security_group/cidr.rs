//! Blocks of addresses, as in 10.0.0.0/8 and 2001:db8::/32.
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::spelled_enum;
use crate::text::Text;

spelled_enum! {
    /// IPv4 or IPv6.
    pub enum AddressFamily {
        /// IPv4.
        V4 = "IPv4",
        /// IPv6.
        V6 = "IPv6",
    }
}

impl AddressFamily {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// A block of addresses. No bit is set behind its prefix, so that equal blocks are equal values. The order is by address, and of
/// blocks that begin with the same address the wider one is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr(IpNet);

impl Cidr {
    /// The block of the first `prefix_len` bits of `address`; what follows them does not matter. None if an address is not as long.
    #[must_use]
    pub fn new(address: IpAddr, prefix_len: u8) -> Option<Self> {
        let block = IpNet::new(address, prefix_len).ok()?;
        Some(Self(block.trunc()))
    }

    /// The first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0.addr()
    }

    /// Bits that all its addresses share.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.0.prefix_len()
    }

    /// Its family.
    #[must_use]
    pub fn family(self) -> AddressFamily {
        AddressFamily::of(self.address())
    }

    /// Whether the address is in the block. None of the other family is.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Whether all of `other` is in the block.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.0.contains(&other.0)
    }
}

/// The block of this address alone.
impl From<IpAddr> for Cidr {
    fn from(address: IpAddr) -> Self {
        Self(address.into())
    }
}

impl Text for Cidr {
    fn allowed() -> String {
        "allowed are blocks of addresses without bits behind the prefix, as 10.0.0.0/8 or 2001:db8::/32, and single addresses".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(address.into());
        }
        let block = text.parse::<IpNet>().ok()?;
        (block == block.trunc()).then_some(Self(block))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

crate::text_type!(Cidr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_blocks_and_addresses() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("fd00::1", "fd00::1/128"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "fd00::1/64",
            "::/129",
            " 10.0.0.0/8",
            "any",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn contains_no_address_of_the_other_family() {
        let everything = |text: &str| text.parse::<Cidr>().unwrap();
        let (v4, v6) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        assert!(everything("0.0.0.0/0").contains(v4) && !everything("0.0.0.0/0").contains(v6));
        assert!(everything("::/0").contains(v6) && !everything("::/0").contains(v4));
    }

    #[test]
    fn a_block_comes_after_those_that_cover_it() {
        let mut blocks: Vec<Cidr> = ["10.1.0.0/16", "10.0.0.0/8", "9.0.0.0/8", "10.0.0.0/16"]
            .map(|text| text.parse().unwrap())
            .into();
        blocks.sort();
        let shown: Vec<String> = blocks.iter().map(Cidr::to_string).collect();
        assert_eq!(
            shown,
            ["9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16"]
        );
    }
}
