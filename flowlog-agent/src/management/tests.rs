mod link;

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path};

use flowlog_model::protocol::MAX_REPORT_BYTES;
use tempfile::TempDir;

use super::*;
use crate::config::Config;

const IDS: [&str; 3] = [
    "fl-000000000000000000001",
    "fl-000000000000000000002",
    "fl-000000000000000000003",
];

fn desired(id: &str, change: &str) -> DesiredFlowLog {
    let json = r#"{"flow_log_id": "ID", "name": "n", "resource_type": "VPC", "resource_id": "vpc-1", "account_id": "1", "region": "local",
        "traffic_type": "All", "aggregation_interval": 10, "ip_version": "DualStack", "log_format": null, "project": "p-1",
        "logstore": "s-1", "status": "Active"}"#;
    let mut value: serde_json::Value = serde_json::from_str(&json.replace("ID", id)).unwrap();
    if let serde_json::Value::Object(changes) = serde_json::from_str(change).unwrap() {
        value.as_object_mut().unwrap().extend(changes);
    }
    serde_json::from_value(value).unwrap()
}

fn state(version: Version, ids: &[&str]) -> DesiredState {
    DesiredState {
        version,
        flow_logs: ids.iter().map(|id| desired(id, "{}")).collect(),
    }
}

/// A service's configuration, whose access key is in the folder.
fn config(folder: &Path, url: &str, local: &str) -> Config {
    let key = folder.join("key.json");
    fs::write(&key, r#"{"id": "agent", "secret": "s"}"#).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "inventory = 'i'\n[service]\nurl = '{url}'\naccess-key-file = {key:?}\nhost-id = 'h'\n\
         destination = {{ type = 'file', path = '/d/{{project}}/{{logstore}}/{{flow-log-id}}.log' }}\n{local}"
    );
    Config::parse(&text, "agent.toml").unwrap()
}

/// A clock that stands.
fn clock() -> ReadClock {
    Arc::new(|| Now {
        wall: Duration::from_secs(1_795_356_575),
        boot: Duration::from_secs(1000),
    })
}

/// The service of a test, at which nobody is, and its folder.
fn management(local: &str) -> (Management, Vec<FlowLogConfig>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "http://127.0.0.1:1", local);
    let management = Management::start(config.service.unwrap(), None, clock()).unwrap();
    (management, config.flow_logs, folder)
}

/// What was kept by an earlier version may lack what is kept now.
#[test]
fn what_is_kept_may_lack_what_was_added_later() {
    let kept: Kept = serde_json::from_str(r#"{"version": 4, "flow_logs": []}"#).unwrap();
    assert_eq!((kept.version, kept.gone), (4, Vec::new()));
}

/// Windows and destinations, by name.
fn summary(managed: &Managed) -> BTreeMap<String, String> {
    let of = |planned: &FlowLogConfig| {
        let flow_log = &planned.flow_log;
        let said = format!(
            "{} {} {}",
            flow_log.status, flow_log.window, planned.destination
        );
        (flow_log.name.to_string(), said)
    };
    managed.flow_logs.iter().map(of).collect()
}

#[tokio::test]
async fn a_flow_log_of_the_service_is_known_by_its_id_and_has_a_file_of_its_own() {
    let (management, local, _folder) = management("");
    let flow_logs = [
        desired(IDS[0], "{}"),
        desired(
            IDS[1],
            r#"{"status": "Inactive", "aggregation_interval": 1, "project": "", "logstore": ""}"#,
        ),
    ];
    let managed = management.plan(&flow_logs, &local);
    assert_eq!(managed.refused, BTreeMap::new());
    let expected = [
        (
            IDS[0].to_owned(),
            format!("Active 10m /d/p-1/s-1/{}.log", IDS[0]),
        ),
        (
            IDS[1].to_owned(),
            format!("Inactive 1m /d/none/none/{}.log", IDS[1]),
        ),
    ];
    assert_eq!(summary(&managed), BTreeMap::from(expected));
}

#[tokio::test]
async fn what_matters_to_no_record_changes_nothing() {
    let (management, local, _folder) = management("");
    let plan = |change| management.plan(&[desired(IDS[0], change)], &local);
    assert_eq!(plan(r#"{"name": "other"}"#), plan("{}"));
    for change in [
        r#"{"traffic_type": "Drop"}"#,
        r#"{"ip_version": "IPv4"}"#,
        r#"{"log_format": "${srcaddr}"}"#,
        r#"{"status": "Inactive"}"#,
    ] {
        assert_ne!(plan(change), plan("{}"), "{change}");
    }
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_by_itself() {
    let local = format!(
        "[[flow-log]]\nname = '{}'\nresource-type = 'VPC'\nresource-id = 'v'\ndestination.type = 'stdout'\n\
         [[flow-log]]\nname = 'in-the-way'\nresource-type = 'VPC'\nresource-id = 'v'\n\
         destination = {{ type = 'file', path = '/d/p-1/s-1/{}.log' }}\n",
        IDS[1], IDS[2]
    );
    let (management, local, _folder) = management(&local);
    for (id, change, expected) in [
        (
            IDS[0],
            r#"{"aggregation_interval": 7}"#,
            "a window of 7 minutes is not known: allowed are 1m, 5m and 10m",
        ),
        (
            IDS[0],
            r#"{"project": "../../etc"}"#,
            "its project and logstore are no parts of a path",
        ),
        (
            IDS[0],
            r#"{"log_format": "${nothing}"}"#,
            "`nothing` at character 3 is not a field",
        ),
        (IDS[0], r#"{"resource_id": "a b"}"#, "is not valid"),
        (IDS[1], "{}", "the agent has another flow log called fl-"),
        (
            IDS[2],
            "{}",
            "the flow log in-the-way writes to its destination",
        ),
    ] {
        let other = desired("fl-000000000000000000009", "{}");
        let managed = management.plan(&[desired(id, change), other], &local);
        assert_eq!(managed.flow_logs.len(), 1, "the other goes on");
        let reason = &managed.refused[id];
        assert!(reason.contains(expected), "{reason}");
    }
}

#[tokio::test]
async fn flow_logs_that_are_gone_are_kept_as_long_as_they_wait() {
    let (mut management, _, _folder) = management("");
    let now = Duration::ZERO;
    let ids = |flow_logs: &[DesiredFlowLog]| {
        let ids = flow_logs.iter().map(|gone| gone.flow_log_id.clone());
        ids.collect::<Vec<_>>()
    };
    let kept = management.kept(&state(1, &IDS[..2]), &BTreeSet::new());
    assert_eq!((kept.version, ids(&kept.gone)), (1, vec![]));
    management.has_followed(kept, now);
    // Its windows are open until the new state is followed.
    let kept = management.kept(&state(2, &IDS[1..2]), &BTreeSet::new());
    assert_eq!(ids(&kept.gone), [IDS[0]]);
    management.has_followed(kept, now);
    let waiting = management.kept(&state(3, &IDS[1..]), &BTreeSet::from([IDS[0]]));
    assert_eq!(ids(&waiting.gone), [IDS[0]]);
    let delivered = management.kept(&state(3, &IDS[1..]), &BTreeSet::new());
    assert_eq!(ids(&delivered.gone), [""; 0]);
    // One that comes back is not gone.
    let back = management.kept(&state(4, &IDS[..1]), &BTreeSet::from(IDS));
    assert_eq!(ids(&back.gone), [IDS[1]]);
    let text = serde_json::to_string(&back).unwrap();
    assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), back);
}

fn eni(id: &str) -> Eni {
    Eni {
        eni_id: id.to_owned(),
        vswitch_id: "vsw-1".to_owned(),
        vm_id: None,
        vpc_id: "vpc-1".to_owned(),
        account_id: "1".to_owned(),
        region: None,
    }
}

#[test]
fn an_eni_is_reported_once_and_is_captured_if_one_of_its_devices_is() {
    let enis = [
        (eni("b"), false),
        (eni("a"), true),
        (eni("b"), true),
        (eni("c"), false),
    ];
    let reports = eni_reports(enis.into_iter());
    let told: Vec<(&str, bool)> = reports
        .iter()
        .map(|report| (report.eni_id.as_str(), report.captured))
        .collect();
    assert_eq!(told, [("a", true), ("b", true), ("c", false)]);
    let many = (0..MAX_ENIS + 10).map(|number| (eni(&format!("eni-{number:05}")), true));
    assert_eq!(eni_reports(many).len(), MAX_ENIS);
}

#[tokio::test]
async fn the_greatest_report_is_no_longer_than_the_service_takes() {
    let (mut management, _, _folder) = management("");
    let long = |letter: &str, number: usize| format!("{number:04}{}", letter.repeat(60));
    let ids: Vec<String> = (0..MAX_FLOW_LOGS).map(|number| long("f", number)).collect();
    let flow_logs = ids.iter().map(|id| desired(id, "{}")).collect();
    management.followed = DesiredState {
        version: Version::MAX,
        flow_logs,
    };
    let enis = (0..MAX_ENIS).map(|number| {
        let eni = Eni {
            eni_id: long("e", number),
            vswitch_id: long("s", number),
            vm_id: Some(long("i", number)),
            vpc_id: long("v", number),
            account_id: long("a", number),
            region: Some(long("r", number)),
        };
        (eni, false)
    });
    let mut report = Report {
        host_id: long("h", 0),
        agent_version: long("1", 0),
        enis: eni_reports(enis),
        applied_version: Version::MAX,
        flow_logs: Vec::new(),
    };
    for letter in ["x", "\u{1}", "\"", "\\", "流", "\n"] {
        let message = letter.repeat(2000);
        let failures = ids.iter().map(|id| (id.as_str(), message.as_str()));
        report.flow_logs = management.flow_log_reports(&failures.collect());
        assert!(
            report
                .flow_logs
                .iter()
                .all(|of| of.deliver_error_message.chars().count() >= 42),
            "something is told of each: {letter:?}"
        );
        let bytes = serde_json::to_vec(&report).unwrap().len();
        assert!(bytes <= MAX_REPORT_BYTES, "{letter:?}: {bytes}");
    }
    // A few have as much as a message may have.
    management.followed.flow_logs.truncate(100);
    let message = "流".repeat(2000);
    let reports =
        management.flow_log_reports(&BTreeMap::from([(ids[0].as_str(), message.as_str())]));
    assert_eq!(
        reports[0].deliver_error_message.chars().count(),
        MAX_MESSAGE_CHARS
    );
}

#[tokio::test]
async fn no_report_is_made_before_all_devices_have_been_told_of() {
    let (mut management, _, _folder) = management("");
    let now = Duration::from_secs(5);
    assert!(!management.can_report(false, now));
    assert_eq!(management.next_look(), Some(now + LOOK));
    assert!(management.can_report(true, now));
    assert_eq!(management.next_look(), None);
    management.report(std::iter::empty(), &BTreeMap::new());
    assert!(!management.can_report(true, now), "nothing new");
    management.report_is_due();
    assert!(management.can_report(true, now));
}
