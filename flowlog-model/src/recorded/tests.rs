use proptest::prelude::*;

use super::*;
use crate::field::EXTENDED_FIELDS;
use crate::format::Format;
use crate::record::{Eni, LogStatus, Record, RejectReason};

fn eni() -> Eni {
    Eni {
        eni_id: "eni-1".into(),
        vswitch_id: "vsw-1".into(),
        vm_id: None,
        vpc_id: "vpc-1".into(),
        account_id: "1".into(),
        region: Some("eu-1".into()),
    }
}

fn formats() -> [Format; 4] {
    let all: Vec<Field> = DEFAULT_FIELDS.into_iter().chain(EXTENDED_FIELDS).collect();
    [
        Format::text(&DEFAULT_FIELDS),
        Format::text(&all),
        Format::json(&DEFAULT_FIELDS),
        Format::json(&all),
    ]
}

fn read_back(format: &Format, record: &Record<'_>) -> Recorded {
    let mut line = Vec::new();
    format.write(record, &mut line);
    let line = String::from_utf8(line).unwrap();
    line.trim_end().parse().unwrap()
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        (src_addr, dst_addr) in (address(), address()),
        (src_port, dst_port, protocol) in any::<(u16, u16, u8)>(),
        (packets, bytes, start) in any::<(u64, u64, u64)>(),
        (is_in, is_accepted, tcp_flags) in any::<(bool, bool, Option<u8>)>(),
        reject_reason in proptest::option::of(proptest::sample::select(RejectReason::ALL)),
    ) {
        let direction = if is_in { Direction::In } else { Direction::Out };
        let action = if is_accepted { Action::Accept } else { Action::Reject };
        let flow = FlowTuple { src_addr, src_port, dst_addr, dst_port, protocol };
        let record = Record {
            eni: &eni(),
            flow: Some(flow),
            direction: Some(direction),
            packets: Some(packets),
            bytes: Some(bytes),
            start,
            end: start,
            log_status: LogStatus::Ok,
            action: Some(action),
            tcp_flags,
            reject_reason,
            security_group_rule_id: Some("sgr-1"),
            batch_id: None,
        };
        let [.., with_all] = &formats();
        for format in &formats() {
            let has_all = format == with_all;
            let tcp_flags = tcp_flags.filter(|_| has_all);
            let reject_reason = reject_reason.filter(|_| has_all);
            let expected = RecordedFlow {
                eni_id: "eni-1".into(),
                direction,
                flow,
                packets,
                bytes,
                start,
                action,
                tcp_flags,
                reject_reason: reject_reason.map(|reason| reason.as_str().to_owned()),
            };
            prop_assert_eq!(read_back(format, &record), Recorded::Flow(expected));
        }
    }

    #[test]
    fn no_line_is_too_odd(line in "[{}\"a-z0-9 :.,-]{0,60}") {
        let _ = line.parse::<Recorded>();
    }
}

#[test]
fn records_that_are_no_flows() {
    for (log_status, expected) in [
        (LogStatus::NoData, Recorded::NoData),
        (LogStatus::SkipData, Recorded::SkipData),
    ] {
        let record = Record {
            eni: &eni(),
            flow: None,
            direction: None,
            packets: None,
            bytes: None,
            start: 0,
            end: 60,
            log_status,
            action: None,
            tcp_flags: None,
            reject_reason: None,
            security_group_rule_id: None,
            batch_id: None,
        };
        for format in &formats() {
            assert_eq!(read_back(format, &record), expected);
        }
    }
}

#[test]
fn a_reject_reason_is_read() {
    let line = r#"{"eni-id":"e","srcaddr":"10.0.0.1","srcport":1,"dstaddr":"10.0.0.2","dstport":2,"protocol":6,"direction":"in",
        "packets":1,"bytes":40,"start":0,"end":60,"log-status":"OK","action":"REJECT","reject-reason":"netfilter","later":[1]}"#;
    let Recorded::Flow(flow) = line.parse().unwrap() else {
        panic!("no flow")
    };
    assert_eq!(flow.reject_reason.as_deref(), Some("netfilter"));
}

#[test]
fn errors_say_what_is_wrong() {
    let good = "1 vsw-1 - vpc-1 1 eni-1 10.0.0.1 1 10.0.0.2 2 6 in 1 40 0 60 OK ACCEPT";
    assert!(good.parse::<Recorded>().is_ok());
    for (from, to, sentence) in [
        (
            "10.0.0.1 1 ",
            "10.0.0 1 ",
            "`srcaddr` is \"10.0.0\": allowed are IPv4 and IPv6 addresses",
        ),
        (
            "10.0.0.1 1 ",
            "10.0.0.1 x ",
            "`srcport` is \"x\": allowed are whole numbers up to 65535",
        ),
        (
            " 6 in",
            " 256 in",
            "`protocol` is \"256\": allowed are whole numbers up to 255",
        ),
        (
            " 6 in",
            " 6 ingress",
            "`direction` is \"ingress\": allowed are in and out",
        ),
        ("1 40", "- 40", "`packets` is missing"),
        (
            "OK",
            "ok",
            "`log-status` is \"ok\": allowed are OK, NODATA and SKIPDATA",
        ),
        (
            "ACCEPT",
            "ALLOW",
            "`action` is \"ALLOW\": allowed are ACCEPT and REJECT",
        ),
        ("1 vsw-1", "2 vsw-1", "`version` is \"2\": allowed are 1"),
    ] {
        let error = good.replace(from, to).parse::<Recorded>().unwrap_err();
        assert_eq!(error.to_string(), sentence);
    }
    let short = "1 vsw-1 -".parse::<Recorded>().unwrap_err().to_string();
    assert!(
        short.starts_with("it has 3 fields: allowed are JSON and the text of version, "),
        "{short}"
    );
    let json = "{\"srcport\":\"1\"}"
        .parse::<Recorded>()
        .unwrap_err()
        .to_string();
    assert!(
        json.starts_with("it is not the JSON of a record: "),
        "{json}"
    );
}
