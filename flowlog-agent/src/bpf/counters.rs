//! The counters in the kernel: two generations of them, of which one is active and the other still.
//!
//! Life of a generation: *clean* → active (programs count into it) → still (complete, user space reads it) → renewed, and so clean
//! again. [`Counters::flip`] is the only place where the active one changes.
use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use flowlog_common::{
    Active, EniCounters, FAMILIES, FlowCounters, FlowKeyV4, FlowKeyV6, GENERATIONS, MAX_ENIS,
    OVERFLOW_RING_BYTES, Occupancy,
};

use super::{
    error::BpfError,
    object::{self, EniConstants},
    sys::{self, BatchReader},
};

/// Bounds of an overflow ring: a page of most machines, and what still leaves memory for others.
const SMALLEST_RING_BYTES: u32 = 4096;
const LARGEST_RING_BYTES: u32 = 1 << 30;

/// Elements that are read by one system call.
const BATCH: usize = 8192;

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
pub struct Still(usize);

impl Still {
    /// Which of the two it is.
    #[must_use]
    pub fn index(&self) -> usize {
        self.0
    }
}

/// The counters.
pub struct Counters {
    active_map: OwnedFd,
    flows_v4: OwnedFd,
    flows_v6: OwnedFd,
    enis: OwnedFd,
    occupancy: OwnedFd,
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
        let open = |name: &str| {
            sys::obj_get(&pin_folder.join(name))
                .map_err(BpfError::map(format!("open the map {name}")))
        };
        let counters = Self {
            active_map: open("ACTIVE")?,
            flows_v4: open("FLOWS_V4")?,
            flows_v6: open("FLOWS_V6")?,
            enis: open("ENIS")?,
            occupancy: open("OCCUPANCY")?,
            generations: [Generation::create(sizes)?, Generation::create(sizes)?],
            active: 0,
            flips: 0,
        };
        for (index, generation) in counters.generations.iter().enumerate() {
            counters.reset_occupancy(index)?;
            install(&counters.flows_v4, index, &generation.flows_v4)?;
            install(&counters.flows_v6, index, &generation.flows_v6)?;
            install(&counters.enis, index, &generation.enis)?;
        }
        Ok(counters)
    }

    /// Takes over the maps that a previous agent has pinned, with what they have counted since.
    ///
    /// # Errors
    ///
    /// The kernel's; and if the maps are not all there.
    pub fn take_over(pin_folder: &Path) -> Result<Self, BpfError> {
        let open = |name: &str| {
            sys::obj_get(&pin_folder.join(name))
                .map_err(BpfError::map(format!("open the map {name}")))
        };
        let (flows_v4, flows_v6, enis) = (open("FLOWS_V4")?, open("FLOWS_V6")?, open("ENIS")?);
        let generation = |index: u32| -> Result<Generation, BpfError> {
            let inner = |outer: &OwnedFd| {
                sys::map_of_maps_get(outer.as_fd(), index)
                    .and_then(|map| map.ok_or_else(|| io::ErrorKind::NotFound.into()))
                    .map_err(BpfError::map("open the maps of a previous agent"))
            };
            let entries = |map: &OwnedFd| {
                sys::map_info(map.as_fd())
                    .map(|info| info.max_entries)
                    .map_err(BpfError::map("ask for a map's size"))
            };
            let (v4, v6) = (inner(&flows_v4)?, inner(&flows_v6)?);
            let sizes = MapSizes {
                v4: entries(&v4)?,
                v6: entries(&v6)?,
            };
            Ok(Generation {
                flows_v4: v4,
                flows_v6: v6,
                enis: inner(&enis)?,
                sizes,
            })
        };
        let generations = [generation(0)?, generation(1)?];
        let active_map = open("ACTIVE")?;
        let active: Option<Active> = sys::map_lookup(active_map.as_fd(), &0_u32)
            .map_err(BpfError::map("read which generation is active"))?;
        let Active {
            generation, flips, ..
        } = active.unwrap_or_default();
        Ok(Self {
            active_map,
            occupancy: open("OCCUPANCY")?,
            flows_v4,
            flows_v6,
            enis,
            generations,
            active: usize::from(generation != 0),
            flips,
        })
    }

    /// The generation that is not active, after [`Counters::take_over`]. Whether it is clean, the previous agent knew.
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
        sys::map_update(self.active_map.as_fd(), &0_u32, &active)
            .map_err(BpfError::map("switch the active generation"))?;
        self.flips = active.flips;
        let still = std::mem::replace(&mut self.active, next);
        // Nothing changes by this update, but the kernel waits until no program runs that began before it.
        sys::map_of_maps_update(
            self.flows_v4.as_fd(),
            next as u32,
            self.generations[next].flows_v4.as_fd(),
        )
        .map_err(BpfError::map(
            "wait for the programs that count into the previous generation",
        ))?;
        Ok(Still(still))
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
        read_all(&self.generations[still.0].flows_v4, each)
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
        read_all(&self.generations[still.0].flows_v6, each)
            .map_err(BpfError::map("read the IPv6 flow map"))
    }

    /// What is in no flow of a still generation, by `slot * 2 + direction`.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn read_enis(&self, still: &Still) -> Result<Vec<EniCounters>, BpfError> {
        let mut all = Vec::with_capacity(MAX_ENIS as usize * 2);
        read_all(
            &self.generations[still.0].enis,
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
            let occupancy: Option<Occupancy> = sys::map_lookup(self.occupancy.as_fd(), &index)
                .map_err(BpfError::map("read how full a flow map is"))?;
            Ok(occupancy.unwrap_or_default().flows)
        };
        Ok(Fill {
            v4: read(0)?,
            v6: read(1)?,
        })
    }

    /// Makes a still generation, whose contents are no longer needed, clean, with flow maps of the given sizes. Maps that nothing was
    /// put into are kept: replacing one takes a grace period.
    ///
    /// # Errors
    ///
    /// The kernel's. Where memory is short for new maps, the old ones are emptied and kept, and that is no error.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "what was still is not any more"
    )]
    pub fn renew(&mut self, still: Still, sizes: MapSizes) -> Result<(), BpfError> {
        let Still(index) = still;
        let fill = self.fill_of(index)?;
        let generation = &mut self.generations[index];
        if fill.v4 > 0 || generation.sizes.v4 != sizes.v4 {
            replace(
                &mut generation.flows_v4,
                &mut generation.sizes.v4,
                sizes.v4,
                make_flows_v4,
                empty_hash::<FlowKeyV4>,
            )?;
            install(&self.flows_v4, index, &generation.flows_v4)?;
        }
        if fill.v6 > 0 || generation.sizes.v6 != sizes.v6 {
            replace(
                &mut generation.flows_v6,
                &mut generation.sizes.v6,
                sizes.v6,
                make_flows_v6,
                empty_hash::<FlowKeyV6>,
            )?;
            install(&self.flows_v6, index, &generation.flows_v6)?;
        }
        empty_enis(&generation.enis)?;
        self.reset_occupancy(index)
    }

    fn reset_occupancy(&self, generation: usize) -> Result<(), BpfError> {
        let sizes = self.generations[generation].sizes;
        for (family, size) in [sizes.v4, sizes.v6].into_iter().enumerate() {
            let occupancy = Occupancy {
                flows: 0,
                wake_at: u64::from(size / 2),
                ..Occupancy::default()
            };
            let index = (generation * FAMILIES + family) as u32;
            sys::map_update(self.occupancy.as_fd(), &index, &occupancy)
                .map_err(BpfError::map("reset how full a flow map is"))?;
        }
        Ok(())
    }
}

impl Generation {
    fn create(sizes: MapSizes) -> Result<Self, BpfError> {
        Ok(Self {
            flows_v4: make_flows_v4(sizes.v4)?,
            flows_v6: make_flows_v6(sizes.v6)?,
            enis: sys::map_create::<u32, EniCounters>(
                sys::MAP_TYPE_ARRAY,
                MAX_ENIS * 2,
                "flowlog_enis",
            )
            .map_err(BpfError::map("make the counters of what is in no flow"))?,
            sizes,
        })
    }
}

fn make_flows_v4(entries: u32) -> Result<OwnedFd, BpfError> {
    sys::map_create::<FlowKeyV4, FlowCounters>(sys::MAP_TYPE_HASH, entries, "flowlog_v4").map_err(
        BpfError::map(format!("make an IPv4 flow map of {entries} entries")),
    )
}

fn make_flows_v6(entries: u32) -> Result<OwnedFd, BpfError> {
    sys::map_create::<FlowKeyV6, FlowCounters>(sys::MAP_TYPE_HASH, entries, "flowlog_v6").map_err(
        BpfError::map(format!("make an IPv6 flow map of {entries} entries")),
    )
}

/// Puts a map of a generation where the programs look for it.
fn install(outer: &OwnedFd, generation: usize, inner: &OwnedFd) -> Result<(), BpfError> {
    sys::map_of_maps_update(outer.as_fd(), generation as u32, inner.as_fd())
        .map_err(BpfError::map("put a fresh map in place"))
}

/// Replaces a still map by a fresh one, for that is quicker than deleting many entries one by one; empties it where there is no
/// memory for another.
fn replace(
    map: &mut OwnedFd,
    size: &mut u32,
    new_size: u32,
    make: impl FnOnce(u32) -> Result<OwnedFd, BpfError>,
    empty: impl FnOnce(&OwnedFd) -> io::Result<()>,
) -> Result<(), BpfError> {
    match make(new_size) {
        Ok(fresh) => {
            *map = fresh;
            *size = new_size;
            Ok(())
        }
        Err(error) => {
            tracing::warn!(%error, "keeping the flow map of {size} entries");
            empty(map).map_err(BpfError::map("empty a flow map"))
        }
    }
}

/// Sets the counters of what is in no flow back to 0, where they are not.
fn empty_enis(enis: &OwnedFd) -> Result<(), BpfError> {
    let mut index = 0_u32;
    let mut dirty = Vec::new();
    read_all(enis, |_: &[u32], values: &[EniCounters]| {
        for counters in values {
            if *counters != EniCounters::default() {
                dirty.push(index);
            }
            index += 1;
        }
    })
    .map_err(BpfError::map("read the counters of what is in no flow"))?;
    dirty
        .iter()
        .try_for_each(|index| sys::map_update(enis.as_fd(), index, &EniCounters::default()))
        .map_err(BpfError::map("reset the counters of what is in no flow"))
}

fn read_all<K: sys::MapData, V: sys::MapData>(
    map: &OwnedFd,
    mut each: impl FnMut(&[K], &[V]),
) -> io::Result<()> {
    let mut reader = BatchReader::<K, V>::new(map.as_fd(), BATCH);
    loop {
        let (keys, values) = reader.next()?;
        if keys.is_empty() {
            return Ok(());
        }
        each(keys, values);
    }
}

fn empty_hash<K: sys::MapData>(map: &OwnedFd) -> io::Result<()> {
    let mut reader = BatchReader::<K, FlowCounters>::deleting(map.as_fd(), BATCH);
    while !reader.next()?.0.is_empty() {}
    Ok(())
}
