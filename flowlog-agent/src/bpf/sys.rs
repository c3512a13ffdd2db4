//! The `bpf` system call, where aya does not offer what is needed: creating maps, and reading them in batches.
//!
//! Layouts are those of `union bpf_attr` in include/uapi/linux/bpf.h. The kernel takes a shorter attribute than its own and reads
//! the rest as zeros.
mod batch;
#[cfg(test)]
pub(super) mod crafted;

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

pub(super) use batch::{BATCH, BatchReader, can_update_batch, read_all, update_all};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
const BPF_LINK_DETACH: libc::c_long = 34;

/// `BPF_MAP_TYPE_HASH`.
pub(super) const MAP_TYPE_HASH: u32 = 1;
/// `BPF_MAP_TYPE_ARRAY`.
pub(super) const MAP_TYPE_ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_PROG_ARRAY`.
pub(super) const MAP_TYPE_PROGRAM_ARRAY: u32 = 3;
/// `BPF_MAP_TYPE_LPM_TRIE`.
pub(super) const MAP_TYPE_LPM_TRIE: u32 = 11;
/// `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
pub(super) const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
/// `BPF_MAP_TYPE_RINGBUF`.
pub(super) const MAP_TYPE_RINGBUF: u32 = 27;

/// `BPF_F_NO_PREALLOC`: entries take memory when they are made.
pub(super) const NO_PREALLOC: u32 = 1;
/// `BPF_F_INNER_MAP`: an array that can be behind a map of maps beside arrays of other lengths.
pub(super) const INNER_MAP: u32 = 0x1000;

/// Data that may be copied to and from maps octet by octet.
///
/// # Safety
///
/// The type is `#[repr(C)]`, consists of integers without padding, and so every bit pattern is a value of it.
pub(super) unsafe trait MapData: Copy + Default {}
// SAFETY: an integer.
unsafe impl MapData for u32 {}
// SAFETY: `#[repr(C)]`, integers only, sizes asserted where they are defined; so are those below.
unsafe impl MapData for flowlog_common::FlowKeyV4 {}
// SAFETY: as above.
unsafe impl MapData for flowlog_common::FlowKeyV6 {}
// SAFETY: as above.
unsafe impl MapData for flowlog_common::FlowCounters {}
// SAFETY: as above.
unsafe impl MapData for flowlog_common::EniCounters {}
// SAFETY: as above.
unsafe impl MapData for flowlog_common::Occupancy {}
// SAFETY: as above.
unsafe impl MapData for flowlog_common::Active {}
// SAFETY: as above.
unsafe impl MapData for flowlog_common::Overflow<flowlog_common::FlowKeyV4> {}
// SAFETY: as above.
unsafe impl MapData for flowlog_common::Overflow<flowlog_common::FlowKeyV6> {}
// SAFETY: as above.
unsafe impl MapData for flowlog_common::PolicyEntry {}
// SAFETY: as above.
unsafe impl MapData for flowlog_common::DirectionTables {}
// SAFETY: as above.
unsafe impl MapData for flowlog_common::OutcomeVector {}
// SAFETY: as above.
unsafe impl MapData for flowlog_common::SessionKey {}
// SAFETY: as above.
unsafe impl MapData for flowlog_common::Session {}
// SAFETY: as above.
unsafe impl MapData for flowlog_common::SessionRoom {}

/// Calls `bpf(command, attr)`.
fn bpf<A>(command: libc::c_long, attr: &mut A) -> io::Result<libc::c_long> {
    #[cfg(test)]
    super::testing::call()?;
    // SAFETY: `attr` is a live `#[repr(C)]` struct of which the kernel is told the size; what its pointers point to is the
    // caller's to keep alive and large enough, and each caller below does so.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<A>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given out this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

/// Creates a map of `K` to `V`.
///
/// # Errors
///
/// The kernel's: `EPERM` without CAP_BPF, `ENOMEM` where `max_entries` are too many for the machine.
pub(super) fn map_create<K: MapData, V: MapData>(
    map_type: u32,
    max_entries: u32,
    name: &str,
) -> io::Result<OwnedFd> {
    map_create_flagged::<K, V>(map_type, 0, max_entries, name)
}

/// Likewise, with `BPF_F_…` flags.
///
/// # Errors
///
/// The kernel's.
pub(super) fn map_create_flagged<K: MapData, V: MapData>(
    map_type: u32,
    map_flags: u32,
    max_entries: u32,
    name: &str,
) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type,
        key_size: size_of::<K>() as u32,
        value_size: size_of::<V>() as u32,
        max_entries,
        map_flags,
        ..MapCreate::default()
    };
    // The last octet stays 0: the kernel wants a terminated name.
    for (to, from) in attr.map_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    owned(bpf(BPF_MAP_CREATE, &mut attr)?)
}

#[repr(C)]
struct MapElement {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn element<K, V>(map: BorrowedFd<'_>, key: *const K, value: *const V) -> MapElement {
    MapElement {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: key as u64,
        value: value as u64,
        flags: 0,
    }
}

/// Writes one element (`BPF_ANY`).
///
/// # Errors
///
/// The kernel's.
pub(super) fn map_update<K: MapData, V: MapData>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &V,
) -> io::Result<()> {
    let mut attr = element(map, std::ptr::from_ref(key), std::ptr::from_ref(value));
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Deletes one element, if it is there.
///
/// # Errors
///
/// The kernel's.
pub(super) fn map_delete<K: MapData>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut attr = element::<K, K>(map, std::ptr::from_ref(key), std::ptr::null());
    match bpf(BPF_MAP_DELETE_ELEM, &mut attr) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// Puts the map `inner` at `index` of the map of maps `outer`. Returns after every program that could have seen the previous one
/// has finished: the kernel waits a grace period (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c).
///
/// # Errors
///
/// The kernel's: `EINVAL` where the inner map is of another shape.
pub(super) fn map_of_maps_update(
    outer: BorrowedFd<'_>,
    index: u32,
    inner: BorrowedFd<'_>,
) -> io::Result<()> {
    map_update(outer, &index, &(inner.as_raw_fd() as u32))
}

/// Reads one element; `None` if there is none.
///
/// # Errors
///
/// The kernel's.
pub(super) fn map_lookup<K: MapData, V: MapData>(
    map: BorrowedFd<'_>,
    key: &K,
) -> io::Result<Option<V>> {
    let mut value = V::default();
    let mut attr = element(map, std::ptr::from_ref(key), &raw mut value);
    match bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes one element where there is none; whether there was none.
///
/// # Errors
///
/// The kernel's.
pub(super) fn map_insert<K: MapData, V: MapData>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &V,
) -> io::Result<bool> {
    const BPF_NOEXIST: u64 = 1;
    let mut attr = element(map, std::ptr::from_ref(key), std::ptr::from_ref(value));
    attr.flags = BPF_NOEXIST;
    match bpf(BPF_MAP_UPDATE_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes one element of a hash and gives its last value; `None` if there is none. Where the kernel cannot do that in one step (before
/// Linux 5.14), what is written in between is deleted unread.
///
/// # Errors
///
/// The kernel's.
pub(super) fn map_take<K: MapData, V: MapData>(
    map: BorrowedFd<'_>,
    key: &K,
) -> io::Result<Option<V>> {
    match map_take_at_once(map, key) {
        Err(error) if is_unsupported(&error) => map_take_in_two_steps(map, key),
        result => result,
    }
}

pub(super) fn map_take_at_once<K: MapData, V: MapData>(
    map: BorrowedFd<'_>,
    key: &K,
) -> io::Result<Option<V>> {
    let mut value = V::default();
    let mut attr = element(map, std::ptr::from_ref(key), &raw mut value);
    match bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn map_take_in_two_steps<K: MapData, V: MapData>(
    map: BorrowedFd<'_>,
    key: &K,
) -> io::Result<Option<V>> {
    let value = map_lookup(map, key)?;
    if value.is_some() {
        map_delete(map, key)?;
    }
    Ok(value)
}

/// Whether the kernel can take an element of a hash in one step.
///
/// # Errors
///
/// The kernel's.
pub(super) fn can_take() -> io::Result<bool> {
    let map = map_create::<u32, u32>(MAP_TYPE_HASH, 1, "flowlog_try")?;
    match map_take_at_once::<u32, u32>(map.as_fd(), &0) {
        Ok(_) => Ok(true),
        Err(error) if is_unsupported(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an error says that the kernel does not know a command, or not for this type of map. It may say something else too: then what is
/// done in its place fails for that reason.
fn is_unsupported(error: &io::Error) -> bool {
    /// The kernel's own number of include/linux/errno.h, which is not meant for user space and comes there all the same.
    const ENOTSUPP: i32 = 524;
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP)
    )
}

#[repr(C)]
struct Obj {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens a pinned map, program or link.
///
/// # Errors
///
/// The kernel's: `ENOENT` if nothing is pinned there.
pub(super) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Obj {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    owned(bpf(BPF_OBJ_GET, &mut attr)?)
}

#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// Takes the program of a pinned link off its hook, whoever holds the link besides. When this returns, no new packet runs it.
///
/// # Errors
///
/// The kernel's.
pub(super) fn link_detach(pin: &Path) -> io::Result<()> {
    let link = obj_get(pin)?;
    let mut attr = LinkDetach {
        link_fd: u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?,
    };
    bpf(BPF_LINK_DETACH, &mut attr).map(drop)
}

/// Pins a map.
///
/// # Errors
///
/// The kernel's: `EEXIST` if something is there.
pub(super) fn obj_pin(map: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Obj {
        pathname: path.as_ptr() as u64,
        bpf_fd: map.as_raw_fd() as u32,
        file_flags: 0,
    };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

#[repr(C)]
struct MapId {
    map_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Opens the map at `index` of a map of maps; `None` if there is none.
///
/// # Errors
///
/// The kernel's: it takes CAP_SYS_ADMIN to open a map by its id.
pub(super) fn map_of_maps_get(outer: BorrowedFd<'_>, index: u32) -> io::Result<Option<OwnedFd>> {
    let Some(map_id) = map_lookup::<u32, u32>(outer, &index)? else {
        return Ok(None);
    };
    let mut attr = MapId {
        map_id,
        next_id: 0,
        open_flags: 0,
    };
    owned(bpf(BPF_MAP_GET_FD_BY_ID, &mut attr)?).map(Some)
}

/// What the kernel says of a map: the start of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MapInfo {
    pub(super) map_type: u32,
    /// Until the host's next start, no other map has it.
    pub(super) id: u32,
    /// In octets.
    pub(super) key_size: u32,
    /// In octets.
    pub(super) value_size: u32,
    /// Of a ring: its size in octets.
    pub(super) max_entries: u32,
}

#[repr(C)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// Asks for a map's shape and id.
///
/// # Errors
///
/// The kernel's.
pub(super) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = MapInfo::default();
    let mut attr = InfoByFd {
        bpf_fd: map.as_raw_fd() as u32,
        info_len: size_of::<MapInfo>() as u32,
        info: &raw mut info as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// What the kernel says of a program: the end of what is read of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProgramInfo {
    /// What else it says, with pointers that stay 0 so that the kernel writes nothing where they point to.
    before: [u64; 24],
    /// Time spent in runs, and their number, while statistics were on.
    pub(super) run_time_ns: u64,
    pub(super) run_count: u64,
    /// How often it was not run, for it was running on that CPU already. 0 before Linux 5.12.
    pub(super) recursion_misses: u64,
}

/// Asks for a program's statistics.
///
/// # Errors
///
/// The kernel's.
pub(super) fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let mut info = ProgramInfo::default();
    let mut attr = InfoByFd {
        bpf_fd: program.as_raw_fd() as u32,
        info_len: size_of::<ProgramInfo>() as u32,
        info: &raw mut info as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// Opens a pinned map that must be of the given type, and of keys `K` and values `V`: what is read of another would not fit where it is
/// put.
///
/// # Errors
///
/// The kernel's: `ENOENT` if nothing is pinned there; and if the map is another.
pub(super) fn pinned_map<K: MapData, V: MapData>(
    path: &Path,
    map_type: u32,
) -> io::Result<OwnedFd> {
    let map = obj_get(path)?;
    check_map::<K, V>(map.as_fd(), map_type)?;
    Ok(map)
}

/// Checks that a map is of the given type, and of keys `K` and values `V`.
///
/// # Errors
///
/// The kernel's; and if the map is another.
pub(super) fn check_map<K: MapData, V: MapData>(
    map: BorrowedFd<'_>,
    map_type: u32,
) -> io::Result<()> {
    let MapInfo {
        map_type: found,
        key_size,
        value_size,
        ..
    } = map_info(map)?;
    let expected = (map_type, size_of::<K>(), size_of::<V>());
    if (found, key_size as usize, value_size as usize) == expected {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the map is of type {found} with keys of {key_size} octets and values of {value_size}, and not of type {}, {} and {}",
        expected.0, expected.1, expected.2
    )))
}
