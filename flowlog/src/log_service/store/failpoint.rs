//! Where tests stop the store. In what is shipped it is nothing.

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
