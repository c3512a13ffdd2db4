//! Hands file descriptors to the async runtime.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::unix::AsyncFd;

/// Registers a descriptor for readiness with the current runtime.
///
/// `T` must own its descriptor and always name the same one; the types that come here do.
#[expect(
    deprecated,
    reason = "the replacement is an unsafe fn, and unsafe code is for the `bpf` module alone; its condition, that T keeps \
              one descriptor open for as long as it lives, holds for the callers"
)]
pub(crate) fn register<T: AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(owner)
}
