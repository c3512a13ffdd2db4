//! Destinations that take nothing for a while, and disks that are full.

use std::collections::BTreeSet;

use flowlog_tests::agent::{AgentPlan, DestinationPlan, FlowLogPlan, Resource};
use flowlog_tests::lab::{FloodPlan, TmpFs};
use nix::sys::signal::Signal;

use crate::scene::{LEFT, RIGHT, Scene, Setting, skipped, wait_until};

/// Windows that a destination is dead for.
const DEAD_WINDOWS: u32 = 5;

fn windows_told(scene: &Scene) -> usize {
    let starts = scene.records().into_iter().map(|record| record.start);
    starts.collect::<BTreeSet<u64>>().len()
}

#[test]
fn a_file_that_cannot_be_made_for_five_windows_has_them_all_afterwards() {
    if skipped("a_file_that_cannot_be_made_for_five_windows_has_them_all_afterwards") {
        return;
    }
    let setting = Setting {
        broken_sink: true,
        ..Setting::default()
    };
    let mut scene = Scene::set(&setting, |plan| plan);
    let metrics = scene.metrics.clone();
    scene.beside(|_| metrics.wait_for_windows(DEAD_WINDOWS));
    scene.mend_sink();
    assert_eq!(scene.finish().skipped(), 0);
}

#[test]
fn a_file_that_cannot_grow_for_five_windows_has_them_all_afterwards() {
    if skipped("a_file_that_cannot_grow_for_five_windows_has_them_all_afterwards") {
        return;
    }
    let setting = Setting {
        disk_bytes: Some(256 << 20),
        ..Setting::default()
    };
    let mut scene = Scene::set(&setting, |plan| plan);
    wait_until("a window in the file", || windows_told(&scene) > 0);
    let metrics = scene.metrics.clone();
    let disk = scene.disk.take().expect("a small disk");
    scene.beside(|_| {
        disk.fill().expect("filled");
        metrics.wait_for_windows(DEAD_WINDOWS);
        disk.free().expect("freed");
    });
    scene.disk = Some(disk);
    assert_eq!(scene.finish().skipped(), 0);
}

#[test]
fn a_file_that_has_it_and_an_agent_that_dies_before_it_knows_have_it_once() {
    if skipped("a_file_that_has_it_and_an_agent_that_dies_before_it_knows_have_it_once") {
        return;
    }
    let mut scene = Scene::start(|plan| plan);
    scene.beside(|agent| {
        agent.kill().expect("killed");
        // Each life dies at the first delivery: nothing is ever acknowledged.
        agent.set_failpoint(Some("delivery-written=kill"));
        for _ in 0..5 {
            agent.restart().expect("restarted");
            let outcome = agent.wait().expect("an end at the step");
            assert_eq!(
                outcome.signal(),
                Some(Signal::SIGKILL as i32),
                "{}",
                outcome.stderr
            );
        }
        agent.set_failpoint(None);
        agent.restart().expect("restarted");
    });
    scene.captured();
    assert_eq!(scene.finish().skipped(), 0);
}

#[test]
fn a_slow_destination_holds_no_other_up_and_gets_everything_in_the_end() {
    if skipped("a_slow_destination_holds_no_other_up_and_gets_everything_in_the_end") {
        return;
    }
    let slow = FlowLogPlan {
        name: "slow".to_owned(),
        destination: DestinationPlan::Stdout,
        extra: "format = \"json\"".to_owned(),
        ..FlowLogPlan::of(Resource::Vpc("vpc-test".to_owned()))
    };
    let mut scene = Scene::start(|mut plan| {
        plan.flow_logs.push(slow);
        AgentPlan {
            stdout_held: true,
            ..plan
        }
    });
    let metrics = scene.metrics.clone();
    scene.beside(|_| metrics.wait_for_windows(DEAD_WINDOWS));
    // The file has all of it while nobody has read a line of standard output.
    let crossed = scene.crossed();
    scene.wait_for_file(&crossed);
    assert!(scene.agent.records_so_far().expect("it runs").is_empty());
    scene.agent.release_stdout().expect("it runs");
    let finished = scene.finish();
    let differences = crossed.differences(&finished.outcome.records);
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn a_spool_on_a_full_disk_loses_nothing_untold() {
    if skipped("a_spool_on_a_full_disk_loses_nothing_untold") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = TmpFs::mount(folder.path(), 8 << 20).expect("a small file system");
    let mut scene = Scene::start(|plan| AgentPlan {
        spool_path: Some(folder.path().join("spool")),
        ..plan
    });
    let metrics = scene.metrics.clone();
    scene.beside(|agent| {
        metrics.wait_for_windows(2);
        disk.fill().expect("filled");
        metrics.wait_for_windows(DEAD_WINDOWS);
        // It has to come up on a full disk, too.
        agent.kill().expect("killed");
        agent.restart().expect("restarted");
        agent.wait_until_captured(&[LEFT, RIGHT]).expect("captured");
        disk.free().expect("freed");
        metrics.wait_for_windows(2);
    });
    assert!(scene.finish().ok() > 0);
}

#[test]
fn a_spool_that_may_not_grow_gives_up_the_oldest_and_tells_how_much() {
    if skipped("a_spool_that_may_not_grow_gives_up_the_oldest_and_tells_how_much") {
        return;
    }
    let setting = Setting {
        broken_sink: true,
        ..Setting::default()
    };
    let mut scene = Scene::set(&setting, |plan| AgentPlan {
        spool: "max-size = \"1MiB\"".to_owned(),
        ..plan
    });
    // Each has more flows than there is room for.
    for _ in 0..3 {
        scene.flood(&FloodPlan {
            packets: 100_000,
            ..FloodPlan::default()
        });
        scene.metrics.wait_for_windows(2);
    }
    scene.mend_sink();
    assert!(scene.finish().skipped() > 0);
}
