//! The kernel memory that the configured flow maps take.
use std::{fs, thread::available_parallelism};

use flowlog_common::{FlowCounters, FlowKeyV4, FlowKeyV6, GENERATIONS};

use super::Finding;
use crate::config::CaptureConfig;

/// `sizeof(struct htab_elem)` without key and value (kernel/bpf/hashtab.c).
const ELEMENT_BYTES: u64 = 48;

/// `sizeof(struct bucket)`, of which there are as many as elements, up to the next power of two.
const BUCKET_BYTES: u64 = 16;

/// What the maps take at least and at most, against what the machine has.
pub(super) fn finding(capture: &CaptureConfig) -> Option<Finding> {
    let cpus = available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    let generations = GENERATIONS as u64;
    let least = generations * pair_bytes(capture.flow_map_min_entries, cpus);
    // A map that was drained is replaced by a fresh one before it is given back.
    let most = (generations + 1) * pair_bytes(capture.flow_map_max_entries, cpus);
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let available = available_bytes(&meminfo)?;
    let found = format!(
        "flow maps take {} and grow with the traffic to {} at most; {} are available",
        mebibytes(least),
        mebibytes(most),
        mebibytes(available)
    );
    Some(if least > available / 2 {
        Finding::warn("kernel memory", found)
            .so("the maps may not fit; lower capture.flow-map-min-entries")
    } else if most > available / 2 {
        Finding::warn("kernel memory", found).so(
            "where memory is short the maps do not grow, and SKIPDATA records say what had no room; \
             lower capture.flow-map-max-entries",
        )
    } else {
        Finding::ok("kernel memory", found)
    })
}

/// Bytes of an IPv4 and an IPv6 flow map of `entries` each.
fn pair_bytes(entries: u32, cpus: u64) -> u64 {
    let map = |key_bytes: usize| {
        hash_bytes(
            key_bytes as u64,
            size_of::<FlowCounters>() as u64,
            entries.into(),
            cpus,
        )
    };
    map(size_of::<FlowKeyV4>()) + map(size_of::<FlowKeyV6>())
}

/// Bytes of a preallocated hash map, as `htab_map_mem_usage` of kernel/bpf/hashtab.c reckons them.
fn hash_bytes(key_bytes: u64, value_bytes: u64, entries: u64, cpus: u64) -> u64 {
    let element = ELEMENT_BYTES + key_bytes.next_multiple_of(8) + value_bytes.next_multiple_of(8);
    // Each CPU has an element in reserve.
    entries.next_power_of_two() * BUCKET_BYTES + (entries + cpus) * element
}

/// `MemAvailable` of /proc/meminfo, in bytes.
fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_maps_take_what_the_kernel_reckons() {
        // IPv4 flows: 20 octets of key and 24 of value.
        assert_eq!(hash_bytes(20, 24, 1000, 2), 1024 * 16 + 1002 * 96);
        assert_eq!(hash_bytes(44, 24, 1024, 0), 1024 * (16 + 120));
    }

    #[test]
    fn available_memory_is_read_in_bytes() {
        let meminfo = "MemTotal:       24682336 kB\nMemAvailable:   1024 kB\nBuffers: 1 kB\n";
        assert_eq!(available_bytes(meminfo), Some(1 << 20));
        assert_eq!(available_bytes("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn memory_that_may_not_suffice_is_warned_of() {
        let small = CaptureConfig {
            flow_map_min_entries: 64,
            flow_map_max_entries: 64,
            ..CaptureConfig::default()
        };
        let large = CaptureConfig {
            flow_map_min_entries: u32::MAX,
            flow_map_max_entries: u32::MAX,
            ..CaptureConfig::default()
        };
        assert_eq!(finding(&small).unwrap().status, super::super::Status::Ok);
        assert_eq!(finding(&large).unwrap().status, super::super::Status::Warn);
    }
}
