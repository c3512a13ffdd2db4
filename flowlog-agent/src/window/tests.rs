use proptest::prelude::*;

use super::*;

fn at(wall_ms: u64, boot_ms: u64) -> Now {
    Now {
        wall: Duration::from_millis(wall_ms),
        boot: Duration::from_millis(boot_ms),
    }
}

fn window(start: u64, end: u64) -> Window {
    Window { start, end }
}

#[test]
fn windows_are_aligned_and_follow_each_other() {
    let mut schedule = Schedule::start(60, at(1_000_030_500, 500));
    assert_eq!(schedule.open(), window(1_000_030, 1_000_080));
    assert_eq!(schedule.deadline(), Duration::from_millis(500 + 49_500));
    assert_eq!(schedule.close_if_due(at(1_000_079_999, 49_999)), None);
    assert_eq!(
        schedule.close_if_due(at(1_000_080_001, 50_001)),
        Some(window(1_000_030, 1_000_080))
    );
    assert_eq!(schedule.open(), window(1_000_080, 1_000_140));
    assert_eq!(schedule.deadline(), Duration::from_millis(50_001 + 59_999));
}

#[test]
fn a_wall_clock_set_forward_stretches_the_label_and_leaves_no_gap() {
    let mut schedule = Schedule::start(60, at(600_000, 0));
    let closed = schedule.close_if_due(at(4_270_000, 60_000));
    assert_eq!(closed, Some(window(600, 4_260)));
    assert_eq!(schedule.open(), window(4_260, 4_320));
    assert_eq!(schedule.deadline(), Duration::from_secs(60 + 50));
}

#[test]
fn a_wall_clock_set_back_a_little_makes_one_window_longer() {
    let mut schedule = Schedule::start(600, at(7_200_000, 0));
    // Set back by five minutes at some time.
    assert_eq!(
        schedule.close_if_due(at(7_500_000, 600_000)),
        Some(window(7_200, 7_800))
    );
    assert_eq!(schedule.open(), window(7_800, 8_400));
    assert_eq!(schedule.deadline(), Duration::from_secs(600 + 900));
    assert_eq!(
        schedule.close_if_due(at(8_400_000, 1_500_000)),
        Some(window(7_800, 8_400))
    );
    assert_eq!(schedule.deadline(), Duration::from_secs(1_500 + 600));
}

/// The example in the module's documentation.
#[test]
fn a_wall_clock_set_back_by_an_hour_is_made_up_for_by_short_labels() {
    const NOON: u64 = 43_200;
    let mut schedule = Schedule::start(600, at((NOON - 600) * 1000, 0));
    // From 12:00 on, the clock is an hour behind.
    let mut boot = 600;
    let mut close = |after: u64| {
        boot += after;
        schedule.close_if_due(at((NOON - 3_600 + boot - 600) * 1000, boot * 1000))
    };
    assert_eq!(close(0), Some(window(NOON - 600, NOON)));
    for second in 0..6 {
        assert_eq!(close(599), None);
        let short = window(NOON + second, NOON + second + 1);
        assert_eq!(close(1), Some(short));
    }
    assert_eq!(close(599), None);
    assert_eq!(close(1), Some(window(NOON + 6, NOON + 600)));
    assert_eq!(close(600), Some(window(NOON + 600, NOON + 1_200)));
}

#[test]
fn what_follows_a_window_closed_early_begins_at_its_end_and_is_aligned() {
    let mut schedule = Schedule::start(60, at(1_000_030_500, 500));
    assert_eq!(
        schedule.cut(at(1_000_035_500, 5_500)),
        window(1_000_030, 1_000_036)
    );
    assert_eq!(schedule.open(), window(1_000_036, 1_000_080));
    assert_eq!(schedule.deadline(), Duration::from_millis(5_500 + 44_500));
    // In the last second of a window the next one is a whole one.
    assert_eq!(
        schedule.cut(at(1_000_079_500, 49_500)),
        window(1_000_036, 1_000_080)
    );
    assert_eq!(schedule.open(), window(1_000_080, 1_000_140));
    assert_eq!(schedule.deadline(), Duration::from_millis(49_500 + 60_500));
}

#[test]
fn a_window_closed_early_ends_where_it_was_closed() {
    let cut = |now| Schedule::start(600, at(1_200_000, 0)).cut(now);
    assert_eq!(cut(at(1_234_500, 34_500)), window(1_200, 1_235));
    assert_eq!(cut(at(1_200_000, 0)), window(1_200, 1_201));
    // Set back, and set forward.
    assert_eq!(cut(at(5_000, 0)), window(1_200, 1_201));
    assert_eq!(cut(at(9_999_000, 0)), window(1_200, 9_999));
    // It was due already, so it is closed as one that is due.
    assert_eq!(cut(at(1_800_500, 600_500)), window(1_200, 1_800));
}

#[test]
fn a_restarted_agent_goes_on_in_the_open_window() {
    let restored = |now| Schedule::restored(600, 1_210, Duration::from_secs(50), now);
    // Within the window.
    let schedule = restored(at(1_500_000, 340_000));
    assert_eq!(schedule.open(), window(1_210, 1_800));
    assert_eq!(schedule.opened(), Duration::from_secs(50));
    assert_eq!(schedule.deadline(), Duration::from_secs(640));
    // After its end, and two windows later.
    for (seconds, end) in [(1_800, 1_800), (2_399, 1_800), (3_100, 3_000)] {
        let now = at(seconds * 1000, (seconds - 1_160) * 1000);
        let mut schedule = restored(now);
        assert_eq!(schedule.close_if_due(now), Some(window(1_210, end)));
        assert_eq!(schedule.opened(), now.boot);
    }
    // While no agent ran, the clock was set back by much.
    let schedule = restored(at(20_000, 60_000));
    assert_eq!(schedule.open(), window(1_210, 1_211));
    assert_eq!(schedule.deadline(), Duration::from_secs(650));
}

#[test]
fn what_a_damaged_file_may_say_does_no_harm() {
    for start in [0, u64::MAX - 1, u64::MAX] {
        for opened in [Duration::ZERO, Duration::MAX] {
            let now = at(1_500_000, 340_000);
            let mut schedule = Schedule::restored(0, start, opened, now);
            assert!(schedule.opened() <= now.boot);
            schedule.cut(now);
        }
    }
}

/// What happens to the clocks and the agent.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// Time passes, in milliseconds.
    Calm(u64),
    /// The wall clock is set, by so many milliseconds.
    Set(i64),
    /// The machine is suspended, or the agent does not get round to closing windows, for so many milliseconds.
    Absent(u64),
    /// The agent is killed, and another one starts so many milliseconds later.
    Killed(u64),
    /// The open window is closed early.
    Cut,
}

fn happening() -> impl Strategy<Value = Happening> {
    const DAY_MS: i64 = 86_400_000;
    prop_oneof![
        4 => (0..3_000_000_u64).prop_map(Happening::Calm),
        2 => (-2_000..2_000_i64).prop_map(Happening::Set),
        2 => (-2 * DAY_MS..2 * DAY_MS).prop_map(Happening::Set),
        1 => (0..20_000_000_u64).prop_map(Happening::Absent),
        1 => (0..3_000_000_u64).prop_map(Happening::Killed),
        1 => Just(Happening::Cut),
    ]
}

/// A host with an agent.
struct Host {
    now: Now,
    schedule: Schedule,
    /// The last label's end.
    told_until: u64,
    /// How far labels were ahead of the wall clock when the open window was opened, and whether something may have changed that since.
    ahead: (Duration, bool),
}

impl Host {
    fn new(length_seconds: u64) -> Self {
        let now = at(1_795_356_635_250, 1_000_000);
        Self {
            now,
            schedule: Schedule::start(length_seconds, now),
            told_until: now.wall.as_secs(),
            ahead: (Duration::ZERO, false),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.wall += time;
        self.now.boot += time;
    }

    fn labels_ahead(&self) -> Duration {
        Duration::from_secs(self.told_until).saturating_sub(self.now.wall)
    }

    fn told(&mut self, closed: Window) {
        assert_eq!(closed.start, self.told_until, "a gap or an overlap");
        assert!(closed.start < closed.end, "{closed:?}");
        self.told_until = closed.end;
        let (before, disturbed) = self.ahead;
        self.ahead = (self.labels_ahead(), false);
        assert!(disturbed || self.ahead.0 <= before, "the labels run away");
    }

    /// The agent closes what is due.
    fn close_due(&mut self) {
        if let Some(closed) = self.schedule.close_if_due(self.now) {
            self.told(closed);
        }
        assert!(
            self.schedule.deadline() > self.now.boot,
            "two windows for one time"
        );
        self.check_open();
    }

    fn check_open(&self) {
        let length = Duration::from_secs(self.schedule.length_seconds());
        let lasts = self.schedule.deadline() - self.schedule.opened();
        assert!(lasts < 2 * length, "open for {lasts:?}");
        assert_eq!(self.schedule.open().start, self.told_until);
        assert!(self.schedule.open().start < self.schedule.open().end);
    }

    /// Goes on to the next deadline, where the agent closes a window.
    fn go_to_deadline(&mut self) {
        self.pass(self.schedule.deadline().saturating_sub(self.now.boot));
        self.close_due();
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Calm(ms) => {
                let until = self.now.boot + Duration::from_millis(ms);
                while self.schedule.deadline() <= until {
                    self.go_to_deadline();
                }
                self.pass(until - self.now.boot);
            }
            Happening::Set(ms) => {
                let by = Duration::from_millis(ms.unsigned_abs());
                self.now.wall = if ms < 0 {
                    self.now.wall.saturating_sub(by)
                } else {
                    self.now.wall + by
                };
                self.ahead.1 = true;
            }
            Happening::Absent(ms) => {
                self.pass(Duration::from_millis(ms));
                self.close_due();
            }
            Happening::Killed(ms) => {
                self.pass(Duration::from_millis(ms));
                let (label, opened) = (self.schedule.open(), self.schedule.opened());
                let length_seconds = self.schedule.length_seconds();
                self.schedule = Schedule::restored(length_seconds, label.start, opened, self.now);
                assert_eq!(self.schedule.opened(), opened);
                self.close_due();
            }
            Happening::Cut => {
                self.ahead.1 = true;
                let closed = self.schedule.cut(self.now);
                self.told(closed);
                self.check_open();
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_labels_follow_each_other_and_come_in_step_again(
        length in prop::sample::select(vec![1_u64, 2, 5, 60, 300, 600, 3600]),
        happenings in prop::collection::vec(happening(), 1..30),
    ) {
        let mut host = Host::new(length);
        for happening in happenings {
            host.happens(happening);
        }
        let ahead = host.labels_ahead().as_secs();
        if length > 1 {
            // Each short label makes up for all but a second of a length.
            let windows = ahead / (length - 1) + 3;
            prop_assume!(windows < 100_000);
            for _ in 0..windows {
                host.go_to_deadline();
            }
            for _ in 0..3 {
                let start = host.told_until;
                prop_assert_eq!(host.now.wall, Duration::from_secs(start), "in step");
                host.go_to_deadline();
                prop_assert_eq!((start % length, host.told_until), (0, start + length));
            }
        }
    }
}
