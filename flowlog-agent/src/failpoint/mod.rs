//! Places where a test kills the agent, holds it up, or gives it another clock or program. Only with the feature `failpoints`, which no
//! agent that is shipped has; without it all of this compiles to nothing.
//!
//! | variable | effect |
//! |---|---|
//! | `FLOWLOG_FAILPOINT` | what happens at which step: a list such as `drain-committed:3=kill,drain-flipped=sleep-200ms` |
//! | `FLOWLOG_WALL_OFFSET_FILE` | a file with the seconds, perhaps negative, by which the wall clock seems to be wrong |
//! | `FLOWLOG_BOOT_ID` | the id of the boot of the kernel, as the agent is to take it |
//! | `FLOWLOG_BPF_OBJECT` | an object file that is loaded instead of the agent's own |
//! | `FLOWLOG_MAX_RULES` | how many rules of security groups can have a number at a time |
//!
//! An action is `kill` (SIGKILL), `sleep-<N>ms` (of the thread that passes), or `say` (in the log). With `:<N>` it is taken at the Nth
//! pass alone, otherwise at every pass.

/// The steps, in about the order in which a window goes through them.
pub const STEPS: [&str; 17] = [
    "drain-begun",
    "drain-flipped",
    "drain-read",
    "drain-flows-written",
    "drain-committed",
    "drain-ring-advanced",
    "drain-renewed",
    "window-manifest-written",
    "window-state-saved",
    "window-published",
    "delivery-begun",
    "delivery-written",
    "delivery-committed",
    "delivery-cursor-stored",
    "window-removed",
    "compaction-written",
    "compaction-swapped",
];

#[cfg(feature = "failpoints")]
mod active;
#[cfg(feature = "failpoints")]
pub use active::{boot_id, max_rules, object, reached, wall};

#[cfg(not(feature = "failpoints"))]
mod inactive {
    use std::{borrow::Cow, time::Duration};

    /// The code has come to this step.
    #[inline]
    pub fn reached(_step: &str) {}

    /// The wall clock, as the agent is to take it.
    #[inline]
    #[must_use]
    pub fn wall(wall: Duration) -> Duration {
        wall
    }

    /// The id of the boot, as the agent is to take it.
    #[inline]
    #[must_use]
    pub fn boot_id(boot_id: String) -> String {
        boot_id
    }

    /// The BPF object to be loaded.
    #[inline]
    #[must_use]
    pub fn object(built_in: &'static [u8]) -> Cow<'static, [u8]> {
        Cow::Borrowed(built_in)
    }

    /// Rules that can have a number at a time.
    #[inline]
    #[must_use]
    pub fn max_rules(built_in: u32) -> u32 {
        built_in
    }
}
#[cfg(not(feature = "failpoints"))]
pub use inactive::{boot_id, max_rules, object, reached, wall};
