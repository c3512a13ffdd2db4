//! Creating, listing, tagging and moving flow logs.
use std::collections::BTreeMap;

use super::super::{audit, flow_logs, open_service, service, tags, transitions};
use super::*;

#[test]
fn the_resource_must_be_known_in_the_region() {
    let mut rig = Rig::new();
    let one = rig.agent("1");
    let here = EniReport {
        region: Some("here".into()),
        ..eni(1)
    };
    rig.report(&one, &host("h1", &[here])).unwrap();
    let create = |rig: &Rig, kind: &str, id: &str, region: &str| {
        let asked = api::CreateFlowLog {
            resource_type: kind.into(),
            resource_id: id.into(),
            region: Some(region.into()),
            ..of_vpc()
        };
        rig.run(&rig.admin(), |state, cx| {
            flow_logs::create(state, cx, &asked)
        })
        .map_err(|error| error.kind())
    };
    for (kind, id, region) in [
        ("VPC", "vpc-2", "here"),
        ("VSwitch", "vpc-1", "here"),
        ("VPC", "vpc-1", "there"),
    ] {
        assert_eq!(create(&rig, kind, id, region), Err(Code::ResourceNotFound));
    }
    assert!(create(&rig, "NetworkInterface", "eni-1", "here").is_ok());
    rig.config.allow_unknown_resources = true;
    assert!(create(&rig, "VPC", "vpc-2", "here").is_ok());
}

#[test]
fn regions_are_checked() {
    let mut rig = Rig::new();
    let create = |rig: &Rig, region: Option<&str>| {
        let asked = api::CreateFlowLog {
            region: region.map(str::to_owned),
            ..of_nobody()
        };
        rig.run(&rig.admin(), |state, cx| {
            flow_logs::create(state, cx, &asked)
        })
        .map(|flow_log| flow_log.region)
        .map_err(|error| error.kind())
    };
    assert_eq!(create(&rig, None), Ok("local".into()));
    assert_eq!(create(&rig, Some("any")), Ok("any".into()));
    assert_eq!(create(&rig, Some("a b")), Err(Code::RegionNotFound));
    rig.config.regions = vec!["local".into()];
    assert_eq!(create(&rig, Some("any")), Err(Code::RegionNotFound));
    assert_eq!(create(&rig, None), Ok("local".into()));
}

#[test]
fn the_quota_is_of_an_account_and_a_region() {
    let rig = Rig::new();
    let ids: Vec<String> = (0..10).map(|_| rig.create(&of_nobody()).id).collect();
    assert_eq!(
        rig.refused(|state, cx| flow_logs::create(state, cx, &of_nobody())),
        Code::QuotaFlowLogs
    );
    let elsewhere = api::CreateFlowLog {
        region: Some("there".into()),
        ..of_nobody()
    };
    rig.create(&elsewhere);
    let other = rig.cx("2", Role::Administrator, "other");
    rig.run(&other, |state, cx| {
        flow_logs::create(state, cx, &of_nobody())
    })
    .unwrap();
    rig.ok(|state, cx| flow_logs::delete(state, cx, None, &ids[0]));
    rig.create(&of_nobody());
}

#[test]
fn lists_are_filtered_and_paged() {
    let mut rig = Rig::new();
    let one = rig.agent("1");
    rig.report(&one, &host("h1", &[eni(1)])).unwrap();
    rig.config.flow_logs_per_region = 100;
    for number in 0..60 {
        rig.now = number;
        let asked = api::CreateFlowLog {
            name: Some(format!("log {number}")),
            traffic_type: if number % 2 == 0 { "All" } else { "Drop" }.into(),
            tags: BTreeMap::from([("n".into(), (number % 3).to_string())]),
            ..of_nobody()
        };
        rig.create(&asked);
    }
    let of_eni = api::CreateFlowLog {
        resource_type: "NetworkInterface".into(),
        resource_id: "eni-1".into(),
        ..of_vpc()
    };
    let of_eni = rig.create(&of_eni).id;
    let list = |filter: api::FlowLogFilter, tags: &[(&str, &str)]| {
        let tags: Vec<(String, String)> = tags
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect();
        rig.ok(|state, cx| flow_logs::list(state, cx, &filter, &tags))
    };
    let none = api::FlowLogFilter::default;
    let page = |page_number| api::FlowLogFilter {
        page_number: Some(page_number),
        page_size: Some(50),
        ..none()
    };
    let (first, second, third) = (list(page(1), &[]), list(page(2), &[]), list(page(3), &[]));
    assert_eq!(
        [&first, &second, &third].map(|page| (page.flow_logs.len(), page.total_count)),
        [(50, 61), (11, 61), (0, 61)]
    );
    let mut ids: Vec<&String> = first
        .flow_logs
        .iter()
        .chain(&second.flow_logs)
        .map(|flow_log| &flow_log.id)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 61, "each is on one page");
    assert_eq!(
        second.flow_logs.last().unwrap().name,
        "log 0",
        "the newest first"
    );
    assert_eq!(list(none(), &[]).flow_logs.len(), 20);
    let some = |text: &str| Some(text.to_owned());
    let counts = [
        (
            api::FlowLogFilter {
                name: some("log 7"),
                ..none()
            },
            1,
        ),
        (
            api::FlowLogFilter {
                search: some("og 5"),
                ..none()
            },
            11,
        ),
        (
            api::FlowLogFilter {
                traffic_type: some("Drop"),
                ..none()
            },
            30,
        ),
        (
            api::FlowLogFilter {
                status: some("Activating"),
                ..none()
            },
            1,
        ),
        (
            api::FlowLogFilter {
                region: some("there"),
                ..none()
            },
            0,
        ),
        (
            api::FlowLogFilter {
                id: some(&of_eni),
                ..none()
            },
            1,
        ),
        (
            api::FlowLogFilter {
                vpc_id: some("vpc-1"),
                ..none()
            },
            1,
        ),
        (
            api::FlowLogFilter {
                vpc_id: some("vpc-none"),
                ..none()
            },
            60,
        ),
        (
            api::FlowLogFilter {
                resource_group: some("rg-default"),
                ..none()
            },
            61,
        ),
    ];
    for (filter, count) in counts {
        assert_eq!(list(filter.clone(), &[]).total_count, count, "{filter:?}");
    }
    assert_eq!(list(none(), &[("n", "1")]).total_count, 20);
    assert_eq!(list(none(), &[("n", "")]).total_count, 60);
    assert_eq!(list(none(), &[("n", "1"), ("m", "")]).total_count, 0);
    let refuse = |filter: api::FlowLogFilter| {
        rig.refused(|state, cx| flow_logs::list(state, cx, &filter, &[]))
    };
    for filter in [
        api::FlowLogFilter {
            page_size: Some(51),
            ..none()
        },
        api::FlowLogFilter {
            page_size: Some(0),
            ..none()
        },
        api::FlowLogFilter {
            page_number: Some(0),
            ..none()
        },
        api::FlowLogFilter {
            page_number: Some(u64::MAX),
            ..none()
        },
        api::FlowLogFilter {
            status: some("active"),
            ..none()
        },
    ] {
        assert_eq!(refuse(filter), Code::InvalidParameter);
    }
}

#[test]
fn tags_and_groups_change_and_are_in_the_audit_trail() {
    let mut rig = Rig::new();
    let id = rig.create(&of_nobody()).id;
    let set = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        owned.collect()
    };
    let change = |rig: &Rig, changed: api::ChangeTags| {
        rig.run(&rig.admin(), |state, cx| {
            tags::change(state, cx, None, &[&id], &changed)?;
            tags::of(state, &id)
        })
        .map_err(|error| error.kind())
    };
    rig.now = 7;
    let changed = api::ChangeTags {
        set: set(&[("a", "1"), ("b", "2")]),
        remove: vec![],
    };
    assert_eq!(
        change(&rig, changed).unwrap(),
        set(&[("a", "1"), ("b", "2")])
    );
    let changed = api::ChangeTags {
        set: set(&[("a", "3")]),
        remove: vec!["b".into()],
    };
    assert_eq!(change(&rig, changed).unwrap(), set(&[("a", "3")]));
    let many: Vec<(String, String)> = (0..20)
        .map(|number| (format!("k{number}"), String::new()))
        .collect();
    let changed = api::ChangeTags {
        set: many.into_iter().collect(),
        remove: vec![],
    };
    assert_eq!(change(&rig, changed), Err(Code::QuotaTags));
    let moved = rig.ok(|state, cx| tags::move_resource_group(state, cx, None, &id, "rg-2"));
    assert_eq!(moved.resource_group, "rg-2");
    assert_eq!(
        moved.tags,
        set(&[("a", "3")]),
        "what is refused changes nothing"
    );
    let filter = api::AuditFilter {
        resource_id: Some(id),
        ..Default::default()
    };
    let trail = rig.ok(|state, cx| audit::list(state, cx, &filter)).entries;
    let told: Vec<(&str, &str, &str)> = trail
        .iter()
        .map(|entry| {
            let entry = (&entry.action, &entry.access_key_id, &entry.request_id);
            (entry.0.as_str(), entry.1.as_str(), entry.2.as_str())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("MoveResourceGroup", "admin", "request-7"),
            ("ChangeTags", "admin", "request-7"),
            ("ChangeTags", "admin", "request-7"),
            ("FlowLogArrived", "service", "request-0"),
            ("CreateFlowLog", "admin", "request-0"),
        ]
    );
    assert_eq!(trail[0].detail, r#"{"from":"rg-default","to":"rg-2"}"#);
}

#[test]
fn the_audit_trail_keeps_the_newest() {
    let mut rig = Rig::new();
    // Another account's are nothing to this one's.
    let other = rig.cx("2", Role::Administrator, "other");
    rig.run(&other, |state, cx| {
        audit::note(state, cx, "B", "", &().into())
    })
    .unwrap();
    rig.config.audit_entries_per_account = 3;
    for number in 0..5 {
        rig.ok(|state, cx| audit::note(state, cx, "A", &number.to_string(), &().into()));
    }
    let all = api::AuditFilter::default();
    let entries = rig.ok(|state, cx| audit::list(state, cx, &all)).entries;
    let of: Vec<&str> = entries
        .iter()
        .map(|entry| entry.resource_id.as_str())
        .collect();
    assert_eq!(of, ["4", "3", "2"]);
    let older = api::AuditFilter {
        before: Some(entries[0].number),
        limit: Some(1),
        ..all
    };
    let page = rig.ok(|state, cx| audit::list(state, cx, &older)).entries;
    assert_eq!(page, entries[1..2]);
    let others = rig.run(&other, |state, cx| {
        audit::list(state, cx, &api::AuditFilter::default())
    });
    assert_eq!(others.unwrap().entries.len(), 1);
}

#[test]
fn an_arrival_names_no_other_accounts_request() {
    let mut rig = Rig::new();
    let one = rig.agent("1");
    rig.report(&one, &host("h1", &[eni(1)])).unwrap();
    let id = rig.create(&of_vpc()).id;
    rig.now = 60_001;
    // Another account's change is what finds that the agent is away.
    let other = rig.cx("2", Role::Administrator, "other");
    rig.run(&other, transitions::settle).unwrap();
    let filter = api::AuditFilter {
        resource_id: Some(id),
        ..Default::default()
    };
    let trail = rig.ok(|state, cx| audit::list(state, cx, &filter)).entries;
    let arrival = trail.first().unwrap();
    let told = (arrival.action.as_str(), arrival.request_id.as_str());
    assert_eq!(told, ("FlowLogArrived", ""));
}

#[test]
fn the_service_is_opened_once_in_a_region() {
    let rig = Rig::new();
    let enabled = || rig.ok(|state, cx| service(state, cx, None)).enabled;
    assert!(!enabled());
    rig.ok(|state, cx| open_service(state, cx, None));
    assert!(enabled());
    assert_eq!(
        rig.refused(|state, cx| open_service(state, cx, None)),
        Code::ServiceOpen
    );
    rig.ok(|state, cx| open_service(state, cx, Some("there")));
}

/// Without it, whoever names another region each time would have no quota.
#[test]
fn an_account_uses_so_many_regions_where_any_is_taken() {
    let config = Config {
        flow_logs_per_region: 2,
        regions_per_account: 2,
        ..Config::default()
    };
    let listed = Config {
        regions: ["a", "b", "c"].map(String::from).to_vec(),
        default_region: "a".into(),
        ..config.clone()
    };
    let rig = Rig::with(config);
    let create = |rig: &Rig, region: &str| {
        let asked = api::CreateFlowLog {
            region: Some(region.into()),
            ..of_nobody()
        };
        let created = rig.run(&rig.admin(), |state, cx| {
            flow_logs::create(state, cx, &asked)
        });
        created
            .map(|flow_log| flow_log.id)
            .map_err(|error| error.kind())
    };
    create(&rig, "a").unwrap();
    let last = create(&rig, "b").unwrap();
    assert_eq!(create(&rig, "c"), Err(Code::QuotaRegions));
    create(&rig, "a").unwrap();
    assert_eq!(create(&rig, "a"), Err(Code::QuotaFlowLogs));
    // One that is left makes room for another.
    rig.ok(|state, cx| flow_logs::delete(state, cx, None, &last));
    create(&rig, "c").unwrap();
    let open = |rig: &Rig, region: &str| {
        let opened = rig.run(&rig.admin(), |state, cx| {
            open_service(state, cx, Some(region))
        });
        opened.map(|_| ()).map_err(|error| error.kind())
    };
    assert_eq!((open(&rig, "a"), open(&rig, "b")), (Ok(()), Ok(())));
    assert_eq!(open(&rig, "c"), Err(Code::QuotaRegions));
    assert_eq!(open(&rig, "a"), Err(Code::ServiceOpen));
    // Where the service says which regions there are, that is enough.
    let rig = Rig::with(listed);
    for region in ["a", "b", "c"] {
        create(&rig, region).unwrap();
        assert_eq!(open(&rig, region), Ok(()));
    }
}
