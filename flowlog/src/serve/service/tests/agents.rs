//! Agents see and change what is theirs alone.
use super::super::{access_keys, flow_logs, resources};
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
