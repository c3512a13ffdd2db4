//! SIGKILL, at random and at every step of the way.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::thread;
use std::time::Duration;

use flowlog_agent::failpoint::STEPS;
use flowlog_tests::agent::{AgentPlan, AgentProcess};
use flowlog_tests::lab::random;
use nix::sys::signal::Signal;

use crate::scene::{Scene, Setting, skipped};
use crate::verdicts::{Policies, assert_verdicts};

const JUDGED: Setting = Setting {
    disk_bytes: None,
    broken_sink: false,
    judged: true,
};

#[test]
fn kills_at_random_lose_nothing_and_tell_nothing_twice() {
    const KILLS: u64 = 50;
    /// Longest life: long enough for a window or two, so that kills come at the start as well as amid the work.
    const LONGEST_MS: u64 = 2000;
    if skipped("kills_at_random_lose_nothing_and_tell_nothing_twice") {
        return;
    }
    let seed = RandomState::new().build_hasher().finish();
    println!("the seed of the moments is {seed}");
    let mut scene = Scene::start(|plan| plan);
    scene
        .beside(|agent| {
            for kill in 0..KILLS {
                // The moment is what the test draws: there is nothing to await.
                thread::sleep(Duration::from_millis(random(seed, kill) % LONGEST_MS));
                agent.kill().expect("killed");
                agent.restart().expect("restarted");
            }
            agent.wait_until_captured(&["eni-left", "eni-right"])
        })
        .expect("captured");
    let finished = scene.finish();
    assert!(finished.ok() > 0);
}

/// Security groups in both modes and a firewall, whose rules change too: while the agent runs, and while it does not.
#[test]
fn kills_at_random_and_changed_rules_lose_no_verdict() {
    const KILLS: u64 = 20;
    const LONGEST_MS: u64 = 1500;
    if skipped("kills_at_random_and_changed_rules_lose_no_verdict") {
        return;
    }
    let seed = RandomState::new().build_hasher().finish();
    println!("the seed of the moments is {seed}");
    let mut scene = Scene::set(&JUDGED, |plan| plan);
    let policies = [Policies::First, Policies::Later];
    let enis = policies.map(|policies| policies.enis(scene.pair()));
    scene.beside(|agent| {
        let mut next = enis.iter().cycle().skip(1);
        let mut change = |agent: &AgentProcess| {
            let enis = next.next().expect("there is always another");
            agent.replace_inventory(enis.clone()).expect("written");
        };
        for kill in 0..KILLS {
            let moment = random(seed, kill);
            if moment.is_multiple_of(2) {
                change(agent);
            }
            thread::sleep(Duration::from_millis(moment % LONGEST_MS));
            agent.kill().expect("killed");
            if moment.is_multiple_of(3) {
                change(agent);
            }
            agent.restart().expect("restarted");
        }
    });
    scene.captured();
    assert_verdicts(&scene.finish().records, &policies);
}

/// Three lives that end at a step, the first time, the second and the third time that it is reached; and one that does not.
fn killed_at(test: &str, step: &str) {
    if skipped(test) {
        return;
    }
    let merges = step.starts_with("compaction-");
    // With everything that judges, for there is so the more to be lost; but programs that judge take the kernel long to load, and drains
    // are merged only after many seconds of a life.
    let setting = Setting {
        judged: !merges,
        ..JUDGED
    };
    let mut scene = Scene::set(&setting, |plan| AgentPlan {
        // So that a window has the many drains that are merged at once, also where a drain takes half a second.
        flow_map_entries: merges.then_some((64, 64)),
        window_seconds: if merges {
            Some(30)
        } else {
            plan.window_seconds
        },
        ..plan
    });
    scene.beside(|agent| {
        agent.kill().expect("killed");
        for pass in 1..=3 {
            agent.set_failpoint(Some(&format!("{step}:{pass}=kill")));
            agent.restart().expect("restarted");
            let outcome = agent.wait().expect("an end at the step");
            assert_eq!(
                outcome.signal(),
                Some(Signal::SIGKILL as i32),
                "it did not end at pass {pass} of {step}:\n{}",
                outcome.stderr
            );
        }
        agent.set_failpoint(None);
        agent.restart().expect("restarted");
    });
    scene.captured();
    let finished = scene.finish();
    if setting.judged {
        assert_verdicts(&finished.records, &[Policies::First]);
    }
}

macro_rules! killed_at {
    ($($test:ident: $step:literal;)*) => {
        $(
            #[test]
            fn $test() {
                killed_at(stringify!($test), $step);
            }
        )*

        #[test]
        fn every_step_has_a_test() {
            assert_eq!(STEPS.as_slice(), [$($step),*]);
        }
    };
}

killed_at! {
    killed_as_a_drain_begins: "drain-begun";
    killed_after_the_flip: "drain-flipped";
    killed_after_the_still_generation_was_read: "drain-read";
    killed_before_a_drain_is_committed: "drain-flows-written";
    killed_after_a_drain_was_committed: "drain-committed";
    killed_after_the_ring_was_advanced: "drain-ring-advanced";
    killed_after_the_still_generation_was_renewed: "drain-renewed";
    killed_after_a_windows_manifest_was_written: "window-manifest-written";
    killed_after_the_state_was_saved: "window-state-saved";
    killed_after_a_window_was_published: "window-published";
    killed_as_a_delivery_begins: "delivery-begun";
    killed_before_a_delivery_is_committed: "delivery-written";
    killed_after_a_delivery_was_committed: "delivery-committed";
    killed_after_the_cursor_was_stored: "delivery-cursor-stored";
    killed_after_a_window_was_removed: "window-removed";
    killed_after_merged_drains_were_written: "compaction-written";
    killed_after_merged_drains_were_swapped_in: "compaction-swapped";
}
