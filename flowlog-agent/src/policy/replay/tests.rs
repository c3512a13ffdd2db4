use flowlog_model::{
    inventory::Inventory,
    record::{Direction, FlowTuple},
    security_group::DescribedPacket,
};

use super::*;

/// An ENI 10.0.0.2 of a basic group that lets in TCP 80 and ICMP, and lets out all but UDP 53; another of an advanced group.
const INVENTORY: &str = "
[[eni]]
eni-id = 'eni-1'
vswitch-id = 'v'
vpc-id = 'p'
account-id = '1'
match.name = 'a'
security-group-ids = ['sg-basic']
private-ip-addresses = ['10.0.0.2']
[[eni]]
eni-id = 'eni-2'
vswitch-id = 'v'
vpc-id = 'p'
account-id = '1'
match.name = 'b'
security-group-ids = ['sg-advanced']
security-mode = 'off'
private-ip-addresses = ['10.0.0.3']
[[security-group]]
security-group-id = 'sg-basic'
vpc-id = 'p'
[[security-group.rule]]
security-group-rule-id = 'r-web'
direction = 'ingress'
ip-protocol = 'TCP'
port-range = '80/80'
source-cidr-ip = '0.0.0.0/0'
[[security-group.rule]]
security-group-rule-id = 'r-dns'
direction = 'egress'
policy = 'drop'
ip-protocol = 'UDP'
port-range = '53/53'
dest-cidr-ip = '0.0.0.0/0'
[[security-group]]
security-group-id = 'sg-advanced'
vpc-id = 'p'
security-group-type = 'enterprise'
[[security-group.rule]]
security-group-rule-id = 'r-ping'
direction = 'ingress'
ip-protocol = 'ICMP'
source-cidr-ip = '0.0.0.0/0'
";

/// A record of one packet of 100 octets, in the window that starts at `start`.
fn record(eni: &str, packet: &str, start: u64, action: &str, more: &str) -> String {
    let DescribedPacket { direction, flow } = packet.parse().unwrap();
    let FlowTuple {
        src_addr,
        src_port,
        dst_addr,
        dst_port,
        protocol,
    } = flow;
    let direction = match direction {
        Direction::In => "in",
        Direction::Out => "out",
    };
    format!(
        "{{\"eni-id\":\"{eni}\",\"srcaddr\":\"{src_addr}\",\"srcport\":{src_port},\"dstaddr\":\"{dst_addr}\",\"dstport\":{dst_port},\
         \"protocol\":{protocol},\"direction\":\"{direction}\",\"packets\":1,\"bytes\":100,\"start\":{start},\"end\":{},\
         \"log-status\":\"OK\",\"action\":\"{action}\"{more}}}",
        start + 60
    )
}

fn accepted(packet: &str) -> String {
    record("eni-1", packet, 0, "ACCEPT", "")
}

fn with_flags(packet: &str, flags: u8) -> String {
    record(
        "eni-1",
        packet,
        0,
        "ACCEPT",
        &format!(",\"tcp-flags\":{flags}"),
    )
}

fn replay(lines: &[String]) -> serde_json::Value {
    replay_at_most(lines, 100)
}

fn replay_at_most(lines: &[String], limit: usize) -> serde_json::Value {
    let inventory = Inventory::parse(INVENTORY, "inventory.toml").unwrap();
    let mut flows = Flows::new(&inventory, limit);
    let text = lines.join("\n");
    lines::for_each_line(text.as_bytes(), |number, line| {
        flows.add_line("flows.log", number, line);
    })
    .unwrap();
    serde_json::to_value(Report::new(&inventory, &flows, 100)).unwrap()
}

/// The flows that are listed under `kind`, each with its rule.
fn listed(report: &serde_json::Value, kind: &str) -> Vec<String> {
    let listed = report[kind]["listed"].as_array().unwrap();
    let shown = |change: &serde_json::Value| {
        let text = |key: &str| change[key].as_str().unwrap_or("-").to_owned();
        format!("{} {}", text("flow"), text("security_group_rule_id"))
    };
    listed.iter().map(shown).collect()
}

/// Asserts which flows change, as `flow rule`.
fn assert_changes(lines: &[String], reject: &[&str], accept: &[&str], depends: &[&str]) {
    let report = replay(lines);
    for (kind, expected) in [
        ("would_reject", reject),
        ("would_accept", accept),
        ("depends_on_opener", depends),
    ] {
        let mut listed = listed(&report, kind);
        listed.sort();
        assert_eq!(listed, expected, "{kind} of {lines:#?}");
    }
}

#[test]
fn flows_that_change_either_way() {
    assert_changes(
        &[
            accepted("tcp 1.2.3.4:50000 > 10.0.0.2:80 in"),
            accepted("tcp 1.2.3.4:50000 > 10.0.0.2:81 in"),
            accepted("udp 10.0.0.2:50000 > 1.2.3.4:53 out"),
            record(
                "eni-1",
                "tcp 1.2.3.4:50001 > 10.0.0.2:80 in",
                0,
                "REJECT",
                "",
            ),
            record(
                "eni-1",
                "tcp 1.2.3.4:50001 > 10.0.0.2:81 in",
                0,
                "REJECT",
                "",
            ),
        ],
        &[
            "tcp 1.2.3.4:50000 > 10.0.0.2:81 in -",
            "udp 10.0.0.2:50000 > 1.2.3.4:53 out r-dns",
        ],
        &["tcp 1.2.3.4:50001 > 10.0.0.2:80 in r-web"],
        &[],
    );
}

#[test]
fn replies_follow_what_opened_the_session() {
    // By the ports. Out of an advanced group nothing could go by itself.
    let ask = |eni, action| record(eni, "icmp 1.2.3.4 > 10.0.0.3 in", 0, action, "");
    let answer = |eni, start, action| record(eni, "icmp 10.0.0.3 > 1.2.3.4 out", start, action, "");
    assert_changes(
        &[
            accepted("tcp 10.0.0.2:80 > 1.2.3.4:50000 out"),
            accepted("tcp 1.2.3.4:50000 > 10.0.0.2:80 in"),
        ],
        &[],
        &[],
        &[],
    );
    // The answer would be allowed by itself, and does not come.
    assert_changes(
        &[
            accepted("tcp 10.0.0.2:81 > 1.2.3.4:50000 out"),
            accepted("tcp 1.2.3.4:50000 > 10.0.0.2:81 in"),
        ],
        &[
            "tcp 1.2.3.4:50000 > 10.0.0.2:81 in -",
            "tcp 10.0.0.2:81 > 1.2.3.4:50000 out -",
        ],
        &[],
        &[],
    );
    // The answer that comes in would not be allowed by itself.
    assert_changes(
        &[
            accepted("tcp 10.0.0.2:50000 > 1.2.3.4:443 out"),
            accepted("tcp 1.2.3.4:443 > 10.0.0.2:50000 in"),
        ],
        &[],
        &[],
        &[],
    );
    // By the window.
    assert_changes(
        &[ask("eni-2", "ACCEPT"), answer("eni-2", 60, "ACCEPT")],
        &[],
        &[],
        &[],
    );
    assert_changes(
        &[
            record("eni-2", "icmp 1.2.3.4 > 10.0.0.3 in", 60, "ACCEPT", ""),
            answer("eni-2", 0, "ACCEPT"),
        ],
        &[
            "icmp 1.2.3.4 > 10.0.0.3 in -",
            "icmp 10.0.0.3 > 1.2.3.4 out -",
        ],
        &[],
        &[],
    );
    // Nothing tells.
    assert_changes(
        &[ask("eni-2", "ACCEPT"), answer("eni-2", 0, "ACCEPT")],
        &[],
        &[],
        &[
            "icmp 1.2.3.4 > 10.0.0.3 in r-ping",
            "icmp 10.0.0.3 > 1.2.3.4 out -",
        ],
    );
    // Rejected both ways where rejected packets passed.
    assert_changes(
        &[ask("eni-2", "REJECT"), answer("eni-2", 60, "REJECT")],
        &[],
        &[
            "icmp 1.2.3.4 > 10.0.0.3 in r-ping",
            "icmp 10.0.0.3 > 1.2.3.4 out r-ping",
        ],
        &[],
    );
    // What was rejected was not answered: the other direction is a session of its own.
    assert_changes(
        &[ask("eni-2", "REJECT"), answer("eni-2", 60, "ACCEPT")],
        &["icmp 10.0.0.3 > 1.2.3.4 out -"],
        &["icmp 1.2.3.4 > 10.0.0.3 in r-ping"],
        &[],
    );
}

#[test]
fn a_syn_tells_who_opened_a_session() {
    let (inward, outward) = (
        "tcp 1.2.3.4:40000 > 10.0.0.2:40001 in",
        "tcp 10.0.0.2:40001 > 1.2.3.4:40000 out",
    );
    let reset = 4 | 16;
    assert_changes(
        &[with_flags(outward, 2), with_flags(inward, reset)],
        &[],
        &[],
        &[],
    );
    let both = [format!("{inward} -"), format!("{outward} -")];
    assert_changes(
        &[with_flags(inward, 2), with_flags(outward, reset)],
        &both.each_ref().map(String::as_str),
        &[],
        &[],
    );
    assert_changes(
        &[with_flags(inward, 2 | 16), with_flags(outward, 2 | 16)],
        &[],
        &[],
        &both.each_ref().map(String::as_str),
    );
}

#[test]
fn records_of_one_flow_are_added_up() {
    let flow = "tcp 1.2.3.4:50000 > 10.0.0.2:81 in";
    let lines: Vec<String> = [0, 60, 120]
        .map(|start| record("eni-1", flow, start, "ACCEPT", ""))
        .into();
    let report = replay(&lines);
    let total = serde_json::json!({"flows": 1, "packets": 3, "bytes": 300});
    assert_eq!(report["would_reject"]["total"], total);
    assert_eq!(report["judged"], total);
    assert_eq!(report["would_reject"]["listed"][0]["packets"], 3);
}

#[test]
fn what_is_not_judged_is_told() {
    let report = replay(&[
        record("eni-9", "icmp 1.2.3.4 > 10.0.0.2 in", 0, "ACCEPT", ""),
        record(
            "eni-1",
            "icmp 1.2.3.4 > 10.0.0.2 in",
            0,
            "REJECT",
            ",\"reject-reason\":\"netfilter\"",
        ),
        record("eni-1", "icmpv6 fe80::1 > ff02::1 in", 0, "ACCEPT", ""),
        "1 v - p 1 eni-1 - - - - - - - - 0 60 NODATA -".into(),
        "1 v - p 1 eni-1 - - - - - in 7 700 0 60 SKIPDATA -".into(),
        "not a record".into(),
        String::new(),
        "{}".into(),
    ]);
    let read = &report["read"];
    let count = |key: &str| read[key].as_u64().unwrap();
    assert_eq!(
        [
            "flow_records",
            "nodata_records",
            "skipdata_records",
            "wrong_lines",
            "of_other_enis",
            "of_host_firewall"
        ]
        .map(count),
        [3, 1, 1, 2, 1, 1]
    );
    let named: Vec<&str> = read["named_wrong_lines"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|line| line.as_str())
        .collect();
    assert_eq!(
        named,
        [
            "flows.log:6: `version` is \"not\": allowed are whole numbers up to 255",
            "flows.log:8: `log-status` is missing"
        ]
    );
    assert_eq!(report["neighbor_discovery"]["flows"], 1);
    assert_eq!(report["judged"]["flows"], 0);
    assert_eq!(report["off"], serde_json::json!(["eni-2"]));
}

#[test]
fn flows_and_rows_are_limited() {
    let lines: Vec<String> = (1..=5)
        .flat_map(|port| vec![accepted(&format!("tcp 1.2.3.4:50000 > 10.0.0.2:{port} in")); port])
        .collect();
    let report = replay_at_most(&lines, 3);
    assert_eq!(report["judged"]["flows"], 3);
    assert_eq!(report["read"]["beyond_limit"], 4 + 5);

    let inventory = Inventory::parse(INVENTORY, "inventory.toml").unwrap();
    let mut flows = Flows::new(&inventory, 100);
    for line in &lines {
        flows.add_line("flows.log", 1, Ok(line));
    }
    let report = Report::new(&inventory, &flows, 2);
    let lines = report.lines().join("\n");
    assert!(
        lines.starts_with("Accepted, and would be rejected: 5 flows, 15 packets, 1,500 bytes\n"),
        "{lines}"
    );
    assert!(
        lines.contains("10.0.0.2:5")
            && lines.contains("10.0.0.2:4")
            && !lines.contains("10.0.0.2:3"),
        "{lines}"
    );
    assert!(lines.contains("and 3 more flows"), "{lines}");
    assert!(
        lines.contains("Nothing is judged yet at ENIs whose security-mode is off: eni-2."),
        "{lines}"
    );
}
