//! What a program knows of its ENI: constants that user space fills in when it loads the program, so that the verifier
//! removes the branches that do not apply.
use aya_ebpf::Global;
use flowlog_common::DIRECTION_OUT;

/// Slot of the ENI.
#[unsafe(no_mangle)]
static ENI: Global<u32> = Global::new(0);

/// 1 where the device is the host's end of the VM's link, so that what it receives is the ENI's `out`; 0 where the device is
/// the ENI itself.
#[unsafe(no_mangle)]
static HOST_SIDE: Global<u8> = Global::new(0);

/// 1 where frames begin with an Ethernet header; 0 where they begin with the IP header (a tun device, for instance).
#[unsafe(no_mangle)]
static ETHERNET: Global<u8> = Global::new(1);

/// The device's MTU where generic XDP may be handed super-packets that it cannot recognise as such (received segments that were
/// merged); 0 where it cannot.
#[unsafe(no_mangle)]
static XDP_MTU: Global<u32> = Global::new(0);

/// What is done with the security groups' verdict: 0 if nothing is judged, 1 if it is counted, 2 if rejected packets are dropped too.
#[unsafe(no_mangle)]
static SECURITY_MODE: Global<u8> = Global::new(0);

/// What becomes of an accepted packet for whose session there is no room: 0 if it passes, 1 if it is rejected.
#[unsafe(no_mangle)]
static WHEN_FULL: Global<u8> = Global::new(0);

/// 1 where the kernel has `bpf_ktime_get_coarse_ns` (Linux 5.11). The verifier never sees the helper where this is 0.
#[unsafe(no_mangle)]
static COARSE_CLOCK: Global<u8> = Global::new(1);

#[inline(always)]
pub fn slot() -> u32 {
    ENI.load()
}

#[inline(always)]
pub fn has_ethernet_header() -> bool {
    ETHERNET.load() != 0
}

#[inline(always)]
pub fn xdp_mtu() -> u32 {
    XDP_MTU.load()
}

/// Whether the security groups are asked.
#[inline(always)]
pub fn judges() -> bool {
    SECURITY_MODE.load() != 0
}

/// Whether packets that they reject are dropped.
#[inline(always)]
pub fn enforces() -> bool {
    SECURITY_MODE.load() == 2
}

#[inline(always)]
pub fn rejects_when_full() -> bool {
    WHEN_FULL.load() != 0
}

#[inline(always)]
pub fn has_coarse_clock() -> bool {
    COARSE_CLOCK.load() != 0
}

/// DIRECTION_IN is 0 and DIRECTION_OUT 1, so the host's side mirrors them.
#[inline(always)]
pub fn direction_of_ingress() -> u8 {
    HOST_SIDE.load()
}

#[inline(always)]
pub fn direction_of_egress() -> u8 {
    HOST_SIDE.load() ^ DIRECTION_OUT
}
