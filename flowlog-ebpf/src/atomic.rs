//! Atomic arithmetic on map values, which every CPU may change at once.
use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_or, atomic_xadd};

/// Adds to a counter.
///
/// # Safety
///
/// `counter` points to a live and aligned map value.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, amount: u64) {
    // SAFETY: the caller's.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, amount) };
}

/// Adds 1 to a counter and gives what it was before.
///
/// # Safety
///
/// As for [`add`].
#[inline(always)]
pub unsafe fn fetch_increment(counter: *mut u64) -> u64 {
    // Not relaxed: LLVM 22 makes a relaxed addition one that fetches nothing, also where its result is used.
    // SAFETY: the caller's.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::AcqRel }>(counter, 1) }
}

/// ORs bits into a word.
///
/// # Safety
///
/// As for [`add`].
#[inline(always)]
pub unsafe fn or(word: *mut u32, bits: u32) {
    // SAFETY: the caller's.
    unsafe { atomic_or::<u32, u32, { AtomicOrdering::Relaxed }>(word, bits) };
}

/// Puts `new` in the place of `old`; whether that was there.
///
/// # Safety
///
/// As for [`add`].
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u32, old: u32, new: u32) -> bool {
    const ORDERING: AtomicOrdering = AtomicOrdering::SeqCst;
    // SAFETY: the caller's.
    let (_, exchanged) = unsafe { atomic_cxchg::<u32, ORDERING, ORDERING>(word, old, new) };
    exchanged
}
