//! Capture windows: aligned to wall-clock multiples of their length, timed by the monotonic clock.
//!
//! No code here reads a clock: time is an argument.
use std::time::Duration;

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since the Unix epoch; may jump.
    pub wall: Duration,
    /// Time since some fixed moment; never jumps.
    pub monotonic: Duration,
}

/// A capture window's label: `start` inclusive, `end` exclusive, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// First second.
    pub start: u64,
    /// The second after the last.
    pub end: u64,
}

/// The sequence of windows of one length: without gap or overlap, whatever the wall clock does.
#[derive(Clone, Debug)]
pub struct Schedule {
    length_seconds: u64,
    open: Window,
    /// On the monotonic clock.
    opened: Duration,
    /// On the monotonic clock.
    deadline: Duration,
}

impl Schedule {
    /// Opens the first window: from now to the next multiple of the length.
    ///
    /// A length of 0 seconds is taken for 1.
    #[must_use]
    pub fn start(length_seconds: u64, now: Now) -> Self {
        let start = now.wall.as_secs();
        let mut schedule = Self {
            length_seconds: length_seconds.max(1),
            open: Window { start, end: start },
            opened: now.monotonic,
            deadline: now.monotonic,
        };
        schedule.open_next(start, now);
        schedule
    }

    /// The open window.
    #[must_use]
    pub fn open(&self) -> Window {
        self.open
    }

    /// Length of a window, in seconds.
    #[must_use]
    pub fn length_seconds(&self) -> u64 {
        self.length_seconds
    }

    /// When the open window began, on the monotonic clock.
    #[must_use]
    pub fn opened(&self) -> Duration {
        self.opened
    }

    /// When the open window ends, on the monotonic clock.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Closes the open window if its time has come, and opens the next one.
    pub fn close_if_due(&mut self, now: Now) -> Option<Window> {
        if now.monotonic < self.deadline {
            return None;
        }
        let mut closed = self.open;
        // The wall clock was set forward, or the machine slept: what was counted meanwhile is in this window, so its label
        // reaches as far.
        let late = self.aligned_down(now.wall.as_secs());
        closed.end = closed.end.max(late);
        self.open_next(closed.end, now);
        Some(closed)
    }

    /// Closes the open window before its time. The next one begins where this one ends.
    pub fn cut(&mut self, now: Now) -> Window {
        let closed = self.cut_at(now);
        self.open_next(closed.end, now);
        closed
    }

    fn cut_at(&self, now: Now) -> Window {
        // A second that has begun belongs to the window; one that lies before its start is a wall clock set back.
        let reached = now.wall.as_secs() + u64::from(now.wall.subsec_nanos() > 0);
        Window {
            start: self.open.start,
            end: reached.clamp(self.open.start + 1, self.open.end.max(self.open.start + 1)),
        }
    }

    fn aligned_down(&self, seconds: u64) -> u64 {
        seconds - seconds % self.length_seconds
    }

    fn open_next(&mut self, start: u64, now: Now) {
        let end = self.aligned_down(start) + self.length_seconds;
        self.open = Window { start, end };
        // If the wall clock was set back, `end` may be far off; a window never takes longer than its length.
        let left = Duration::from_secs(end)
            .saturating_sub(now.wall)
            .min(Duration::from_secs(self.length_seconds));
        self.opened = now.monotonic;
        self.deadline = now.monotonic + left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_ms: u64, monotonic_ms: u64) -> Now {
        Now {
            wall: Duration::from_millis(wall_ms),
            monotonic: Duration::from_millis(monotonic_ms),
        }
    }

    #[test]
    fn windows_are_aligned_and_follow_each_other() {
        let mut schedule = Schedule::start(60, at(1_000_030_500, 500));
        assert_eq!(
            schedule.open(),
            Window {
                start: 1_000_030,
                end: 1_000_080
            }
        );
        assert_eq!(schedule.deadline(), Duration::from_millis(500 + 49_500));
        assert_eq!(schedule.close_if_due(at(1_000_079_999, 49_999)), None);
        assert_eq!(
            schedule.close_if_due(at(1_000_080_001, 50_001)),
            Some(Window {
                start: 1_000_030,
                end: 1_000_080
            })
        );
        assert_eq!(
            schedule.open(),
            Window {
                start: 1_000_080,
                end: 1_000_140
            }
        );
        assert_eq!(schedule.deadline(), Duration::from_millis(50_001 + 59_999));
    }

    #[test]
    fn a_wall_clock_set_forward_stretches_the_label_and_leaves_no_gap() {
        let mut schedule = Schedule::start(60, at(600_000, 0));
        let closed = schedule.close_if_due(at(4_260_000, 60_000));
        assert_eq!(
            closed,
            Some(Window {
                start: 600,
                end: 4_260
            })
        );
        assert_eq!(
            schedule.open(),
            Window {
                start: 4_260,
                end: 4_320
            }
        );
    }

    #[test]
    fn a_wall_clock_set_back_gives_no_overlap_and_no_endless_window() {
        let mut schedule = Schedule::start(60, at(7_200_000, 0));
        assert_eq!(
            schedule.close_if_due(at(3_660_000, 60_000)),
            Some(Window {
                start: 7_200,
                end: 7_260
            })
        );
        assert_eq!(
            schedule.open(),
            Window {
                start: 7_260,
                end: 7_320
            }
        );
        assert_eq!(schedule.deadline(), Duration::from_secs(120));
    }

    #[test]
    fn what_follows_a_window_closed_early_begins_at_its_end_and_is_aligned() {
        let mut schedule = Schedule::start(60, at(1_000_030_500, 500));
        let cut = Window {
            start: 1_000_030,
            end: 1_000_036,
        };
        assert_eq!(schedule.cut(at(1_000_035_500, 5500)), cut);
        let next = Window {
            start: 1_000_036,
            end: 1_000_080,
        };
        assert_eq!(schedule.open(), next);
        assert_eq!(schedule.deadline(), Duration::from_millis(5500 + 44_500));
        // In the last second of a window the next one is a whole one.
        assert_eq!(schedule.cut(at(1_000_079_500, 49_500)), next);
        let whole = Window {
            start: 1_000_080,
            end: 1_000_140,
        };
        assert_eq!(schedule.open(), whole);
        assert_eq!(schedule.deadline(), Duration::from_millis(49_500 + 60_000));
    }

    #[test]
    fn a_window_closed_early_ends_where_it_was_closed() {
        let schedule = Schedule::start(600, at(1_200_000, 0));
        assert_eq!(
            schedule.cut_at(at(1_234_500, 34_500)),
            Window {
                start: 1_200,
                end: 1_235
            }
        );
        assert_eq!(
            schedule.cut_at(at(1_200_000, 0)),
            Window {
                start: 1_200,
                end: 1_201
            }
        );
        assert_eq!(
            schedule.cut_at(at(5_000, 0)),
            Window {
                start: 1_200,
                end: 1_201
            }
        );
        assert_eq!(
            schedule.cut_at(at(9_999_000, 0)),
            Window {
                start: 1_200,
                end: 1_800
            }
        );
    }
}
