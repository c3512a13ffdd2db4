//! Another inventory or configuration while the agent runs.
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use flowlog_tests::{
    agent::{
        AgentPlan, AttachMode, DestinationPlan, Direction, EniPlan, FlowLogPlan, LogStatus,
        MatchPlan, PATIENCE, Record, Resource, Volume, conserved, records_of, volumes,
    },
    lab::skip_unless_root,
};
use nix::sys::signal::Signal;

use crate::wire::{Wire, long_window, of, start, statuses, stop};

#[test]
fn entries_that_are_added_and_removed_take_effect_at_once() {
    if skip_unless_root("entries_that_are_added_and_removed_take_effect_at_once") {
        return;
    }
    let wire = Wire::new();
    let [left, right] = wire.enis();
    let mut agent = start(&long_window([left.clone()]), &["eni-left"]);
    let only_left = wire.flood(100, 10);
    agent
        .replace_inventory([left, right.clone()])
        .expect("written");
    agent.wait_until_captured(&["eni-right"]).expect("captured");
    let both = wire.flood(200, 10);
    agent.replace_inventory([right]).expect("written");
    agent.wait_until_released(&["eni-left"]).expect("released");
    let only_right = wire.flood(400, 10);
    let records = stop(&mut agent).records;
    let sum = |mut a: Volume, b: Volume| {
        a += b;
        a
    };
    conserved(
        &records,
        &[
            ("eni-left", Direction::Out, sum(only_left, both)),
            ("eni-right", Direction::In, sum(both, only_right)),
        ],
    );
}

#[test]
fn a_device_whose_identity_changes_is_counted_under_each_in_its_time() {
    if skip_unless_root("a_device_whose_identity_changes_is_counted_under_each_in_its_time") {
        return;
    }
    let wire = Wire::new();
    let [_, right] = wire.enis();
    let mut agent = start(&long_window([right.clone()]), &["eni-right"]);
    let first = wire.flood(100, 10);
    // Another instance, the same ENI.
    let moved = EniPlan {
        vm_id: Some("i-2".to_owned()),
        vswitch_id: "vsw-2".to_owned(),
        ..right.clone()
    };
    let mark = agent.log_mark().expect("it runs");
    agent.replace_inventory([moved.clone()]).expect("written");
    agent
        .wait_for_log(mark, " captured: ingress by ")
        .expect("captured anew");
    let second = wire.flood(200, 10);
    // Another ENI on the same device.
    let other = EniPlan {
        eni_id: "eni-other".to_owned(),
        ..moved
    };
    agent.replace_inventory([other]).expect("written");
    agent.wait_until_captured(&["eni-other"]).expect("captured");
    let third = wire.flood(400, 10);
    let records = stop(&mut agent).records;
    let of_vm = |vm: Option<&str>, vswitch: &str, eni: &str| {
        let wanted = |record: &Record| {
            record.vm_id.as_deref() == vm && record.vswitch_id == vswitch && record.eni_id == eni
        };
        volumes(&records, wanted).into_values().collect::<Vec<_>>()
    };
    assert_eq!(of_vm(None, "vsw-test", "eni-right"), [first]);
    assert_eq!(of_vm(Some("i-2"), "vsw-2", "eni-right"), [second]);
    assert_eq!(of_vm(Some("i-2"), "vsw-2", "eni-other"), [third]);
    assert_eq!(records.len(), 30);
}

/// The line of `text` in which `part` is, from 1.
fn line_of(text: &str, part: &str) -> usize {
    let found = text.lines().position(|line| line.contains(part));
    found.expect("the part") + 1
}

/// Asserts that a line of the log has one sentence that names file, line, key and what is allowed.
fn assert_names(line: &str, file: &Path, number: usize, key: &str, allowed: &str) {
    let place = format!("{}:{number}: `{key}`", file.display());
    assert!(line.contains(&place), "{place:?} is not in {line:?}");
    assert!(line.contains(allowed), "{allowed:?} is not in {line:?}");
}

#[test]
fn a_bad_inventory_is_refused_whole_and_the_old_one_stays() {
    if skip_unless_root("a_bad_inventory_is_refused_whole_and_the_old_one_stays") {
        return;
    }
    let wire = Wire::new();
    let [left, right] = wire.enis();
    let mut agent = start(&long_window([left.clone()]), &["eni-left"]);
    let mark = agent.log_mark().expect("it runs");
    // Its first entry is right, and would be captured.
    let bad = format!("{right}{}", left.to_string().replace("guest", "gust"));
    agent.write_inventory(&bad).expect("written");
    let line = agent
        .wait_for_log(mark, "the inventory stays as it was")
        .expect("refused");
    let path = agent.inventory_path();
    assert_names(
        &line,
        &path,
        line_of(&bad, "gust\""),
        "side",
        "allowed are guest and host",
    );
    let sent = wire.flood(100, 10);
    // A good one is taken again after that, by signal too.
    let mark = agent.log_mark().expect("it runs");
    agent.replace_inventory([left, right]).expect("written");
    agent.signal(Signal::SIGHUP).expect("signalled");
    agent.wait_until_captured(&["eni-right"]).expect("captured");
    agent
        .wait_for_log(mark, "following 1 flow logs")
        .expect("SIGHUP");
    let again = wire.flood(200, 10);
    let mut left = sent;
    left += again;
    conserved(
        &stop(&mut agent).records,
        &[
            ("eni-left", Direction::Out, left),
            ("eni-right", Direction::In, again),
        ],
    );
}

#[test]
fn a_device_that_fits_two_entries_is_captured_as_neither_and_the_others_go_on() {
    if skip_unless_root(
        "a_device_that_fits_two_entries_is_captured_as_neither_and_the_others_go_on",
    ) {
        return;
    }
    let wire = Wire::new();
    let [left, right] = wire.enis();
    let mut agent = start(
        &long_window([left.clone(), right.clone()]),
        &["eni-left", "eni-right"],
    );
    let before = wire.flood(100, 10);
    let mark = agent.log_mark().expect("it runs");
    let twin = EniPlan::device("eni-twin", &wire.right, "right?");
    agent
        .replace_inventory([left, right, twin])
        .expect("written");
    let line = agent
        .wait_for_log(mark, "not captured: ")
        .expect("ambiguous");
    assert!(line.contains("each of eni-right, eni-twin"), "{line}");
    assert!(line.contains("device=\"right0\""), "{line}");
    let mut left = before;
    left += wire.flood(200, 10);
    conserved(
        &stop(&mut agent).records,
        &[
            ("eni-left", Direction::Out, left),
            ("eni-right", Direction::In, before),
        ],
    );
}

#[test]
fn flow_logs_follow_the_configuration_at_sighup_and_a_bad_one_is_refused_whole() {
    if skip_unless_root(
        "flow_logs_follow_the_configuration_at_sighup_and_a_bad_one_is_refused_whole",
    ) {
        return;
    }
    let wire = Wire::new();
    let of_eni = |name: &str, eni: &str| FlowLogPlan {
        name: name.to_owned(),
        ..FlowLogPlan::of(Resource::Eni(eni.to_owned()))
    };
    let mut plan = AgentPlan {
        flow_logs: vec![of_eni("left", "eni-left")],
        ..AgentPlan::capturing(wire.enis())
    };
    let mut agent = start(&plan, &["eni-left", "eni-right"]);
    let said = |eni: &'static str| {
        move |records: &[Record]| statuses(records, eni).contains(&LogStatus::NoData)
    };
    agent
        .wait_for_records(PATIENCE, said("eni-left"))
        .expect("a window");

    let mark = agent.log_mark().expect("it runs");
    let bad = agent
        .config_of(&plan)
        .replace("traffic-type = \"All\"", "traffic-type = \"Some\"");
    agent.write_config(&bad).expect("written");
    agent.signal(Signal::SIGHUP).expect("signalled");
    let line = agent
        .wait_for_log(mark, "the configuration stays as it was")
        .expect("refused");
    assert_names(
        &line,
        &agent.config_path(),
        line_of(&bad, "\"Some\""),
        "traffic-type",
        "allowed are All, Allow and Drop",
    );

    plan.flow_logs = vec![of_eni("right", "eni-right")];
    agent
        .write_config(&agent.config_of(&plan))
        .expect("written");
    agent.signal(Signal::SIGHUP).expect("signalled");
    agent
        .wait_for_log(mark, "following 1 flow logs")
        .expect("taken over");
    let sent = wire.flood(100, 10);
    agent
        .wait_for_packets("eni-right", Direction::In, 100)
        .expect("records of the new flow log");
    let records = stop(&mut agent).records;
    let all = volumes(&records, |_| true);
    assert_eq!(
        all.into_iter().collect::<Vec<_>>(),
        [(("eni-right", Direction::In), sent)]
    );
    assert!(of(&records, "eni-left").count() > 0);
}

#[test]
fn a_namespace_that_the_agent_may_not_enter_is_reported_and_the_others_go_on() {
    if skip_unless_root("a_namespace_that_the_agent_may_not_enter_is_reported_and_the_others_go_on")
    {
        return;
    }
    let wire = Wire::new();
    // The agent is in `left` itself. Without an ENI in another namespace it gives up what entering one takes.
    let here = EniPlan::new(
        "eni-here",
        MatchPlan {
            name: Some("left0".to_owned()),
            ..MatchPlan::default()
        },
    );
    let plan = AgentPlan {
        namespace: Some(wire.left.clone()),
        ..long_window([here.clone()])
    };
    let mut agent = start(&plan, &["eni-here"]);
    let mut sent = wire.flood(100, 10);
    let mark = agent.log_mark().expect("it runs");
    let [_, right] = wire.enis();
    agent.replace_inventory([here, right]).expect("written");
    let line = agent
        .wait_for_log(mark, "cannot be watched: ")
        .expect("a report");
    let name = wire.right.name().expect("a name");
    assert!(line.contains(name), "{line}");
    assert!(line.contains("restart"), "what to do is not said: {line}");
    sent += wire.flood(200, 10);
    let records = stop(&mut agent).records;
    conserved(&records, &[("eni-here", Direction::Out, sent)]);
}

#[test]
fn a_change_of_identity_under_traffic_loses_no_packet_and_counts_none_twice() {
    if skip_unless_root("a_change_of_identity_under_traffic_loses_no_packet_and_counts_none_twice")
    {
        return;
    }
    for attach in [AttachMode::Tcx, AttachMode::Clsact] {
        let wire = Wire::new();
        let [_, right] = wire.enis();
        let plan = AgentPlan {
            attach,
            ..long_window([right.clone()])
        };
        let mut agent = start(&plan, &["eni-right"]);
        let flooding = AtomicBool::new(true);
        let (mut beside, mut sent) = (Volume::default(), Volume::default());
        thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let mut sent = wire.flood(1000, 10);
                while flooding.load(Ordering::Relaxed) {
                    sent += wire.flood(1000, 10);
                }
                sent
            });
            for vm in ["i-1", "i-2", "i-3"] {
                let mark = agent.log_mark().expect("it runs");
                let moved = EniPlan {
                    vm_id: Some(vm.to_owned()),
                    ..right.clone()
                };
                agent.replace_inventory([moved]).expect("written");
                agent
                    .wait_for_log(mark, " captured: ingress by ")
                    .expect("captured anew");
                // So that there is something under this identity, however the other flood goes.
                beside += wire.flood(10, 10);
            }
            flooding.store(false, Ordering::Relaxed);
            sent = flood.join().expect("the flood");
        });
        sent += beside;
        let records = stop(&mut agent).records;
        conserved(&records, &[("eni-right", Direction::In, sent)]);
        for vm in [None, Some("i-1"), Some("i-2"), Some("i-3")] {
            assert!(
                records
                    .iter()
                    .any(|record| record.vm_id.as_deref() == vm && record.packets.is_some()),
                "nothing under {vm:?}"
            );
        }
    }
}

#[test]
fn a_flow_log_has_what_was_captured_in_its_time_and_nothing_else() {
    if skip_unless_root("a_flow_log_has_what_was_captured_in_its_time_and_nothing_else") {
        return;
    }
    let wire = Wire::new();
    let of_eni = |eni: &str| FlowLogPlan {
        name: eni.to_owned(),
        ..FlowLogPlan::of(Resource::Eni(eni.to_owned()))
    };
    let mut plan = AgentPlan {
        flow_logs: vec![of_eni("eni-left")],
        ..long_window(wire.enis())
    };
    let mut agent = start(&plan, &["eni-left", "eni-right"]);
    let first = wire.flood(100, 10);
    let mark = agent.log_mark().expect("it runs");
    plan.flow_logs = vec![of_eni("eni-right")];
    agent
        .write_config(&agent.config_of(&plan))
        .expect("written");
    agent.signal(Signal::SIGHUP).expect("signalled");
    agent
        .wait_for_log(mark, "following 1 flow logs")
        .expect("taken over");
    let second = wire.flood(200, 10);
    let records = stop(&mut agent).records;
    conserved(
        &records,
        &[
            ("eni-left", Direction::Out, first),
            ("eni-right", Direction::In, second),
        ],
    );
    let end = of(&records, "eni-left").map(|record| record.end).max();
    let start = of(&records, "eni-right").map(|record| record.start).min();
    assert!(end <= start, "windows overlap: {end:?}, {start:?}");
}

#[test]
fn a_flow_log_that_is_removed_while_its_destination_is_dead_gets_what_it_is_to_have() {
    if skip_unless_root(
        "a_flow_log_that_is_removed_while_its_destination_is_dead_gets_what_it_is_to_have",
    ) {
        return;
    }
    let wire = Wire::new();
    let folder = tempfile::tempdir().expect("a folder");
    let in_the_way = folder.path().join("folder");
    std::fs::write(&in_the_way, "").expect("a file where a folder should be");
    let file = in_the_way.join("left.log");
    let of_eni = |eni: &str| FlowLogPlan {
        name: eni.to_owned(),
        ..FlowLogPlan::of(Resource::Eni(eni.to_owned()))
    };
    let dead = FlowLogPlan {
        destination: DestinationPlan::File {
            path: file.clone(),
            max_size: 1 << 20,
            max_files: 2,
        },
        extra: "format = \"json\"".to_owned(),
        ..of_eni("eni-left")
    };
    let mut plan = AgentPlan {
        flow_logs: vec![dead, of_eni("eni-right")],
        ..long_window(wire.enis())
    };
    plan.output = None;
    plan.flow_logs[1].extra = "format = \"json\"".to_owned();
    let mut agent = start(&plan, &["eni-left", "eni-right"]);
    let first = wire.flood(100, 10);
    let mark = agent.log_mark().expect("it runs");
    plan.flow_logs.remove(0);
    agent
        .write_config(&agent.config_of(&plan))
        .expect("written");
    agent.signal(Signal::SIGHUP).expect("signalled");
    agent
        .wait_for_log(mark, "following 1 flow logs")
        .expect("taken over");
    agent
        .wait_for_log(mark, "its records cannot be delivered")
        .expect("its destination is dead");
    let second = wire.flood(200, 10);
    std::fs::remove_file(&in_the_way).expect("out of the way");
    agent
        .wait_for_log(mark, "its records are delivered again")
        .expect("delivered");
    let records = stop(&mut agent).records;
    let mut both = first;
    both += second;
    conserved(&records, &[("eni-right", Direction::In, both)]);
    conserved(
        &records_of(&file).expect("whole records"),
        &[("eni-left", Direction::Out, first)],
    );
}
