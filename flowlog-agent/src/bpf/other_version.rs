//! Pins that an agent with another version of the ABI has left: its programs may still count, into maps of its own.
//!
//! Nothing of theirs is lost: their links are adopted, so that our programs take the place of theirs without a gap; then what they have
//! counted is read, and written like a drain of our own; then they are removed. Of this, the agent's loop does what takes time.
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use flowlog_common::{
    ABI_VERSION, DECIDED_BY_NOTHING, EniCounters, FlowCounters, FlowKeyV4, FlowKeyV6, FlowMarks,
    GENERATIONS, MAX_ENIS, Overflow, Volume,
};
use flowlog_model::record::Eni;

use super::{
    attach::MADE_CLSACT,
    counters::{self, Still, open_array, open_inner, open_of_maps},
    error::BpfError,
    identities::Identities,
    object::{self, OVERFLOW},
    overflow::OverflowPacket,
    pins,
    ring::{Item, Ring},
    sys::{self, MapData, read_all},
};

/// Pins of another version. Nothing is known of them but where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherPins {
    folder: PathBuf,
    version: u32,
}

impl OtherPins {
    /// Those that are under a path for pins, the oldest version first. What is empty does not count.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn find(pin_path: &Path) -> Result<Vec<Self>, BpfError> {
        let failed = |source| BpfError::Pins {
            path: pin_path.to_owned(),
            source,
        };
        let entries = match fs::read_dir(pin_path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let folder = entry.map_err(failed)?.path();
            let Some(version) = object::version_of(&folder) else {
                continue;
            };
            if version != ABI_VERSION && fs::read_dir(&folder).map_err(failed)?.next().is_some() {
                found.push(Self { folder, version });
            }
        }
        found.sort_by_key(|pins| pins.version);
        Ok(found)
    }

    /// Their version of the ABI.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Where they are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens the counters. To be called before CAP_SYS_ADMIN is given up.
    ///
    /// # Errors
    ///
    /// [`BpfError::OtherVersion`] if they are of a version that is not known, or not as they should be; nothing was changed then.
    pub fn open(&self) -> Result<OtherCounters, BpfError> {
        let failed = |reason: String| BpfError::OtherVersion {
            folder: self.folder.clone(),
            version: self.version,
            reason,
        };
        match self.version {
            1 => OtherCounters::open(&self.folder).map_err(|error| failed(error.to_string())),
            _ => Err(failed(format!(
                "this agent knows versions 1 to {ABI_VERSION}"
            ))),
        }
    }
}

/// The counters of version 1.
pub struct OtherCounters {
    folder: PathBuf,
    active: OwnedFd,
    flows_v4: OwnedFd,
    generations: [Generation; GENERATIONS],
    ring: Ring,
    identities: Identities,
}

struct Generation {
    flows_v4: OwnedFd,
    flows_v6: OwnedFd,
    enis: OwnedFd,
}

/// `Active` of version 1.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ActiveV1 {
    generation: u32,
    zero: u32,
}

/// `EniCounters` of version 1.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct EniCountersV1 {
    map_full: Volume,
    unparsable: Volume,
    not_ip: Volume,
}

/// `Overflow` of version 1.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct OverflowV1<K> {
    generation: u32,
    tcp_flags: u32,
    packets: u64,
    bytes: u64,
    key: K,
    reserved: u32,
}

const _: () = assert!(
    size_of::<ActiveV1>() == 8
        && size_of::<EniCountersV1>() == 48
        && size_of::<OverflowV1<FlowKeyV4>>() == 48
        && size_of::<OverflowV1<FlowKeyV6>>() == 72
);

// SAFETY: `#[repr(C)]`, integers only, without padding as the sizes above say; so are those below.
unsafe impl MapData for ActiveV1 {}
// SAFETY: as above.
unsafe impl MapData for EniCountersV1 {}
// SAFETY: as above.
unsafe impl MapData for OverflowV1<FlowKeyV4> {}
// SAFETY: as above.
unsafe impl MapData for OverflowV1<FlowKeyV6> {}

impl<K> From<OverflowV1<K>> for Overflow<K> {
    fn from(packet: OverflowV1<K>) -> Self {
        Self {
            packets: packet.packets,
            bytes: packet.bytes,
            // Flags are one octet of the header, and nothing was judged.
            marks: FlowMarks::new(packet.tcp_flags as u8, DECIDED_BY_NOTHING),
            key: packet.key,
        }
    }
}

impl From<&EniCountersV1> for EniCounters {
    fn from(counters: &EniCountersV1) -> Self {
        Self {
            map_full: counters.map_full,
            unparsable: counters.unparsable,
            not_ip: counters.not_ip,
            ..Self::default()
        }
    }
}

impl OtherCounters {
    fn open(folder: &Path) -> Result<Self, BpfError> {
        let flows_v4 = open_of_maps(folder, "FLOWS_V4")?;
        let flows_v6 = open_of_maps(folder, "FLOWS_V6")?;
        let enis = open_of_maps(folder, "ENIS")?;
        let generation = |index: u32| -> Result<Generation, BpfError> {
            let hash = sys::MAP_TYPE_HASH;
            Ok(Generation {
                flows_v4: open_inner::<FlowKeyV4, FlowCounters>(&flows_v4, index, hash)?,
                flows_v6: open_inner::<FlowKeyV6, FlowCounters>(&flows_v6, index, hash)?,
                enis: open_inner::<u32, EniCountersV1>(&enis, index, sys::MAP_TYPE_ARRAY)?,
            })
        };
        Ok(Self {
            active: open_array::<ActiveV1>(folder, "ACTIVE")?,
            generations: [generation(0)?, generation(1)?],
            flows_v4,
            ring: sys::obj_get(&folder.join(OVERFLOW))
                .and_then(|map| Ring::open(map.as_fd()))
                .map_err(BpfError::map(format!("open the map {OVERFLOW}")))?,
            identities: Identities::open(folder)?,
            folder: folder.to_owned(),
        })
    }

    /// Which counters these are, as [`super::Counters::epoch`] says of ours.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub fn epoch(&self) -> Result<String, BpfError> {
        counters::epoch(self.active.as_fd())
    }

    /// The identities that the slots of their keys stand for.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn identities(&self) -> Result<Vec<(u32, Eni)>, BpfError> {
        self.identities.all()
    }

    /// Moves the pins of devices into the folder of our own pins, in which our counters must be, and tells how many there were. Their
    /// programs go on counting until ours take their place, by [`super::Observer::attach`]. Interrupted, it can be done again.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn adopt_links(&self, into: &Path) -> Result<usize, BpfError> {
        let active =
            sys::obj_get(&into.join("ACTIVE")).map_err(BpfError::map("open our own counters"))?;
        let mut adopted = 0;
        for name in pins::devices(&self.folder)? {
            let (from, to) = (self.folder.join(&name), into.join(&name));
            if name.ends_with(MADE_CLSACT) {
                // What is pinned there says nothing, and would hold their maps for as long as it is there.
                match sys::obj_pin(active.as_fd(), &to) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                    _ => fs::remove_file(&from),
                }
            } else if to.exists() {
                // Both count the device, and ours goes on. Theirs may be off already.
                let _ = sys::link_detach(&from);
                fs::remove_file(&from)
            } else {
                fs::rename(&from, &to)
            }
            .map_err(BpfError::map(format!("take over the pin {name}")))?;
            adopted += 1;
        }
        Ok(adopted)
    }

    /// Waits until every program that runs now has finished. To be called when none of theirs is attached any more, and before reading.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn settle(&self) -> Result<(), BpfError> {
        let inner = self.generations[0].flows_v4.as_fd();
        counters::wait_for_programs(self.flows_v4.as_fd(), 0, inner)
    }

    /// Both generations, of which the same flow may be in each. All that is in them was not written: an agent of version 1 makes a generation
    /// clean before it writes what was in it.
    #[must_use]
    pub fn generations(&self) -> [Still; GENERATIONS] {
        [Still(0), Still(1)]
    }

    /// Reads all IPv4 flows of a generation, batch by batch. Nothing is deleted.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn read_v4(
        &self,
        still: &Still,
        each: impl FnMut(&[FlowKeyV4], &[FlowCounters]),
    ) -> Result<(), BpfError> {
        read_all(self.generations[still.0].flows_v4.as_fd(), each)
            .map_err(BpfError::map("read the IPv4 flow map"))
    }

    /// Reads all IPv6 flows of a generation, likewise.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn read_v6(
        &self,
        still: &Still,
        each: impl FnMut(&[FlowKeyV6], &[FlowCounters]),
    ) -> Result<(), BpfError> {
        read_all(self.generations[still.0].flows_v6.as_fd(), each)
            .map_err(BpfError::map("read the IPv6 flow map"))
    }

    /// What is beside the flows of a generation, by `slot * 2 + direction`. Extra segments were not counted.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn read_enis(&self, still: &Still) -> Result<Vec<EniCounters>, BpfError> {
        let mut all = Vec::with_capacity(MAX_ENIS as usize * 2);
        read_all(
            self.generations[still.0].enis.as_fd(),
            |_: &[u32], values: &[EniCountersV1]| all.extend(values.iter().map(EniCounters::from)),
        )
        .map_err(BpfError::map("read the counters of what is in no flow"))?;
        Ok(all)
    }

    /// Reads the packets that wait in their overflow ring. They stay there.
    pub fn read_ring(&self, mut each: impl FnMut(OverflowPacket)) {
        self.ring.walk(self.ring.consumed(), |item| {
            if let Some(packet) = packet(&item) {
                each(packet);
            } else {
                tracing::error!(
                    octets = item.octets(),
                    "an item of the overflow ring is of no known length"
                );
            }
        });
    }

    /// Removes the pins, once all that they had is safe.
    pub fn remove(self) {
        pins::remove(&self.folder);
    }
}

fn packet(item: &Item<'_>) -> Option<OverflowPacket> {
    let v4 = || item.read::<OverflowV1<FlowKeyV4>>();
    let v6 = || item.read::<OverflowV1<FlowKeyV6>>();
    v6().map(|packet| OverflowPacket::V6(packet.into()))
        .or_else(|| v4().map(|packet| OverflowPacket::V4(packet.into())))
}
