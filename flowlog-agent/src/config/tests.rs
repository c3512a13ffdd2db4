use flowlog_model::field::{DEFAULT_FIELDS, Field};
use flowlog_model::flow_log::{Description, ResourceType, Status, TrafficType};
use flowlog_model::inventory::{DeviceIdentity, Inventory, Match};

use super::*;

const SAMPLE: &str = include_str!("../../../agent.toml");
const SAMPLE_INVENTORY: &str = include_str!("../../../inventory.toml");

const HEAD: &str = "inventory = 'inventory.toml'\n";

fn parse(text: &str) -> Config {
    Config::parse(text, "agent.toml").unwrap()
}

/// A flow log of the given name on four lines, and `rest`.
fn flow_log(name: &str, rest: &str) -> String {
    format!("[[flow-log]]\nname = '{name}'\nresource-type = 'VPC'\nresource-id = 'vpc-1'\n{rest}\n")
}

fn to_file(name: &str, path: &str) -> String {
    flow_log(
        name,
        &format!("destination = {{ type = 'file', path = '{path}' }}"),
    )
}

#[test]
fn defaults() {
    let config = parse(HEAD);
    let expected = Config {
        inventory: "inventory.toml".into(),
        pin_path: "/sys/fs/bpf/flowlog".into(),
        lock_file: "/run/flowlog-agent.lock".into(),
        status_socket: Some("/run/flowlog-agent.sock".into()),
        on_exit: OnExit::Detach,
        capture: CaptureConfig {
            attach: AttachMode::Auto,
            position: Position::First,
            clsact_priority: 1,
            flow_map_min_entries: 65_536,
            flow_map_max_entries: 1_048_576,
            overflow_ring_kib: 4096,
        },
        spool: SpoolConfig {
            path: "/var/lib/flowlog-agent/spool".into(),
            max_size_bytes: 1_073_741_824,
            max_age: Duration::from_secs(604_800),
            max_flows_in_memory: 262_144,
        },
        security: SecurityConfig {
            max_sessions: 262_144,
            when_full: WhenFull::Accept,
        },
        metrics: MetricsConfig { listen: None },
        service: None,
        flow_logs: Vec::new(),
    };
    assert_eq!(config, expected);
    let config = parse(&format!(
        "{HEAD}{}",
        flow_log("all", "destination.type = 'stdout'")
    ));
    let [
        FlowLogConfig {
            flow_log,
            format,
            destination,
        },
    ] = config.flow_logs.as_slice()
    else {
        panic!("{config:?}")
    };
    assert_eq!(flow_log.traffic_type, TrafficType::All);
    assert_eq!(flow_log.window.seconds(), 600);
    assert_eq!(
        (flow_log.status, &flow_log.description),
        (Status::Active, &None)
    );
    assert_eq!(format, &Format::text(&DEFAULT_FIELDS));
    assert_eq!(destination, &Destination::Stdout);
}

#[test]
fn every_key() {
    let config = parse(
        "inventory = '/etc/flowlog/inventory.toml'\npin-path = '/sys/fs/bpf/x'\nlock-file = '/tmp/x.lock'\n\
         status-socket = '/tmp/x.sock'\non-exit = 'stay'\n\
         [capture]\nattach = 'clsact'\nposition = 'last'\nclsact-priority = 65535\nflow-map-min-entries = 64\n\
         flow-map-max-entries = 64\noverflow-ring-kib = 4\n[spool]\npath = '/data/spool'\nmax-size = '1MiB'\nmax-age = '36h'\n\
         max-flows-in-memory = 1024\n[security]\nmax-sessions = 1024\nwhen-full = 'reject'\n[metrics]\nlisten = '[::1]:9464'\n\
         [[flow-log]]\nname = 'all'\nresource-type = 'VSwitch'\nresource-id = 'vsw-1'\ntraffic-type = 'Drop'\nwindow = '5m'\n\
         status = 'Inactive'\ndescription = 'what was refused'\nformat = 'json'\nfields = ['type', 'region']\n\
         destination = { type = 'file', path = '/var/log//all.log', max-size = '10KiB', max-files = 2 }\n",
    );
    assert_eq!(config.inventory, Path::new("/etc/flowlog/inventory.toml"));
    assert_eq!(
        (config.pin_path.as_path(), config.lock_file.as_path()),
        (Path::new("/sys/fs/bpf/x"), Path::new("/tmp/x.lock"))
    );
    assert_eq!(config.on_exit, OnExit::Stay);
    let capture = CaptureConfig {
        attach: AttachMode::Clsact,
        position: Position::Last,
        clsact_priority: 65535,
        flow_map_min_entries: 64,
        flow_map_max_entries: 64,
        overflow_ring_kib: 4,
    };
    assert_eq!(config.capture, capture);
    assert_eq!(config.status_socket, Some("/tmp/x.sock".into()));
    let spool = SpoolConfig {
        path: "/data/spool".into(),
        max_size_bytes: 1_048_576,
        max_age: Duration::from_secs(129_600),
        max_flows_in_memory: 1024,
    };
    assert_eq!(config.spool, spool);
    let security = SecurityConfig {
        max_sessions: 1024,
        when_full: WhenFull::Reject,
    };
    assert_eq!(config.security, security);
    assert_eq!(config.metrics.listen, "[::1]:9464".parse().ok());
    let [
        FlowLogConfig {
            flow_log,
            format,
            destination,
        },
    ] = config.flow_logs.as_slice()
    else {
        panic!("{config:?}")
    };
    assert_eq!(
        (flow_log.name.as_str(), flow_log.resource_type),
        ("all", ResourceType::VSwitch)
    );
    assert_eq!(
        (flow_log.resource_id.as_str(), flow_log.traffic_type),
        ("vsw-1", TrafficType::Drop)
    );
    assert_eq!(
        (flow_log.window.seconds(), flow_log.status),
        (300, Status::Inactive)
    );
    assert_eq!(
        flow_log.description.as_ref().map(Description::as_str),
        Some("what was refused")
    );
    let fields: Vec<Field> = DEFAULT_FIELDS
        .into_iter()
        .chain([Field::Type, Field::Region])
        .collect();
    assert_eq!(format, &Format::json(&fields));
    let file = Destination::File {
        path: "/var/log/all.log".into(),
        max_size_bytes: 10_240,
        max_files: 2,
    };
    assert_eq!(destination, &file);
}

#[test]
fn file_destination_has_defaults_and_takes_plain_bytes() {
    let destination = |rest: &str| {
        parse(&format!("{HEAD}{}", flow_log("all", rest)))
            .flow_logs
            .remove(0)
            .destination
    };
    let file = |max_size_bytes| Destination::File {
        path: "/a".into(),
        max_size_bytes,
        max_files: 10,
    };
    assert_eq!(
        destination("destination = { type = 'file', path = '/a' }"),
        file(100 << 20)
    );
    assert_eq!(
        destination("destination = { type = 'file', path = '/a', max-size = 4096 }"),
        file(4096)
    );
}

#[test]
fn folder_destination_has_a_default() {
    let destination = |rest: &str| {
        let rest = format!("destination = {{ type = 'folder', path = '/a'{rest} }}");
        parse(&format!("{HEAD}{}", flow_log("all", &rest)))
            .flow_logs
            .remove(0)
            .destination
    };
    let folder = |max_files| Destination::Folder {
        path: "/a".into(),
        max_files,
    };
    assert_eq!(destination(""), folder(10_000));
    assert_eq!(destination(", max-files = 2"), folder(2));
    assert_eq!(destination(", max-files = 1_000_000"), folder(1_000_000));
}

#[test]
fn logstore_destination_names_all_that_it_takes() {
    let parsed = |rest: &str| {
        let rest = format!("destination = {{ type = 'log-service'{rest} }}");
        // Flow logs can share it.
        let text = format!("{HEAD}{}{}", flow_log("one", &rest), flow_log("two", &rest));
        Config::parse(&text, "agent.toml").map_err(|error| error.to_string())
    };
    let least = ", endpoint = 'https://log.example', project = 'net', logstore = 'flow_s', access-key-file = '/k.json'";
    let logstore =
        |rest: &str| match &parsed(&format!("{least}{rest}")).unwrap().flow_logs[1].destination {
            Destination::LogService(logstore) => logstore.clone(),
            other => panic!("{other:?}"),
        };
    let found = logstore("");
    assert_eq!(
        Destination::LogService(found.clone()).to_string(),
        "net/flow_s at https://log.example:443"
    );
    assert_eq!(found.access_key_file, Path::new("/k.json"));
    assert_eq!(found.ca_file, None);
    let found = logstore(", ca-file = '/ca.pem'");
    assert_eq!(found.ca_file.as_deref(), Some(Path::new("/ca.pem")));
    for key in ["endpoint", "project", "logstore", "access-key-file"] {
        let rest: String = least
            .split(", ")
            .filter(|part| !part.is_empty() && !part.starts_with(&format!("{key} ")))
            .map(|part| format!(", {part}"))
            .collect();
        let said = parsed(&rest).unwrap_err();
        let expected =
            format!("`{key}` is missing: a destination with type = \"log-service\" needs it");
        assert!(said.ends_with(&expected), "{said}");
    }
    for (rest, expected) in [
        (
            ", path = '/a'",
            "it is allowed with type = \"file\" and type = \"folder\" alone",
        ),
        (
            ", max-size = '1MiB'",
            "it is allowed with type = \"file\" alone",
        ),
    ] {
        let said = parsed(&format!("{least}{rest}")).unwrap_err();
        assert!(said.ends_with(expected), "{said}");
    }
    let said = parsed(&least.replace("'net'", "'Net'")).unwrap_err();
    assert!(said.contains("allowed are 3 to 63 of a-z"), "{said}");
    let file = flow_log(
        "one",
        "destination = { type = 'stdout', endpoint = 'http://a' }",
    );
    let said = Config::parse(&format!("{HEAD}{file}"), "agent.toml")
        .unwrap_err()
        .to_string();
    assert!(
        said.ends_with("it is allowed with type = \"log-service\" alone"),
        "{said}"
    );
}

#[test]
fn stdout_is_shared_and_files_and_folders_are_not() {
    let stdout = "destination.type = 'stdout'";
    parse(&format!(
        "{HEAD}{}{}",
        flow_log("one", stdout),
        flow_log("two", stdout)
    ));
    // A path that ends with a slash is a folder's.
    let to = |name: &str, path: &str| match path.strip_suffix('/') {
        Some(path) => flow_log(
            name,
            &format!("destination = {{ type = 'folder', path = '{path}' }}"),
        ),
        None => to_file(name, path),
    };
    let both = |one: &str, two: &str| {
        let text = format!("{HEAD}{}{}", to("one", one), to("two", two));
        Config::parse(&text, "agent.toml").map_err(|error| error.to_string())
    };
    for (one, two) in [
        ("/a.log", "/b.log"),
        ("/a.log", "/a.log.json"),
        ("/x/a.log", "/y/a.log"),
        ("/x/", "/y/"),
        ("/x/", "/x/y/"),
        ("/x/", "/x/y/a.log"),
        ("/x/", "/x.log"),
        ("/x.1", "/x/"),
        ("/x.1/", "/x/"),
    ] {
        assert!(both(one, two).is_ok(), "{one} {two}");
    }
    for (one, two) in [
        ("/a.log", "/a.log"),
        ("/x/a", "/x/./a"),
        ("/a.log", "/a.log.1"),
        ("/a.log.20", "/a.log"),
        ("/x/", "/x/"),
        ("/x/", "/x"),
        ("/x", "/x/"),
        ("/x/", "/x/a.log"),
        ("/x/a.log", "/x/"),
        ("/x", "/x.1/"),
        ("/x.1/", "/x"),
    ] {
        let said = both(one, two).unwrap_err();
        let two = two.strip_suffix('/').unwrap_or(two);
        let clause = "allowed is a file or folder of its own for each flow log, and that of line 6 is in its way";
        assert_eq!(said, format!("agent.toml:11: `path` is '{two}': {clause}"));
    }
}

#[test]
fn at_most_a_hundred_flow_logs() {
    let text = |count: usize| {
        let flow_logs: String = (0..count)
            .map(|index| flow_log(&format!("log-{index}"), "destination.type = 'stdout'"))
            .collect();
        format!("{HEAD}{flow_logs}")
    };
    assert_eq!(parse(&text(100)).flow_logs.len(), 100);
    let said = Config::parse(&text(101), "agent.toml")
        .unwrap_err()
        .to_string();
    assert_eq!(
        said,
        "agent.toml:502: `flow-log` is a list of tables: allowed are 100 flow logs in all"
    );
}

/// What follows [`HEAD`], so that its first line is line 2, and the sentence after `agent.toml:`.
fn bad_values() -> Vec<(String, &'static str)> {
    let stdout = "destination.type = 'stdout'";
    let log = |rest: &str| flow_log("all", &format!("{stdout}\n{rest}"));
    let destination = |rest: &str| flow_log("all", &format!("destination = {{ {rest} }}"));
    vec![
        (
            "on-exit = 'leave'".into(),
            "2: `on-exit` is 'leave': allowed are detach and stay",
        ),
        (
            "pin-path = 'x'".into(),
            "2: `pin-path` is 'x': allowed is an absolute path without `..`, and without `/` at its end",
        ),
        (
            "lockfile = '/x'".into(),
            "2: `lockfile` is not known here: allowed are inventory, pin-path, lock-file, status-socket, on-exit, capture, spool, security, metrics, service and flow-log",
        ),
        (
            "status-socket = 'a.sock'".into(),
            "2: `status-socket` is 'a.sock': allowed is `off`, or an absolute path of at most 107 bytes without `..`, and without `/` at its end",
        ),
        (
            "[spool]\npath = 'spool'".into(),
            "3: `path` is 'spool': allowed is an absolute path without `..`, and without `/` at its end",
        ),
        (
            "[spool]\nmax-size = '1KiB'".into(),
            "3: `max-size` is '1KiB': allowed are 1MiB to 1024GiB, as in 100MiB, 1GiB or plain bytes",
        ),
        (
            "[spool]\nmax-age = '30s'".into(),
            "3: `max-age` is '30s': allowed are 1m to 365d: whole minutes, hours or days, as in 90m, 36h or 7d",
        ),
        (
            "[spool]\nmax-age = 7".into(),
            "3: `max-age` is 7: allowed are 1m to 365d: whole minutes, hours or days, as in 90m, 36h or 7d",
        ),
        (
            "[spool]\nmax-flows-in-memory = 1023".into(),
            "3: `max-flows-in-memory` is 1023: allowed are whole numbers from 1024 to 16777216",
        ),
        (
            "[capture]\nmax-flows-per-window = 9".into(),
            "3: `max-flows-per-window` is not known here: allowed are attach, position, clsact-priority, flow-map-min-entries, flow-map-max-entries and overflow-ring-kib",
        ),
        (
            "[capture]\nattach = 'tc'".into(),
            "3: `attach` is 'tc': allowed are auto, tcx and clsact",
        ),
        (
            "[capture]\nposition = 1".into(),
            "3: `position` is 1: allowed are first and last",
        ),
        (
            "[capture]\nclsact-priority = 0".into(),
            "3: `clsact-priority` is 0: allowed are whole numbers from 1 to 65535",
        ),
        (
            "[capture]\nflow-map-min-entries = 63".into(),
            "3: `flow-map-min-entries` is 63: allowed are whole numbers from 64 to 16777216",
        ),
        (
            "[capture]\nflow-map-min-entries = 129\nflow-map-max-entries = 128".into(),
            "4: `flow-map-max-entries` is 128: allowed is no less than flow-map-min-entries, which is 129",
        ),
        (
            "[capture]\nflow-map-max-entries = 64".into(),
            "3: `flow-map-max-entries` is 64: allowed is no less than flow-map-min-entries, which is 65536",
        ),
        (
            "[capture]\nflow-map-min-entries = 1_048_577".into(),
            "3: `flow-map-min-entries` is 1_048_577: allowed is no more than flow-map-max-entries, which is 1048576",
        ),
        (
            "[metrics]\nlisten = 'localhost'".into(),
            "3: `listen` is 'localhost': allowed is an IP address and a port, as in 127.0.0.1:9464 or [::1]:9464",
        ),
        (
            "[[flow-log]]\nname = 'all'".into(),
            "2: `resource-type` is missing: `[[flow-log]]` needs it",
        ),
        (
            flow_log("1", stdout),
            "3: `name` is '1': allowed are 2 to 128 letters, digits, `-` and `_`, starting with an English letter or a Chinese character",
        ),
        (
            log("") + &log(""),
            "9: `name` is 'all': allowed is one flow log of a name, and line 3 has this one already",
        ),
        (
            log("window = \"7m\""),
            "7: `window` is \"7m\": allowed are 1m, 5m and 10m",
        ),
        (
            log("description = 'x'"),
            "7: `description` is 'x': allowed are 2 to 256 characters, not starting with `http://` or `https://`",
        ),
        (
            log("format = 'csv'"),
            "7: `format` is 'csv': allowed are text and json",
        ),
        (
            log("fields = ['tcp-flags',\n'srcaddr']"),
            "8: `fields` is 'srcaddr': allowed are region, tcp-flags, type, reject-reason, security-group-rule-id and batch-id, for the default fields are there anyway",
        ),
        (
            log("fields = ['type', 'type']"),
            "7: `fields` is 'type': allowed is each field once",
        ),
        (
            log("fields = 'type'"),
            "7: `fields` is 'type': allowed is a list",
        ),
        (
            log("format = 'json'\ntemplate = '${end}'"),
            "8: `template` is '${end}': a template is allowed with format = \"text\" alone",
        ),
        (
            log("fields = ['type']\ntemplate = '${end}'"),
            "7: `fields` is ['type']: allowed is either fields or a template, which names its fields itself",
        ),
        (
            log("template = '${end'"),
            "7: `template` is '${end': `${` at character 1 has no `}`: allowed are version, vswitch-id, vm-id, vpc-id, account-id, eni-id, srcaddr, srcport, dstaddr, dstport, protocol, direction, packets, bytes, start, end, log-status, action, region, tcp-flags, type, reject-reason, security-group-rule-id and batch-id in `${…}`",
        ),
        (
            destination("type = 'kafka'"),
            "6: `type` is 'kafka': allowed are stdout, file, folder and log-service",
        ),
        (
            destination("path = '/a'"),
            "6: `type` is missing: `destination` needs it",
        ),
        (
            destination("type = 'file'"),
            "6: `path` is missing: a destination with type = \"file\" needs it",
        ),
        (
            destination("type = 'stdout', max-files = 3"),
            "6: `max-files` is 3: it is allowed with type = \"file\" and type = \"folder\" alone",
        ),
        (
            destination("type = 'folder'"),
            "6: `path` is missing: a destination with type = \"folder\" needs it",
        ),
        (
            destination("type = 'folder', path = '/a', max-size = '1MiB'"),
            "6: `max-size` is '1MiB': it is allowed with type = \"file\" alone",
        ),
        (
            destination("type = 'stdout', max-size = '1MiB'"),
            "6: `max-size` is '1MiB': it is allowed with type = \"file\" alone",
        ),
        (
            destination("type = 'folder', path = 'a'"),
            "6: `path` is 'a': allowed is an absolute path without `..`, and without `/` at its end",
        ),
        (
            destination("type = 'folder', path = '/a', max-files = 1"),
            "6: `max-files` is 1: allowed are whole numbers from 2 to 1000000",
        ),
        (
            destination("type = 'folder', path = '/a', max-files = 1_000_001"),
            "6: `max-files` is 1_000_001: allowed are whole numbers from 2 to 1000000",
        ),
        (
            destination("type = 'folder', path = '/a', max-files = 'many'"),
            "6: `max-files` is 'many': allowed are whole numbers from 2 to 1000000",
        ),
        (
            destination("type = 'file', path = '/a', max-files = -1"),
            "6: `max-files` is -1: allowed are whole numbers from 2 to 1000",
        ),
        (
            destination("type = 'file', path = '/a', max-files = 1001"),
            "6: `max-files` is 1001: allowed are whole numbers from 2 to 1000",
        ),
        (
            destination("type = 'file', path = 'a.log'"),
            "6: `path` is 'a.log': allowed is an absolute path without `..`, and without `/` at its end",
        ),
        (
            destination("type = 'file', path = '/a', max-size = '1MB'"),
            "6: `max-size` is '1MB': allowed are 1KiB to 1024GiB, as in 100MiB, 1GiB or plain bytes",
        ),
        (
            destination("type = 'file', path = '/a', max-size = 1.5"),
            "6: `max-size` is 1.5: allowed are 1KiB to 1024GiB, as in 100MiB, 1GiB or plain bytes",
        ),
        (
            destination("type = 'file', path = '/a', max-files = 1"),
            "6: `max-files` is 1: allowed are whole numbers from 2 to 1000",
        ),
        (
            destination("type = 'file', path = '/a', compress = true"),
            "6: `compress` is not known here: allowed are type, path, max-size, max-files, endpoint, project, logstore, access-key-file \
             and ca-file",
        ),
    ]
}

#[test]
fn errors_name_line_key_and_what_is_allowed() {
    for (text, sentence) in bad_values() {
        let said = Config::parse(&format!("{HEAD}{text}"), "agent.toml")
            .expect_err(&text)
            .to_string();
        assert_eq!(said, format!("agent.toml:{sentence}"), "{text}");
    }
    let said = Config::parse("", "agent.toml").unwrap_err().to_string();
    assert_eq!(
        said,
        "agent.toml:1: `inventory` is missing: it must stand at the top of the file"
    );
    let said = Config::parse("inventory = ''", "agent.toml")
        .unwrap_err()
        .to_string();
    assert_eq!(
        said,
        "agent.toml:1: `inventory` is '': allowed is a path of 1 to 4095 bytes"
    );
}

#[test]
fn samples_are_valid() {
    let config = parse(SAMPLE);
    assert_eq!(config.capture, CaptureConfig::default());
    assert_eq!(config.spool, SpoolConfig::default());
    assert_eq!(config.flow_logs.len(), 2);
    let inventory = Inventory::parse(SAMPLE_INVENTORY, "inventory.toml").unwrap();
    assert_eq!(inventory.entries().len(), 4);
    // The samples belong together: every ENI is in the VPC of the first flow log.
    let vpc = &config.flow_logs[0].flow_log;
    assert!(
        inventory
            .entries()
            .iter()
            .all(|entry| vpc.contains(&entry.eni))
    );
    let device = DeviceIdentity {
        name: "eth0",
        mac: None,
        alias: None,
        namespace: Some("db-1"),
    };
    assert!(matches!(inventory.find(&device), Match::One(entry) if entry.eni.eni_id == "eni-db-1"));
}

/// What the sample has commented out is valid too, and what it calls a default is one.
#[test]
fn sample_with_every_comment_that_is_a_setting_is_valid() {
    let is_setting = |line: &str| {
        line.split_once(" = ")
            .is_some_and(|(key, _)| !key.contains(' '))
            || matches!(line, "[metrics]" | "[service]")
    };
    let uncomment = |line: &str| match line.strip_prefix("# ") {
        Some(setting) if is_setting(setting) => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    let text: String = SAMPLE.lines().map(uncomment).collect();
    let (whole, sample) = (parse(&text), parse(SAMPLE));
    assert_eq!(whole.metrics.listen, "127.0.0.1:9464".parse().ok());
    assert_eq!(whole.flow_logs[0].format.fields().len(), 23);
    assert!(whole.flow_logs[0].flow_log.description.is_some());
    let mut without_examples = whole.clone();
    without_examples.metrics = sample.metrics;
    let service = without_examples.service.take().unwrap();
    let default = ManagedDestination::LogService;
    assert_eq!(service.destination, default, "the sample shows the default");
    without_examples.flow_logs[0].format = sample.flow_logs[0].format.clone();
    without_examples.flow_logs[0].flow_log.description = None;
    assert_eq!(without_examples, sample);
}

#[test]
fn load_resolves_the_inventory_and_names_the_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let config = Config::load(&folder.join("agent.toml")).unwrap();
    assert_eq!(config.inventory, folder.join("inventory.toml"));
    let said = Config::load(&folder.join("no-such.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("no-such.toml cannot be read: No such file"),
        "{said}"
    );
    let said = Config::load(&folder.join("Cargo.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("Cargo.toml:") && said.contains("is not known here: allowed are inventory,"),
        "{said}"
    );
}
