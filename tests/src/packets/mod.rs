//! Crafted frames of every kind that a parser meets, random ones, and [`oracle`]: how etherparse reads them.

pub mod build;
mod extensions;
mod fragments;
mod lying;
mod not_ip;
pub mod oracle;
mod plain;
mod protocols;
pub mod strategy;
mod tags;
mod truncated;

use std::borrow::Cow;

pub use fragments::sequences;

/// A frame and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPacket {
    /// What is particular about it: unique within [`corpus`], for failure messages.
    pub name: Cow<'static, str>,
    /// The whole Ethernet frame, without checksum (FCS).
    pub frame: Vec<u8>,
}

/// Frames that mean something in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSequence {
    /// What is particular about it.
    pub name: &'static str,
    /// The frames, in the order in which they are to cross the ENI.
    pub frames: Vec<Vec<u8>>,
}

impl NamedPacket {
    pub(crate) fn new(name: impl Into<Cow<'static, str>>, frame: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            frame,
        }
    }
}

/// Every crafted frame. Each means the same whether or not others came before it: no two share a fragment identification.
///
/// Those with a name that begins with `cut` may be shorter than an Ethernet header (14 octets), which neither a device nor
/// `BPF_PROG_TEST_RUN` takes; those called `jumbo…` are longer than an ordinary device takes.
#[must_use]
pub fn corpus() -> Vec<NamedPacket> {
    [
        plain::packets(),
        tags::packets(),
        extensions::ipv4_options(),
        extensions::ipv6_extensions(),
        fragments::packets(),
        protocols::packets(),
        lying::packets(),
        truncated::packets(),
        not_ip::packets(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::corpus;
    use super::oracle::{self, Oracle, Reading};

    #[test]
    fn names_are_unique_and_order_does_not_matter() {
        let mut oracle = Oracle::default();
        let mut names = HashSet::new();
        for packet in corpus() {
            assert!(
                names.insert(packet.name.clone()),
                "{} is there twice",
                packet.name
            );
            assert_eq!(
                oracle.read(&packet.frame),
                oracle::read_alone(&packet.frame),
                "{}",
                packet.name
            );
        }
    }

    #[test]
    fn corpus_has_every_kind_of_reading_and_few_exceptions() {
        let corpus = corpus();
        let count = |wanted: fn(&Reading) -> bool| {
            corpus
                .iter()
                .filter(|p| wanted(&oracle::read_alone(&p.frame)))
                .count()
        };
        assert!(count(|reading| matches!(reading, Reading::Flow(_))) > 200);
        assert!(count(|reading| *reading == Reading::Unparsable) > 200);
        assert!(count(|reading| *reading == Reading::NotIp) > 5);
        let exceptions: Vec<_> = corpus
            .iter()
            .filter(|p| !oracle::comparable(&p.frame))
            .map(|p| &*p.name)
            .collect();
        assert_eq!(
            exceptions,
            [
                "ipv6-jumbogram",
                "ipv6-auth-length-zero",
                "ipv6-fragment-header-twice"
            ]
        );
    }
}
