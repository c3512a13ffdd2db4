//! Privileges: what is not needed after the start is given up for good.
use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;

/// A privilege could not be given up.
#[derive(Debug, Error)]
#[error("cannot give up privileges: {0}")]
pub struct PrivilegeError(String);

/// The capabilities that a running agent needs: to load and attach programs for ENIs that come later, and, where ENIs are in named
/// network namespaces, to enter those.
#[must_use]
pub(crate) fn needed(named_namespaces: bool) -> CapsHashSet {
    let mut needed = CapsHashSet::from([
        Capability::CAP_BPF,
        Capability::CAP_NET_ADMIN,
        Capability::CAP_PERFMON,
    ]);
    if named_namespaces {
        needed.insert(Capability::CAP_SYS_ADMIN);
    }
    needed
}

/// Lets this process hold as many files open as it may: each ENI takes about a dozen, and the usual limit of 1,024, meant for
/// programs that use `select`, would be reached with some 75 ENIs.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn raise_file_limit() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// Those of `needed` that this process does not have.
///
/// # Errors
///
/// If the kernel does not tell.
pub(crate) fn missing(needed: &CapsHashSet) -> Result<Vec<Capability>, PrivilegeError> {
    let have =
        caps::read(None, CapSet::Effective).map_err(|error| PrivilegeError(error.to_string()))?;
    let mut missing: Vec<_> = needed.difference(&have).copied().collect();
    missing.sort_by_key(Capability::index);
    Ok(missing)
}

/// Keeps those of `needed` that the process has, and gives up all others, for this process and those that it starts. To be called
/// before there are other threads: a thread has capabilities of its own.
///
/// # Errors
///
/// If the kernel refuses.
pub(crate) fn keep_only(needed: &CapsHashSet) -> Result<(), PrivilegeError> {
    let failed = |error: caps::errors::CapsError| PrivilegeError(error.to_string());
    let have = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept: CapsHashSet = needed.intersection(&have).copied().collect();
    // The bounding set first, for it takes a capability to change it.
    for capability in caps::all() {
        let bounded = caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false);
        if bounded && !kept.contains(&capability) && have.contains(&Capability::CAP_SETPCAP) {
            caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(failed)?;
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)?;
    nix::sys::prctl::set_no_new_privs().map_err(|error| PrivilegeError(error.to_string()))
}
