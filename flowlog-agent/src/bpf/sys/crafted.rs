//! Maps and items that the agent itself never makes, for tests.
use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use super::{BPF_MAP_CREATE, MAP_TYPE_ARRAY_OF_MAPS, MAP_TYPE_RINGBUF, MapCreate, bpf, owned};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
/// `BPF_PROG_TYPE_SCHED_CLS`.
const SCHED_CLS: u32 = 3;
/// Number of the helper.
const BPF_RINGBUF_OUTPUT: u32 = 130;

/// A map of keys and values of so many octets.
pub(in crate::bpf) fn map(
    map_type: u32,
    (key_size, value_size): (u32, u32),
    max_entries: u32,
) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type,
        key_size,
        value_size,
        max_entries,
        ..MapCreate::default()
    };
    owned(bpf(BPF_MAP_CREATE, &mut attr)?)
}

/// An array of maps that are like `inner`.
pub(in crate::bpf) fn array_of_maps(inner: BorrowedFd<'_>, entries: u32) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: MAP_TYPE_ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: entries,
        inner_map_fd: inner.as_raw_fd() as u32,
        ..MapCreate::default()
    };
    owned(bpf(BPF_MAP_CREATE, &mut attr)?)
}

/// A ring.
pub(in crate::bpf) fn ring(octets: u32) -> io::Result<OwnedFd> {
    map(MAP_TYPE_RINGBUF, (0, 0), octets)
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u32; 6],
}

#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// Puts an item into a ring, by a program that does nothing else: only programs can.
pub(in crate::bpf) fn put(ring: BorrowedFd<'_>, item: &[u64]) -> io::Result<()> {
    let octets = (item.len() * 8) as u32;
    let mut program = Vec::new();
    for (word, offset) in item.iter().zip((-(octets as i16)..0).step_by(8)) {
        // r1 = word; *(u64 *)(r10 + offset) = r1
        program.extend(load(1, 0, *word));
        program.push(instruction(0x7b, 10, 1, offset, 0));
    }
    // r1 = ring; r2 = r10 - octets; r3 = octets; r4 = 0; call; r0 = 0; exit
    program.extend(load(1, 1, ring.as_raw_fd() as u64));
    program.extend([
        instruction(0xbf, 2, 10, 0, 0),
        instruction(0x07, 2, 0, 0, octets.wrapping_neg()),
        instruction(0xb7, 3, 0, 0, octets),
        instruction(0xb7, 4, 0, 0, 0),
        instruction(0x85, 0, 0, 0, BPF_RINGBUF_OUTPUT),
        instruction(0xb7, 0, 0, 0, 0),
        instruction(0x95, 0, 0, 0, 0),
    ]);
    let mut attr = ProgLoad {
        prog_type: SCHED_CLS,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 6],
    };
    let program = owned(bpf(BPF_PROG_LOAD, &mut attr)?)?;
    let frame = [0_u8; 64];
    let mut attr = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        retval: 0,
        data_size_in: frame.len() as u32,
        data_size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0,
    };
    bpf(BPF_PROG_TEST_RUN, &mut attr).map(drop)
}

/// `struct bpf_insn` of include/uapi/linux/bpf.h, on a little-endian machine.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: u32) -> u64 {
    u64::from(code)
        | u64::from(destination | source << 4) << 8
        | u64::from(offset as u16) << 16
        | u64::from(immediate) << 32
}

/// Loads 64 bits; with a source of 1, the map with this descriptor.
fn load(destination: u8, source: u8, value: u64) -> [u64; 2] {
    [
        instruction(0x18, destination, source, 0, value as u32),
        instruction(0, 0, 0, 0, (value >> 32) as u32),
    ]
}
