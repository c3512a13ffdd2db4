//! Counting: every IP packet ends in exactly one flow, or in the ENI's counters of what is in none.
use core::{intrinsics::cold_path, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    btf_maps::ArrayOfMaps,
};
use flowlog_common::{
    ACTION_ACCEPT, ACTION_REJECT, DECIDED_BY_NOTHING, FAMILY_V4, FAMILY_V6, FlowCounters,
    FlowMarks, GENERATIONS, Overflow, Volume,
};

use crate::{
    aside::{self, Aside, Place, aside, one},
    atomic, eni, ipv4, ipv6,
    judge::{self, Question, Subject},
    key::Key,
    link::{self, Network},
    maps::{ACTIVE, FLOWS_V4, FLOWS_V6, Flows, OCCUPANCY, OVERFLOW, WAKE},
    packet::Packet,
    policy::Policy,
    session,
    transport::{FIN, RST, SYN},
};

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    GoesOn,
    Dropped,
}

/// Counts a packet that the device receives. Never fails, never changes the packet.
#[inline(always)]
pub fn ingress<P: Packet>(packet: &P) -> Fate {
    either(packet, eni::direction_of_ingress(), false)
}

/// Counts a packet that the device is about to send.
#[inline(always)]
pub fn egress<P: Packet>(packet: &P) -> Fate {
    either(packet, eni::direction_of_egress(), true)
}

/// An ENI without security groups pays nothing for them: the verifier removes what does not apply.
#[inline(always)]
fn either<P: Packet>(packet: &P, direction: u8, is_egress: bool) -> Fate {
    if eni::judges() {
        judged(packet, direction, is_egress)
    } else {
        count::<P, false>(packet, direction, is_egress)
    }
}

/// A function of its own because of the stack.
#[inline(never)]
fn judged<P: Packet>(packet: &P, direction: u8, is_egress: bool) -> Fate {
    count::<P, true>(packet, direction, is_egress)
}

/// Counts a packet, which is judged before if `JUDGE`.
#[inline(always)]
fn count<P: Packet, const JUDGE: bool>(packet: &P, direction: u8, is_egress: bool) -> Fate {
    let Some(active) = ACTIVE.get(0) else {
        return Fate::GoesOn;
    };
    let generation = active.generation;
    // SAFETY: a live map value. Volatile, for the compiler must not know that it is 0 either.
    let zero = unsafe { (&raw const active.zero).read_volatile() };
    let place = Place {
        generation,
        direction,
        is_egress,
    };
    let (network, offset) = link::network(packet, zero);
    match network {
        Network::V4 => v4::<P, JUDGE>(packet, offset, zero, place),
        Network::V6 => v6::<P, JUDGE>(packet, offset, zero, place),
        Network::Other => aside(Aside::NotIp, one(packet.octets()), place),
        Network::CutShort => aside(Aside::Unparsable, one(packet.octets()), place),
    }
}

/// Counts the packet whose IPv4 header begins at `offset`, which is judged before if `JUDGE`.
#[inline(always)]
fn v4<P: Packet, const JUDGE: bool>(packet: &P, offset: u32, zero: u32, place: Place) -> Fate {
    let mut key = MaybeUninit::uninit();
    match ipv4::read::<P, JUDGE>(packet, offset, zero, place.direction, &mut key) {
        Some((counted, key)) => {
            let place = (FAMILY_V4, place);
            counted.count::<P, _, _, JUDGE>(packet, key, &FLOWS_V4, place, zero)
        }
        None => unparsable(packet, offset, place),
    }
}

/// Likewise, of IPv6.
#[inline(always)]
fn v6<P: Packet, const JUDGE: bool>(packet: &P, offset: u32, zero: u32, place: Place) -> Fate {
    let mut key = MaybeUninit::uninit();
    match ipv6::read::<P, JUDGE>(packet, offset, zero, place.direction, &mut key) {
        Some((counted, key)) => {
            let place = (FAMILY_V6, place);
            counted.count::<P, _, _, JUDGE>(packet, key, &FLOWS_V6, place, zero)
        }
        None => unparsable(packet, offset, place),
    }
}

/// What is unparsable has no length that could be believed, so all octets from the network layer on are counted.
#[inline(always)]
fn unparsable<P: Packet>(packet: &P, offset: u32, place: Place) -> Fate {
    aside(Aside::Unparsable, one(packet.octets() - offset), place)
}

/// A packet that was read: what it adds to its flow, and what says whether it is accepted.
pub struct Counted {
    pub volume: Volume,
    pub tcp_flags: u8,
    pub subject: Subject,
}

impl Counted {
    #[inline(always)]
    fn count<P: Packet, K: Key + AsRef<F>, F: Copy, const JUDGE: bool>(
        &self,
        packet: &P,
        key: &mut K,
        flows: &ArrayOfMaps<Flows<F>, GENERATIONS>,
        (family, place): (u32, Place),
        zero: u32,
    ) -> Fate {
        if !JUDGE {
            self.note_segments(place);
        }
        let Some(map) = flows.get(place.generation) else {
            return aside(Aside::MapFull, self.volume, place);
        };
        if !JUDGE {
            self.add_as(map, key.as_ref(), (family, place), DECIDED_BY_NOTHING, 0);
            return Fate::GoesOn;
        }
        match Policy::current() {
            Some(policy) => self.judge(packet, key, map, (family, place), policy, zero),
            None => {
                self.add_as(map, key.as_ref(), (family, place), DECIDED_BY_NOTHING, 0);
                self.end(place, ACTION_ACCEPT)
            }
        }
    }

    /// Judges the packet and adds it to its flow. Of a flow that was judged by this policy in this unit of time, most packets are like the
    /// one before, and need no session.
    #[inline(always)]
    fn judge<P: Packet, K: Key + AsRef<F>, F: Copy>(
        &self,
        packet: &P,
        key: &mut K,
        map: &Flows<F>,
        (family, place): (u32, Place),
        policy: Policy,
        zero: u32,
    ) -> Fate {
        let word = policy.word();
        if self.subject.kind.is_tuple() && self.tcp_flags & (FIN | SYN | RST) == 0 {
            // The key is that of the accepted flow, as it was read.
            if let Some(counters) = found_as(map, key.as_ref(), word) {
                add(counters, self.volume, self.tcp_flags);
                return self.end(place, ACTION_ACCEPT);
            }
            key.set_action(ACTION_REJECT);
            if let Some(counters) = found_as(map, key.as_ref(), word) {
                add(counters, self.volume, self.tcp_flags);
                return self.end(place, ACTION_REJECT);
            }
        }
        cold_path();
        self.forgotten(zero)
            .judge_anew(packet, key, map, (family, place), (policy, word), zero)
    }

    /// The same, of which the verifier knows nothing any more: there are many ways to read a packet, and each would be a path of its own
    /// through all that follows.
    #[inline(always)]
    fn forgotten(&self, zero: u32) -> Self {
        Self {
            volume: Volume {
                packets: self.volume.packets + u64::from(zero),
                bytes: self.volume.bytes + u64::from(zero),
            },
            tcp_flags: self.tcp_flags.wrapping_add(zero as u8),
            subject: self.subject.forgotten(zero),
        }
    }

    /// Judges the packet by its session, or alone.
    #[inline(always)]
    fn judge_anew<P: Packet, K: Key + AsRef<F>, F: Copy>(
        &self,
        packet: &P,
        key: &mut K,
        map: &Flows<F>,
        (family, place): (u32, Place),
        (policy, word): (Policy, u32),
        zero: u32,
    ) -> Fate {
        key.forget(zero);
        let mut session = MaybeUninit::uninit();
        session::Key::of_flow(key, place.direction, &mut session);
        // SAFETY: just written.
        let session = unsafe { session.assume_init_mut() };
        let question = Question {
            subject: self.subject,
            direction: place.direction,
            tcp_flags: self.tcp_flags,
            policy,
            zero,
        };
        let judgement = judge::judge(packet, session, &question);
        key.set_action(judgement.action());
        let judged = if judgement.is_cacheable { word } else { 0 };
        self.add_as(
            map,
            key.as_ref(),
            (family, place),
            judgement.decided_by(),
            judged,
        );
        if judgement.had_no_room {
            aside::without_session(place);
        }
        if (judgement.has_opened || judgement.has_ended) && self.subject.kind.is_tuple() {
            forget_others(map, key, judgement.action());
        }
        self.end(place, judgement.action())
    }

    /// What becomes of the packet, which is counted. The device does not see what is dropped at its egress.
    #[inline(always)]
    fn end(&self, place: Place, action: u8) -> Fate {
        if action == ACTION_ACCEPT || !eni::enforces() {
            self.note_segments(place);
            return Fate::GoesOn;
        }
        cold_path();
        if place.is_egress {
            aside::dropped(self.volume, place);
        } else {
            self.note_segments(place);
        }
        Fate::Dropped
    }

    #[inline(always)]
    fn note_segments(&self, place: Place) {
        if self.volume.packets > 1 {
            // What this takes is put out of the way of ordinary packets, which pay one comparison.
            cold_path();
            aside::extra_segments(self.volume.packets - 1, place);
        }
    }

    /// Adds the packet to the flow of its key, which is made if it is not there. `judged` is [`FlowCounters::judged`], 0 to leave it as it
    /// is.
    #[inline(always)]
    fn add_as<F: Copy>(
        &self,
        map: &Flows<F>,
        key: &F,
        (family, place): (u32, Place),
        decided_by: u32,
        judged: u32,
    ) {
        if let Some(counters) = map.get_ptr_mut(key) {
            add(counters, self.volume, self.tcp_flags);
            return remember(counters, decided_by, judged);
        }
        let first = FlowCounters {
            packets: self.volume.packets,
            bytes: self.volume.bytes,
            marks: FlowMarks::new(self.tcp_flags, decided_by),
            judged,
        };
        new_flow(map, key, &first, place.pack(), family);
    }
}

/// The flow of this key, if it was judged by this policy in this unit of time, as `word` has them.
#[inline(always)]
fn found_as<F: Copy>(map: &Flows<F>, key: &F, word: u32) -> Option<*mut FlowCounters> {
    let counters = map.get_ptr_mut(key)?;
    // SAFETY: a live map value.
    (unsafe { (*counters).judged } == word).then_some(counters)
}

/// Adds a packet to its flow.
#[inline(always)]
pub fn add(counters: *mut FlowCounters, volume: Volume, tcp_flags: u8) {
    // SAFETY: a live map value: entries of the active generation are never deleted.
    unsafe {
        atomic::add(&raw mut (*counters).packets, volume.packets);
        atomic::add(&raw mut (*counters).bytes, volume.bytes);
        let flags = u32::from(tcp_flags);
        // Most packets bring no new flag, and a read is cheaper than a locked write.
        if flags != 0 && (*counters).marks.0 & flags != flags {
            atomic::or(&raw mut (*counters).marks.0, flags);
        }
    }
}

/// Has a flow remember how it was judged.
#[inline(always)]
fn remember(counters: *mut FlowCounters, decided_by: u32, judged: u32) {
    // SAFETY: as in `add`.
    unsafe {
        decided(&raw mut (*counters).marks, decided_by);
        if judged != 0 {
            (*counters).judged = judged;
        }
    }
}

/// Makes a flow with what its first packet adds. `place` is [`Place::pack`].
///
/// A function of its own because of the stack.
#[inline(never)]
fn new_flow<F: Copy>(map: &Flows<F>, key: &F, first: &FlowCounters, place: u32, family: u32) {
    let place = Place::unpack(place);
    if map.insert(key, first, u64::from(BPF_NOEXIST)).is_ok() {
        return inserted(place.generation, family);
    }
    let volume = Volume {
        packets: first.packets,
        bytes: first.bytes,
    };
    // Another CPU was first with this flow, or there is no room.
    if let Some(counters) = map.get_ptr_mut(key) {
        add(counters, volume, first.marks.tcp_flags());
        return remember(counters, first.marks.decided_by(), first.judged);
    }
    // User space adds the packet to its flow; where the ring is full too, it is counted aside. It was woken when the map was half full,
    // and reads the ring with the map.
    let packet = Overflow {
        packets: first.packets,
        bytes: first.bytes,
        marks: first.marks,
        key: *key,
    };
    let flags = u64::from(BPF_RB_NO_WAKEUP);
    if OVERFLOW
        .output_untyped::<Overflow<F>>(packet, flags)
        .is_err()
    {
        let _ = aside(Aside::MapFull, volume, place);
    }
}

/// What was judged of the session's other flows does not hold any more. `key` is left as that of one of them.
///
/// A function of its own because of the stack.
#[inline(never)]
fn forget_others<K: Key + AsRef<F>, F: Copy>(map: &Flows<F>, key: &mut K, action: u8) {
    key.set_action(action ^ ACTION_REJECT);
    forget(map, key.as_ref());
    key.reverse();
    forget(map, key.as_ref());
    key.set_action(action);
    forget(map, key.as_ref());
}

#[inline(always)]
fn forget<F: Copy>(map: &Flows<F>, key: &F) {
    if let Some(counters) = map.get_ptr_mut(key) {
        // SAFETY: a live map value.
        unsafe { (*counters).judged = 0 };
    }
}

/// Notes what decided a flow's action, if anything did.
///
/// # Safety
///
/// `marks` points into a live map value.
#[inline(always)]
unsafe fn decided(marks: *mut FlowMarks, decided_by: u32) {
    // Flags that another CPU adds meanwhile are not to be lost.
    for _ in 0..DECIDED_ATTEMPTS {
        // SAFETY: the caller's.
        let old = unsafe { marks.read_volatile() };
        if decided_by == DECIDED_BY_NOTHING || old.decided_by() == decided_by {
            return;
        }
        let new = FlowMarks::new(old.tcp_flags(), decided_by);
        // SAFETY: the caller's; `FlowMarks` is a word.
        if unsafe { atomic::compare_exchange(marks.cast(), old.0, new.0) } {
            return;
        }
    }
}

/// A flow has eight flags, each of which gets in the way once.
const DECIDED_ATTEMPTS: u32 = 8;

/// Tells user space once when the map passes half full.
#[inline(always)]
pub fn inserted(generation: u32, family: u32) {
    let Some(occupancy) = OCCUPANCY.get_ptr_mut(generation * 2 + family) else {
        return;
    };
    // SAFETY: a live map value; `wake_at` is written by user space only while the generation is still.
    unsafe {
        if atomic::fetch_increment(&raw mut (*occupancy).flows) + 1 == (*occupancy).wake_at {
            // Were the ring full, user space would have been woken already.
            let _ = WAKE.output(&u64::from(generation), 0);
        }
    }
}
