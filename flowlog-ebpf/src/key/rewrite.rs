//! Changing a key that the parser has written.
use super::{AddressesV4, AddressesV6, KeyV4, KeyV6, pair, second};

/// What is changed of a key by a program that is not an ENI's own.
pub trait FlowKey: super::Key {
    /// Of which ENI the flow is, its action, and who counts it.
    fn set(&mut self, slot: u32, action: u8, origin: u8);
    /// Both ports as they lie in the packet, the source's first.
    fn ports(&self) -> u32;
    /// Likewise.
    fn set_ports(&mut self, ports: u32);
}

impl FlowKey for KeyV4 {
    #[inline(always)]
    fn set(&mut self, slot: u32, action: u8, origin: u8) {
        self.words[0] = pair(slot, second(self.words[0]));
        self.last = with_action(self.last, action, origin);
    }

    #[inline(always)]
    fn ports(&self) -> u32 {
        second(self.words[1])
    }

    #[inline(always)]
    fn set_ports(&mut self, ports: u32) {
        self.words[1] = pair(self.words[1] as u32, ports);
    }
}

impl KeyV4 {
    #[inline(always)]
    pub fn set_addresses(&mut self, addresses: &AddressesV4) {
        self.words[0] = pair(self.words[0] as u32, addresses.src);
        self.words[1] = pair(addresses.dst, self.ports());
    }
}

impl FlowKey for KeyV6 {
    #[inline(always)]
    fn set(&mut self, slot: u32, action: u8, origin: u8) {
        self.words[0] = pair(slot, second(self.words[0]));
        self.last = with_action(self.last, action, origin);
    }

    #[inline(always)]
    fn ports(&self) -> u32 {
        second(self.words[4])
    }

    #[inline(always)]
    fn set_ports(&mut self, ports: u32) {
        self.words[4] = pair(self.words[4] as u32, ports);
    }
}

impl KeyV6 {
    #[inline(always)]
    pub fn set_addresses(&mut self, addresses: &AddressesV6) {
        let AddressesV6 {
            src: [s0, s1, s2, s3],
            dst: [d0, d1, d2, d3],
        } = *addresses;
        self.words = [
            pair(self.words[0] as u32, s0),
            pair(s1, s2),
            pair(s3, d0),
            pair(d1, d2),
            pair(d3, self.ports()),
        ];
    }
}

/// The last word of a key, of which only protocol and direction stay.
#[inline(always)]
fn with_action(last: u32, action: u8, origin: u8) -> u32 {
    let [protocol, direction, ..] = last.to_ne_bytes();
    u32::from_ne_bytes([protocol, direction, action, origin])
}
