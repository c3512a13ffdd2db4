//! Reading and writing a map in batches.
use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use super::{MapData, bpf, is_unsupported, map_update};

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

/// Elements that are read by one system call, unless another number is asked for.
pub(in crate::bpf) const BATCH: usize = 8192;

#[repr(C)]
struct MapBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Reads a map in batches.
pub(in crate::bpf) struct BatchReader<'m, K, V> {
    map: BorrowedFd<'m>,
    command: libc::c_long,
    /// The kernel's own position: for a hash, the bucket. Opaque; as wide as the widest the kernel writes, which is a key.
    position: [u8; 64],
    started: bool,
    ended: bool,
    keys: Vec<K>,
    values: Vec<V>,
}

impl<'m, K: MapData, V: MapData> BatchReader<'m, K, V> {
    /// A reader of up to `batch` elements at once. All elements of a bucket must fit into a batch.
    pub(in crate::bpf) fn new(map: BorrowedFd<'m>, batch: usize) -> Self {
        const { assert!(size_of::<K>() <= 64) };
        Self {
            map,
            command: BPF_MAP_LOOKUP_BATCH,
            position: [0; 64],
            started: false,
            ended: false,
            keys: vec![K::default(); batch],
            values: vec![V::default(); batch],
        }
    }

    /// Likewise, but what is read is deleted.
    pub(in crate::bpf) fn deleting(map: BorrowedFd<'m>, batch: usize) -> Self {
        Self {
            command: BPF_MAP_LOOKUP_AND_DELETE_BATCH,
            ..Self::new(map, batch)
        }
    }

    /// The next batch; empty at the map's end.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(in crate::bpf) fn next(&mut self) -> io::Result<(&[K], &[V])> {
        if self.ended {
            return Ok((&[], &[]));
        }
        let mut next = [0_u8; 64];
        let mut attr = MapBatch {
            in_batch: if self.started {
                self.position.as_ptr() as u64
            } else {
                0
            },
            out_batch: next.as_mut_ptr() as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: u32::try_from(self.keys.len()).unwrap_or(u32::MAX),
            map_fd: self.map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        if let Err(error) = bpf(self.command, &mut attr) {
            // ENOENT is the map's end; the count is valid.
            if error.raw_os_error() != Some(libc::ENOENT) {
                return Err(error);
            }
            self.ended = true;
        }
        self.started = true;
        self.position = next;
        let count = attr.count as usize;
        match (self.keys.get(..count), self.values.get(..count)) {
            (Some(keys), Some(values)) => Ok((keys, values)),
            _ => Err(io::Error::other(
                "the kernel says that it read more than there was room for",
            )),
        }
    }
}

/// Gives all elements of a map, batch by batch.
///
/// # Errors
///
/// The kernel's.
pub(in crate::bpf) fn read_all<K: MapData, V: MapData>(
    map: BorrowedFd<'_>,
    mut each: impl FnMut(&[K], &[V]),
) -> io::Result<()> {
    let mut reader = BatchReader::new(map, BATCH);
    loop {
        let (keys, values) = reader.next()?;
        if keys.is_empty() {
            return Ok(());
        }
        each(keys, values);
    }
}

/// Writes elements by one system call, or, where the kernel cannot (maps of maps before Linux 5.19), by one for each. Of a map of maps,
/// whose values are descriptors, the kernel waits for running programs after each call.
///
/// # Errors
///
/// The kernel's. What comes before the element that fails is written.
pub(in crate::bpf) fn update_all<K: MapData, V: MapData>(
    map: BorrowedFd<'_>,
    elements: &[(K, V)],
) -> io::Result<()> {
    match update_batch(map, elements) {
        Err(error) if is_unsupported(&error) => update_each(map, elements),
        result => result,
    }
}

/// Writes elements by one system call; whether the kernel can do so with such a map.
///
/// # Errors
///
/// The kernel's.
pub(in crate::bpf) fn can_update_batch<K: MapData, V: MapData>(
    map: BorrowedFd<'_>,
    elements: &[(K, V)],
) -> io::Result<bool> {
    match update_batch(map, elements) {
        Ok(()) => Ok(true),
        Err(error) if is_unsupported(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn update_batch<K: MapData, V: MapData>(
    map: BorrowedFd<'_>,
    elements: &[(K, V)],
) -> io::Result<()> {
    let (keys, values): (Vec<K>, Vec<V>) = elements.iter().copied().unzip();
    if keys.is_empty() {
        return Ok(());
    }
    let mut attr = MapBatch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(keys.len()).map_err(io::Error::other)?,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// Likewise, by a system call for each element.
fn update_each<K: MapData, V: MapData>(map: BorrowedFd<'_>, elements: &[(K, V)]) -> io::Result<()> {
    elements
        .iter()
        .try_for_each(|(key, value)| map_update(map, key, value))
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd as _, OwnedFd};

    use super::*;
    use crate::bpf::{
        sys::{self, MAP_TYPE_ARRAY, MAP_TYPE_HASH},
        testing::TestPins,
    };

    fn inner() -> OwnedFd {
        sys::map_create::<u32, u32>(MAP_TYPE_ARRAY, 1, "flowlog_test").unwrap()
    }

    fn outer() -> OwnedFd {
        sys::crafted::array_of_maps(inner().as_fd(), 3).unwrap()
    }

    fn ids(outer: &OwnedFd) -> [Option<u32>; 3] {
        [0, 1, 2].map(|index| sys::map_lookup(outer.as_fd(), &index).unwrap())
    }

    /// What is written one by one is what is written at once, in maps and in maps of maps.
    #[test]
    fn what_cannot_be_written_at_once_is_written_one_by_one() {
        let Some(_root) = TestPins::new() else { return };
        let maps = [inner(), inner()];
        let [one, two] = maps.each_ref().map(|map| map.as_raw_fd() as u32);
        let [first, second] = maps
            .each_ref()
            .map(|map| Some(sys::map_info(map.as_fd()).unwrap().id));
        for write in [update_batch::<u32, u32>, update_each, update_all] {
            let hash = sys::map_create::<u32, u32>(MAP_TYPE_HASH, 4, "flowlog_test").unwrap();
            write(hash.as_fd(), &[(7, 70), (9, 90), (7, 71)]).unwrap();
            let found =
                [7, 8, 9].map(|key| sys::map_lookup::<u32, u32>(hash.as_fd(), &key).unwrap());
            assert_eq!(found, [Some(71), None, Some(90)]);
            let outer = outer();
            write(outer.as_fd(), &[(0, one), (2, two)]).unwrap();
            assert_eq!(ids(&outer), [first, None, second]);
            write(outer.as_fd(), &[(2, one)]).unwrap();
            assert_eq!(ids(&outer), [first, None, first]);
            write(outer.as_fd(), &[]).unwrap();
            // There is no such index.
            write(outer.as_fd(), &[(1, two), (3, one)]).unwrap_err();
            assert_eq!(ids(&outer), [first, second, first]);
        }
    }

    /// A kind of map that has no batches in any kernel stands for those that have none in an older one.
    #[test]
    fn the_kernel_says_by_its_error_that_it_has_no_batches() {
        let Some(_root) = TestPins::new() else { return };
        let map =
            sys::map_create::<u32, u32>(sys::MAP_TYPE_PROGRAM_ARRAY, 1, "flowlog_test").unwrap();
        let error = update_batch(map.as_fd(), &[(0_u32, u32::MAX)]).unwrap_err();
        assert!(is_unsupported(&error), "{error}");
        // One by one it comes to what is the matter: no descriptor.
        let error = update_all(map.as_fd(), &[(0_u32, u32::MAX)]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}
