//! Tests of the table.
use std::net::Ipv6Addr;

use flowlog_model::record::Eni;

use super::*;

fn eni(id: &str) -> Eni {
    Eni {
        eni_id: id.to_owned(),
        vswitch_id: "vsw-1".to_owned(),
        vm_id: Some("i-1".to_owned()),
        vpc_id: "vpc-1".to_owned(),
        account_id: "1".to_owned(),
        region: None,
    }
}

fn record(eni: &Eni, src: u128, dst: u128, bytes: u64, direction: Direction) -> Record<'_> {
    Record {
        eni,
        flow: Some(FlowTuple {
            src_addr: Ipv6Addr::from(src).into(),
            src_port: 40_000,
            dst_addr: Ipv6Addr::from(dst).into(),
            dst_port: 40_000,
            protocol: 17,
        }),
        direction: Some(direction),
        packets: Some(1),
        bytes: Some(bytes),
        start: 0,
        end: 5,
        log_status: LogStatus::Ok,
        action: Some(Action::Accept),
        tcp_flags: None,
        reject_reason: None,
        security_group_rule_id: None,
        batch_id: None,
    }
}

fn rendered(records: &[Record<'_>]) -> String {
    let mut view = View::default();
    for record in records {
        view.add(record);
    }
    view.order();
    view.render("── title ")
}

#[test]
fn the_directions_of_a_conversation_stand_together_and_an_eni_is_named_once() {
    let eni = eni("eni-1");
    let text = rendered(&[
        record(&eni, 1, 2, 1_000, Direction::In),
        record(&eni, 3, 4, 500, Direction::In),
        record(&eni, 2, 1, 5, Direction::Out),
    ]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[3],
        "eni-1 (i-1, vsw-1, vpc-1)  in: 2 packets, 1,500 bytes  out: 1 packet, 5 bytes"
    );
    for (line, shown) in [(4, "[::1]"), (5, "[::2]"), (6, "[::3]")] {
        assert!(lines[line].contains(shown), "{text}");
    }
    assert_eq!(text.matches("eni-1").count(), 1);
}

#[test]
fn no_line_is_too_long() {
    let eni = eni("eni-1");
    let wide = u128::MAX - 1;
    let text = rendered(&[record(&eni, wide, u128::MAX, u64::MAX, Direction::In)]);
    let longest = text.lines().map(|line| line.chars().count()).max();
    assert!(longest <= Some(MAX_WIDTH), "{text}");
    assert!(
        text.contains("[ffff:") && text.contains("ffff]:40000"),
        "{text}"
    );
}

#[test]
fn what_is_not_shown_is_added_up() {
    let eni = eni("eni-1");
    let records: Vec<_> = (0..1_000)
        .map(|flow| record(&eni, flow, u128::MAX, 10, Direction::In))
        .collect();
    let text = rendered(&records);
    assert!(
        text.contains("… and 940 smaller flows: 940 packets, 9,400 bytes"),
        "{text}"
    );
    assert!(text.contains("in: 1,000 packets, 10,000 bytes"), "{text}");
}

#[test]
fn silent_enis_share_a_line() {
    let enis: Vec<Eni> = (0..9).map(|n| eni(&format!("eni-{n}"))).collect();
    let records: Vec<_> = enis
        .iter()
        .map(|eni| Record {
            flow: None,
            direction: None,
            packets: None,
            bytes: None,
            log_status: LogStatus::NoData,
            action: None,
            ..record(eni, 0, 0, 0, Direction::In)
        })
        .collect();
    assert_eq!(
        rendered(&records).lines().last(),
        Some("NODATA, no traffic: eni-0, eni-1, eni-2, eni-3, eni-4, eni-5 and 3 more")
    );
}
