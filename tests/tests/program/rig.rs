//! The programs of several ENIs that share one set of counters, and what these must hold, by the oracle's reading.
use std::{
    borrow::Cow,
    fs::File,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use etherparse::{Ethernet2Slice, SingleVlanSlice, ether_type};
use flowlog_agent::bpf::{
    Counters, EniConstants, MapSizes, Still, pins,
    trial::{Programs, SkbMetadata, TrialProgram, forget_fragments},
};
use flowlog_common::{DIRECTION_IN, DIRECTION_OUT};
use flowlog_tests::packets::{
    build,
    oracle::{self, Oracle, Reading},
};
use nix::fcntl::{Flock, FlockArg};

use crate::ledger::Ledger;

/// What a TC program returns so that the chain goes on: `TC_ACT_UNSPEC`, -1.
pub(crate) const GO_ON: u32 = u32::MAX;
/// `XDP_PASS`.
pub(crate) const PASS: u32 = 2;
/// The shortest frame that `BPF_PROG_TEST_RUN` takes, in octets: an Ethernet header.
pub(crate) const MIN_FRAME: usize = 14;

/// What fits into a page with the kernel's own data around it, in octets, whichever the kernel.
pub(crate) const MAX_LINEAR_FRAME: usize = 3_400;

/// Flow maps with room for whatever a test sends.
pub(crate) const ROOMY: MapSizes = MapSizes {
    v4: 1 << 16,
    v6: 1 << 16,
};

/// A ring that holds a few dozen packets.
const RING_BYTES: u32 = 4096;

/// A folder for pins of a test's own, gone when dropped.
pub(crate) struct PinFolder(PathBuf);

impl PinFolder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!(
            "/sys/fs/bpf/flowlog-test-{}-{number}",
            std::process::id()
        ));
        // Tests of several processes start at once, and only one is to mount the BPF file system.
        let lock = std::env::temp_dir().join("flowlog-test-bpffs.lock");
        let lock = File::create(&lock).expect("a lock file");
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).expect("the lock");
        pins::prepare(&path).expect("a folder for pins");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PinFolder {
    fn drop(&mut self) {
        pins::remove(&self.0);
    }
}

/// An ENI of the rig. The slot is its own, so that what each counts can be told apart.
pub(crate) fn eni(slot: u32, host_side: bool) -> EniConstants {
    EniConstants {
        slot,
        host_side,
        ethernet: true,
        ..EniConstants::default()
    }
}

/// One of the places at which every frame crosses the rig: a program of an ENI.
struct Place {
    eni: usize,
    program: TrialProgram,
    slot: u32,
    direction: u8,
    ethernet: bool,
    oracle: Oracle,
}

/// The programs, the counters, and what must be in these.
pub(crate) struct Rig {
    programs: Vec<Programs>,
    places: Vec<Place>,
    counters: Counters,
    sizes: MapSizes,
    /// What each generation must hold, and which is the active one.
    expected: [Ledger; 2],
    active: usize,
    folder: PinFolder,
}

impl Rig {
    /// Each ENI with the programs through which every frame is to go. Two ENIs are not to share a slot.
    pub(crate) fn new(sizes: MapSizes, enis: &[(EniConstants, &[TrialProgram])]) -> Self {
        let folder = PinFolder::new();
        let counters =
            Counters::create_with_ring(folder.path(), sizes, RING_BYTES).expect("counters");
        let mut rig = Self {
            programs: Vec::new(),
            places: Vec::new(),
            counters,
            sizes,
            expected: Default::default(),
            active: 0,
            folder,
        };
        for (index, (constants, programs)) in enis.iter().enumerate() {
            let loaded = Programs::load(rig.folder.path(), *constants);
            rig.programs.push(loaded.expect("the programs load"));
            let places = programs.iter();
            rig.places
                .extend(places.map(|&program| Place::new(index, *constants, program)));
        }
        rig
    }

    /// Where its maps are pinned.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All three programs on the guest's side and on the host's. XDP is on ENIs of its own: a device is counted at ingress by TC
    /// or by XDP, never by both.
    pub(crate) fn of_all_programs() -> Self {
        use TrialProgram::{Egress, Ingress, Xdp};
        let last = flowlog_common::MAX_ENIS - 1;
        Self::new(
            ROOMY,
            &[
                (eni(0, false), &[Ingress, Egress]),
                (eni(1, false), &[Xdp]),
                (eni(0x0203, true), &[Ingress, Egress]),
                (eni(last, true), &[Xdp]),
            ],
        )
    }

    /// Likewise, of devices that have no Ethernet header.
    pub(crate) fn without_ethernet_header() -> Self {
        use TrialProgram::{Egress, Ingress, Xdp};
        let bare = |slot, host_side| EniConstants {
            ethernet: false,
            ..eni(slot, host_side)
        };
        Self::new(
            ROOMY,
            &[
                (bare(2, false), &[Ingress, Egress]),
                (bare(3, true), &[Xdp]),
            ],
        )
    }

    /// Sends a frame through every place, and notes what must be counted; nothing if the kernel does not take it, or if the oracle
    /// has no opinion of it. What TC alone does not take, for its IP header is cut short, is sent behind a VLAN tag as well.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.send_as(frame, SkbMetadata::default());
    }

    /// Likewise, with what the kernel is to know of the frame besides. It must not be a super-packet.
    pub(crate) fn send_as(&mut self, frame: &[u8], metadata: SkbMetadata) {
        if self.places.iter().all(|place| place.judges(frame)) {
            self.send_super_packet(frame, metadata, &[frame]);
            if has_short_ip_header(frame) {
                let (addresses, rest) = frame.split_at(12);
                let tagged = [addresses, &[0x81, 0, 0, 1], rest].concat();
                self.send_super_packet(&tagged, metadata, &[&tagged]);
            }
        }
    }

    /// Sends a super-packet through every place, and notes that the frames which the wire would carry of it must be counted.
    pub(crate) fn send_super_packet<F: AsRef<[u8]>>(
        &mut self,
        frame: &[u8],
        metadata: SkbMetadata,
        wire: &[F],
    ) {
        let ledger = &mut self.expected[self.active];
        for place in &mut self.places {
            if takes(
                &mut self.programs[place.eni],
                place.program,
                frame,
                metadata,
            ) {
                let mut in_flows = 0;
                for frame in wire {
                    in_flows += u64::from(place.note(frame.as_ref(), ledger));
                }
                ledger.add_extra_segments(place.slot, place.direction, in_flows);
            }
        }
    }

    /// Sends a frame through one program of one ENI alone.
    pub(crate) fn send_through(&mut self, slot: u32, program: TrialProgram, frame: &[u8]) {
        let ledger = &mut self.expected[self.active];
        let place = self
            .places
            .iter_mut()
            .find(|place| (place.slot, place.program) == (slot, program))
            .expect("a place of the rig");
        let programs = &mut self.programs[place.eni];
        assert!(takes(programs, program, frame, SkbMetadata::default()));
        place.note(frame, ledger);
    }

    /// Runs a frame through every place without a note of what must be counted; how many took it.
    pub(crate) fn send_unjudged(&mut self, frame: &[u8], metadata: SkbMetadata) -> u64 {
        let mut taken = 0;
        for place in &self.places {
            let programs = &mut self.programs[place.eni];
            taken += u64::from(takes(programs, place.program, frame, metadata));
        }
        taken
    }

    /// Flips, and holds what was counted in the generation that is now still against what must be in it.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        let still = self.flip();
        let found = Ledger::read(&self.counters, &still);
        let fill = self.counters.fill(&still).expect("how full the maps are");
        let expected = &self.expected[1 - self.active];
        let mut differences = expected.differences(&found);
        if (fill.v4, fill.v6) != expected.flows() {
            differences.push(format!(
                "the kernel says that {fill:?} flows were added, not {:?}",
                expected.flows()
            ));
        }
        if differences.is_empty() {
            return Ok(());
        }
        // So that the next check has nothing of this one.
        self.renew(still);
        Err(differences.join("\n"))
    }

    /// Flips, and gives what was counted in the generation that is now still, which is renewed.
    pub(crate) fn drain(&mut self) -> Ledger {
        let still = self.flip();
        let found = Ledger::read(&self.counters, &still);
        self.renew(still);
        found
    }

    fn flip(&mut self) -> Still {
        self.active = 1 - self.active;
        self.counters.flip().expect("a flip")
    }

    fn renew(&mut self, still: Still) {
        self.counters.renew(still, self.sizes).expect("renewal");
        self.expected[1 - self.active] = Ledger::default();
    }

    /// Whether this kernel can run a program on a frame of which a part is outside the linear part.
    pub(crate) fn can_split(program: TrialProgram) -> bool {
        let mut rig = Self::new(ROOMY, &[(eni(0, false), &[program])]);
        let frame = build::etherparse_frame(false, false, &[0; 100]);
        let metadata = SkbMetadata {
            linear_octets: MIN_FRAME as u32,
            ..SkbMetadata::default()
        };
        rig.send_unjudged(&frame, metadata) == 1
    }

    /// Forgets all fragments, here and in the kernel.
    pub(crate) fn forget_fragments(&mut self) {
        forget_fragments(self.folder.path()).expect("no fragments");
        for place in &mut self.places {
            place.oracle = Oracle::default();
        }
    }
}

impl Place {
    fn new(eni: usize, constants: EniConstants, program: TrialProgram) -> Self {
        // What the device receives goes in at the guest's side and came out of it at the host's.
        let received = program != TrialProgram::Egress;
        Self {
            eni,
            program,
            slot: constants.slot,
            direction: if received == constants.host_side {
                DIRECTION_OUT
            } else {
                DIRECTION_IN
            },
            ethernet: constants.ethernet,
            oracle: Oracle::default(),
        }
    }

    /// Notes that a frame must be counted here, and tells whether in a flow.
    fn note(&mut self, frame: &[u8], ledger: &mut Ledger) -> bool {
        let whole = self.as_ethernet(frame);
        let reading = self.oracle.read(&whole);
        let aside_octets = if self.ethernet || self.is_redirected(frame) {
            aside_octets(reading, frame)
        } else {
            frame.len()
        };
        ledger.add(self.slot, self.direction, reading, aside_octets as u64);
        matches!(reading, Reading::Flow(_))
    }

    fn judges(&self, frame: &[u8]) -> bool {
        oracle::comparable(&self.as_ethernet(frame))
    }

    /// Whether TC takes the frame for one that was redirected with its Ethernet header: it does not begin as an IP packet does, and the
    /// kernel says that it carries one. A test run lets the kernel read that from where an Ethernet header has its type.
    fn is_redirected(&self, frame: &[u8]) -> bool {
        let begins_as_ip = matches!(frame.first().map(|octet| octet >> 4), Some(4 | 6));
        let said_to_be_ip = matches!(frame.get(12..14), Some([0x08, 0x00] | [0x86, 0xdd]));
        !self.ethernet && self.program != TrialProgram::Xdp && !begins_as_ip && said_to_be_ip
    }

    /// The frame as the oracle reads it: where there is no Ethernet header, one that says what the IP header's version says.
    fn as_ethernet<'f>(&self, frame: &'f [u8]) -> Cow<'f, [u8]> {
        if self.ethernet || self.is_redirected(frame) {
            return Cow::Borrowed(frame);
        }
        let kind = match frame.first().map(|octet| octet >> 4) {
            Some(4) => build::IPV4,
            Some(6) => build::IPV6,
            _ => 0xffff,
        };
        Cow::Owned(build::ethernet(kind, frame))
    }
}

/// Runs a program on a frame. `false` if the frame is one that the kernel does not take: see [`is_refused`].
fn takes(
    programs: &mut Programs,
    program: TrialProgram,
    frame: &[u8],
    metadata: SkbMetadata,
) -> bool {
    let verdict = match programs.run(program, frame, metadata, 1) {
        Ok(run) => run.verdict,
        Err(_) if is_refused(program, frame, metadata) => return false,
        Err(error) => panic!(
            "{program:?} on {} octets, {metadata:?}: {error}",
            frame.len()
        ),
    };
    let harmless = match program {
        TrialProgram::Ingress | TrialProgram::Egress => GO_ON,
        TrialProgram::Xdp => PASS,
    };
    assert_eq!(verdict, harmless, "{program:?} decides on a packet");
    true
}

/// Whether a kernel may refuse to run a program on a frame: on one without a whole Ethernet header in any case; on one of which a
/// part is to be outside the linear part (6.18 does so for XDP alone); for TC also on one without a whole IP header, and on one over
/// a page.
fn is_refused(program: TrialProgram, frame: &[u8], metadata: SkbMetadata) -> bool {
    let refused_by_tc = has_short_ip_header(frame) || frame.len() > MAX_LINEAR_FRAME;
    frame.len() < MIN_FRAME
        || metadata.linear_octets > 0
        || (program != TrialProgram::Xdp && refused_by_tc)
}

/// Whether the EtherType promises a longer IP header than there is.
fn has_short_ip_header(frame: &[u8]) -> bool {
    match frame.get(12..MIN_FRAME) {
        Some([0x08, 0x00]) => frame.len() < MIN_FRAME + 20,
        Some([0x86, 0xdd]) => frame.len() < MIN_FRAME + 40,
        _ => false,
    }
}

/// Octets of a frame as they are counted aside: from the network layer on where IP cannot be parsed; all of the frame where it
/// is not IP, or ends before it says what it is.
fn aside_octets(reading: Reading, frame: &[u8]) -> usize {
    let after_header = match reading {
        Reading::Unparsable => ip_datagram(frame),
        Reading::Flow(_) | Reading::NotIp => None,
    };
    after_header.unwrap_or(frame).len()
}

/// What follows the link layer's header.
fn ip_datagram(frame: &[u8]) -> Option<&[u8]> {
    let ethernet = Ethernet2Slice::from_slice_without_fcs(frame).ok()?;
    let (mut kind, mut payload) = (ethernet.ether_type(), ethernet.payload_slice());
    for _ in 0..oracle::MAX_TAGS {
        if matches!(kind.0, 0x8100 | 0x88a8 | 0x9100) {
            let tag = SingleVlanSlice::from_slice(payload).ok()?;
            (kind, payload) = (tag.ether_type(), tag.payload_slice());
        }
    }
    matches!(kind, ether_type::IPV4 | ether_type::IPV6).then_some(payload)
}
