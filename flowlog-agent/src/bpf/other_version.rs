//! Pins that an agent with another version of the ABI has left: its programs may still count, into maps of its own.
//!
//! Nothing of theirs is lost: their links are adopted, so that our programs take the place of theirs without a gap; then what they have
//! counted is read, and written like a drain of our own; then they are removed. Of this, the agent's loop does what takes time.
mod layout;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use flowlog_common::{ABI_VERSION, EniCounters, FlowCounters, FlowKeyV4, FlowKeyV6, GENERATIONS};
use flowlog_model::record::Eni;

use super::{
    attach::MADE_CLSACT,
    counters::{self, Still, open_inner, open_of_maps, renew::empty_hash},
    error::BpfError,
    identities::Identities,
    object::{self, OVERFLOW},
    overflow::OverflowPacket,
    pins,
    ring::Ring,
    sys::{self, read_all},
};
use layout::Layout;

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
        let layout = Layout::of(self.version)
            .ok_or_else(|| failed(format!("this agent knows versions 1 to {ABI_VERSION}")))?;
        OtherCounters::open(&self.folder, layout).map_err(|error| failed(error.to_string()))
    }
}

/// The counters of another version.
pub struct OtherCounters {
    folder: PathBuf,
    layout: Layout,
    /// How often the generations were switched, and which one is active.
    flips: Option<(u64, usize)>,
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

impl OtherCounters {
    fn open(folder: &Path, layout: Layout) -> Result<Self, BpfError> {
        let flows_v4 = open_of_maps(folder, "FLOWS_V4")?;
        let flows_v6 = open_of_maps(folder, "FLOWS_V6")?;
        let enis = open_of_maps(folder, "ENIS")?;
        let generation = |index: u32| -> Result<Generation, BpfError> {
            let hash = sys::MAP_TYPE_HASH;
            Ok(Generation {
                flows_v4: open_inner::<FlowKeyV4, FlowCounters>(&flows_v4, index, hash)?,
                flows_v6: open_inner::<FlowKeyV6, FlowCounters>(&flows_v6, index, hash)?,
                enis: layout.open_enis(&enis, index)?,
            })
        };
        let (active, flips) = layout.open_active(folder)?;
        Ok(Self {
            layout,
            active,
            flips,
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

    /// How often the generations were switched. None of version 1, whose agents did not count that, and kept no marks and no ledger either.
    #[must_use]
    pub fn flips(&self) -> Option<u64> {
        self.flips.map(|(flips, _)| flips)
    }

    /// Removes what their agent has drained, if it was killed before it could: the generation that is not active, and what is in the
    /// ring up to a position. Interrupted, it can be done again.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn remove_drained(&mut self, ring_position: u64) -> Result<(), BpfError> {
        if let Some((_, active)) = self.flips {
            let still = &self.generations[1 - active];
            empty_hash::<FlowKeyV4>(&still.flows_v4)?;
            empty_hash::<FlowKeyV6>(&still.flows_v6)?;
            self.layout.empty_enis(&still.enis)?;
        }
        self.ring.advance(ring_position);
        Ok(())
    }

    /// Both generations, of which the same flow may be in each. All that is in them was not drained, after [`Self::remove_drained`] where
    /// that is due: an agent of version 1 makes a generation clean before it writes what was in it.
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

    /// What is beside the flows of a generation, by `slot * 2 + direction`. What a version did not count is 0.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn read_enis(&self, still: &Still) -> Result<Vec<EniCounters>, BpfError> {
        self.layout.read_enis(&self.generations[still.0].enis)
    }

    /// Reads the packets that wait in their overflow ring. They stay there.
    pub fn read_ring(&self, mut each: impl FnMut(OverflowPacket)) {
        self.ring.walk(self.ring.consumed(), |item| {
            if let Some(packet) = self.layout.packet(&item) {
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
