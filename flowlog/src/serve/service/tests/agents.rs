//! Agents see and change what is theirs alone.
use super::super::{access_keys, audit, flow_logs, resources};
use super::*;

fn reasons(answer: &ReportAnswer) -> Vec<&str> {
    answer
        .refused_enis
        .iter()
        .map(|refused| refused.reason.as_str())
        .collect()
}

#[test]
fn a_key_is_bound_to_its_host_and_a_host_to_its_key() {
    let rig = Rig::new();
    let (one, two) = (rig.agent("1"), rig.agent("1"));
    rig.report(&one, &host("h1", &[])).unwrap();
    rig.report(&one, &host("h1", &[])).unwrap();
    let error = rig.report(&one, &host("h2", &[])).unwrap_err();
    assert_eq!(error.kind(), Code::ForbiddenHost);
    let error = rig.report(&two, &host("h1", &[])).unwrap_err();
    assert_eq!(error.kind(), Code::ForbiddenHost);
    // Once the old key is deleted, a new one may have the host.
    rig.ok(|state, cx| {
        // There must be an administrator, whom the deletion may not be about.
        let asked = api::CreateAccessKey {
            role: "administrator".into(),
            ..Default::default()
        };
        access_keys::create(state, cx, &rig.seal, &asked)?;
        access_keys::delete(state, cx, &one.caller.key_id)
    });
    rig.report(&two, &host("h1", &[])).unwrap();
    let error = rig.run(&one, agent::desired_state).unwrap_err();
    assert_eq!(error.kind(), Code::AgentNotReported);
    let error = rig.run(&one, agent::version).unwrap_err();
    assert_eq!(error.kind(), Code::AccessKeyNotFound);
}

/// Thousands of agents say so all the time: it must not cost a sync of the disk each.
#[test]
fn what_is_no_news_is_not_written_to_the_disk() {
    let mut rig = Rig::new();
    let one = rig.agent("1");
    let report = host("h1", &[eni(1), eni(2)]);
    rig.report(&one, &report).unwrap();
    rig.apply(&one, &report);
    let log = rig.folder.path().join("flowlog.sqlite-wal");
    let state = || std::fs::read(&log).unwrap();
    let before = state();
    let applied = Report {
        applied_version: rig.desired(&one).version,
        ..report
    };
    for now in 1..100 {
        rig.now = now * 1000;
        rig.report(&one, &applied).unwrap();
        let cx = rig.cx("1", Role::Agent, &one.caller.key_id);
        rig.run(&cx, agent::touch).unwrap();
    }
    assert!(state() == before, "the write-ahead log has grown");
    let seen = |rig: &Rig| rig.ok(resources::agents).agents[0].last_seen.clone();
    let last = Moment(STARTED + rig.now).rfc3339();
    assert_eq!(seen(&rig), last, "but it is known");
    // Now and then it is, so that it is known about after a restart too.
    rig.now = 400_000;
    rig.report(&one, &applied).unwrap();
    assert!(state() != before);
    rig.restart();
    assert_eq!(seen(&rig), Moment(STARTED + 400_000).rfc3339());
}

#[test]
fn what_agents_change_is_in_the_audit_trail() {
    let mut rig = Rig::new();
    let (one, two) = (rig.agent("1"), rig.agent("1"));
    rig.report(&one, &host("h1", &[eni(1), eni(2)])).unwrap();
    rig.report(&one, &host("h1", &[eni(1), eni(2)])).unwrap();
    let moved = EniReport {
        vswitch_id: "vsw-2".into(),
        ..eni(1)
    };
    let not_captured = EniReport {
        captured: false,
        ..moved.clone()
    };
    rig.report(&one, &host("h1", &[moved, eni(3)])).unwrap();
    // Whether an ENI is captured is its state, and no change of anybody's.
    rig.report(&one, &host("h1", &[not_captured, eni(3)]))
        .unwrap();
    rig.now = 60_001;
    let many: Vec<EniReport> = (3..30).map(eni).collect();
    rig.report(&two, &host("h2", &many)).unwrap();
    let trail = |resource_id: &str| -> Vec<(String, String)> {
        let filter = api::AuditFilter {
            resource_id: Some(resource_id.into()),
            ..Default::default()
        };
        let entries = rig.ok(|state, cx| audit::list(state, cx, &filter)).entries;
        entries
            .into_iter()
            .rev()
            .map(|entry| (entry.access_key_id, entry.detail))
            .collect()
    };
    let key = &one.caller.key_id;
    let by = |key: &str, detail: &str| (key.to_owned(), detail.to_owned());
    assert_eq!(trail(key)[1], by(key, r#"{"host_id":"h1"}"#));
    assert_eq!(
        trail("h1"),
        [
            by(key, r#"{"added":["eni-1","eni-2"]}"#),
            by(
                key,
                r#"{"added":["eni-3"],"moved":["eni-1"],"removed":["eni-2"]}"#
            ),
        ]
    );
    let [(who, detail)] = &trail("h2")[..] else {
        panic!("one report, one entry");
    };
    assert_eq!(*who, two.caller.key_id);
    assert!(detail.contains(r#""taken":["eni-3 of h1"]"#), "{detail}");
    assert!(detail.contains(r#""added_and_more":7"#), "{detail}");
}

#[test]
fn an_eni_belongs_to_the_agent_that_reported_it_first_until_that_is_away() {
    let mut rig = Rig::new();
    let (one, two) = (rig.agent("1"), rig.agent("1"));
    rig.report(&one, &host("h1", &[eni(1), eni(2)])).unwrap();
    let answer = rig.report(&two, &host("h2", &[eni(2), eni(3)])).unwrap();
    assert_eq!(reasons(&answer), ["the agent on h1 has reported it"]);
    assert_eq!(answer.accepted_enis, 1);
    // It gives one up, which the other then has.
    rig.report(&one, &host("h1", &[eni(1)])).unwrap();
    let answer = rig.report(&two, &host("h2", &[eni(2), eni(3)])).unwrap();
    assert_eq!((answer.accepted_enis, reasons(&answer).len()), (2, 0));
    // It goes away.
    rig.now = 60_001;
    let before = rig.desired(&one).version;
    let answer = rig.report(&two, &host("h2", &[eni(1)])).unwrap();
    assert_eq!((answer.accepted_enis, reasons(&answer).len()), (1, 0));
    assert!(
        rig.desired(&one).version > before,
        "it is told when it comes back"
    );
    let answer = rig.report(&one, &host("h1", &[eni(1)])).unwrap();
    assert_eq!(reasons(&answer), ["the agent on h2 has reported it"]);
}

#[test]
fn accounts_are_apart() {
    let rig = Rig::new();
    let (one, other) = (rig.agent("1"), rig.agent("2"));
    let foreign = EniReport {
        account_id: "2".into(),
        ..eni(2)
    };
    let answer = rig
        .report(&one, &host("h1", &[eni(1), foreign.clone()]))
        .unwrap();
    assert_eq!(answer.accepted_enis, 1);
    assert!(reasons(&answer).concat().contains("account 2"));
    // Hosts and ENIs of accounts are different ones, also by the same name.
    let same = EniReport {
        account_id: "2".into(),
        ..eni(1)
    };
    let answer = rig.report(&other, &host("h1", &[same, foreign])).unwrap();
    assert_eq!(answer.accepted_enis, 2);
    let id = rig.create(&of_vpc()).id;
    assert_eq!(rig.desired(&one).flow_logs.len(), 1);
    assert!(rig.desired(&other).flow_logs.is_empty());
    let stranger = rig.cx("2", Role::Administrator, "stranger");
    let error = rig
        .run(&stranger, |state, cx| flow_logs::get(state, cx, None, &id))
        .unwrap_err();
    assert_eq!(error.kind(), Code::FlowLogNotFound);
    let seen = rig.run(&stranger, resources::resources).unwrap();
    assert_eq!((seen.enis.len(), seen.vpcs.len()), (2, 1));
    assert_eq!(
        rig.run(&stranger, resources::agents).unwrap().agents.len(),
        1
    );
}

#[test]
fn a_desired_state_has_what_concerns_the_agent() {
    let mut rig = Rig::new();
    let one = rig.agent("1");
    let here = EniReport {
        region: Some("here".into()),
        ..eni(1)
    };
    rig.report(&one, &host("h1", &[here])).unwrap();
    let by = |resource_type: &str, resource_id: &str, region: &str| {
        let asked = api::CreateFlowLog {
            resource_type: resource_type.into(),
            resource_id: resource_id.into(),
            region: Some(region.into()),
            allow_unknown_resource: true,
            ..of_vpc()
        };
        rig.create(&asked).id
    };
    let mut wanted = vec![
        by("NetworkInterface", "eni-1", "here"),
        by("VSwitch", "vsw-1", "here"),
        by("VPC", "vpc-1", "here"),
    ];
    by("VPC", "vpc-1", "there");
    by("VPC", "eni-1", "here");
    by("NetworkInterface", "eni-2", "here");
    wanted.sort();
    let ids = |rig: &Rig| -> Vec<String> {
        let desired = rig.desired(&one);
        desired
            .flow_logs
            .into_iter()
            .map(|flow_log| flow_log.flow_log_id)
            .collect()
    };
    assert_eq!(ids(&rig), wanted);
    // An ENI that is plugged in brings its flow log with a new version.
    let before = rig.desired(&one).version;
    rig.now = 1;
    let both = [eni(1), eni(2)];
    let answer = rig.report(&one, &host("h1", &both)).unwrap();
    assert!(answer.version > before);
    // They are in every region now.
    assert_eq!(ids(&rig).len(), 5);
    // The same report again is no news.
    let answer_again = rig.report(&one, &host("h1", &both)).unwrap();
    assert_eq!(answer_again.version, answer.version);
}

#[test]
fn deliveries_are_told_of_ones_own_flow_logs_alone() {
    let rig = Rig::new();
    let (one, two, other) = (rig.agent("1"), rig.agent("1"), rig.agent("1"));
    let elsewhere = EniReport {
        vpc_id: "vpc-2".into(),
        ..eni(3)
    };
    let reports = [
        (&one, host("h1", &[eni(1)])),
        (&two, host("h2", &[eni(2)])),
        (&other, host("h3", &[elsewhere])),
    ];
    for (agent, report) in &reports {
        rig.report(agent, report).unwrap();
    }
    let id = rig.create(&of_vpc()).id;
    let tell = |number: usize, status, message: &str| {
        let (agent, report) = &reports[number];
        let told = Report {
            flow_logs: vec![
                delivery(&id, status, message),
                delivery("fl-none", status, ""),
            ],
            ..report.clone()
        };
        rig.report(agent, &told).unwrap();
        let flow_log = rig.ok(|state, cx| flow_logs::get(state, cx, None, &id));
        (flow_log.deliver_status, flow_log.deliver_error_message)
    };
    let is = |status: &str, message: &str| (status.to_owned(), message.to_owned());
    assert_eq!(tell(2, DeliverStatus::Failed, "not its own"), is("", ""));
    assert_eq!(tell(0, DeliverStatus::Success, ""), is("SUCCESS", ""));
    assert_eq!(
        tell(1, DeliverStatus::Failed, "disk\nfull"),
        is("FAILED", "h2: disk full")
    );
    assert_eq!(
        tell(0, DeliverStatus::Success, ""),
        is("FAILED", "h2: disk full")
    );
    assert_eq!(tell(1, DeliverStatus::Success, ""), is("SUCCESS", ""));
}

#[test]
fn reports_are_checked() {
    let rig = Rig::new();
    let one = rig.agent("1");
    let good = host("h1", &[eni(1)]);
    type Break = fn(&mut Report);
    let broken: [Break; 6] = [
        |report| report.host_id = "a b".into(),
        |report| report.agent_version = String::new(),
        |report| report.enis.push(eni(1)),
        |report| report.enis[0].vpc_id = String::new(),
        |report| report.enis[0].vm_id = Some("ä".into()),
        |report| report.enis[0].region = Some(String::new()),
    ];
    for break_it in broken {
        let mut report = good.clone();
        break_it(&mut report);
        let error = rig.report(&one, &report).unwrap_err();
        assert_eq!(error.kind(), Code::InvalidParameter, "{report:?}");
    }
    let many = host("h1", &(0..4097).map(eni).collect::<Vec<_>>());
    let error = rig.report(&one, &many).unwrap_err();
    assert_eq!(error.kind(), Code::QuotaAgents);
}
