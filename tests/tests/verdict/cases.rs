//! Policies with every kind of rule, and what each packet is decided by.

/// What decides a packet of the tables below: a rule, or one of these.
pub(crate) const DEFAULT: &str = "default";
pub(crate) const INNER: &str = "inner-access-policy";

/// Group, rules, and who is a member of what; the tables end with packets and what decides each.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) groups: &'static [&'static str],
    pub(crate) tables: &'static str,
    pub(crate) packets: &'static [(&'static str, bool, &'static str)],
}

const ACCEPT: bool = true;
const REJECT: bool = false;

pub(crate) const BASIC: Case = Case {
    name: "basic groups",
    groups: &["sg-a", "sg-b"],
    tables: r#"
private-ip-addresses = ["10.88.0.10"]
ipv6-addresses = ["fd00:88::10"]

[[remote-eni]]
eni-id = "eni-friend"
security-group-ids = ["sg-a"]
private-ip-addresses = ["10.88.0.11"]
ipv6-addresses = ["fd00:88::11"]

[[remote-eni]]
eni-id = "eni-isolated"
security-group-ids = ["sg-b"]
private-ip-addresses = ["10.88.0.12"]
ipv6-addresses = ["fd00:88::12"]

[[remote-eni]]
eni-id = "eni-admin"
security-group-ids = ["sg-admin"]
private-ip-addresses = ["10.88.9.9"]
ipv6-addresses = ["fd00:88:9::9"]

[[security-group]]
security-group-id = "sg-admin"
vpc-id = "vpc-test"

[[security-group]]
security-group-id = "sg-a"
vpc-id = "vpc-test"
rule = [
    { security-group-rule-id = "sgr-web", direction = "ingress", ip-protocol = "TCP", port-range = "80/443", source-cidr-ip = "0.0.0.0/0" },
    { security-group-rule-id = "sgr-web-6", direction = "ingress", ip-protocol = "TCP", port-range = "443/443", ipv6-source-cidr-ip = "2001:db8::/32" },
    { security-group-rule-id = "sgr-not-these", direction = "ingress", policy = "drop", ip-protocol = "TCP", port-range = "80/80", priority = 1, source-cidr-ip = "192.0.2.0/24" },
    { security-group-rule-id = "sgr-low", direction = "ingress", policy = "drop", ip-protocol = "TCP", port-range = "443/443", priority = 50, source-cidr-ip = "192.0.2.0/24" },
    { security-group-rule-id = "sgr-not-these-6", direction = "ingress", policy = "drop", ip-protocol = "TCP", port-range = "443/443", ipv6-source-cidr-ip = "2001:db8:bad::/48" },
    { security-group-rule-id = "sgr-ssh", direction = "ingress", ip-protocol = "TCP", port-range = "22/22", source-group-id = "sg-admin" },
    { security-group-rule-id = "sgr-list", direction = "ingress", ip-protocol = "UDP", port-range = "53/53", source-prefix-list-id = "pl-dns" },
    { security-group-rule-id = "sgr-list-6", direction = "ingress", ip-protocol = "UDP", port-range = "53/53", source-prefix-list-id = "pl-dns-6" },
    { security-group-rule-id = "sgr-ntp", direction = "ingress", ip-protocol = "UDP", port-range = "123/123", source-cidr-ip = "10.0.0.0/8", source-port-range = "123/123", dest-cidr-ip = "10.88.0.10" },
    { security-group-rule-id = "sgr-ntp-6", direction = "ingress", ip-protocol = "UDP", port-range = "123/123", ipv6-source-cidr-ip = "fd00::/16", source-port-range = "123/123", ipv6-dest-cidr-ip = "fd00:88::10" },
    { security-group-rule-id = "sgr-ping", direction = "ingress", ip-protocol = "ICMP", source-cidr-ip = "198.51.100.0/24" },
    { security-group-rule-id = "sgr-ping-6", direction = "ingress", ip-protocol = "ICMPv6", ipv6-source-cidr-ip = "2001:db8::/32" },
    { security-group-rule-id = "sgr-gre", direction = "ingress", ip-protocol = "GRE", source-cidr-ip = "198.51.100.7" },
    { security-group-rule-id = "sgr-gre-6", direction = "ingress", ip-protocol = "GRE", ipv6-source-cidr-ip = "2001:db8::7" },
    { security-group-rule-id = "sgr-sctp", direction = "ingress", ip-protocol = "132", port-range = "2905/2905", source-cidr-ip = "198.51.100.0/24" },
    { security-group-rule-id = "sgr-sctp-6", direction = "ingress", ip-protocol = "132", port-range = "2905/2905", ipv6-source-cidr-ip = "2001:db8::/32" },
    { security-group-rule-id = "sgr-esp", direction = "ingress", ip-protocol = "50", source-cidr-ip = "198.51.100.0/24" },
    { security-group-rule-id = "sgr-esp-6", direction = "ingress", ip-protocol = "50", ipv6-source-cidr-ip = "2001:db8::/32" },
]

[[security-group]]
security-group-id = "sg-b"
vpc-id = "vpc-test"
inner-access-policy = "drop"
rule = [
    { security-group-rule-id = "sgr-all", direction = "ingress", ip-protocol = "ALL", priority = 100, source-cidr-ip = "203.0.113.0/24" },
    { security-group-rule-id = "sgr-all-6", direction = "ingress", ip-protocol = "ALL", priority = 100, ipv6-source-cidr-ip = "2001:db8:a11::/48" },
    { security-group-rule-id = "sgr-no-smtp", direction = "egress", policy = "drop", ip-protocol = "TCP", port-range = "25/25", dest-cidr-ip = "0.0.0.0/0" },
    { security-group-rule-id = "sgr-no-smtp-6", direction = "egress", policy = "drop", ip-protocol = "TCP", port-range = "25/25", ipv6-dest-cidr-ip = "::/0" },
    { security-group-rule-id = "sgr-blocked", direction = "egress", policy = "drop", ip-protocol = "ALL", dest-prefix-list-id = "pl-blocked" },
]

[[prefix-list]]
prefix-list-id = "pl-dns"
entry = [{ cidr = "198.51.100.53" }, { cidr = "203.0.113.128/25" }]

[[prefix-list]]
prefix-list-id = "pl-dns-6"
address-family = "IPv6"
entry = [{ cidr = "2001:db8::53" }, { cidr = "2001:db8:a11:8000::/49" }]

[[prefix-list]]
prefix-list-id = "pl-blocked"
address-family = "IPv6"
entry = [{ cidr = "2001:db8:bad::/48" }]
"#,
    packets: &[
        (
            "tcp 198.51.100.1:40001 > 10.88.0.10:80 in",
            ACCEPT,
            "sgr-web",
        ),
        (
            "tcp 198.51.100.1:40002 > 10.88.0.10:443 in",
            ACCEPT,
            "sgr-web",
        ),
        (
            "tcp 198.51.100.1:40003 > 10.88.0.10:444 in",
            REJECT,
            DEFAULT,
        ),
        ("tcp 198.51.100.1:40004 > 10.88.0.10:79 in", REJECT, DEFAULT),
        // Equal priority: drop wins. A lower priority does not.
        (
            "tcp 192.0.2.7:40005 > 10.88.0.10:80 in",
            REJECT,
            "sgr-not-these",
        ),
        ("tcp 192.0.2.7:40006 > 10.88.0.10:443 in", ACCEPT, "sgr-web"),
        (
            "tcp [2001:db8::7]:40007 > [fd00:88::10]:443 in",
            ACCEPT,
            "sgr-web-6",
        ),
        (
            "tcp [2001:db9::7]:40008 > [fd00:88::10]:443 in",
            REJECT,
            DEFAULT,
        ),
        ("tcp 10.88.9.9:40009 > 10.88.0.10:22 in", ACCEPT, "sgr-ssh"),
        ("tcp 10.88.9.8:40010 > 10.88.0.10:22 in", REJECT, DEFAULT),
        (
            "udp 198.51.100.53:40011 > 10.88.0.10:53 in",
            ACCEPT,
            "sgr-list",
        ),
        (
            "udp 203.0.113.200:40012 > 10.88.0.10:53 in",
            ACCEPT,
            "sgr-list",
        ),
        (
            "udp 203.0.113.100:40013 > 10.88.0.10:53 in",
            ACCEPT,
            "sgr-all",
        ),
        ("udp 10.1.2.3:123 > 10.88.0.10:123 in", ACCEPT, "sgr-ntp"),
        ("udp 10.1.2.3:124 > 10.88.0.10:123 in", REJECT, DEFAULT),
        ("udp 10.1.2.3:123 > 10.88.0.13:123 in", REJECT, DEFAULT),
        ("icmp 198.51.100.9 > 10.88.0.10 in", ACCEPT, "sgr-ping"),
        ("icmp 192.0.2.9 > 10.88.0.10 in", REJECT, DEFAULT),
        ("icmpv6 2001:db8::9 > fd00:88::10 in", ACCEPT, "sgr-ping-6"),
        ("icmpv6 2001:db9::9 > fd00:88::10 in", REJECT, DEFAULT),
        ("gre 198.51.100.7 > 10.88.0.10 in", ACCEPT, "sgr-gre"),
        ("gre 198.51.100.8 > 10.88.0.10 in", REJECT, DEFAULT),
        (
            "132 198.51.100.7:40014 > 10.88.0.10:2905 in",
            ACCEPT,
            "sgr-sctp",
        ),
        (
            "132 198.51.100.7:40015 > 10.88.0.10:2906 in",
            REJECT,
            DEFAULT,
        ),
        ("50 198.51.100.7 > 10.88.0.10 in", ACCEPT, "sgr-esp"),
        ("51 198.51.100.7 > 10.88.0.10 in", REJECT, DEFAULT),
        ("51 203.0.113.7 > 10.88.0.10 in", ACCEPT, "sgr-all"),
        // Members of a group that lets them, whatever the rules; members of one that does not, as the rules say.
        ("tcp 10.88.0.11:40016 > 10.88.0.10:9999 in", ACCEPT, INNER),
        (
            "udp [fd00:88::11]:40017 > [fd00:88::10]:9999 in",
            ACCEPT,
            INNER,
        ),
        ("tcp 10.88.0.12:40018 > 10.88.0.10:9999 in", REJECT, INNER),
        ("tcp 10.88.0.10:50001 > 10.88.0.11:25 out", ACCEPT, INNER),
        (
            "tcp 10.88.0.10:50002 > 198.51.100.1:25 out",
            REJECT,
            "sgr-no-smtp",
        ),
        (
            "tcp 10.88.0.10:50003 > 198.51.100.1:26 out",
            ACCEPT,
            DEFAULT,
        ),
        (
            "udp 10.88.0.10:50004 > 198.51.100.1:25 out",
            ACCEPT,
            DEFAULT,
        ),
        (
            "udp [fd00:88::10]:50005 > [2001:db8:bad::1]:1 out",
            REJECT,
            "sgr-blocked",
        ),
        (
            "udp [fd00:88::10]:50006 > [2001:db8:bae::1]:1 out",
            ACCEPT,
            DEFAULT,
        ),
        // The same kinds over IPv6.
        (
            "tcp [2001:db8:bad::7]:41001 > [fd00:88::10]:443 in",
            REJECT,
            "sgr-not-these-6",
        ),
        (
            "tcp [fd00:88:9::9]:41002 > [fd00:88::10]:22 in",
            ACCEPT,
            "sgr-ssh",
        ),
        (
            "tcp [fd00:88:9::8]:41003 > [fd00:88::10]:22 in",
            REJECT,
            DEFAULT,
        ),
        (
            "udp [2001:db8::53]:41004 > [fd00:88::10]:53 in",
            ACCEPT,
            "sgr-list-6",
        ),
        (
            "udp [2001:db8:a11:8001::1]:41005 > [fd00:88::10]:53 in",
            ACCEPT,
            "sgr-list-6",
        ),
        (
            "udp [2001:db8:a11:7fff::1]:41006 > [fd00:88::10]:53 in",
            ACCEPT,
            "sgr-all-6",
        ),
        (
            "udp [2001:db8:a12::1]:41007 > [fd00:88::10]:53 in",
            REJECT,
            DEFAULT,
        ),
        (
            "udp [fd00:1::3]:123 > [fd00:88::10]:123 in",
            ACCEPT,
            "sgr-ntp-6",
        ),
        (
            "udp [fd00:1::3]:124 > [fd00:88::10]:123 in",
            REJECT,
            DEFAULT,
        ),
        (
            "udp [fd00:1::3]:123 > [fd00:88::13]:123 in",
            REJECT,
            DEFAULT,
        ),
        ("gre 2001:db8::7 > fd00:88::10 in", ACCEPT, "sgr-gre-6"),
        ("gre 2001:db8::8 > fd00:88::10 in", REJECT, DEFAULT),
        (
            "132 [2001:db8::7]:41008 > [fd00:88::10]:2905 in",
            ACCEPT,
            "sgr-sctp-6",
        ),
        (
            "132 [2001:db8::7]:41009 > [fd00:88::10]:2906 in",
            REJECT,
            DEFAULT,
        ),
        ("50 2001:db8::7 > fd00:88::10 in", ACCEPT, "sgr-esp-6"),
        ("50 2001:db9::7 > fd00:88::10 in", REJECT, DEFAULT),
        (
            "tcp [fd00:88::12]:41010 > [fd00:88::10]:9999 in",
            REJECT,
            INNER,
        ),
        (
            "tcp [fd00:88::10]:51001 > [2001:db8::1]:25 out",
            REJECT,
            "sgr-no-smtp-6",
        ),
        (
            "tcp [fd00:88::10]:51002 > [2001:db8::1]:26 out",
            ACCEPT,
            DEFAULT,
        ),
        (
            "tcp [fd00:88::10]:51003 > [fd00:88::11]:25 out",
            ACCEPT,
            INNER,
        ),
        ("icmpv6 fd00:88::10 > 2001:db8::77 out", ACCEPT, DEFAULT),
        ("gre fd00:88::10 > 2001:db8::77 out", ACCEPT, DEFAULT),
        ("icmp 10.88.0.10 > 198.51.100.77 out", ACCEPT, DEFAULT),
        ("gre 10.88.0.10 > 198.51.100.77 out", ACCEPT, DEFAULT),
    ],
};

pub(crate) const ADVANCED: Case = Case {
    name: "an advanced group",
    groups: &["sg-e"],
    tables: r#"
private-ip-addresses = ["10.88.0.10"]

[[remote-eni]]
eni-id = "eni-member"
security-group-ids = ["sg-e"]
private-ip-addresses = ["10.88.0.11"]
ipv6-addresses = ["fd00:88::11"]

[[security-group]]
security-group-id = "sg-e"
vpc-id = "vpc-test"
security-group-type = "enterprise"
rule = [
    { security-group-rule-id = "sgr-in", direction = "ingress", ip-protocol = "UDP", port-range = "1/200", source-cidr-ip = "0.0.0.0/0" },
    { security-group-rule-id = "sgr-in-6", direction = "ingress", ip-protocol = "UDP", port-range = "1/200", ipv6-source-cidr-ip = "::/0" },
    { security-group-rule-id = "sgr-out", direction = "egress", ip-protocol = "TCP", port-range = "-1/-1", dest-cidr-ip = "198.51.100.0/24" },
    { security-group-rule-id = "sgr-out-6", direction = "egress", ip-protocol = "TCP", port-range = "-1/-1", ipv6-dest-cidr-ip = "2001:db8::/32" },
]
"#,
    packets: &[
        (
            "udp 198.51.100.1:40001 > 10.88.0.10:200 in",
            ACCEPT,
            "sgr-in",
        ),
        (
            "udp 198.51.100.1:40002 > 10.88.0.10:201 in",
            REJECT,
            DEFAULT,
        ),
        ("tcp 10.88.0.11:40003 > 10.88.0.10:80 in", REJECT, INNER),
        (
            "tcp 10.88.0.10:50001 > 198.51.100.1:80 out",
            ACCEPT,
            "sgr-out",
        ),
        (
            "udp 10.88.0.10:50002 > 198.51.100.1:80 out",
            REJECT,
            DEFAULT,
        ),
        ("tcp 10.88.0.10:50003 > 10.88.0.11:80 out", REJECT, INNER),
        ("icmp 10.88.0.10 > 198.51.100.1 out", REJECT, DEFAULT),
        (
            "udp [2001:db8::1]:41001 > [fd00:88::10]:200 in",
            ACCEPT,
            "sgr-in-6",
        ),
        (
            "udp [2001:db8::1]:41002 > [fd00:88::10]:201 in",
            REJECT,
            DEFAULT,
        ),
        (
            "tcp [fd00:88::11]:41003 > [fd00:88::10]:80 in",
            REJECT,
            INNER,
        ),
        (
            "tcp [fd00:88::10]:51001 > [2001:db8::1]:80 out",
            ACCEPT,
            "sgr-out-6",
        ),
        (
            "udp [fd00:88::10]:51002 > [2001:db8::1]:80 out",
            REJECT,
            DEFAULT,
        ),
        (
            "tcp [fd00:88::10]:51003 > [fd00:88::11]:80 out",
            REJECT,
            INNER,
        ),
        ("icmpv6 fd00:88::10 > 2001:db8::1 out", REJECT, DEFAULT),
    ],
};
