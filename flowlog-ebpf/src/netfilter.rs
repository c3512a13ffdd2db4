//! Packets that netfilter drops: which ENI they are of, and their flow.
//!
//! At ingress, the ENI's own program runs before netfilter: it has counted what is dropped later, and how many of its packets those were is
//! counted beside it (`ORIGIN_NETFILTER_AFTER`). At egress it runs after netfilter: what is dropped before is counted here alone
//! (`ORIGIN_NETFILTER_BEFORE`).
use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    btf_maps::{ArrayOfMaps, HashMap, ProgramArray},
    macros::btf_map,
    programs::RawTracePointContext,
};
use flowlog_common::{
    ACTION_ACCEPT, ACTION_REJECT, DECIDED_BY_NETFILTER, DIRECTION_OUT, Device, DeviceKey,
    FAMILY_V4, FAMILY_V6, FlowCounters, FlowMarks, GENERATIONS, MAX_DEVICES, MAX_ENIS,
    ORIGIN_NETFILTER_AFTER, ORIGIN_NETFILTER_BEFORE, ORIGIN_PROGRAM, Overflow, Volume,
};

use crate::{
    atomic,
    count::{self, inserted},
    dropped::Dropped,
    ipv4, ipv6,
    kernel::Address,
    key::FlowKey,
    layout,
    link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, MAX_VLAN_TAGS, is_vlan},
    maps::{ACTIVE, ENIS, FLOWS_V4, FLOWS_V6, Flows, OVERFLOW},
    packet::{MAX_OFFSET, Packet as _},
    policy::Policy,
    received::Received,
};

/// The devices that are ENIs.
#[btf_map]
static DEVICES: HashMap<DeviceKey, Device, { MAX_DEVICES as usize }> = HashMap::new();

/// What [`dispatch`] goes on with. A link to a tracepoint cannot be given another program; this can, between one packet and the next.
#[btf_map]
static VERDICTS: ProgramArray<1> = ProgramArray::new();

/// The interface index of a namespace's loopback device (`LOOPBACK_IFINDEX` of include/net/flow.h).
const LOOPBACK: u32 = 1;

/// An argument of the tracepoint `kfree_skb`: the packet.
const SKB: usize = 0;
/// Why it is dropped.
const REASON: usize = 2;

/// What is done for every packet that this host drops, for whatever reason: look at the reason.
#[inline(always)]
pub fn dispatch(context: &RawTracePointContext) {
    if context.arg::<u32>(REASON) == layout!(reason) {
        // SAFETY: nothing here is left to be dropped.
        unsafe { VERDICTS.tail_call(context, 0) };
    }
}

/// Counts a packet that netfilter drops, if it is of an ENI.
#[inline(always)]
pub fn verdict(context: &RawTracePointContext) {
    let skb = Address(context.arg::<u64>(SKB));
    let Some(place) = place(skb) else {
        return;
    };
    if count(skb, &place).is_none() {
        unmatched(&place, 1);
    }
}

/// Where a packet is counted.
struct EniPlace {
    slot: u32,
    direction: u8,
    /// Index of the ENI's device, if the packet came in by it: then the ENI's own program has counted it. Else 0.
    received_by: u32,
    /// Its EtherType.
    protocol: u16,
    generation: u32,
    zero: u32,
}

/// Of which ENI a packet is. One that came in by an ENI is of that one alone, wherever it was to go.
#[inline(always)]
fn place(skb: Address) -> Option<EniPlace> {
    let protocol = u16::from_be(skb.read(layout!(skb_protocol)));
    if protocol != ETHERTYPE_IPV4 && protocol != ETHERTYPE_IPV6 && !is_vlan(protocol) {
        return None;
    }
    let received_by: u32 = skb.read(layout!(skb_iif));
    let mut output = skb.follow(layout!(skb_dev));
    // In OUTPUT, what is made here has no device yet; or the loopback's, where an IPv6 packet was answered (`nf_send_unreach6`).
    let is_loopback = |device: Address| device.read::<u32>(layout!(device_index)) == LOOPBACK;
    if output.is_none() || received_by == 0 && is_loopback(output) {
        output = destination(skb);
    }
    let namespace = namespace(output);
    if received_by != 0 {
        if let Some(eni) = eni(namespace, received_by) {
            return new_place(eni, protocol, received_by);
        }
        if output.read::<u32>(layout!(device_index)) == received_by {
            output = destination(skb);
        }
    }
    let index: u32 = output.read(layout!(device_index));
    // What came in for this host has a route to there, by which no device sends it.
    if received_by != 0 && index == LOOPBACK {
        return None;
    }
    new_place(eni(namespace, index)?, protocol, 0)
}

/// The device that a packet's route leads to, if it has one.
#[inline(always)]
fn destination(skb: Address) -> Address {
    /// `SKB_DST_NOREF` of include/linux/skbuff.h.
    const NOT_COUNTED: u64 = 1;
    let Address(destination) = skb.follow(layout!(skb_dst));
    Address(destination & !NOT_COUNTED).follow(layout!(dst_dev))
}

/// Inode number of a device's namespace.
#[inline(always)]
fn namespace(device: Address) -> u32 {
    device
        .follow(layout!(device_namespace))
        .read(layout!(namespace_inode))
}

#[inline(always)]
fn eni(namespace: u32, index: u32) -> Option<Device> {
    // SAFETY: copied at once. User space replaces a value as a whole, by another element.
    unsafe { DEVICES.get(&DeviceKey { namespace, index }).copied() }
}

#[inline(always)]
fn new_place(eni: Device, protocol: u16, received_by: u32) -> Option<EniPlace> {
    let active = ACTIVE.get(0)?;
    // SAFETY: a live map value; volatile, as in `count`.
    let zero = unsafe { (&raw const active.zero).read_volatile() };
    // DIRECTION_IN is 0 and DIRECTION_OUT 1.
    let of_ingress = (eni.host_side & 1) as u8;
    let direction = if received_by != 0 {
        of_ingress
    } else {
        of_ingress ^ DIRECTION_OUT
    };
    (eni.slot < MAX_ENIS).then_some(EniPlace {
        slot: eni.slot,
        // One path for the verifier, whichever way the packet took.
        direction: direction + zero as u8,
        received_by: received_by + zero,
        protocol: protocol + zero as u16,
        generation: active.generation,
        zero,
    })
}

/// `None` if its flow cannot be told.
#[inline(always)]
fn count(skb: Address, place: &EniPlace) -> Option<()> {
    let zero = place.zero;
    let packet = Dropped::new(skb, place.slot);
    let mut protocol = place.protocol;
    let is_v6 = protocol == ETHERTYPE_IPV6;
    let received = Received::new(skb, &packet, is_v6, place.received_by, zero);
    let mut offset = 0;
    for _ in 0..MAX_VLAN_TAGS {
        if is_vlan(protocol) {
            protocol = u16::from_be(packet.read(offset + 2)?);
            offset += 4;
        }
    }
    let offset = (offset + zero) & MAX_OFFSET;
    match protocol {
        ETHERTYPE_IPV4 => {
            let mut key = MaybeUninit::uninit();
            let (mut counted, key) =
                ipv4::read::<_, false>(&packet, offset, zero, place.direction, &mut key)?;
            if place.received_by != 0 {
                received.apply_v4(&packet, key, &mut counted.volume);
            }
            let adds = (counted.volume, counted.tcp_flags);
            add(key, adds, &FLOWS_V4, FAMILY_V4, place);
        }
        ETHERTYPE_IPV6 => {
            let mut key = MaybeUninit::uninit();
            let (mut counted, key) =
                ipv6::read::<_, false>(&packet, offset, zero, place.direction, &mut key)?;
            if place.received_by != 0 {
                received.apply_v6(key, &mut counted.volume);
            }
            let adds = (counted.volume, counted.tcp_flags);
            add(key, adds, &FLOWS_V6, FAMILY_V6, place);
        }
        _ => return None,
    }
    Some(())
}

/// Adds a packet, of that volume and with these TCP flags, to the flow of what netfilter rejected.
#[inline(always)]
fn add<K, F>(
    key: &mut K,
    (volume, tcp_flags): (Volume, u8),
    flows: &ArrayOfMaps<Flows<F>, GENERATIONS>,
    family: u32,
    place: &EniPlace,
) where
    K: AsRef<F> + FlowKey,
    F: Copy,
{
    let Some(map) = flows.get(place.generation) else {
        return unmatched(place, volume.packets);
    };
    let origin = if place.received_by != 0 {
        if is_rejected_already(key, map, place.slot) {
            return;
        }
        ORIGIN_NETFILTER_AFTER
    } else {
        ORIGIN_NETFILTER_BEFORE
    };
    key.set(place.slot, ACTION_REJECT, origin);
    let key = key.as_ref();
    let marks = FlowMarks::new(tcp_flags, DECIDED_BY_NETFILTER);
    if let Some(counters) = map.get_ptr_mut(key) {
        return count::add(counters, volume, tcp_flags);
    }
    let first = FlowCounters {
        packets: volume.packets,
        bytes: volume.bytes,
        marks,
        judged: 0,
    };
    if map.insert(key, &first, u64::from(BPF_NOEXIST)).is_ok() {
        return inserted(place.generation, family);
    }
    // Another CPU was first with this flow, or there is no room.
    if let Some(counters) = map.get_ptr_mut(key) {
        return count::add(counters, volume, tcp_flags);
    }
    let waiting = Overflow {
        packets: volume.packets,
        bytes: volume.bytes,
        marks,
        key: *key,
    };
    let flags = u64::from(BPF_RB_NO_WAKEUP);
    if OVERFLOW
        .output_untyped::<Overflow<F>>(waiting, flags)
        .is_err()
    {
        unmatched(place, volume.packets);
    }
}

/// Whether the security groups have rejected the packet, which passed because they only observe. The flow's packets are either among the
/// accepted ones or among the rejected ones; where there are both, because a policy changed, the flow that the current one has judged counts.
/// Flows of ICMP remember nothing: where there are both of one, the packet is taken to be an accepted one.
#[inline(always)]
fn is_rejected_already<K, F>(key: &mut K, flows: &Flows<F>, slot: u32) -> bool
where
    K: AsRef<F> + FlowKey,
{
    let judged = |counters: *const FlowCounters| {
        // SAFETY: a live map value.
        unsafe { (&raw const (*counters).judged).read_volatile() }
    };
    // The low 16 bits of what is remembered are the policy's epoch.
    let epoch = Policy::of(slot).map_or(0, |policy| policy.epoch as u16);
    key.set(slot, ACTION_REJECT, ORIGIN_PROGRAM);
    let Some(rejected) = flows.get_ptr(AsRef::<F>::as_ref(key)) else {
        return false;
    };
    let rejected = judged(rejected) as u16;
    key.set(slot, ACTION_ACCEPT, ORIGIN_PROGRAM);
    match flows.get_ptr(AsRef::<F>::as_ref(key)) {
        None => true,
        Some(accepted) => epoch != 0 && rejected == epoch && judged(accepted) as u16 != epoch,
    }
}

/// Packets that stay in the flow that the ENI's program counted them in, if it did.
#[inline(always)]
fn unmatched(place: &EniPlace, packets: u64) {
    let index = place.slot * 2 + u32::from(place.direction);
    if let Some(counters) = ENIS.get_value_ptr_mut(place.generation, &index) {
        // SAFETY: a live map value.
        unsafe { atomic::add(&raw mut (*counters).unmatched_drops, packets) };
    }
}
