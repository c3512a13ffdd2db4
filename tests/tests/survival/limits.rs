//! Maps, rings and memory that are too small for the traffic.

use std::thread;
use std::time::Duration;

use flowlog_tests::agent::{AgentPlan, DestinationPlan, FlowLogPlan, Resource};
use flowlog_tests::lab::{Family, FloodPlan, udp_flood};
use nix::sys::signal::Signal;

use crate::scene::{RIGHT, Scene, file_log, skipped};

/// What an agent with the spool's default limits may have resident at once, in KiB.
const MAX_PEAK_KIB: u64 = 256 << 10;

/// The ring has room for every packet that comes while the agent is not at it, however slow it is.
#[test]
fn maps_of_1024_entries_are_enough_for_200_000_flows_a_window() {
    if skipped("maps_of_1024_entries_are_enough_for_200_000_flows_a_window") {
        return;
    }
    for family in [Family::V4, Family::V6] {
        let mut scene = Scene::start(|plan| AgentPlan {
            flow_map_entries: Some((1024, 1024)),
            capture: "overflow-ring-kib = 131072".to_owned(),
            ..plan
        });
        let sent = scene.flood(&FloodPlan {
            packets: 400_000,
            flows: 200_000,
            family,
            ..FloodPlan::default()
        });
        let finished = scene.finish();
        assert_eq!((finished.ok(), finished.skipped()), (2 * sent.packets, 0));
    }
}

#[test]
fn what_a_slow_drain_leaves_no_room_for_is_skipped_and_told_exactly() {
    if skipped("what_a_slow_drain_leaves_no_room_for_is_skipped_and_told_exactly") {
        return;
    }
    for step in ["drain-begun", "drain-flipped", "drain-committed"] {
        let mut scene = Scene::start(|plan| AgentPlan {
            flow_map_entries: Some((1024, 1024)),
            capture: "overflow-ring-kib = 4".to_owned(),
            environment: [(
                "FLOWLOG_FAILPOINT".to_owned(),
                format!("{step}=sleep-200ms"),
            )]
            .into(),
            ..plan
        });
        scene.flood(&FloodPlan {
            packets: 400_000,
            flows: 200_000,
            ..FloodPlan::default()
        });
        let finished = scene.finish();
        assert!(finished.ok() > 0 && finished.skipped() > 0, "{step}");
    }
}

#[test]
fn two_million_flows_in_a_window_take_no_more_memory_than_is_allowed() {
    const ENTRIES: u32 = 1 << 18;
    const STEPS: u32 = 15;
    /// A little more than half of the map: each step has it drained, and what is left has room.
    const FLOWS_A_STEP: u32 = 140_000;
    if skipped("two_million_flows_in_a_window_take_no_more_memory_than_is_allowed") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("counts");
    let scene = Scene::start(|plan| AgentPlan {
        // A line of a few octets for each flow, of one ENI.
        flow_logs: vec![FlowLogPlan {
            resource: Resource::Eni(RIGHT.to_owned()),
            destination: DestinationPlan::File {
                path: path.clone(),
                max_size: 1 << 30,
                max_files: 2,
            },
            extra: "template = \"${packets} ${log-status}\"".to_owned(),
            ..file_log("counts", &path)
        }],
        window_seconds: Some(3600),
        enis: plan.enis[1..].to_vec(),
        flow_map_entries: Some((ENTRIES, ENTRIES)),
        environment: [(
            "FLOWLOG_FAILPOINT".to_owned(),
            "drain-renewed=say".to_owned(),
        )]
        .into(),
        ..plan
    });
    let (left, mut agent) = (scene.left().clone(), scene.agent);
    for step in 0..STEPS {
        let mark = agent.log_mark().expect("it runs");
        let plan = FloodPlan {
            packets: u64::from(FLOWS_A_STEP),
            flows: FLOWS_A_STEP,
            first_flow: step * FLOWS_A_STEP,
            ..FloodPlan::default()
        };
        udp_flood(&left.namespace, &left.name, &plan).expect("a flood");
        agent
            .wait_for_log(mark, "reached drain-renewed")
            .expect("an early drain");
    }
    agent.signal(Signal::SIGTERM).expect("it runs");
    // What it tells last is the most that it has had until shortly before its end.
    let mut peak = 0;
    while let Ok(kib) = agent.peak_memory_kib() {
        peak = kib;
        thread::sleep(Duration::from_millis(2));
    }
    let outcome = agent.wait().expect("its end");
    assert!(outcome.status.success(), "{}", outcome.stderr);
    let text = std::fs::read_to_string(&path).expect("the file");
    let flows = text.lines().filter(|line| *line == "1 OK").count();
    assert_eq!(
        flows,
        (STEPS * FLOWS_A_STEP) as usize,
        "of {}",
        text.lines().count()
    );
    println!("{peak} KiB were resident");
    assert!(
        (1..MAX_PEAK_KIB).contains(&peak),
        "{peak} KiB were resident"
    );
}
