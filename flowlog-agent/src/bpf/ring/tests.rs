//! Reading a ring that a file stands in for, so that it can be in any state. What the kernel writes is read in the tests of the programs.
use std::{fs::File, os::fd::AsFd as _, os::unix::fs::FileExt as _};

use proptest::prelude::*;

use super::*;

const OCTETS: u32 = 4096;

/// A ring in a file.
struct Fake {
    file: File,
    ring: Ring,
}

impl Fake {
    fn new(consumed: u64, produced: u64) -> Self {
        let file = tempfile::tempfile().unwrap();
        let page = page_octets().unwrap() as u64;
        file.set_len(2 * page + 2 * u64::from(OCTETS)).unwrap();
        file.write_all_at(&consumed.to_ne_bytes(), 0).unwrap();
        file.write_all_at(&produced.to_ne_bytes(), page).unwrap();
        let ring = Ring::map(file.as_fd(), OCTETS).unwrap();
        Self { file, ring }
    }

    /// Writes at a position; what goes over the end goes to the start, and everything is there twice.
    fn write(&self, at: u64, octets: &[u8]) {
        let data = 2 * self.ring.page as u64;
        let size = u64::from(OCTETS);
        for (at, octet) in (at..).zip(octets) {
            for copy in [0, size] {
                let place = data + copy + at % size;
                self.file.write_all_at(&[*octet], place).unwrap();
            }
        }
    }

    fn write_length(&self, at: u64, length: u32) {
        self.write(at, &length.to_ne_bytes());
    }

    /// Lengths of the items from a position on, and the position that was reached.
    fn walk(&self, from: u64) -> (Vec<usize>, u64) {
        let mut lengths = Vec::new();
        let end = self.ring.walk(from, |item| lengths.push(item.octets()));
        (lengths, end)
    }
}

/// Octets that an item takes.
fn taken(length: u32) -> u64 {
    (8 + u64::from(length)).div_ceil(8) * 8
}

#[test]
fn an_item_is_read_by_its_length() {
    let fake = Fake::new(0, 2 * (8 + 4) + 8);
    fake.write_length(0, 4);
    fake.write(8, &7_u32.to_ne_bytes());
    fake.write_length(16, 4);
    fake.write(24, &u32::MAX.to_ne_bytes());
    let mut read = Vec::new();
    let end = fake.ring.walk(0, |item| {
        assert_eq!(item.read::<flowlog_common::FlowCounters>(), None);
        read.push(item.read::<u32>());
    });
    assert_eq!((read, end), (vec![Some(7), Some(u32::MAX)], 32));
}

#[test]
fn positions_go_forward_and_not_beyond_what_was_written() {
    let mut fake = Fake::new(64, 128);
    for (to, then) in [
        (0, 64),
        (56, 64),
        (136, 64),
        (u64::MAX, 64),
        (71, 64),
        (72, 72),
        (64, 72),
        (128, 128),
    ] {
        fake.ring.advance(to);
        assert_eq!(fake.ring.consumed(), then, "advanced to {to}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Items of any length, of which some are void and one may not be finished, over the end of the ring.
    #[test]
    fn items_are_given_in_order_up_to_one_that_is_being_written(
        start in 0..10_000_u64,
        items in prop::collection::vec((0..100_u32, any::<bool>()), 0..30),
        busy in 0..40_usize,
        from in 0..40_usize,
    ) {
        let start = start * 8;
        let mut places = vec![start];
        for (length, _) in &items {
            places.push(places.last().unwrap() + taken(*length));
        }
        let produced = *places.last().unwrap();
        let fake = Fake::new(start, produced);
        for (number, (length, discarded)) in items.iter().enumerate() {
            let flags = if *discarded { DISCARDED } else { 0 } | if number == busy { BUSY } else { 0 };
            fake.write_length(places[number], *length | flags);
        }
        let from = from.min(items.len());
        // An item before the start is passed over, whatever its flags.
        let to = if (from..items.len()).contains(&busy) { busy } else { items.len() };
        let expected: Vec<usize> = items[from..to]
            .iter()
            .filter(|(_, discarded)| !discarded)
            .map(|(length, _)| *length as usize)
            .collect();
        prop_assert_eq!(fake.walk(places[from]), (expected, places[to]));
        prop_assert_eq!(fake.ring.consumed(), start);
    }

    /// Whatever is in the memory, nothing is read beyond it, and the end is not beyond what was written.
    #[test]
    fn disorder_is_passed_over(
        consumed in any::<u64>(),
        produced in 0..1_u64 << 40,
        from in any::<u64>(),
        data in prop::collection::vec(any::<u8>(), 0..512),
        near in any::<bool>(),
    ) {
        let consumed = if near { produced.saturating_sub(consumed % 8192) } else { consumed };
        let from = if near { produced.saturating_sub(from % 8192) } else { from };
        let fake = Fake::new(consumed, produced);
        fake.write(from.max(consumed).min(produced), &data);
        let (lengths, end) = fake.walk(from);
        prop_assert!(end <= produced);
        prop_assert!(end >= from.max(consumed).min(produced));
        prop_assert!(lengths.iter().all(|length| *length <= OCTETS as usize));
    }
}
