//! The counters in the kernel: two generations of them, of which one is active and the other still.
//!
//! Life of a generation: *clean* → active (programs count into it) → still (complete, user space reads it) → renewed, and so clean
//! again. [`Counters::flip`] is the only place where the active one changes.
pub(super) mod renew;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use flowlog_common::{
    Active, EniCounters, FAMILIES, FlowCounters, FlowKeyV4, FlowKeyV6, GENERATIONS, MAX_ENIS,
    OVERFLOW_RING_BYTES, Occupancy,
};

use super::{
    error::BpfError,
    object::{self, EniConstants},
    sys::{self, MapData, read_all},
};
use renew::install;

/// Bounds of an overflow ring: a page of most machines, and what still leaves memory for others.
const SMALLEST_RING_BYTES: u32 = 4096;
const LARGEST_RING_BYTES: u32 = 1 << 30;

/// Tells one start of the host from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Sizes of the flow maps of a generation, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSizes {
    /// IPv4.
    pub v4: u32,
    /// IPv6.
    pub v6: u32,
}

/// How full a generation's flow maps are, in flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// IPv4.
    pub v4: u64,
    /// IPv6.
    pub v6: u64,
}

/// One generation's maps.
struct Generation {
    flows_v4: OwnedFd,
    flows_v6: OwnedFd,
    enis: OwnedFd,
    sizes: MapSizes,
}

/// A generation that no program writes to any more.
#[derive(Debug)]
pub struct Still(pub(super) usize);

impl Still {
    /// Which of the two it is.
    #[must_use]
    pub fn index(&self) -> usize {
        self.0
    }
}

/// The pinned maps, of which both generations are a part.
struct Pinned {
    active: OwnedFd,
    flows_v4: OwnedFd,
    flows_v6: OwnedFd,
    enis: OwnedFd,
    occupancy: OwnedFd,
}

/// The counters.
pub struct Counters {
    pinned: Pinned,
    generations: [Generation; GENERATIONS],
    active: usize,
    flips: u64,
}

impl Counters {
    /// Makes the maps anew and pins them into `pin_folder`, which must be empty and on a BPF file system.
    ///
    /// # Errors
    ///
    /// The kernel's: no CAP_BPF, no room.
    pub fn create(pin_folder: &Path, sizes: MapSizes) -> Result<Self, BpfError> {
        Self::create_with_ring(pin_folder, sizes, OVERFLOW_RING_BYTES)
    }

    /// Likewise, with an overflow ring of `ring_bytes`, which is rounded up to a power of two and a page.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn create_with_ring(
        pin_folder: &Path,
        sizes: MapSizes,
        ring_bytes: u32,
    ) -> Result<Self, BpfError> {
        let ring_bytes = ring_bytes
            .clamp(SMALLEST_RING_BYTES, LARGEST_RING_BYTES)
            .next_power_of_two();
        drop(object::load_with_ring(
            pin_folder,
            EniConstants::default(),
            ring_bytes,
        )?);
        let counters = Self {
            pinned: Pinned::open(pin_folder)?,
            generations: [Generation::create(sizes)?, Generation::create(sizes)?],
            active: 0,
            flips: 0,
        };
        for (index, generation) in counters.generations.iter().enumerate() {
            counters.reset_occupancy(index)?;
            install(&counters.pinned.flows_v4, index, &generation.flows_v4)?;
            install(&counters.pinned.flows_v6, index, &generation.flows_v6)?;
            install(&counters.pinned.enis, index, &generation.enis)?;
        }
        Ok(counters)
    }

    /// Takes over the maps that a previous agent has pinned, with what they have counted since.
    ///
    /// # Errors
    ///
    /// The kernel's; and if the maps are not all there.
    pub fn take_over(pin_folder: &Path) -> Result<Self, BpfError> {
        let pinned = Pinned::open(pin_folder)?;
        let generations = [Generation::open(&pinned, 0)?, Generation::open(&pinned, 1)?];
        let active: Option<Active> = sys::map_lookup(pinned.active.as_fd(), &0_u32)
            .map_err(BpfError::map("read which generation is active"))?;
        let Active {
            generation, flips, ..
        } = active.unwrap_or_default();
        Ok(Self {
            pinned,
            generations,
            active: usize::from(generation != 0),
            flips,
        })
    }

    /// Which counters these are: no others on any host ever have the same. With [`Counters::flips`] it says how far they were drained.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub fn epoch(&self) -> Result<String, BpfError> {
        epoch(self.pinned.active.as_fd())
    }

    /// How often the generations were switched since the counters were made, be it by another agent.
    #[must_use]
    pub fn flips(&self) -> u64 {
        self.flips
    }

    /// The generation that is not active, after [`Counters::take_over`]. Whether it is clean, the previous agent knew. It may have been
    /// killed right after it switched: [`Counters::settle`] comes before reading.
    #[must_use]
    pub fn still_after_take_over(&self) -> Still {
        Still(1 - self.active)
    }

    /// Makes the other generation, which must be clean, the active one. When this returns, every program that counted into the
    /// previous one has finished: it is still and complete.
    ///
    /// # Errors
    ///
    /// The kernel's. If it fails before the switch, the active one stays as it was.
    pub fn flip(&mut self) -> Result<Still, BpfError> {
        let next = 1 - self.active;
        let active = Active {
            generation: next as u32,
            zero: 0,
            flips: self.flips + 1,
        };
        sys::map_update(self.pinned.active.as_fd(), &0_u32, &active)
            .map_err(BpfError::map("switch the active generation"))?;
        self.flips = active.flips;
        let still = std::mem::replace(&mut self.active, next);
        self.settle()?;
        Ok(Still(still))
    }

    /// Waits until every program that runs now has finished, and so until nothing is counted any more into a generation that is not
    /// active.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn settle(&self) -> Result<(), BpfError> {
        wait_for_programs(
            self.pinned.flows_v4.as_fd(),
            self.active as u32,
            self.generations[self.active].flows_v4.as_fd(),
        )
    }

    /// Reads all IPv4 flows of a still generation, batch by batch. Nothing is deleted.
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

    /// Reads all IPv6 flows of a still generation, as [`Counters::read_v4`] does.
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

    /// What is beside the flows of a still generation, by `slot * 2 + direction`.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn read_enis(&self, still: &Still) -> Result<Vec<EniCounters>, BpfError> {
        let mut all = Vec::with_capacity(MAX_ENIS as usize * 2);
        read_all(
            self.generations[still.0].enis.as_fd(),
            |_: &[u32], values: &[EniCounters]| all.extend_from_slice(values),
        )
        .map_err(BpfError::map("read the counters of what is in no flow"))?;
        Ok(all)
    }

    /// How full a still generation became.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn fill(&self, still: &Still) -> Result<Fill, BpfError> {
        self.fill_of(still.0)
    }

    /// How full the active generation is.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn fill_of_active(&self) -> Result<Fill, BpfError> {
        self.fill_of(self.active)
    }

    /// Sizes of the active generation's flow maps.
    #[must_use]
    pub fn sizes_of_active(&self) -> MapSizes {
        self.generations[self.active].sizes
    }

    fn fill_of(&self, generation: usize) -> Result<Fill, BpfError> {
        let read = |family: usize| -> Result<u64, BpfError> {
            let index = (generation * FAMILIES + family) as u32;
            let occupancy: Option<Occupancy> =
                sys::map_lookup(self.pinned.occupancy.as_fd(), &index)
                    .map_err(BpfError::map("read how full a flow map is"))?;
            Ok(occupancy.unwrap_or_default().flows)
        };
        Ok(Fill {
            v4: read(0)?,
            v6: read(1)?,
        })
    }
}

impl Pinned {
    fn open(pin_folder: &Path) -> Result<Self, BpfError> {
        let of_maps = |name: &str| open_of_maps(pin_folder, name);
        Ok(Self {
            active: open_array::<Active>(pin_folder, "ACTIVE")?,
            flows_v4: of_maps("FLOWS_V4")?,
            flows_v6: of_maps("FLOWS_V6")?,
            enis: of_maps("ENIS")?,
            occupancy: open_array::<Occupancy>(pin_folder, "OCCUPANCY")?,
        })
    }
}

impl Generation {
    fn open(pinned: &Pinned, generation: u32) -> Result<Self, BpfError> {
        let entries = |map: &OwnedFd| {
            sys::map_info(map.as_fd())
                .map(|info| info.max_entries)
                .map_err(BpfError::map("ask for a map's size"))
        };
        let hash = sys::MAP_TYPE_HASH;
        let v4 = open_inner::<FlowKeyV4, FlowCounters>(&pinned.flows_v4, generation, hash)?;
        let v6 = open_inner::<FlowKeyV6, FlowCounters>(&pinned.flows_v6, generation, hash)?;
        Ok(Self {
            sizes: MapSizes {
                v4: entries(&v4)?,
                v6: entries(&v6)?,
            },
            flows_v4: v4,
            flows_v6: v6,
            enis: open_inner::<u32, EniCounters>(&pinned.enis, generation, sys::MAP_TYPE_ARRAY)?,
        })
    }
}

/// Opens a pinned array of `V`.
pub(super) fn open_array<V: MapData>(pin_folder: &Path, name: &str) -> Result<OwnedFd, BpfError> {
    sys::pinned_map::<u32, V>(&pin_folder.join(name), sys::MAP_TYPE_ARRAY)
        .map_err(BpfError::map(format!("open the map {name}")))
}

/// Opens a pinned array of maps.
pub(super) fn open_of_maps(pin_folder: &Path, name: &str) -> Result<OwnedFd, BpfError> {
    sys::pinned_map::<u32, u32>(&pin_folder.join(name), sys::MAP_TYPE_ARRAY_OF_MAPS)
        .map_err(BpfError::map(format!("open the map {name}")))
}

/// Opens the map that an array of maps has for a generation.
pub(super) fn open_inner<K: MapData, V: MapData>(
    outer: &OwnedFd,
    generation: u32,
    map_type: u32,
) -> Result<OwnedFd, BpfError> {
    sys::map_of_maps_get(outer.as_fd(), generation)
        .and_then(|map| map.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .and_then(|map| sys::check_map::<K, V>(map.as_fd(), map_type).map(|()| map))
        .map_err(BpfError::map("open the maps of a previous agent"))
}

/// Waits until every program that runs now has finished. Nothing changes by the update of an array of maps with the map `inner` that it has
/// at `index`, but the kernel returns from it only then.
pub(super) fn wait_for_programs(
    outer: BorrowedFd<'_>,
    index: u32,
    inner: BorrowedFd<'_>,
) -> Result<(), BpfError> {
    sys::map_of_maps_update(outer, index, inner).map_err(BpfError::map(
        "wait for the programs that count into the previous generation",
    ))
}

/// Names the counters of which this is the map `ACTIVE`: by the host's start and the map's id, of which none is given out twice before the
/// next.
pub(super) fn epoch(active: BorrowedFd<'_>) -> Result<String, BpfError> {
    let boot_id = fs::read_to_string(BOOT_ID).map_err(BpfError::map("read the host's boot id"))?;
    let info = sys::map_info(active).map_err(BpfError::map("ask for a map's id"))?;
    Ok(format!("{}-{}", boot_id.trim(), info.id))
}
