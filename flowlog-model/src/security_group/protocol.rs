//! Protocols and ports, as rules name them.
use std::fmt;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde::de::{Unexpected, Visitor};

use crate::text::Text;
use crate::text_type;

/// Which protocol a rule is about: one by its IANA number, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpProtocol(Option<u8>);

impl IpProtocol {
    /// All protocols.
    pub const ALL: Self = Self(None);

    /// Protocols with a name, by their IANA numbers.
    const NAMES: [(&str, u8); 5] = [
        ("TCP", 6),
        ("UDP", 17),
        ("ICMP", 1),
        ("ICMPv6", 58),
        ("GRE", 47),
    ];

    /// The protocol of an IANA number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        Self(Some(number))
    }

    /// The IANA number; none for all protocols.
    #[must_use]
    pub const fn number(self) -> Option<u8> {
        self.0
    }

    /// Whether it is this protocol, or all.
    #[must_use]
    pub fn contains(self, number: u8) -> bool {
        self.0.is_none_or(|own| own == number)
    }

    /// Whether it is one protocol whose packets have ports that are recorded.
    #[must_use]
    pub fn has_ports(self) -> bool {
        self.0.is_some_and(has_ports)
    }
}

/// Whether packets of this IANA number have ports that are recorded: TCP, UDP, DCCP, SCTP and UDP-Lite.
#[must_use]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

impl Text for IpProtocol {
    fn allowed() -> String {
        "allowed are TCP, UDP, ICMP, ICMPv6, GRE, ALL and IANA numbers from 0 to 255".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("ALL") {
            return Some(Self::ALL);
        }
        let named = Self::NAMES
            .into_iter()
            .find(|(name, _)| text.eq_ignore_ascii_case(name));
        let number = match named {
            Some((_, number)) => number,
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        Some(Self::from_number(number))
    }
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(number) = self.0 else {
            return f.write_str("ALL");
        };
        match Self::NAMES.into_iter().find(|(_, named)| *named == number) {
            Some((name, _)) => f.write_str(name),
            None => number.fmt(f),
        }
    }
}

/// As text, or a number as it is.
impl<'de> Deserialize<'de> for IpProtocol {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ProtocolVisitor;

        impl Visitor<'_> for ProtocolVisitor {
            type Value = IpProtocol;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&IpProtocol::allowed())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<IpProtocol, E> {
                IpProtocol::from_text(text)
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<IpProtocol, E> {
                u8::try_from(number)
                    .map(IpProtocol::from_number)
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<IpProtocol, E> {
                u64::try_from(number)
                    .map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
                    .and_then(|number| self.visit_u64(number))
            }
        }

        deserializer.deserialize_any(ProtocolVisitor)
    }
}

/// Ports from a first to a last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// All ports, and no port: `-1/-1`.
    pub const ALL: Self = Self {
        first: 0,
        last: u16::MAX,
    };

    /// The range; none if the last comes before the first.
    #[must_use]
    pub fn new(ports: RangeInclusive<u16>) -> Option<Self> {
        let (first, last) = ports.into_inner();
        (first <= last).then_some(Self { first, last })
    }

    /// The first port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether the port is in the range.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl Text for PortRange {
    fn allowed() -> String {
        "allowed are a first and a last port from 1 to 65535, as in 80/80, and -1/-1 for all".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        if text == "-1/-1" {
            return Some(Self::ALL);
        }
        let port = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|port| digits && *port > 0)
        };
        let (first, last) = text.split_once('/')?;
        Self::new(port(first)?..=port(last)?)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("-1/-1");
        }
        write!(f, "{}/{}", self.first, self.last)
    }
}

text_type!(PortRange);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse_text;

    #[test]
    fn protocols() {
        for (text, number, shown) in [
            ("TCP", Some(6), "TCP"),
            ("tcp", Some(6), "TCP"),
            ("icmpV6", Some(58), "ICMPv6"),
            ("GRE", Some(47), "GRE"),
            ("all", None, "ALL"),
            ("0", Some(0), "0"),
            ("17", Some(17), "UDP"),
            ("255", Some(255), "255"),
        ] {
            let protocol: IpProtocol = parse_text(text).unwrap();
            assert_eq!(
                (protocol.number(), protocol.to_string().as_str()),
                (number, shown)
            );
        }
        for bad in ["", "-1", "+6", "256", "SCTP ", "IP", "6.0"] {
            assert!(parse_text::<IpProtocol>(bad).is_err(), "{bad}");
        }
        assert_eq!(
            serde_json::from_str::<IpProtocol>("50").unwrap().number(),
            Some(50)
        );
        for bad in ["256", "-1", "6.5", "true", "null"] {
            let error = serde_json::from_str::<IpProtocol>(bad)
                .unwrap_err()
                .to_string();
            assert!(error.contains("IANA numbers from 0 to 255"), "{error}");
        }
    }

    #[test]
    fn port_ranges() {
        for (text, first, last) in [
            ("80/80", 80, 80),
            ("1/200", 1, 200),
            ("1/65535", 1, 65535),
            ("-1/-1", 0, 65535),
        ] {
            let range: PortRange = text.parse().unwrap();
            assert_eq!(
                (range.first(), range.last(), range.to_string().as_str()),
                (first, last, text)
            );
        }
        for bad in [
            "", "80", "0/80", "80/79", "1/65536", "-1/80", "80/-1", "+80/80", "80/", "/80",
            "80/80/80", " 80/80",
        ] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }
}
