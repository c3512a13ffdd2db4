//! Making the generations of counters, and making them clean again.
use std::os::fd::{AsFd as _, OwnedFd};

use flowlog_common::{
    EniCounters, FAMILIES, FlowCounters, FlowKeyV4, FlowKeyV6, MAX_ENIS, Occupancy,
};

use super::{Counters, Generation, MapSizes, Still};
use crate::bpf::{
    error::BpfError,
    sys::{self, BatchReader, MapData, read_all},
};

impl Counters {
    /// Makes a still generation, whose contents are no longer needed, clean, with flow maps of the given sizes. Maps that nothing was
    /// put into are kept: replacing one takes a grace period.
    ///
    /// If this was interrupted, at whatever point, doing it again completes it: what says that a map was put into is taken back last, after
    /// the map is clean.
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
        let Self {
            pinned,
            generations,
            ..
        } = self;
        let generation = &mut generations[index];
        if fill.v4 > 0 || generation.sizes.v4 != sizes.v4 {
            let place = (&pinned.flows_v4, index);
            if let Some(fresh) = replace(place, make_flows_v4(sizes.v4))? {
                generation.flows_v4 = fresh;
                generation.sizes.v4 = sizes.v4;
            } else {
                empty_hash::<FlowKeyV4>(&generation.flows_v4)?;
            }
        }
        if fill.v6 > 0 || generation.sizes.v6 != sizes.v6 {
            let place = (&pinned.flows_v6, index);
            if let Some(fresh) = replace(place, make_flows_v6(sizes.v6))? {
                generation.flows_v6 = fresh;
                generation.sizes.v6 = sizes.v6;
            } else {
                empty_hash::<FlowKeyV6>(&generation.flows_v6)?;
            }
        }
        empty_enis::<EniCounters>(&generation.enis)?;
        self.reset_occupancy(index)
    }

    pub(super) fn reset_occupancy(&self, generation: usize) -> Result<(), BpfError> {
        let sizes = self.generations[generation].sizes;
        for (family, size) in [sizes.v4, sizes.v6].into_iter().enumerate() {
            let occupancy = Occupancy {
                flows: 0,
                wake_at: u64::from(size / 2),
                ..Occupancy::default()
            };
            let index = (generation * FAMILIES + family) as u32;
            sys::map_update(self.pinned.occupancy.as_fd(), &index, &occupancy)
                .map_err(BpfError::map("reset how full a flow map is"))?;
        }
        Ok(())
    }
}

impl Generation {
    pub(super) fn create(sizes: MapSizes) -> Result<Self, BpfError> {
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
pub(super) fn install(outer: &OwnedFd, generation: usize, inner: &OwnedFd) -> Result<(), BpfError> {
    sys::map_of_maps_update(outer.as_fd(), generation as u32, inner.as_fd())
        .map_err(BpfError::map("put a fresh map in place"))
}

/// Puts a fresh map in the place of a still one, for that is quicker than deleting many entries one by one. `None` where there is no memory
/// for another.
fn replace(
    (outer, generation): (&OwnedFd, usize),
    fresh: Result<OwnedFd, BpfError>,
) -> Result<Option<OwnedFd>, BpfError> {
    match fresh {
        Ok(fresh) => install(outer, generation, &fresh).map(|()| Some(fresh)),
        Err(error) => {
            tracing::warn!(%error, "emptying and keeping the flow map that there is");
            Ok(None)
        }
    }
}

/// Sets the counters of what is in no flow back to 0, where they are not.
pub(in crate::bpf) fn empty_enis<C: MapData + PartialEq>(enis: &OwnedFd) -> Result<(), BpfError> {
    let mut index = 0_u32;
    let mut dirty = Vec::new();
    read_all(enis.as_fd(), |_: &[u32], values: &[C]| {
        for counters in values {
            if *counters != C::default() {
                dirty.push(index);
            }
            index += 1;
        }
    })
    .map_err(BpfError::map("read the counters of what is in no flow"))?;
    dirty
        .iter()
        .try_for_each(|index| sys::map_update(enis.as_fd(), index, &C::default()))
        .map_err(BpfError::map("reset the counters of what is in no flow"))
}

/// Deletes all flows.
pub(in crate::bpf) fn empty_hash<K: MapData>(map: &OwnedFd) -> Result<(), BpfError> {
    let mut reader = BatchReader::<K, FlowCounters>::deleting(map.as_fd(), sys::BATCH);
    while !reader
        .next()
        .map_err(BpfError::map("empty a flow map"))?
        .0
        .is_empty()
    {}
    Ok(())
}
