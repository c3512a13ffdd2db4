use super::*;
use crate::text::Id;

/// An entry of the given id, whose `match` and further keys are `rest`.
fn entry(eni_id: &str, rest: &str) -> String {
    format!(
        "[[eni]]\neni-id = \"{eni_id}\"\nvswitch-id = \"vsw-1\"\nvpc-id = \"vpc-1\"\naccount-id = \"1\"\n{rest}\n"
    )
}

fn inventory(entries: &[(&str, &str)]) -> Inventory {
    let text: String = entries
        .iter()
        .map(|(eni_id, rest)| entry(eni_id, rest))
        .collect();
    Inventory::parse(&text, "inventory.toml").unwrap()
}

fn device(name: &str) -> DeviceIdentity<'_> {
    DeviceIdentity {
        name,
        mac: None,
        alias: None,
        namespace: None,
    }
}

fn found(inventory: &Inventory, device: &DeviceIdentity<'_>) -> String {
    match inventory.find(device) {
        Match::One(entry) => entry.eni.eni_id.clone(),
        Match::None => "none".into(),
        Match::Ambiguous(ids) => ids.join(" or "),
    }
}

#[test]
fn reads_every_key() {
    let text = entry(
        "eni-1",
        "vm-id = 'i-1'\nregion = 'eu-1'\nside = 'host'\nhook = 'xdp'\nnetfilter = false\n\
         match = { name = 'tap*', mac = 'AA:bb:0c:00:00:01', alias = 'vm ?', namespace = 'blue' }",
    );
    let inventory = Inventory::parse(&format!("# a comment\n\n{text}"), "inventory.toml").unwrap();
    let expected = EniEntry {
        eni: Eni {
            eni_id: "eni-1".into(),
            vswitch_id: "vsw-1".into(),
            vm_id: Some("i-1".into()),
            vpc_id: "vpc-1".into(),
            account_id: "1".into(),
            region: Some("eu-1".into()),
        },
        device: DeviceMatch {
            name: NamePattern::from_text("tap*"),
            mac: Some(MacAddr([0xaa, 0xbb, 0x0c, 0, 0, 1])),
            alias: AliasPattern::from_text("vm ?"),
            namespace: NamespaceName::from_text("blue"),
        },
        side: Side::Host,
        hook: Hook::Xdp,
        netfilter: false,
        security: Attachment::default(),
        line: 3,
    };
    assert_eq!(inventory.entries(), [expected]);
}

#[test]
fn defaults() {
    let inventory = inventory(&[("eni-1", "match.name = 'eth0'")]);
    let entry = &inventory.entries()[0];
    assert_eq!((entry.side, entry.hook), (Side::Guest, Hook::Tc));
    assert_eq!((&entry.eni.vm_id, &entry.eni.region), (&None, &None));
    assert_eq!(
        Inventory::parse("", "inventory.toml"),
        Ok(Inventory::default())
    );
}

#[test]
fn finds_by_each_criterion() {
    let inventory = inventory(&[
        ("by-name", "match.name = 'eth?'"),
        ("by-mac", "match.mac = 'aa:BB:cc:dd:ee:ff'"),
        ("by-alias", "match.alias = 'vm*'"),
        ("by-namespace", "match.namespace = 'blue'"),
        ("by-two", "match = { name = 'eth0', namespace = 'red' }"),
    ]);
    let mac = Some([0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
    assert_eq!(found(&inventory, &device("eth0")), "by-name");
    assert_eq!(found(&inventory, &device("eth10")), "none");
    assert_eq!(
        found(&inventory, &DeviceIdentity { mac, ..device("x") }),
        "by-mac"
    );
    assert_eq!(
        found(
            &inventory,
            &DeviceIdentity {
                mac: Some([0; 6]),
                ..device("x")
            }
        ),
        "none"
    );
    assert_eq!(
        found(
            &inventory,
            &DeviceIdentity {
                alias: Some("vm 1"),
                ..device("x")
            }
        ),
        "by-alias"
    );
    assert_eq!(
        found(
            &inventory,
            &DeviceIdentity {
                alias: Some("a vm"),
                ..device("x")
            }
        ),
        "none"
    );
    // A criterion without a namespace is about the host's alone.
    assert_eq!(
        found(
            &inventory,
            &DeviceIdentity {
                namespace: Some("blue"),
                mac,
                ..device("eth0")
            }
        ),
        "by-namespace"
    );
    assert_eq!(
        found(
            &inventory,
            &DeviceIdentity {
                namespace: Some("red"),
                ..device("eth0")
            }
        ),
        "by-two"
    );
    assert_eq!(
        found(
            &inventory,
            &DeviceIdentity {
                namespace: Some("red"),
                ..device("eth1")
            }
        ),
        "none"
    );
}

#[test]
fn two_entries_for_one_device_are_ambiguous() {
    let inventory = inventory(&[
        ("eni-1", "match.name = 'eth*'"),
        ("eni-2", "match.mac = 'aa:bb:cc:dd:ee:ff'"),
        ("eni-3", "match.name = 'eth0'"),
    ]);
    assert_eq!(found(&inventory, &device("eth1")), "eni-1");
    assert_eq!(found(&inventory, &device("eth0")), "eni-1 or eni-3");
    let mac = Some([0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
    assert_eq!(
        found(
            &inventory,
            &DeviceIdentity {
                mac,
                ..device("eth0")
            }
        ),
        "eni-1 or eni-2 or eni-3"
    );
}

#[test]
fn namespaces_are_named_once() {
    let inventory = inventory(&[
        ("eni-1", "match.namespace = 'red'"),
        ("eni-2", "match.name = 'eth0'"),
        ("eni-3", "match = { namespace = 'blue', name = 'a' }"),
        ("eni-4", "match = { namespace = 'blue', name = 'b' }"),
    ]);
    assert_eq!(
        inventory.namespaces().into_iter().collect::<Vec<_>>(),
        ["blue", "red"]
    );
}

#[test]
fn mac_addresses() {
    assert_eq!(
        "AA:bb:0C:00:00:01".parse::<MacAddr>().unwrap().to_string(),
        "aa:bb:0c:00:00:01"
    );
    for bad in [
        "",
        "aa:bb:cc:dd:ee",
        "aa:bb:cc:dd:ee:ff:00",
        "aa-bb-cc-dd-ee-ff",
        "a:bb:cc:dd:ee:ff",
        "+a:bb:cc:dd:ee:ff",
        "é:",
    ] {
        assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
    }
}

#[test]
fn namespace_names_stay_in_their_folder() {
    for bad in [
        "",
        ".",
        "..",
        "a/b",
        "../../proc/1/ns/net",
        "a\0",
        &"x".repeat(256),
    ] {
        assert!(bad.parse::<NamespaceName>().is_err(), "{bad:?}");
    }
    assert_eq!("...".parse::<NamespaceName>().unwrap().as_str(), "...");
}

#[test]
fn errors_name_line_key_and_what_is_allowed() {
    let id = Id::allowed();
    let cases = [
        (entry("eni 1", "match.name = 'a'"), format!("inventory.toml:2: `eni-id` is \"eni 1\": {id}")),
        (entry("", "match.name = 'a'"), format!("inventory.toml:2: `eni-id` is \"\": {id}")),
        (entry("a", ""), "inventory.toml:1: `match` is missing: `[[eni]]` needs it".into()),
        (entry("a", "match = {}"), "inventory.toml:6: `match` is {}: allowed is at least one of name, mac, alias and namespace".into()),
        (
            entry("a", "[eni.match]"),
            "inventory.toml:6: `match` is a table: allowed is at least one of name, mac, alias and namespace".into(),
        ),
        (
            entry("a", "match.nam = 'x'"),
            "inventory.toml:6: `nam` is not known here: allowed are name, mac, alias and namespace".into(),
        ),
        (
            entry("a", "match.name = ''"),
            "inventory.toml:6: `name` is '': allowed are 1 to 64 bytes, in which `*` stands for any characters and `?` for one".into(),
        ),
        (
            entry("a", "match = { name = '*123456789012345*6' }"),
            "inventory.toml:6: `match` is { name = '*123456789012345*6' }: `name` can match no device, for allowed are names of 15 \
             bytes at most"
                .into(),
        ),
        (
            entry("a", "match.mac = 'aa:bb'"),
            "inventory.toml:6: `mac` is 'aa:bb': allowed are six octets in hexadecimal, as in aa:bb:cc:dd:ee:ff".into(),
        ),
        (
            entry("a", "match = { name = 'a', namespace = '../x' }"),
            "inventory.toml:6: `namespace` is '../x': allowed are names as `ip netns` lists them: 1 to 255 bytes without `/`".into(),
        ),
        (entry("a", "side = 'vm'\nmatch.name = 'a'"), "inventory.toml:6: `side` is 'vm': allowed are guest and host".into()),
        (entry("a", "hook = 1\nmatch.name = 'a'"), "inventory.toml:6: `hook` is 1: allowed are tc and xdp".into()),
        ("[eni]\n".into(), "inventory.toml:1: `eni` is a table: allowed is a list".into()),
        ("[[enis]]\n".into(), "inventory.toml:1: `enis` is not known here: allowed are eni, remote-eni, security-group and prefix-list".into()),
        (
            entry("a", "match.name = 'a'") + &entry("b", "match.name = 'b'") + &entry("a", "match.name = 'c'"),
            "inventory.toml:14: `eni-id` is \"a\": allowed is one entry for each eni-id, and line 2 has this one already".into(),
        ),
    ];
    for (text, sentence) in cases {
        assert_eq!(
            Inventory::parse(&text, "inventory.toml")
                .unwrap_err()
                .to_string(),
            sentence,
            "{text}"
        );
    }
}

#[test]
fn a_pattern_may_be_as_long_as_a_name_can_be() {
    inventory(&[("eni-1", "match.name = '*12345678901234?*'")]);
}
