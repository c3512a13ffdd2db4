use std::net::Ipv6Addr;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::field::{DEFAULT_FIELDS, EXTENDED_FIELDS};
use crate::record::{Action, Direction, Eni, LogStatus, RejectReason};

fn eni() -> Eni {
    Eni {
        eni_id: "eni-1235b8ca123456789".into(),
        vswitch_id: "vsw-1".into(),
        vm_id: Some("i-1".into()),
        vpc_id: "vpc-1".into(),
        account_id: "123456789010".into(),
        region: None,
    }
}

fn ok(eni: &Eni) -> Record<'_> {
    Record {
        eni,
        flow: Some(FlowTuple {
            src_addr: "10.0.0.1".parse().unwrap(),
            src_port: 53870,
            dst_addr: "10.0.0.2".parse().unwrap(),
            dst_port: 80,
            protocol: 6,
        }),
        direction: Some(Direction::In),
        packets: Some(10),
        bytes: Some(u64::MAX),
        start: 1_431_280_876,
        end: 1_431_280_934,
        log_status: LogStatus::Ok,
        action: Some(Action::Accept),
        tcp_flags: Some(18),
        reject_reason: None,
        security_group_rule_id: None,
        batch_id: None,
    }
}

fn no_data(eni: &Eni) -> Record<'_> {
    let (direction, packets, bytes) = (None, None, None);
    Record {
        flow: None,
        direction,
        packets,
        bytes,
        log_status: LogStatus::NoData,
        action: None,
        tcp_flags: None,
        ..ok(eni)
    }
}

fn skip_data(eni: &Eni) -> Record<'_> {
    Record {
        direction: Some(Direction::Out),
        packets: Some(7),
        bytes: Some(700),
        log_status: LogStatus::SkipData,
        ..no_data(eni)
    }
}

fn all_fields() -> Vec<Field> {
    DEFAULT_FIELDS.into_iter().chain(EXTENDED_FIELDS).collect()
}

fn line(format: &Format, record: &Record<'_>) -> String {
    let mut out = b"before\n".to_vec();
    format.write(record, &mut out);
    String::from_utf8(out)
        .unwrap()
        .strip_prefix("before\n")
        .unwrap()
        .to_owned()
}

#[test]
fn text_in_default_order() {
    assert_eq!(
        line(&Format::text(&DEFAULT_FIELDS), &ok(&eni())),
        "1 vsw-1 i-1 vpc-1 123456789010 eni-1235b8ca123456789 10.0.0.1 53870 10.0.0.2 80 6 in 10 18446744073709551615 \
         1431280876 1431280934 OK ACCEPT\n"
    );
}

#[test]
fn text_without_data() {
    let eni = Eni {
        vm_id: None,
        ..eni()
    };
    assert_eq!(
        line(&Format::text(&all_fields()), &no_data(&eni)),
        "1 vsw-1 - vpc-1 123456789010 eni-1235b8ca123456789 - - - - - - - - 1431280876 1431280934 NODATA - - - - - - -\n"
    );
}

#[test]
fn text_of_what_was_skipped() {
    assert_eq!(
        line(&Format::text(&all_fields()), &skip_data(&eni())),
        "1 vsw-1 i-1 vpc-1 123456789010 eni-1235b8ca123456789 - - - - - out 7 700 1431280876 1431280934 SKIPDATA - - - - - - -\n"
    );
}

#[test]
fn text_of_extended_fields() {
    let eni = Eni {
        region: Some("eu-1".into()),
        ..eni()
    };
    let record = Record {
        action: Some(Action::Reject),
        reject_reason: Some(RejectReason::SecurityGroup),
        security_group_rule_id: Some("sgr-1"),
        batch_id: Some("all-9f-600-7-0"),
        ..ok(&eni)
    };
    assert_eq!(
        line(&Format::text(&EXTENDED_FIELDS), &record),
        "eu-1 18 IPv4 security-group sgr-1 all-9f-600-7-0\n"
    );
    let v6 = Ipv6Addr::LOCALHOST;
    let flow = ok(&eni).flow.map(|flow| FlowTuple {
        src_addr: v6.into(),
        dst_addr: "fe80::1:0:0:1".parse().unwrap(),
        ..flow
    });
    let fields = [Field::Type, Field::SrcAddr, Field::DstAddr];
    assert_eq!(
        line(&Format::text(&fields), &Record { flow, ..ok(&eni) }),
        "IPv6 ::1 fe80::1:0:0:1\n"
    );
}

#[test]
fn text_by_template() {
    let format =
        Format::template("${srcaddr}:${srcport} → ${dstaddr}${dstport} $1 {${action}}").unwrap();
    assert_eq!(
        line(&format, &ok(&eni())),
        "10.0.0.1:53870 → 10.0.0.280 $1 {ACCEPT}\n"
    );
    assert_eq!(line(&format, &no_data(&eni())), "-:- → -- $1 {-}\n");
    assert!(format.fields().eq([
        Field::SrcAddr,
        Field::SrcPort,
        Field::DstAddr,
        Field::DstPort,
        Field::Action
    ]));
}

#[test]
fn template_in_default_order_equals_plain_text() {
    let names: Vec<String> = DEFAULT_FIELDS
        .iter()
        .map(|field| format!("${{{field}}}"))
        .collect();
    let format = Format::template(&names.join(" ")).unwrap();
    assert_eq!(format, Format::text(&DEFAULT_FIELDS));
}

#[test]
fn json_has_types_and_order() {
    assert_eq!(
        line(&Format::json(&all_fields()), &ok(&eni())),
        "{\"version\":1,\"vswitch-id\":\"vsw-1\",\"vm-id\":\"i-1\",\"vpc-id\":\"vpc-1\",\"account-id\":\"123456789010\",\
         \"eni-id\":\"eni-1235b8ca123456789\",\"srcaddr\":\"10.0.0.1\",\"srcport\":53870,\"dstaddr\":\"10.0.0.2\",\"dstport\":80,\
         \"protocol\":6,\"direction\":\"in\",\"packets\":10,\"bytes\":18446744073709551615,\"start\":1431280876,\
         \"end\":1431280934,\"log-status\":\"OK\",\"action\":\"ACCEPT\",\"region\":null,\"tcp-flags\":18,\"type\":\"IPv4\",\
         \"reject-reason\":null,\"security-group-rule-id\":null,\"batch-id\":null}\n"
    );
}

#[test]
fn json_parses_back() {
    let parse = |record: &Record<'_>| {
        serde_json::from_str::<Json>(&line(&Format::json(&all_fields()), record)).unwrap()
    };
    let record = parse(&ok(&eni()));
    assert_eq!(record["version"], 1);
    assert_eq!(record["bytes"], u64::MAX);
    assert_eq!(record["account-id"], "123456789010");
    let record = parse(&no_data(&eni()));
    let absent: Vec<&str> = all_fields()
        .iter()
        .map(|field| field.as_str())
        .filter(|&name| record[name].is_null())
        .collect();
    assert_eq!(
        absent,
        [
            "srcaddr",
            "srcport",
            "dstaddr",
            "dstport",
            "protocol",
            "direction",
            "packets",
            "bytes",
            "action",
            "region",
            "tcp-flags",
            "type",
            "reject-reason",
            "security-group-rule-id",
            "batch-id"
        ]
    );
}

#[test]
fn json_of_odd_field_lists() {
    let eni = eni();
    let record = &ok(&eni);
    assert_eq!(line(&Format::json(&[]), record), "{}\n");
    assert_eq!(
        line(
            &Format::json(&[Field::End, Field::Start, Field::End]),
            record
        ),
        "{\"end\":1431280934,\"start\":1431280876}\n"
    );
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ]
}

fn any_flow() -> impl Strategy<Value = FlowTuple> {
    (
        any_address(),
        any::<u16>(),
        any_address(),
        any::<u16>(),
        any::<u8>(),
    )
        .prop_map(
            |(src_addr, src_port, dst_addr, dst_port, protocol)| FlowTuple {
                src_addr,
                src_port,
                dst_addr,
                dst_port,
                protocol,
            },
        )
}

/// An ENI whose identifiers follow `pattern`.
fn any_eni(pattern: &'static str) -> impl Strategy<Value = Eni> {
    (
        pattern,
        pattern,
        proptest::option::of(pattern),
        pattern,
        pattern,
        proptest::option::of(pattern),
    )
        .prop_map(
            |(eni_id, vswitch_id, vm_id, vpc_id, account_id, region)| Eni {
                eni_id,
                vswitch_id,
                vm_id,
                vpc_id,
                account_id,
                region,
            },
        )
}

/// All of a record but the ENI.
#[derive(Clone, Debug)]
struct Rest {
    flow: Option<FlowTuple>,
    direction: Option<Direction>,
    volume: (Option<u64>, Option<u64>),
    window: (u64, u64),
    log_status: LogStatus,
    action: Option<Action>,
    tcp_flags: Option<u8>,
    reject_reason: Option<RejectReason>,
}

impl Rest {
    fn with<'a>(&self, eni: &'a Eni) -> Record<'a> {
        let &Self {
            flow,
            direction,
            volume: (packets, bytes),
            window: (start, end),
            log_status,
            action,
            tcp_flags,
            reject_reason,
        } = self;
        Record {
            reject_reason,
            security_group_rule_id: reject_reason.map(|_| "sgr-1"),
            batch_id: None,
            eni,
            flow,
            direction,
            packets,
            bytes,
            start,
            end,
            log_status,
            action,
            tcp_flags,
        }
    }
}

fn any_rest() -> impl Strategy<Value = Rest> {
    let direction = proptest::option::of(prop_oneof![Just(Direction::In), Just(Direction::Out)]);
    let status = prop_oneof![
        Just(LogStatus::Ok),
        Just(LogStatus::NoData),
        Just(LogStatus::SkipData)
    ];
    let action = proptest::option::of(prop_oneof![Just(Action::Accept), Just(Action::Reject)]);
    (
        proptest::option::of(any_flow()),
        direction,
        any::<(Option<u64>, Option<u64>)>(),
        any::<(u64, u64)>(),
        status,
        action,
        any::<Option<u8>>(),
        proptest::option::of(proptest::sample::select(RejectReason::ALL)),
    )
        .prop_map(
            |(flow, direction, volume, window, log_status, action, tcp_flags, reject_reason)| {
                Rest {
                    flow,
                    direction,
                    volume,
                    window,
                    log_status,
                    action,
                    tcp_flags,
                    reject_reason,
                }
            },
        )
}

fn any_fields() -> impl Strategy<Value = Vec<Field>> {
    proptest::sample::subsequence(Field::ALL, 0..=Field::ALL.len()).prop_shuffle()
}

proptest! {
    /// Even with identifiers that the inventory would refuse.
    #[test]
    fn any_json_line_is_one_object_with_the_keys_in_order(eni in any_eni("\\PC{0,8}|[\"\\\\\n\u{0}-\u{1f}]{1,8}"),
                                                          rest in any_rest(), fields in any_fields()) {
        let line = line(&Format::json(&fields), &rest.with(&eni));
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        let object: serde_json::Map<String, Json> = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(object.len(), fields.len());
        let mut from = 0;
        for field in &fields {
            let key = format!("\"{field}\":");
            from += line[from..].find(&key).unwrap() + key.len();
        }
        if fields.contains(&Field::EniId) {
            prop_assert_eq!(&object["eni-id"], &Json::from(eni.eni_id));
        }
        if let (true, Some(flow)) = (fields.contains(&Field::SrcAddr), rest.flow) {
            prop_assert_eq!(&object["srcaddr"], &Json::from(flow.src_addr.to_string()));
        }
    }

    #[test]
    fn any_text_line_has_a_token_for_each_field(eni in any_eni("[A-Za-z0-9._:-]{1,64}"), rest in any_rest(), fields in any_fields()) {
        let line = line(&Format::text(&fields), &rest.with(&eni));
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        prop_assert_eq!(line.split_whitespace().count(), fields.len());
        prop_assert_eq!(line.matches(' ').count(), fields.len().saturating_sub(1));
    }
}
