//! Addresses as text, exactly as `Display` writes them, in a fraction of its time: with `Display`, two IPv6
//! addresses cost more than all the rest of a record.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Appends an address: a dotted quad, or IPv6 as in RFC 5952.
#[inline]
pub(crate) fn write(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => write_ipv4(address, out),
        IpAddr::V6(address) => write_ipv6(address, out),
    }
}

/// An octet in decimal with a dot behind it, and the length of that.
const fn dotted(octet: u8) -> ([u8; 4], usize) {
    let (hundreds, tens, ones) = (
        b'0' + octet / 100,
        b'0' + octet / 10 % 10,
        b'0' + octet % 10,
    );
    match octet {
        0..=9 => ([ones, b'.', 0, 0], 2),
        10..=99 => ([tens, ones, b'.', 0], 3),
        100..=255 => ([hundreds, tens, ones, b'.'], 4),
    }
}

/// [`dotted`] of every octet.
static DOTTED: [([u8; 4], usize); 256] = {
    let mut table = [([0; 4], 0); 256];
    let mut octet = 0;
    while octet < table.len() {
        table[octet] = dotted(octet as u8);
        octet += 1;
    }
    table
};

fn write_ipv4(address: Ipv4Addr, out: &mut Vec<u8>) {
    let mut text = [0; 16];
    let mut end = 0;
    for octet in address.octets() {
        let (digits, length) = DOTTED[usize::from(octet)];
        // Always four bytes, of which the next octet overwrites what is too much: a copy of fixed size is one instruction.
        text[end..end + 4].copy_from_slice(&digits);
        end += length;
    }
    out.extend_from_slice(&text[..end - 1]);
}

fn write_ipv6(address: Ipv6Addr, out: &mut Vec<u8>) {
    if let Some(mapped) = address.to_ipv4_mapped() {
        out.extend_from_slice(b"::ffff:");
        return write_ipv4(mapped, out);
    }
    let groups = address.segments();
    let zeros = longest_run_of_zeros(&groups);
    // Eight groups of four digits, and seven colons.
    let mut text = [0; 39];
    let mut end = 0;
    let mut index = 0;
    while index < groups.len() {
        if index == zeros.start && !zeros.is_empty() {
            text[end..end + 2].copy_from_slice(b"::");
            end += 2;
            index = zeros.end;
            continue;
        }
        if index > 0 && index != zeros.end {
            text[end] = b':';
            end += 1;
        }
        let group = groups[index];
        let digits = (u16::BITS - (group | 1).leading_zeros()).div_ceil(4);
        for place in (0..digits).rev() {
            text[end] = b"0123456789abcdef"[usize::from(group >> (place * 4) & 0xf)];
            end += 1;
        }
        index += 1;
    }
    out.extend_from_slice(&text[..end]);
}

/// The groups that `::` stands for: the first of the longest runs of at least two zeros (RFC 5952, section 4.2); 0..0 if none.
fn longest_run_of_zeros(groups: &[u16; 8]) -> std::ops::Range<usize> {
    let mut longest = 0..0;
    let mut start = 0;
    for (index, &group) in groups.iter().enumerate() {
        if group != 0 {
            start = index + 1;
        } else if index + 1 - start > longest.len().max(1) {
            longest = start..index + 1;
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(address: IpAddr) -> String {
        let mut out = b"x".to_vec();
        write(address, &mut out);
        String::from_utf8(out)
            .unwrap()
            .strip_prefix('x')
            .unwrap()
            .to_owned()
    }

    #[test]
    fn every_octet_in_every_place() {
        for octet in 0..=u8::MAX {
            for other in [0, 10, 255] {
                let (a, b) = (
                    Ipv4Addr::new(octet, other, octet, other),
                    Ipv4Addr::new(other, octet, other, octet),
                );
                assert_eq!(written(a.into()), a.to_string());
                assert_eq!(written(b.into()), b.to_string());
            }
        }
    }

    #[test]
    fn every_pattern_of_zero_groups() {
        for pattern in 0..=u8::MAX {
            for value in [1, 0xffff] {
                let groups: [u16; 8] =
                    std::array::from_fn(|index| if pattern >> index & 1 == 1 { value } else { 0 });
                let address = Ipv6Addr::from(groups);
                assert_eq!(written(address.into()), address.to_string());
            }
        }
    }

    #[test]
    fn ipv4_inside_ipv6() {
        for address in [
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "::ffff:0:10.0.0.1",
        ] {
            let address: Ipv6Addr = address.parse().unwrap();
            assert_eq!(written(address.into()), address.to_string());
        }
    }

    proptest! {
        #[test]
        fn as_display(groups in prop::array::uniform8(prop_oneof![Just(0), any::<u16>(), 0..0x1000_u16, 0..0x10_u16])) {
            let address = Ipv6Addr::from(groups);
            prop_assert_eq!(written(address.into()), address.to_string());
        }
    }
}
