//! Capture windows: timed by the boot time, labelled by the wall clock.
//!
//! Windows of one length follow each other: each label begins where the one before ended, whatever the wall clock does, so that labels
//! have no gap and no overlap and none is empty. While the wall clock is not set, labels are *in step*: they end at multiples of the
//! length, at the moment when the wall clock is there.
//!
//! | what happens to the wall clock | what becomes of the windows |
//! |---|---|
//! | it is set forward, or the machine was suspended | the window that was open closes in its time and has all that was counted, so its label reaches up to the multiple that the wall clock has passed |
//! | it is set back by less than a length | the next window takes longer, until the wall clock is at the end of its label: less than two lengths in all. Most corrections are of some milliseconds; a window of its own to make up for them would be of no use |
//! | it is set back further | no window can wait for that. Windows go on closing a length after they were opened, and each label is 1 s long until the wall clock is less than a length behind; the next window makes up for the rest, as above |
//!
//! An example of the last, with windows of 10 minutes and a clock that is set from 12:00 back to 11:00:
//!
//! | open while the clock said | label |
//! |---|---|
//! | 11:00 to 11:10 | 12:00:00 to 12:00:01 |
//! | 11:10 to 11:20 | 12:00:01 to 12:00:02 |
//! | … | … |
//! | 11:50 to 12:00 | 12:00:05 to 12:00:06 |
//! | 12:00 to 12:10 | 12:00:06 to 12:10:00 |
//! | 12:10 to 12:20 | 12:10:00 to 12:20:00 |
//!
//! The alternatives are worse: labels that follow the clock back would name the hour from 11:00 to 12:00 a second time, and one window
//! that waits would hold an hour's traffic back. Windows of 1 s cannot be compressed: their labels stay ahead until the wall clock is
//! set right.
//!
//! No code here reads a clock: time is an argument.
use std::time::Duration;

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since the Unix epoch; may jump.
    pub wall: Duration,
    /// Time since the kernel was started, with the time that the machine was suspended; never jumps back.
    pub boot: Duration,
}

/// A capture window's label: `start` inclusive, `end` exclusive, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// First second.
    pub start: u64,
    /// The second after the last.
    pub end: u64,
}

/// The sequence of windows of one length.
#[derive(Clone, Debug)]
pub struct Schedule {
    length_seconds: u64,
    open: Window,
    /// Boot time.
    opened: Duration,
    /// Boot time.
    deadline: Duration,
}

impl Schedule {
    /// Opens the first window: from now to the next multiple of the length.
    ///
    /// A length of 0 seconds is taken for 1.
    #[must_use]
    pub fn start(length_seconds: u64, now: Now) -> Self {
        Self::restored(length_seconds, now.wall.as_secs(), now.boot, now)
    }

    /// Goes on in a window that is open already: its label begins at `start`, in Unix seconds, and it was opened at the boot time
    /// `opened` of the same boot of the kernel. If it should have been closed meanwhile, it is due at once.
    ///
    /// A length of 0 seconds is taken for 1.
    #[must_use]
    pub fn restored(length_seconds: u64, start: u64, opened: Duration, now: Now) -> Self {
        let mut schedule = Self {
            length_seconds: length_seconds.max(1),
            open: Window { start, end: start },
            opened,
            deadline: opened,
        };
        schedule.plan(start, opened.min(now.boot), now);
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

    /// The boot time at which the open window was opened.
    #[must_use]
    pub fn opened(&self) -> Duration {
        self.opened
    }

    /// The boot time at which the open window is due; less than two lengths after it was opened.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Closes the open window if it is due, and opens the next one.
    pub fn close_if_due(&mut self, now: Now) -> Option<Window> {
        (now.boot >= self.deadline).then(|| self.close_due(now))
    }

    /// Closes the open window as one that is due, though its deadline may be a little ahead, and opens the next one.
    pub fn close_due(&mut self, now: Now) -> Window {
        let reached = self.aligned_down(now.wall.as_secs());
        self.close(self.open.end.max(reached), now)
    }

    /// Closes the open window before it is due. Its label reaches to the end of this second, and the next one begins there.
    pub fn cut(&mut self, now: Now) -> Window {
        if let Some(due) = self.close_if_due(now) {
            return due;
        }
        let reached = now.wall.as_secs() + u64::from(now.wall.subsec_nanos() > 0);
        // Where labels are ahead of the wall clock, that is before its start.
        self.close(reached.max(self.open.start.saturating_add(1)), now)
    }

    fn close(&mut self, end: u64, now: Now) -> Window {
        let closed = Window { end, ..self.open };
        self.plan(end, now.boot, now);
        closed
    }

    /// Decides until when a window is open whose label begins at `start` and that was opened at the boot time `opened`.
    fn plan(&mut self, start: u64, opened: Duration, now: Now) {
        let length = Duration::from_secs(self.length_seconds);
        let age = now.boot.saturating_sub(opened);
        // How long after its opening the wall clock is at a second, as far as it goes by today's reading.
        let until = |seconds| {
            Duration::from_secs(seconds)
                .saturating_add(age)
                .saturating_sub(now.wall)
        };
        let (end, lasts) = if until(start) < length {
            let end = self.aligned_down(start).saturating_add(self.length_seconds);
            (end, until(end))
        } else {
            (start.saturating_add(1), length)
        };
        self.open = Window { start, end };
        self.opened = opened;
        self.deadline = opened.saturating_add(lasts);
    }

    fn aligned_down(&self, seconds: u64) -> u64 {
        seconds - seconds % self.length_seconds
    }
}

#[cfg(test)]
mod tests;
