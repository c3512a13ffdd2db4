use proptest::prelude::*;

use super::*;
use crate::{
    config::Config,
    output::{OutputOptions, outputs},
};

fn outputs_with(lengths: &[&str]) -> Vec<Arc<Output>> {
    let flow_logs: String = lengths
        .iter()
        .map(|length| {
            format!(
                "[[flow-log]]\nname = \"of-{length}\"\nresource-type = \"VPC\"\nresource-id = \"vpc\"\n\
                 window = \"{length}\"\ndestination = {{ type = \"stdout\" }}\n"
            )
        })
        .collect();
    let text = format!("inventory = \"inventory.toml\"\n{flow_logs}");
    let config = Config::parse(&text, "agent.toml").unwrap();
    outputs(&config.flow_logs, &OutputOptions::default())
}

fn at(wall_seconds: u64) -> Now {
    Now {
        wall: Duration::from_secs(wall_seconds),
        boot: Duration::from_secs(wall_seconds - 1_000_000),
    }
}

/// Length, label and first drain of closed windows.
fn told(closed: &[Closed]) -> Vec<(u64, u64, u64, u64)> {
    let told = |closed: &Closed| {
        let Window { start, end } = closed.label;
        (closed.length_seconds, start, end, closed.first_drain)
    };
    closed.iter().map(told).collect()
}

#[test]
fn each_length_has_windows_of_its_own_with_all_drains_made_in_them() {
    let mut windows = Windows::new(&outputs_with(&["5m", "1m"]), 0, at(1_000_090), 7);
    assert_eq!(windows.next_deadline(), Duration::from_secs(140));
    let due = windows.close_due(at(1_000_140), 9);
    assert_eq!(told(&due), [(60, 1_000_090, 1_000_140, 7)]);
    assert!(due[0].is_shortest);
    assert_eq!(due[0].flow_logs, ["of-1m"]);
    let due = windows.close_due(at(1_000_200), 12);
    let both = [
        (60, 1_000_140, 1_000_200, 9),
        (300, 1_000_090, 1_000_200, 7),
    ];
    assert_eq!(told(&due), both);
}

#[test]
fn windows_closed_before_their_time_are_followed_at_once() {
    let mut windows = Windows::new(&outputs_with(&["1m", "5m"]), 0, at(1_000_090), 1);
    let closed = windows.close_all(at(1_000_100), 3);
    let both = [
        (60, 1_000_090, 1_000_100, 1),
        (300, 1_000_090, 1_000_100, 1),
    ];
    assert_eq!(told(&closed), both);
    assert_eq!(windows.labelled_until(), 1_000_100);
    let windows = Windows::new(
        &outputs_with(&["10m"]),
        windows.labelled_until(),
        at(1_000_095),
        3,
    );
    assert_eq!(windows.open()[0].start, 1_000_100, "never a second time");
}

#[test]
fn windows_go_on_over_a_restart() {
    let outputs = outputs_with(&["1m", "5m"]);
    let mut windows = Windows::new(&outputs, 0, at(1_000_090), 1);
    let _ = windows.close_due(at(1_000_140), 4);
    let mut windows = Windows::restored(&windows.open(), windows.labelled_until(), at(1_000_150));
    assert!(windows.suit(&outputs, false));
    assert!(!windows.suit(&outputs_with(&["1m"]), false));
    assert!(windows.suit(&outputs_with(&["1m"]), true));
    assert!(!windows.suit(&outputs_with(&["1m", "10m"]), true));
    let due = windows.close_due(at(1_000_200), 6);
    let both = [
        (60, 1_000_140, 1_000_200, 4),
        (300, 1_000_090, 1_000_200, 1),
    ];
    assert_eq!(told(&due), both);
}

#[test]
fn a_flow_log_that_comes_or_goes_leaves_the_windows_of_the_others_open() {
    let (both, three) = (["1m", "5m"], ["1m", "5m", "10m"]);
    let mut windows = Windows::new(&outputs_with(&both), 0, at(1_000_090), 1);
    windows.follow(&outputs_with(&three), false, at(1_000_100), 2);
    let starts: Vec<_> = windows.labels().map(|(_, label)| label.start).collect();
    assert_eq!(starts, [1_000_090, 1_000_090, 1_000_100]);
    // One goes.
    let gone = BTreeSet::from(["of-1m".to_owned()]);
    let closed = windows.close_of(&gone, at(1_000_110), 3);
    assert_eq!(told(&closed), [(60, 1_000_090, 1_000_110, 1)]);
    windows.follow(&outputs_with(&three[1..]), false, at(1_000_110), 3);
    let open: Vec<_> = windows.open().iter().map(|open| open.first_drain).collect();
    assert_eq!(open, [1, 2]);
    // It comes again in the same second.
    windows.follow(&outputs_with(&three), false, at(1_000_109), 4);
    assert_eq!(windows.open()[0].start, 1_000_110, "never a second time");
}

#[test]
fn windows_of_a_length_that_began_at_different_times_end_together_and_are_one_then() {
    let mut windows = Windows::new(&outputs_of(&[("aa", 60, 0)]), 0, at(1_000_090), 1);
    let both = outputs_of(&[("aa", 60, 0), ("bb", 60, 0)]);
    windows.follow(&both, false, at(1_000_100), 4);
    assert_eq!(windows.labels().count(), 2);
    let due = windows.close_due(at(1_000_140), 9);
    let labels = [(60, 1_000_090, 1_000_140, 1), (60, 1_000_100, 1_000_140, 4)];
    assert_eq!(told(&due), labels);
    let counted = due.iter().filter(|closed| closed.is_shortest).count();
    assert_eq!(counted, 1, "of `--windows`");
    let due = windows.close_due(at(1_000_200), 11);
    assert_eq!(told(&due), [(60, 1_000_140, 1_000_200, 9)]);
    assert_eq!(due[0].flow_logs, ["aa", "bb"]);
}

#[test]
fn flow_logs_that_nobody_knows_stay_if_they_are_to() {
    let known = outputs_of(&[("aa", 60, 0)]);
    let mut windows = Windows::new(
        &outputs_of(&[("aa", 60, 0), ("bb", 60, 0)]),
        0,
        at(1_000_090),
        1,
    );
    assert!(windows.suit(&known, true) && !windows.suit(&known, false));
    assert_eq!(windows.unwanted(&known, true), BTreeSet::new());
    assert_eq!(
        windows.unwanted(&known, false),
        BTreeSet::from(["bb".to_owned()])
    );
    windows.follow(&known, true, at(1_000_100), 2);
    assert_eq!(windows.open()[0].flow_logs, ["aa", "bb"]);
    windows.follow(&known, false, at(1_000_100), 2);
    assert_eq!(windows.open()[0].flow_logs, ["aa"]);
}

/// Names, lengths in seconds, and what else may change of them.
fn outputs_of(flow_logs: &[(&str, u64, u8)]) -> Vec<Arc<Output>> {
    let flow_log = |(name, length, variant): &(&str, u64, u8)| {
        format!(
            "[[flow-log]]\nname = \"{name}\"\nresource-type = \"VPC\"\nresource-id = \"vpc-{variant}\"\n\
             window = \"{}m\"\ndestination = {{ type = \"stdout\" }}\n",
            length / 60
        )
    };
    let flow_logs: String = flow_logs.iter().map(flow_log).collect();
    let text = format!("inventory = \"inventory.toml\"\n{flow_logs}");
    let config = Config::parse(&text, "agent.toml").unwrap();
    outputs(&config.flow_logs, &OutputOptions::default())
}

const NAMES: [&str; 4] = ["aa", "bb", "cc", "dd"];

/// What is to be captured of each name: nothing, or windows of a length, by a variant of the flow log.
type Followed = [Option<(u64, u8)>; NAMES.len()];

#[derive(Clone, Debug)]
enum Step {
    Follow(Followed),
    /// Something is drained early.
    Drain,
    /// Time passes, in milliseconds, and the wall clock is set by so many seconds.
    Pass(u64, i64),
    /// The agent is killed, and another one goes on.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let followed = || prop::option::weighted(0.7, (prop::sample::select(vec![60, 300]), 0..2_u8));
    let wall = prop_oneof![8 => Just(0), 1 => -400..400_i64, 1 => -2..2_i64];
    prop_oneof![
        3 => [followed(), followed(), followed(), followed()].prop_map(Step::Follow),
        1 => Just(Step::Drain),
        4 => (0..90_000_u64, wall).prop_map(|(passed, set)| Step::Pass(passed, set)),
        1 => Just(Step::Restart),
    ]
}

/// Windows as the agent treats them, and what each flow log should have.
struct Lab {
    windows: Windows,
    followed: Followed,
    now: Now,
    next_drain: u64,
    /// The drains of each name, and those of its closed windows with the labels.
    expected: [Vec<u64>; NAMES.len()],
    closed: [Vec<(Window, std::ops::Range<u64>)>; NAMES.len()],
}

impl Lab {
    fn outputs(followed: &Followed) -> Vec<Arc<Output>> {
        let flow_logs: Vec<_> = NAMES
            .into_iter()
            .zip(followed)
            .filter_map(|(name, of)| of.map(|(length, variant)| (name, length, variant)))
            .collect();
        outputs_of(&flow_logs)
    }

    fn drain(&mut self) {
        for (expected, of) in self.expected.iter_mut().zip(self.followed) {
            if of.is_some() {
                expected.push(self.next_drain);
            }
        }
        self.next_drain += 1;
    }

    fn take(&mut self, closed: Vec<Closed>) {
        for Closed {
            label,
            first_drain,
            flow_logs,
            ..
        } in closed
        {
            for name in flow_logs {
                let index = NAMES.iter().position(|known| *known == name).unwrap();
                self.closed[index].push((label, first_drain..self.next_drain));
            }
        }
    }

    fn follow(&mut self, followed: Followed) {
        self.drain();
        let changed: BTreeSet<String> = (0..NAMES.len())
            .filter(|index| self.followed[*index] != followed[*index])
            .map(|index| NAMES[index].to_owned())
            .collect();
        let closed = self.windows.close_of(&changed, self.now, self.next_drain);
        let of_others =
            |closed: &Closed| closed.flow_logs.iter().any(|name| !changed.contains(name));
        assert!(!closed.iter().any(of_others), "{changed:?}: {closed:?}");
        self.take(closed);
        self.followed = followed;
        let outputs = Self::outputs(&followed);
        self.windows
            .follow(&outputs, false, self.now, self.next_drain);
        assert!(self.windows.suit(&outputs, false));
        assert!(self.windows.labels().count() <= 2 * NAMES.len());
    }

    fn pass(&mut self, milliseconds: u64, set: i64) {
        let end = self.now.boot + Duration::from_millis(milliseconds);
        while self.windows.next_deadline() <= end {
            let passed = self.windows.next_deadline().saturating_sub(self.now.boot);
            self.now.boot += passed;
            self.now.wall += passed;
            self.drain();
            let closed = self.windows.close_due(self.now, self.next_drain);
            assert!(!closed.is_empty());
            self.take(closed);
        }
        let passed = end - self.now.boot;
        self.now.boot = end;
        self.now.wall += passed;
        let wall = self.now.wall.as_secs().saturating_add_signed(set);
        self.now.wall =
            Duration::from_secs(wall) + Duration::from_nanos(self.now.wall.subsec_nanos().into());
    }

    fn check(&mut self) {
        self.drain();
        let closed = self.windows.close_all(self.now, self.next_drain);
        self.take(closed);
        for (expected, closed) in self.expected.iter().zip(&self.closed) {
            let drains: Vec<u64> = closed
                .iter()
                .flat_map(|(_, drains)| drains.clone())
                .collect();
            assert_eq!(drains, *expected, "each drain once");
            assert!(
                closed.iter().all(|(label, _)| label.start < label.end),
                "{closed:?}"
            );
            assert!(
                closed.is_sorted_by(|(earlier, _), (later, _)| earlier.end <= later.start),
                "{closed:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn each_flow_log_has_each_drain_once_and_labels_that_follow_each_other(
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let mut now = at(1_000_090);
        now.wall += Duration::from_millis(300);
        let mut lab = Lab {
            windows: Windows::new(&[], 0, now, 1),
            followed: [None; NAMES.len()],
            now,
            next_drain: 1,
            expected: Default::default(),
            closed: Default::default(),
        };
        for step in steps {
            match step {
                Step::Follow(followed) => lab.follow(followed),
                Step::Drain => lab.drain(),
                Step::Pass(passed, set) => lab.pass(passed, set),
                Step::Restart => {
                    let (open, until) = (lab.windows.open(), lab.windows.labelled_until());
                    lab.windows = Windows::restored(&open, until, lab.now);
                    assert_eq!(lab.windows.open(), open);
                }
            }
        }
        lab.check();
    }
}
