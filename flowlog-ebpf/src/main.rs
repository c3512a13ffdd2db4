//! Flowlog's BPF programs.
//!
//! One observer per ENI and device direction: it reads a packet's headers, adds it to its flow's counters and lets it go on
//! untouched. The programs of an ENI are loaded for that ENI alone, with the constants of [`eni`] filled in.
//!
//! One more for the whole host sees what netfilter drops: [`netfilter`].
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

mod aside;
mod atomic;
mod classify;
mod count;
mod dropped;
mod eni;
mod fragment;
mod gso;
mod icmp;
mod ipv4;
mod ipv6;
mod judge;
mod kernel;
mod key;
mod link;
mod maps;
mod netfilter;
mod packet;
mod policy;
mod received;
mod session;
mod transport;
mod tunnel;

use aya_ebpf::{
    bindings::{
        TC_ACT_SHOT, TC_ACT_UNSPEC,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    macros::{classifier, raw_tracepoint, xdp},
    programs::{RawTracePointContext, TcContext, XdpContext},
};

use crate::{
    count::Fate,
    packet::{Skb, XdpFrame},
};

/// TC program for what the device receives.
#[classifier]
#[inline(always)]
pub fn flowlog_ingress(ctx: TcContext) -> i32 {
    tc(count::ingress(&Skb::new(&ctx)))
}

/// TC program for what the device sends.
#[classifier]
#[inline(always)]
pub fn flowlog_egress(ctx: TcContext) -> i32 {
    tc(count::egress(&Skb::new(&ctx)))
}

/// XDP program for what the device receives, instead of [`flowlog_ingress`].
#[xdp(frags)]
#[inline(always)]
pub fn flowlog_xdp(ctx: XdpContext) -> u32 {
    match count::ingress(&XdpFrame::new(&ctx)) {
        Fate::GoesOn => XDP_PASS,
        Fate::Dropped => XDP_DROP,
    }
}

#[inline(always)]
fn tc(fate: Fate) -> i32 {
    match fate {
        // Never OK: that would end the chain, and programs behind this one would see nothing.
        Fate::GoesOn => TC_ACT_UNSPEC,
        Fate::Dropped => TC_ACT_SHOT,
    }
}

/// On the tracepoint of packets that the kernel drops, one for the whole host.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn flowlog_drops(ctx: RawTracePointContext) -> i32 {
    netfilter::dispatch(&ctx);
    0
}

/// What [`flowlog_drops`] goes on with, for a packet that netfilter drops.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn flowlog_verdict(ctx: RawTracePointContext) -> i32 {
    netfilter::verdict(&ctx);
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No code path of these programs can panic, and the verifier would refuse one that could.
    loop {}
}
