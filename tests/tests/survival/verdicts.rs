//! Security groups and the host's firewall, beside everything else that happens: what they are, and what records must say of them.
//!
//! The groups of the left end are observed, those of the right end enforced; and the right end has a firewall. What becomes of a flood's
//! packet can be told from its source port.
use std::{collections::BTreeSet, thread};

use flowlog_tests::agent::{Action, Direction, EniPlan, LogStatus, Record, RejectReason};
use flowlog_tests::lab::{EndPlan, VethPair};

use crate::scene::{LEFT, RIGHT};

const UDP: u8 = 17;

/// Source ports of the floods' flows that the firewall drops: the first quarter of those that [`Scene::beside`](crate::scene::Scene::beside) sends.
const FILTERED: std::ops::RangeInclusive<u16> = 1024..=1148;
/// The last source port that groups allow, of as many again.
const LAST_ALLOWED: u16 = 1273;
/// Likewise, by the other policy.
const LAST_ALLOWED_LATER: u16 = 1398;

/// Which policy the groups have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policies {
    /// One.
    First,
    /// Another, by which a quarter of the floods' flows is allowed besides.
    Later,
}

impl Policies {
    fn last_allowed(self) -> u16 {
        match self {
            Self::First => LAST_ALLOWED,
            Self::Later => LAST_ALLOWED_LATER,
        }
    }

    /// Both ends as ENIs with groups.
    pub(crate) fn enis(self, pair: &VethPair) -> [EniPlan; 2] {
        let last = self.last_allowed();
        let rule = |id: &str, direction: &str, more: &str| {
            let (here, there) = if direction == "ingress" {
                ("source", "ipv6-source")
            } else {
                ("dest", "ipv6-dest")
            };
            format!(
                "{{ security-group-rule-id = \"sgr-{id}\", direction = {direction:?}, {more}, {here}-cidr-ip = \"0.0.0.0/0\" }},\n\
                 {{ security-group-rule-id = \"sgr-{id}-6\", direction = {direction:?}, {more}, {there}-cidr-ip = \"::/0\" }},\n"
            )
        };
        let floods = format!(
            "ip-protocol = \"UDP\", port-range = \"9/9\", source-port-range = \"1024/{last}\""
        );
        let transfers = "ip-protocol = \"TCP\", port-range = \"-1/-1\"";
        let groups = [
            // Nothing passes but what its rules say.
            (
                "sg-left",
                "enterprise",
                [
                    rule("left-in", "ingress", &floods),
                    rule("left-out", "egress", &floods),
                    rule("left-tcp", "egress", transfers),
                ]
                .concat(),
            ),
            // Everything may go out: what may not would be refused to the sender, and sent again.
            (
                "sg-right",
                "normal",
                [
                    rule("right-in", "ingress", &floods),
                    rule("right-tcp", "ingress", transfers),
                ]
                .concat(),
            ),
        ];
        let tables = groups.map(|(id, kind, rules)| {
            format!(
                "\n[[security-group]]\nsecurity-group-id = {id:?}\nvpc-id = \"vpc-test\"\nsecurity-group-type = {kind:?}\n\
                 rule = [\n{rules}]\n"
            )
        });
        let eni = |id, end: &EndPlan, mode: &str, group: &str, tables: &str| EniPlan {
            extra: format!("security-mode = {mode:?}\nsecurity-group-ids = [{group:?}]\n{tables}"),
            ..EniPlan::end(id, end)
        };
        [
            eni(LEFT, pair.left(), "observe", "sg-left", &tables[0]),
            eni(RIGHT, pair.right(), "enforce", "sg-right", &tables[1]),
        ]
    }
}

/// Sets up the firewall at the right end. The floods are to nobody's MAC address, so it must come before the stack.
pub(crate) fn filter(end: &EndPlan) {
    let rules = format!(
        "table netdev t {{\nchain c {{\ntype filter hook ingress device {} priority 0;\nudp sport {}-{} drop\n}}\n}}\n",
        end.name,
        FILTERED.start(),
        FILTERED.end()
    );
    end.namespace.nft(&rules).expect("rules");
}

/// What must be told of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// By such a rule.
    Allowed(&'static str),
    Denied,
    Filtered,
    /// Nobody judges it by a rule.
    Passes,
}

fn fate(policies: Policies, eni: &str, direction: Direction, source_port: u16) -> Fate {
    let allowed = source_port <= policies.last_allowed();
    match (eni, direction) {
        (LEFT, Direction::In) if allowed => Fate::Allowed("sgr-left-in"),
        (LEFT, Direction::Out) if allowed => Fate::Allowed("sgr-left-out"),
        (RIGHT, Direction::Out) => Fate::Passes,
        (RIGHT, Direction::In) if FILTERED.contains(&source_port) => Fate::Filtered,
        (RIGHT, Direction::In) if allowed => Fate::Allowed("sgr-right-in"),
        _ => Fate::Denied,
    }
}

/// Asserts that the records of the floods say what the groups and the firewall made of each packet, by one of these policies; and that
/// none of the transfers was rejected.
pub(crate) fn assert_verdicts(records: &[Record], policies: &[Policies]) {
    let mut late = 0;
    let mut seen = BTreeSet::new();
    for record in records
        .iter()
        .filter(|record| record.log_status == LogStatus::Ok)
    {
        let (Some(direction), Some(port)) = (record.direction, record.srcport) else {
            panic!("{record:?}");
        };
        if record.protocol != Some(UDP) {
            assert_eq!(record.action, Some(Action::Accept), "{record:?}");
            continue;
        }
        let fates = policies
            .iter()
            .map(|policies| fate(*policies, &record.eni_id, direction, port));
        let found = (
            record.action,
            record.reject_reason,
            record.security_group_rule_id.as_deref(),
        );
        let v6 = record.srcaddr.is_some_and(|address| address.is_ipv6());
        let is_told = |fate: &Fate| match *fate {
            Fate::Allowed(rule) => {
                let rule = if v6 {
                    format!("{rule}-6")
                } else {
                    rule.to_owned()
                };
                found == (Some(Action::Accept), None, Some(rule.as_str()))
            }
            Fate::Denied => {
                found
                    == (
                        Some(Action::Reject),
                        Some(RejectReason::SecurityGroup),
                        None,
                    )
            }
            Fate::Filtered => found == (Some(Action::Reject), Some(RejectReason::Netfilter), None),
            Fate::Passes => found == (Some(Action::Accept), None, None),
        };
        let mut fates = fates.peekable();
        let expected = *fates.peek().expect("a policy");
        if expected == Fate::Filtered && record.action == Some(Action::Accept) {
            late += record.packets.unwrap_or_default();
            continue;
        }
        assert!(fates.any(|fate| is_told(&fate)), "{expected:?}, {record:?}");
        seen.insert((
            &record.eni_id,
            direction,
            record.action,
            record.reject_reason,
        ));
    }
    // Each verdict that there can be was found.
    assert_eq!(seen.len(), 8, "{seen:?}");
    // A packet that a CPU has in hand as a window ends is told as accepted.
    let windows: BTreeSet<u64> = records.iter().map(|record| record.start).collect();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    assert!(
        late <= (windows.len() * cpus) as u64,
        "{late} packets in {} windows",
        windows.len()
    );
}
