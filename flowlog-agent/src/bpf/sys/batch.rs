//! Reading and writing a map in batches.
use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use super::{MapData, bpf};

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

/// Writes elements by one system call. Of a map of maps, whose values are descriptors, the kernel waits for running programs once.
///
/// # Errors
///
/// The kernel's.
pub(in crate::bpf) fn update_all<K: MapData, V: MapData>(
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
