//! A ring buffer of the kernel's (`BPF_MAP_TYPE_RINGBUF`), read without being emptied.
//!
//! aya's reader, and libbpf's, give an item back to the kernel once it was looked at. What must be on a disk before it may be forgotten
//! has to stay in the ring until then, and be there for the next agent if this one is killed. So reading and giving back are two things
//! here. The layout is that of kernel/bpf/ringbuf.c.
use std::{
    io,
    marker::PhantomData,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    thread,
};

use super::sys::{self, MapData};

/// What is before each item: its length and flags, and where its page is.
const HEADER_OCTETS: u64 = 8;
/// Items begin at multiples of this.
const ALIGNMENT: u64 = 8;
/// In an item's length: it is being written (`BPF_RINGBUF_BUSY_BIT`).
const BUSY: u32 = 1 << 31;
/// In an item's length: it is void (`BPF_RINGBUF_DISCARD_BIT`).
const DISCARDED: u32 = 1 << 30;

/// How often an item that is being written is looked at again. That takes its program less than a microsecond, unless something else gets
/// its CPU meanwhile.
const BUSY_LOOKS: u32 = 1000;

// The kernel's positions are of the type `unsigned long`.
const _: () = assert!(size_of::<libc::c_ulong>() == size_of::<u64>());

/// A part of the map that is mapped into memory until this is dropped.
struct Mapping {
    start: NonNull<u8>,
    octets: usize,
}

impl Mapping {
    fn new(
        map: BorrowedFd<'_>,
        offset: usize,
        octets: usize,
        protection: libc::c_int,
    ) -> io::Result<Self> {
        // SAFETY: where the kernel chooses, so that nothing else is mapped over.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                octets,
                protection,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                libc::off_t::try_from(offset).map_err(io::Error::other)?,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, octets })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: what was mapped, all of it, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.octets) };
    }
}

// SAFETY: memory that belongs to no thread; the kernel writes to it from any CPU.
unsafe impl Send for Mapping {}
// SAFETY: positions are read and written atomically; an item does not change while it is in the ring, and it takes a `&mut Ring` to give it
// back.
unsafe impl Sync for Mapping {}

/// A ring.
pub(super) struct Ring {
    /// The page of the consumer's position, which we write.
    consumer: Mapping,
    /// The page of the producer's position and then the data, twice in a row, so that an item at the end can be read in one piece. The
    /// kernel alone writes it.
    producer: Mapping,
    page: usize,
    /// Of the data, a power of two.
    octets: u64,
}

/// An item of a ring.
pub(super) struct Item<'r> {
    start: NonNull<u8>,
    octets: usize,
    ring: PhantomData<&'r Ring>,
}

impl Item<'_> {
    /// The item, if it is as long as a `T`.
    pub(super) fn read<T: MapData>(&self) -> Option<T> {
        // SAFETY: so long the item is, and `MapData` says that any bit pattern will do.
        (self.octets == size_of::<T>()).then(|| unsafe { self.start.cast::<T>().read_unaligned() })
    }

    /// Its length.
    pub(super) fn octets(&self) -> usize {
        self.octets
    }
}

impl Ring {
    /// Maps a ring into memory.
    ///
    /// # Errors
    ///
    /// The kernel's; and if the map is not a ring.
    pub(super) fn open(map: BorrowedFd<'_>) -> io::Result<Self> {
        let info = sys::map_info(map)?;
        if info.map_type != sys::MAP_TYPE_RINGBUF || !info.max_entries.is_power_of_two() {
            return Err(io::Error::other("the map is not a ring"));
        }
        Self::map(map, info.max_entries)
    }

    fn map(map: BorrowedFd<'_>, octets: u32) -> io::Result<Self> {
        let page = page_octets()?;
        let data = usize::try_from(octets).map_err(io::Error::other)?;
        Ok(Self {
            consumer: Mapping::new(map, 0, page, libc::PROT_READ | libc::PROT_WRITE)?,
            producer: Mapping::new(map, page, page + 2 * data, libc::PROT_READ)?,
            page,
            octets: u64::from(octets),
        })
    }

    /// The consumer's position, in octets since the ring was made: what is before it was given back to the kernel.
    pub(super) fn consumed(&self) -> u64 {
        position(&self.consumer).load(Ordering::Acquire)
    }

    /// The producer's position: what is before it is in the ring, or is being written into it.
    fn produced(&self) -> u64 {
        position(&self.producer).load(Ordering::Acquire)
    }

    /// Gives the items from `from` on, or from the consumer's position if that is further, and tells how far it came: to the producer's
    /// position, as it was when this began, or to the first item that is still being written. Nothing is given back.
    pub(super) fn walk(&self, from: u64, mut each: impl FnMut(Item<'_>)) -> u64 {
        let end = self.produced();
        let mut at = from.max(self.consumed()).min(end);
        while at < end {
            let Some((length, next)) = self.header(at, end) else {
                tracing::error!(
                    octets = end - at,
                    "a ring of the kernel's is in disorder: what is left in it is passed over"
                );
                return end;
            };
            if length & BUSY != 0 {
                return at;
            }
            if length & DISCARDED == 0 {
                each(Item {
                    start: self.data(at + HEADER_OCTETS),
                    octets: length as usize,
                    ring: PhantomData,
                });
            }
            at = next;
        }
        at
    }

    /// Length and flags of the item at a position, and where the next one begins; `None` if it would not be within the ring. Waits a
    /// little for an item that is being written.
    fn header(&self, at: u64, end: u64) -> Option<(u32, u64)> {
        if !at.is_multiple_of(ALIGNMENT) {
            return None;
        }
        // SAFETY: within the data and aligned; the kernel changes it atomically.
        let length = unsafe { AtomicU32::from_ptr(self.data(at).cast().as_ptr()) };
        let mut looks = 0..BUSY_LOOKS;
        // What is in the item was written before the flag was taken away.
        let length = loop {
            let length = length.load(Ordering::Acquire);
            if length & BUSY == 0 || looks.next().is_none() {
                break length;
            }
            thread::yield_now();
        };
        let octets = u64::from(length & !(BUSY | DISCARDED));
        let next = at + (HEADER_OCTETS + octets).next_multiple_of(ALIGNMENT);
        (octets <= self.octets && next <= end).then_some((length, next))
    }

    /// Where the data of a position is. At least as many octets as the ring has follow it.
    fn data(&self, at: u64) -> NonNull<u8> {
        let offset = self.page + (at & (self.octets - 1)) as usize;
        // SAFETY: within the first of the two times that the data is mapped.
        unsafe { self.producer.start.add(offset) }
    }

    /// Gives what is before a position, which [`Ring::walk`] told, back to the kernel. Never goes back, nor beyond what was written.
    pub(super) fn advance(&mut self, to: u64) {
        if to <= self.produced() && to.is_multiple_of(ALIGNMENT) {
            // What was read of the items was read before the kernel may write over them.
            position(&self.consumer).fetch_max(to, Ordering::AcqRel);
        }
    }
}

/// The position that is at a mapping's start.
fn position(mapping: &Mapping) -> &AtomicU64 {
    // SAFETY: a page's start, so aligned, mapped for as long as the borrow lasts; the kernel reads and writes it atomically. What is mapped
    // for reading only is only loaded.
    unsafe { AtomicU64::from_ptr(mapping.start.cast().as_ptr()) }
}

fn page_octets() -> io::Result<usize> {
    // SAFETY: asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
