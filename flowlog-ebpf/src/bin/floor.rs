//! Floors for the benches: what no counting program can be quicker than.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "core for BPF has no atomic types that can add; the intrinsic is one locked instruction"
)]
#![expect(
    missing_docs,
    reason = "the macros of the programs make undocumented functions of documented ones"
)]

#[path = "../atomic.rs"]
#[expect(dead_code, reason = "the floor sets no flags and counts no insertions")]
mod atomic;

use aya_ebpf::{
    bindings::{BPF_ANY, TC_ACT_UNSPEC},
    btf_maps::HashMap,
    macros::{btf_map, classifier},
    programs::TcContext,
};

/// 20 octets, as an IPv4 flow's key.
#[repr(C)]
#[derive(Clone, Copy)]
struct Key {
    interface: u32,
    addresses: [u32; 2],
    ports: u32,
    protocol: u32,
}

/// Puts the addresses at a multiple of 8, for the compiler writes both at once and the verifier wants the stack aligned.
#[repr(C, align(8))]
struct OnStack {
    padding: u32,
    key: Key,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Counters {
    packets: u64,
    bytes: u64,
}

/// Flows; the bench sets its size.
#[btf_map]
static FLOOR_FLOWS: HashMap<Key, Counters, 65536> = HashMap::new();

/// Does nothing.
#[classifier]
pub fn floor_empty(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// The least that could count an IPv4 flow: fields at fixed offsets, one look-up, two atomic adds.
#[classifier]
pub fn floor_least(ctx: TcContext) -> i32 {
    let _ = count(&ctx);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn count(ctx: &TcContext) -> Option<()> {
    let (data, data_end) = (ctx.data(), ctx.data_end());
    if data + 38 > data_end {
        return None;
    }
    // SAFETY: within the packet, as checked.
    let word = |offset: usize| unsafe { ((data + offset) as *const u32).read_unaligned() };
    let on_stack = OnStack {
        padding: 0,
        key: Key {
            // SAFETY: the kernel's context.
            interface: unsafe { (*ctx.skb.skb).ifindex },
            addresses: [word(26), word(30)],
            ports: word(34),
            // SAFETY: within the packet, as checked.
            protocol: u32::from(unsafe { *((data + 23) as *const u8) }),
        },
    };
    let key = &on_stack.key;
    let bytes = u64::from(ctx.len() - 14);
    if let Some(counters) = FLOOR_FLOWS.get_ptr_mut(key) {
        // SAFETY: a live map value.
        unsafe {
            atomic::add(&raw mut (*counters).packets, 1);
            atomic::add(&raw mut (*counters).bytes, bytes);
        }
        return Some(());
    }
    FLOOR_FLOWS
        .insert(key, &Counters { packets: 1, bytes }, u64::from(BPF_ANY))
        .ok()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
