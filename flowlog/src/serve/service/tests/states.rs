//! The states of flow logs follow the agents.
use super::super::{flow_logs, transitions};
use super::*;

#[test]
fn a_flow_log_that_concerns_nobody_arrives_at_once() {
    let rig = Rig::new();
    let created = rig.create(&of_nobody());
    assert_eq!(created.status, "Active");
    let id = created.id.as_str();
    assert!(id.starts_with("fl-") && id.len() == 24, "{id}");
    let inactive = rig.ok(|state, cx| flow_logs::deactivate(state, cx, None, id));
    assert_eq!(inactive.status, "Inactive");
    let active = rig.ok(|state, cx| flow_logs::activate(state, cx, None, id));
    assert_eq!(active.status, "Active");
    let deleted = rig.ok(|state, cx| flow_logs::delete(state, cx, None, id));
    assert_eq!(
        (deleted.status.as_str(), rig.status(id).as_str()),
        ("Deleting", "Gone")
    );
}

#[test]
fn every_change_waits_for_every_agent_concerned() {
    let mut rig = Rig::new();
    let (one, two, other) = (rig.agent("1"), rig.agent("1"), rig.agent("1"));
    let (on_one, on_two) = (host("h1", &[eni(1)]), host("h2", &[eni(2)]));
    rig.report(&one, &on_one).unwrap();
    rig.report(&two, &on_two).unwrap();
    let elsewhere = EniReport {
        vpc_id: "vpc-2".into(),
        ..eni(3)
    };
    rig.report(&other, &host("h3", &[elsewhere])).unwrap();
    let untouched = rig.desired(&other);
    rig.now = 1000;
    let id = rig.create(&of_vpc()).id;
    type Change = fn(&Transaction<'_>, &Context, &str) -> Result<api::FlowLog, ApiError>;
    let steps: [(Change, &str, &str); 5] = [
        (
            |state, cx, id| flow_logs::get(state, cx, None, id),
            "Activating",
            "Active",
        ),
        (
            |state, cx, id| {
                let asked = api::ModifyFlowLog {
                    aggregation_interval: Some(1),
                    ..Default::default()
                };
                flow_logs::modify(state, cx, None, id, &asked)
            },
            "Modifying",
            "Active",
        ),
        (
            |state, cx, id| flow_logs::deactivate(state, cx, None, id),
            "Deactivating",
            "Inactive",
        ),
        (
            |state, cx, id| flow_logs::activate(state, cx, None, id),
            "Activating",
            "Active",
        ),
        (
            |state, cx, id| flow_logs::delete(state, cx, None, id),
            "Deleting",
            "Gone",
        ),
    ];
    for (change, meanwhile, after) in steps {
        rig.now += 1000;
        rig.ok(|state, cx| change(state, cx, &id));
        assert_eq!(rig.status(&id), meanwhile);
        // Nobody else may change it meanwhile.
        for change in steps.iter().skip(1).map(|(change, ..)| change) {
            let code = rig.refused(|state, cx| change(state, cx, &id));
            assert_eq!(code, Code::IncorrectStatus);
        }
        let desired = rig.desired(&one);
        let listed = desired.flow_logs.iter().any(|log| log.flow_log_id == id);
        assert_eq!(listed, after != "Gone");
        rig.apply(&one, &on_one);
        assert_eq!(rig.status(&id), meanwhile, "one agent is not all");
        // A report without news changes nothing.
        rig.report(&two, &on_two).unwrap();
        assert_eq!(rig.status(&id), meanwhile);
        rig.apply(&two, &on_two);
        assert_eq!(rig.status(&id), after);
    }
    assert_eq!(
        rig.desired(&other),
        untouched,
        "it was nothing to this agent"
    );
}

#[test]
fn what_agents_need_not_know_changes_at_once() {
    let mut rig = Rig::new();
    let one = rig.agent("1");
    let on_one = host("h1", &[eni(1)]);
    rig.report(&one, &on_one).unwrap();
    let id = rig.create(&of_vpc()).id;
    rig.apply(&one, &on_one);
    let before = rig.desired(&one).version;
    rig.now = 1;
    let asked = api::ModifyFlowLog {
        name: Some("流量".into()),
        ..Default::default()
    };
    let modified = rig.ok(|state, cx| flow_logs::modify(state, cx, None, &id, &asked));
    assert_eq!(
        (modified.status.as_str(), modified.name.as_str()),
        ("Active", "流量")
    );
    // But they are told.
    let after = rig.desired(&one);
    assert!(after.version > before);
    assert_eq!(after.flow_logs.first().unwrap().name, "流量");
}

#[test]
fn an_agent_that_is_away_is_not_waited_for() {
    let mut rig = Rig::new();
    let one = rig.agent("1");
    rig.report(&one, &host("h1", &[eni(1)])).unwrap();
    rig.now = 30_000;
    let id = rig.create(&of_vpc()).id;
    for (now, status) in [(60_000, "Activating"), (60_001, "Active")] {
        rig.now = now;
        rig.ok(transitions::settle);
        assert_eq!(rig.status(&id), status, "{now} ms after the report");
    }
}

#[test]
fn an_agent_has_time_to_come_back_after_the_service_started() {
    let mut rig = Rig::new();
    let one = rig.agent("1");
    rig.report(&one, &host("h1", &[eni(1)])).unwrap();
    // A day passes between this start and the next.
    rig.now = 86_400_000;
    rig.restart();
    let id = rig.create(&of_vpc()).id;
    for (now, status) in [(60_000, "Activating"), (60_001, "Active")] {
        rig.now = now;
        rig.ok(transitions::settle);
        assert_eq!(rig.status(&id), status, "{now} ms after the start");
    }
}

#[test]
fn a_wall_clock_that_is_set_makes_no_agent_go_away_or_stay() {
    for ahead in [86_400_000, -86_400_000] {
        let mut rig = Rig::new();
        let one = rig.agent("1");
        rig.report(&one, &host("h1", &[eni(1)])).unwrap();
        let id = rig.create(&of_vpc()).id;
        rig.ahead = ahead;
        for (now, status) in [(60_000, "Activating"), (60_001, "Active")] {
            rig.now = now;
            rig.ok(transitions::settle);
            assert_eq!(rig.status(&id), status, "{ahead} ms ahead, after {now} ms");
        }
    }
}

#[test]
fn versions_grow_whatever_the_clock_does() {
    let rig = Rig::new();
    let next = |now| rig.ok(|state, _| transitions::next_version(state, Moment(now)));
    let versions = [next(5), next(5), next(3), next(100), next(50)];
    assert_eq!(versions, [5, 6, 7, 100, 101]);
}

#[test]
fn an_agent_cannot_have_applied_what_there_is_not() {
    let mut rig = Rig::new();
    let one = rig.agent("1");
    let ahead = Report {
        applied_version: u64::MAX,
        ..host("h1", &[eni(1)])
    };
    rig.report(&one, &ahead).unwrap();
    rig.now = 1000;
    let id = rig.create(&of_vpc()).id;
    assert_eq!(rig.status(&id), "Activating");
    // Nor does it count later.
    rig.apply(&one, &host("h1", &[eni(1)]));
    assert_eq!(rig.status(&id), "Active");
}
