//! Where tests stop the store, or have the disk fail. In what is shipped it is nothing.

/// The code has come to this step: a test that has named it in `FLOWLOG_STORE_FAILPOINT`, as `step:N`, kills the process at its Nth pass.
#[cfg(not(debug_assertions))]
pub(super) fn reached(_step: &str) {}

/// The code has come to this step: a test that has named it in `FLOWLOG_STORE_FAILPOINT`, as `step:N`, kills the process at its Nth pass.
#[cfg(debug_assertions)]
pub(super) fn reached(step: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    };
    static WANTED: LazyLock<Option<(String, u32)>> = LazyLock::new(|| {
        let wanted = std::env::var("FLOWLOG_STORE_FAILPOINT").ok()?;
        let (step, pass) = wanted.split_once(':')?;
        Some((step.to_owned(), pass.parse().ok()?))
    });
    static PASSES: AtomicU32 = AtomicU32::new(0);
    if let Some((wanted, pass)) = &*WANTED
        && wanted == step
        && PASSES.fetch_add(1, Ordering::SeqCst) + 1 == *pass
    {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

/// Paths whose folders cannot be flushed to the disk, as tests have it.
#[cfg(test)]
pub(super) static FAILING: std::sync::Mutex<Vec<std::path::PathBuf>> =
    std::sync::Mutex::new(Vec::new());

/// Fails if a test says that the folder of this path cannot be flushed to the disk.
#[cfg(test)]
pub(super) fn fails(path: &std::path::Path) -> std::io::Result<()> {
    let failing = FAILING.lock().unwrap();
    if failing.iter().any(|failing| failing == path) {
        return Err(std::io::Error::other("the disk has failed"));
    }
    Ok(())
}
