use super::*;

const INVENTORY: &str = include_str!("../../../../inventory.toml");

fn inventory(change: &[(&str, &str)]) -> Inventory {
    let text = change
        .iter()
        .fold(INVENTORY.to_owned(), |text, (from, to)| {
            text.replace(from, to)
        });
    Inventory::parse(&text, "inventory.toml").unwrap()
}

fn lines(inventory: &Inventory, packet: &str) -> String {
    let entry = inventory.entry("eni-web-1").unwrap();
    answer(inventory, entry, &packet.parse().unwrap())
        .lines()
        .join("\n")
}

#[test]
fn says_what_decides_and_what_else_matches() {
    let also = ("priority = 1                    #", "priority = 2 #");
    let more = (
        "[[security-group.rule]]\nsecurity-group-rule-id = \"sgr-web-ssh\"",
        "[[security-group.rule]]\nsecurity-group-rule-id = \"sgr-no\"\ndirection = \"ingress\"\npolicy = \"drop\"\nip-protocol = \"ALL\"\n\
         source-cidr-ip = \"203.0.113.0/24\"\n[[security-group.rule]]\nsecurity-group-rule-id = \"sgr-web-ssh\"",
    );
    let inventory = inventory(&[also, more]);
    assert_eq!(
        lines(&inventory, "tcp 203.0.113.9:50000 > 10.0.1.10:443 in"),
        "REJECT  tcp 203.0.113.9:50000 > 10.0.1.10:443 in\n\
         \x20 by    sgr-no of sg-web: drop ALL -1/-1 from 203.0.113.0/24, priority 1\n\
         \x20 at    eni-web-1, security-mode observe: the packet passes\n\
         \x20 also  sgr-web-https of sg-web: accept TCP 443/443 from 0.0.0.0/0, priority 2"
    );
}

#[test]
fn says_why_where_no_rule_decides() {
    let sample = inventory(&[]);
    for (packet, action, why) in [
        (
            "icmp 203.0.113.9 > 10.0.1.10 in",
            "REJECT",
            "no rule matches",
        ),
        (
            "icmp 10.0.1.10 > 203.0.113.9 out",
            "ACCEPT",
            "no rule matches, and a basic group accepts what goes out",
        ),
        (
            "icmp 10.0.1.10 > 10.0.1.10 in",
            "REJECT",
            "both are members of a group whose inner access policy is drop, and no rule matches",
        ),
    ] {
        let shown = lines(&sample, packet);
        assert!(
            shown.starts_with(&format!(
                "{action}  {packet}\n  by    {why}\n  at    eni-web-1"
            )),
            "{shown}"
        );
    }
    let modes = [
        ("off", "security-mode off: nothing is judged now"),
        ("enforce", "security-mode enforce: the packet is dropped"),
    ];
    for (mode, consequence) in modes {
        let inventory = inventory(&[(
            "security-mode = \"observe\"",
            &format!("security-mode = \"{mode}\""),
        )]);
        let shown = lines(&inventory, "icmp 203.0.113.9 > 10.0.1.10 in");
        assert!(shown.ends_with(consequence), "{shown}");
    }
}

#[test]
fn finds_the_eni_by_the_packet_s_own_address() {
    let twin = inventory(&[(
        "vswitch-id = \"vsw-db\"",
        "private-ip-addresses = [\"10.0.1.10\"]\nvswitch-id = \"vsw-db\"",
    )]);
    let sample = inventory(&[]);
    let find = |inventory, eni: Option<&str>, packet: &str| {
        let arguments = TestArguments {
            inventory: "inventory.toml".into(),
            eni: eni.map(str::to_owned),
            packets: Vec::new(),
            output: ReportForm::Table,
        };
        eni_of(inventory, &arguments, &packet.parse().unwrap())
    };
    fn eni_of(
        inventory: &Inventory,
        arguments: &TestArguments,
        packet: &DescribedPacket,
    ) -> String {
        match eni(inventory, arguments, packet) {
            Ok(entry) => entry.eni.eni_id.clone(),
            Err(error) => error.to_string(),
        }
    }
    assert_eq!(
        find(&sample, None, "icmp 1.2.3.4 > 10.0.1.10 in"),
        "eni-web-1"
    );
    assert_eq!(
        find(&sample, None, "icmpv6 fd00:1::10 > fd00::9 out"),
        "eni-web-1"
    );
    assert_eq!(
        find(&sample, Some("eni-host"), "icmp 1.2.3.4 > 10.0.1.10 in"),
        "eni-host"
    );
    assert_eq!(
        find(&sample, None, "icmp 10.0.1.10 > 1.2.3.4 in"),
        "1.2.3.4, the packet's own address, is that of 0 ENIs of inventory.toml: name the ENI by --eni"
    );
    assert_eq!(
        find(&twin, None, "icmp 1.2.3.4 > 10.0.1.10 in"),
        "10.0.1.10, the packet's own address, is that of 2 ENIs of inventory.toml: name the ENI by --eni"
    );
    assert_eq!(
        find(&sample, Some("eni-9"), "icmp 1.2.3.4 > 10.0.1.10 in"),
        "inventory.toml has no ENI eni-9: allowed are its eni-ids"
    );
}
