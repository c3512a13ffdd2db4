//! How large the kernel's flow maps should be: not much larger than their flows, so that they stay in cache.
use crate::bpf::{Fill, MapSizes};

/// Windows in a row that must need no more than a quarter of a map before it shrinks.
const SHRINK_AFTER: u32 = 8;

/// Follows the traffic.
#[derive(Clone, Debug)]
pub struct Sizing {
    min: u32,
    max: u32,
    v4: Family,
    v6: Family,
}

#[derive(Clone, Debug)]
struct Family {
    entries: u32,
    quiet_windows: u32,
    /// Flows of the open window so far, over its early drains.
    window_flows: u64,
}

impl Sizing {
    /// Between `min` and `max` entries for each map.
    #[must_use]
    pub fn new(min: u32, max: u32) -> Self {
        let family = Family {
            entries: min,
            quiet_windows: 0,
            window_flows: 0,
        };
        Self {
            min,
            max: max.max(min),
            v4: family.clone(),
            v6: family,
        }
    }

    /// The sizes now.
    #[must_use]
    pub fn sizes(&self) -> MapSizes {
        MapSizes {
            v4: self.v4.entries,
            v6: self.v6.entries,
        }
    }

    /// Takes note of how full a generation was when it was drained, and gives the sizes for its successor.
    pub fn drained(&mut self, fill: Fill, window_closed: bool) -> MapSizes {
        self.v4.drained(fill.v4, window_closed, self.min, self.max);
        self.v6.drained(fill.v6, window_closed, self.min, self.max);
        self.sizes()
    }
}

impl Family {
    /// Grows at once to twice the flows (a map is drained early when it is half full), shrinks slowly.
    fn drained(&mut self, flows: u64, window_closed: bool, min: u32, max: u32) {
        self.window_flows = self.window_flows.saturating_add(flows);
        let wanted = u32::try_from(self.window_flows.saturating_mul(2).max(1)).unwrap_or(u32::MAX);
        // An early drain says that the map fills faster than its size was made for; how much faster is not known yet.
        let wanted = if window_closed {
            wanted
        } else {
            wanted.saturating_mul(2)
        };
        let wanted = wanted.checked_next_power_of_two().unwrap_or(max);
        if wanted.clamp(min, max) > self.entries {
            self.entries = wanted.clamp(min, max);
            self.quiet_windows = 0;
        }
        if window_closed {
            self.quiet_windows = if wanted <= self.entries / 4 {
                self.quiet_windows + 1
            } else {
                0
            };
            if self.quiet_windows >= SHRINK_AFTER {
                self.entries = (self.entries / 2).max(min);
                self.quiet_windows = 0;
            }
            self.window_flows = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(flows: u64) -> Fill {
        Fill { v4: flows, v6: 0 }
    }

    #[test]
    fn a_map_grows_at_once_and_only_its_own_family() {
        let mut sizing = Sizing::new(1024, 1 << 20);
        assert_eq!(
            sizing.drained(v4(100_000), true),
            MapSizes {
                v4: 262_144,
                v6: 1024
            }
        );
    }

    #[test]
    fn early_drains_grow_it_further_up_to_the_limit() {
        let mut sizing = Sizing::new(1024, 65_536);
        assert_eq!(sizing.drained(v4(512), false).v4, 2048);
        assert_eq!(sizing.drained(v4(1024), false).v4, 8192);
        assert_eq!(sizing.drained(v4(1 << 40), false).v4, 65_536);
    }

    #[test]
    fn a_map_shrinks_after_eight_quiet_windows_and_not_below_its_least_size() {
        let mut sizing = Sizing::new(1024, 1 << 20);
        sizing.drained(v4(2000), true);
        assert_eq!(sizing.sizes().v4, 4096);
        for _ in 0..7 {
            assert_eq!(sizing.drained(v4(10), true).v4, 4096);
        }
        assert_eq!(sizing.drained(v4(10), true).v4, 2048);
        for _ in 0..40 {
            sizing.drained(v4(10), true);
        }
        assert_eq!(sizing.sizes().v4, 1024);
    }
}
