//! ENIs that come, go, change and move while the agent runs.
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use flowlog_tests::{
    agent::{
        AgentPlan, AgentProcess, AttachMode, Direction, EniPlan, LogStatus, MatchPlan, PATIENCE,
        Record, Volume, conserved,
    },
    lab::{Family, skip, skip_unless_root},
};

use crate::{
    AGENT,
    wire::{Wire, flood, long_window, mac, of, start, statuses, stop, unix_now},
};

#[test]
fn an_eni_plugged_in_mid_window_falls_under_its_vpcs_flow_log_at_once() {
    if skip_unless_root("an_eni_plugged_in_mid_window_falls_under_its_vpcs_flow_log_at_once") {
        return;
    }
    let wire = Wire::new();
    let late = EniPlan::device("eni-late", &wire.right, "late*");
    let [left, _] = wire.enis();
    let mut agent = start(&long_window([left, late]), &["eni-left"]);
    let _pair = wire.another("plug0", "late0", 1);
    agent.wait_until_captured(&["eni-late"]).expect("captured");
    let sent = flood(&wire.left, "plug0", 500, 50, Family::V4);
    let records = stop(&mut agent).records;
    conserved(&records, &[("eni-late", Direction::In, sent)]);
    assert_eq!(statuses(&records, "eni-late"), [LogStatus::Ok; 50]);
    assert!(statuses(&records, "eni-left").contains(&LogStatus::NoData));
}

#[test]
fn an_eni_is_known_by_its_mac_or_by_an_alias_that_it_gets_and_loses() {
    if skip_unless_root("an_eni_is_known_by_its_mac_or_by_an_alias_that_it_gets_and_loses") {
        return;
    }
    let wire = Wire::new();
    let matched = |matches| MatchPlan {
        namespace: wire.right.name().map(str::to_owned),
        ..matches
    };
    let by_mac = matched(MatchPlan {
        mac: Some(mac(2, 1)),
        ..MatchPlan::default()
    });
    let by_alias = matched(MatchPlan {
        alias: Some("web-*".to_owned()),
        ..MatchPlan::default()
    });
    let plan = long_window([
        EniPlan::new("eni-mac", by_mac),
        EniPlan::new("eni-alias", by_alias),
    ]);
    let _by_mac = wire.another("mac-l", "mac-r", 1);
    let _by_alias = wire.another("alias-l", "alias-r", 2);
    let mut agent = start(&plan, &["eni-mac"]);
    let alias = |alias: &str| {
        wire.right
            .ip(&["link", "set", "dev", "alias-r", "alias", alias])
            .expect("an alias");
    };
    flood(&wire.left, "alias-l", 7, 1, Family::V4);
    alias("web-7");
    agent.wait_until_captured(&["eni-alias"]).expect("captured");
    let by_mac = flood(&wire.left, "mac-l", 100, 10, Family::V4);
    let by_alias = flood(&wire.left, "alias-l", 200, 10, Family::V4);
    alias("other");
    agent.wait_until_released(&["eni-alias"]).expect("released");
    flood(&wire.left, "alias-l", 9, 1, Family::V4);
    conserved(
        &stop(&mut agent).records,
        &[
            ("eni-mac", Direction::In, by_mac),
            ("eni-alias", Direction::In, by_alias),
        ],
    );
}

#[test]
fn an_eni_removed_mid_window_has_its_counts_reported_exactly() {
    if skip_unless_root("an_eni_removed_mid_window_has_its_counts_reported_exactly") {
        return;
    }
    for attach in [AttachMode::Tcx, AttachMode::Clsact] {
        let wire = Wire::new();
        let removed = wire.another("gone-l", "gone-r", 1);
        let [left, right] = wire.enis();
        let plan = AgentPlan {
            attach,
            ..long_window([
                left,
                right,
                EniPlan::end("eni-gone-l", removed.left()),
                EniPlan::end("eni-gone-r", removed.right()),
            ])
        };
        let enis = ["eni-left", "eni-right", "eni-gone-l", "eni-gone-r"];
        let mut agent = start(&plan, &enis);
        let gone = flood(&wire.left, "gone-l", 1000, 100, Family::V4);
        drop(removed);
        agent
            .wait_until_released(&["eni-gone-l", "eni-gone-r"])
            .expect("released");
        let stays = wire.flood(300, 30);
        let records = stop(&mut agent).records;
        conserved(
            &records,
            &[
                ("eni-left", Direction::Out, stays),
                ("eni-right", Direction::In, stays),
                ("eni-gone-l", Direction::Out, gone),
                ("eni-gone-r", Direction::In, gone),
            ],
        );
    }
}

#[test]
fn a_removed_eni_is_not_told_of_in_later_windows() {
    if skip_unless_root("a_removed_eni_is_not_told_of_in_later_windows") {
        return;
    }
    let wire = Wire::new();
    let removed = wire.another("gone-l", "gone-r", 1);
    let [left, _] = wire.enis();
    let plan = AgentPlan::capturing([left, EniPlan::end("eni-gone", removed.right())]);
    let mut agent = start(&plan, &["eni-left", "eni-gone"]);
    drop(removed);
    agent.wait_until_released(&["eni-gone"]).expect("released");
    let released_at = unix_now();
    agent
        .wait_for_records(PATIENCE, |records| {
            of(records, "eni-left").any(|record| record.start >= released_at + 3)
        })
        .expect("later windows");
    let records = stop(&mut agent).records;
    let late: Vec<&Record> = of(&records, "eni-gone")
        .filter(|record| record.start > released_at)
        .collect();
    assert!(late.is_empty(), "released at {released_at}: {late:#?}");
}

#[test]
fn a_renamed_device_is_captured_for_as_long_as_its_name_matches() {
    const NAME: &str = "a_renamed_device_is_captured_for_as_long_as_its_name_matches";
    if skip_unless_root(NAME) {
        return;
    }
    let wire = Wire::new();
    let _pair = wire.another("plug0", "eth0", 1);
    let eni = EniPlan::device("eni-eth", &wire.right, "eth*");
    let mut agent = start(&long_window([eni]), &["eni-eth"]);
    let mut captured = Volume::default();
    let send = |packets| flood(&wire.left, "plug0", packets, 10, Family::V4);
    let rename = |from: &str, to: &str| wire.right.ip(&["link", "set", "dev", from, "name", to]);
    captured += send(100);
    let mark = agent.log_mark().expect("it runs");
    if let Err(error) = rename("eth0", "eth7") {
        skip(
            NAME,
            &format!("a device that is up can be renamed from Linux 6.2 on: {error}"),
        );
        return;
    }
    captured += send(200);
    rename("eth7", "other0").expect("renamed");
    let line = agent
        .wait_for_log(mark, "no longer captured")
        .expect("released");
    // Had the first rename ended the capture, it would have been under the old name.
    assert!(line.contains("device=\"eth7\""), "{line}");
    send(400);
    rename("other0", "eth1").expect("renamed");
    agent.wait_until_captured(&["eni-eth"]).expect("captured");
    captured += send(800);
    let records = stop(&mut agent).records;
    conserved(&records, &[("eni-eth", Direction::In, captured)]);
    assert_eq!(records.len(), 10, "the same ENI has the same flows");
}

#[test]
fn an_eni_that_moves_to_another_device_goes_on_there() {
    if skip_unless_root("an_eni_that_moves_to_another_device_goes_on_there") {
        return;
    }
    let wire = Wire::new();
    let first = wire.another("plug0", "eth0", 1);
    let eni = EniPlan::device("eni-eth", &wire.right, "eth*");
    let mut agent = start(&long_window([eni]), &["eni-eth"]);
    let mut sent = flood(&wire.left, "plug0", 100, 10, Family::V4);
    let mark = agent.log_mark().expect("it runs");
    let _second = wire.another("plug1", "eth1", 2);
    let line = agent
        .wait_for_log(mark, "not captured: ")
        .expect("one device at a time");
    assert!(
        line.contains("captured on another device already"),
        "{line}"
    );
    drop(first);
    let line = agent.wait_for_log(mark, " captured: ingress by ");
    assert!(line.expect("captured").contains("device=\"eth1\""));
    sent += flood(&wire.left, "plug1", 200, 10, Family::V4);
    conserved(
        &stop(&mut agent).records,
        &[("eni-eth", Direction::In, sent)],
    );
}

#[test]
fn many_enis_that_come_and_go_do_not_disturb_the_others() {
    if skip_unless_root("many_enis_that_come_and_go_do_not_disturb_the_others") {
        return;
    }
    let wire = Wire::new();
    let come: Vec<EniPlan> = (0..6)
        .map(|number| EniPlan::device(&format!("eni-{number}"), &wire.right, &format!("r{number}")))
        .collect();
    let mut agent = start(
        &AgentPlan::capturing(wire.enis().into_iter().chain(come)),
        &["eni-left", "eni-right"],
    );
    let mut expected = Vec::new();
    for number in 0..6_u8 {
        let name = format!("eni-{number}");
        let (left, right) = (format!("l{number}"), format!("r{number}"));
        let pair = wire.another(&left, &right, number);
        agent.wait_until_captured(&[&name]).expect("captured");
        let packets = 100 + u64::from(number);
        let sent = flood(&wire.left, &left, packets, 10, Family::V4);
        let stays = wire.flood(packets, 10);
        drop(pair);
        agent.wait_until_released(&[&name]).expect("released");
        expected.push((name, sent, stays));
    }
    agent
        .wait_for_records(PATIENCE, |records| {
            of(records, "eni-5").any(|record| record.packets.is_some())
        })
        .expect("the last one's records");
    let records = stop(&mut agent).records;
    let mut stays = Volume::default();
    let mut all = Vec::new();
    for (name, sent, beside) in &expected {
        all.push((name.as_str(), Direction::In, *sent));
        stays += *beside;
    }
    all.push(("eni-left", Direction::Out, stays));
    all.push(("eni-right", Direction::In, stays));
    conserved(&records, &all);
}

#[test]
fn enis_are_not_limited_by_the_usual_limit_of_open_files() {
    if skip_unless_root("enis_are_not_limited_by_the_usual_limit_of_open_files") {
        return;
    }
    let wire = Wire::new();
    let folder = tempfile::tempdir().expect("a folder");
    // A limit that two ENIs exceed, as 80 would that of 1,024.
    let limited = folder.path().join("limited");
    fs::write(
        &limited,
        format!("#!/bin/sh\nulimit -Sn 32\nexec {AGENT} \"$@\"\n"),
    )
    .expect("written");
    fs::set_permissions(&limited, Permissions::from_mode(0o755)).expect("executable");
    let plan = long_window(wire.enis());
    let mut agent = AgentProcess::start(&limited, &plan).expect("an agent");
    agent
        .wait_until_captured(&["eni-left", "eni-right"])
        .expect("captured");
    let sent = wire.flood(100, 10);
    conserved(
        &stop(&mut agent).records,
        &[
            ("eni-left", Direction::Out, sent),
            ("eni-right", Direction::In, sent),
        ],
    );
}
