//! The status for people.
use comfy_table::{CellAlignment, Table};

use super::document::{
    Conservation, InterfaceStatus, Loss, SecurityStatus, ServiceStatus, SinkStatus, StatusDocument,
    WindowStatus,
};
use crate::{
    ledger::Cause,
    report::{self, grouped, timestamp},
};

/// The lines of the report, at whose end the troubles are.
pub(super) fn lines(document: &StatusDocument, troubles: &[String]) -> Vec<String> {
    let mut lines = head(document);
    let tables = [
        sinks(&document.sinks),
        interfaces(&document.interfaces),
        security(&document.security),
        conservation(&document.conservation),
        losses(&document.losses),
    ];
    for table in tables.into_iter().flatten() {
        lines.push(String::new());
        lines.extend(table.lines());
    }
    lines.push(String::new());
    if troubles.is_empty() {
        lines.push("All is well.".to_owned());
    }
    lines.extend(troubles.iter().cloned());
    lines
}

fn head(document: &StatusDocument) -> Vec<String> {
    let StatusDocument {
        agent,
        windows,
        spool,
        service,
        last_error,
        ..
    } = document;
    let mut lines = vec![format!(
        "flowlog-agent {}, process {}, since {}, ABI version {}",
        agent.version,
        agent.pid,
        timestamp(agent.since),
        agent.abi_version
    )];
    let mut said = format!("Windows: {} committed", grouped(windows.committed));
    if let Some(last) = &windows.last_closed {
        said.push_str(&format!("; closed last: {}", window(last)));
    }
    lines.push(said);
    let open = windows.open.iter();
    lines.extend(open.map(|open| format!("Open: {}", window(open))));
    lines.push(format!(
        "Spool: {}, {} of {} bytes in {} files; {} waiting, {} kept",
        spool.path,
        grouped(spool.bytes),
        grouped(spool.max_bytes),
        grouped(spool.files),
        counted(spool.pending_windows, "window"),
        counted(spool.drains, "drain"),
    ));
    lines.extend(service.as_ref().map(service_line));
    lines.extend(verdicts(&document.security));
    if let Some(error) = last_error {
        lines.push(format!(
            "Last error: {}, {}",
            timestamp(error.at),
            error.message
        ));
    }
    lines
}

fn service_line(service: &ServiceStatus) -> String {
    let since = |since: Option<u64>| {
        since.map_or(String::new(), |since| {
            format!(" since {}", timestamp(since))
        })
    };
    let state = match (service.connected, &service.error) {
        (true, _) => format!("connected{}", since(service.since)),
        (false, None) => "not asked yet".to_owned(),
        (false, Some(error)) => format!("not connected{}, {error}", since(service.since)),
    };
    let version = match service.version {
        0 => "no desired state".to_owned(),
        version => format!(
            "desired state {version}{}, {}",
            since(service.version_since),
            counted(service.flow_logs, "flow log")
        ),
    };
    format!("Service: {}, {state}; {version}", service.url)
}

/// What there is to say of verdicts of all ENIs together.
fn verdicts(security: &SecurityStatus) -> Vec<String> {
    let mut lines = Vec::new();
    if security.enis.iter().any(|eni| eni.epoch.is_some()) {
        lines.push(format!(
            "Sessions: {} of {}; {} found no room",
            grouped(security.sessions),
            grouped(security.max_sessions),
            counted(security.packets_without_session, "packet")
        ));
    }
    if security.enis.iter().any(|eni| eni.netfilter) {
        lines.push(format!(
            "Netfilter's drops: {}; {} of no known flow, {} not looked at",
            security.netfilter,
            grouped(security.unmatched_drops),
            grouped(security.missed_drops)
        ));
    }
    lines
}

/// A window's label and length.
fn window(window: &WindowStatus) -> String {
    let seconds = window.length_seconds;
    let length = if seconds > 0 && seconds.is_multiple_of(60) {
        format!("{}m", seconds / 60)
    } else {
        format!("{seconds}s")
    };
    format!(
        "{} to {} ({length})",
        timestamp(window.start),
        timestamp(window.end)
    )
}

fn sinks(sinks: &[SinkStatus]) -> Option<Table> {
    let mut table = report::table([
        "FLOW LOG",
        "DESTINATION",
        "DELIVERED",
        "WAITING",
        "OLDEST WAITING",
        "STATE",
    ]);
    numbers(&mut table, [2, 3]);
    for sink in sinks {
        let state = match (sink.next_attempt_in_seconds, &sink.last_error) {
            (None, _) => "ok".to_owned(),
            (Some(seconds), None) => format!("tries again in {seconds} s"),
            (Some(seconds), Some(error)) => {
                format!("{}; tries again in {seconds} s", error.message)
            }
        };
        table.add_row([
            sink.flow_log.clone(),
            sink.destination.clone(),
            grouped(sink.delivered_windows),
            grouped(sink.pending_windows),
            sink.oldest_pending.map_or("-".to_owned(), timestamp),
            state,
        ]);
    }
    (!sinks.is_empty()).then_some(table)
}

fn interfaces(interfaces: &[InterfaceStatus]) -> Option<Table> {
    let mut table = report::table([
        "NAMESPACE",
        "DEVICE",
        "ENI",
        "INGRESS",
        "EGRESS",
        "ERRORS",
        "STATE",
    ]);
    numbers(&mut table, [5]);
    for interface in interfaces {
        let hook = |hook: Option<&String>| hook.map_or("-", String::as_str).to_owned();
        let hooks = interface.hooks.as_ref();
        let state = match (interface.captured, &interface.reason) {
            (true, _) => "captured".to_owned(),
            (false, None) => "not captured".to_owned(),
            (false, Some(reason)) => format!("not captured: {reason}"),
        };
        table.add_row([
            interface
                .namespace
                .as_deref()
                .unwrap_or("host's")
                .to_owned(),
            interface.device.clone(),
            interface.eni_id.as_deref().unwrap_or("-").to_owned(),
            hook(hooks.map(|hooks| &hooks.ingress)),
            hook(hooks.map(|hooks| &hooks.egress)),
            grouped(interface.errors.into()),
            state,
        ]);
    }
    (!interfaces.is_empty()).then_some(table)
}

/// The ENIs that are in groups.
fn security(security: &SecurityStatus) -> Option<Table> {
    let mut table = report::table(["ENI", "GROUPS", "MODE", "RULES", "EPOCH"]);
    numbers(&mut table, [1, 3, 4]);
    let judged: Vec<_> = security.enis.iter().filter(|eni| eni.groups > 0).collect();
    for eni in &judged {
        table.add_row([
            eni.eni_id.clone(),
            grouped(eni.groups),
            eni.mode.clone(),
            eni.rules.map_or("-".to_owned(), grouped),
            eni.epoch.map_or("-".to_owned(), |epoch| epoch.to_string()),
        ]);
    }
    (!judged.is_empty()).then_some(table)
}

fn conservation(conservation: &[Conservation]) -> Option<Table> {
    let mut table = report::table([
        "PACKETS OF",
        "DIR",
        "DEVICE",
        "+ SEGMENTS",
        "+ UNSEEN",
        "- RECORDED",
        "- SKIPPED",
        "- NOT IP",
        "= DIFFERENCE",
    ]);
    numbers(&mut table, 2..9);
    for balance in conservation {
        let sign = if balance.difference < 0 { "-" } else { "" };
        table.add_row([
            balance.eni_id.clone(),
            balance.direction.clone(),
            grouped(balance.interface_counted),
            grouped(balance.merged_segments),
            grouped(balance.unseen),
            grouped(balance.recorded),
            grouped(balance.skipped),
            grouped(balance.not_ip),
            format!("{sign}{}", grouped(balance.difference.unsigned_abs())),
        ]);
    }
    (!conservation.is_empty()).then_some(table)
}

fn losses(losses: &[Loss]) -> Option<Table> {
    let mut table = report::table(["LOST BY", "PACKETS", "BYTES", "IN WINDOWS"]);
    numbers(&mut table, 1..4);
    let losses: Vec<&Loss> = losses
        .iter()
        .filter(|loss| loss.packets > 0 || loss.windows > 0)
        .collect();
    for loss in &losses {
        let known = |number| match loss.cause {
            Cause::PowerLoss => "not known".to_owned(),
            _ => grouped(number),
        };
        table.add_row([
            loss.cause.to_string(),
            known(loss.packets),
            known(loss.bytes),
            grouped(loss.windows),
        ]);
    }
    (!losses.is_empty()).then_some(table)
}

fn numbers(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn counted(number: u64, noun: &str) -> String {
    format!(
        "{} {noun}{}",
        grouped(number),
        if number == 1 { "" } else { "s" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::document::{
        AgentStatus, ErrorStatus, Hooks, JudgedStatus, SpoolStatus, WindowsStatus,
    };

    const START: u64 = 1_795_356_000;

    fn balance(direction: &str, interface_counted: u64, merged_segments: u64) -> Conservation {
        Conservation {
            eni_id: "eni-1".to_owned(),
            direction: direction.to_owned(),
            interface_counted,
            recorded: 1_200_000,
            skipped: 30,
            not_ip: 4,
            merged_segments,
            ..Conservation::default()
        }
        .balanced()
    }

    fn loss(cause: Cause, packets: u64, windows: u64) -> Loss {
        Loss {
            cause,
            packets,
            bytes: packets * 1500,
            windows,
        }
    }

    fn document() -> StatusDocument {
        let captured = InterfaceStatus {
            eni_id: Some("eni-1".to_owned()),
            device: "eth0".to_owned(),
            captured: true,
            hooks: Some(Hooks {
                ingress: "xdp native".to_owned(),
                egress: "tcx".to_owned(),
            }),
            ..InterfaceStatus::default()
        };
        let waiting = InterfaceStatus {
            eni_id: Some("eni-2".to_owned()),
            device: "eth1".to_owned(),
            namespace: Some("db".to_owned()),
            reason: Some("no such device".to_owned()),
            errors: 3,
            ..InterfaceStatus::default()
        };
        StatusDocument {
            agent: AgentStatus {
                version: "0.1.0".to_owned(),
                pid: 604,
                since: START + 575,
                abi_version: 1,
            },
            windows: WindowsStatus {
                committed: 1_234,
                open: vec![WindowStatus {
                    length_seconds: 600,
                    start: START,
                    end: START + 600,
                }],
                last_closed: Some(WindowStatus {
                    length_seconds: 5,
                    start: START - 5,
                    end: START,
                }),
            },
            sinks: vec![
                SinkStatus {
                    flow_log: "all".to_owned(),
                    destination: "standard output".to_owned(),
                    delivered_windows: 1_234,
                    ..SinkStatus::default()
                },
                SinkStatus {
                    flow_log: "web".to_owned(),
                    destination: "/var/log/web.log".to_owned(),
                    delivered_windows: 7,
                    pending_windows: 2,
                    oldest_pending: Some(START - 600),
                    last_error: Some(ErrorStatus {
                        at: START,
                        message: "no space left".to_owned(),
                    }),
                    next_attempt_in_seconds: Some(8),
                },
            ],
            service: Some(ServiceStatus {
                url: "http://192.0.2.1:8480".to_owned(),
                since: Some(START),
                error: Some(
                    "http://192.0.2.1:8480 cannot be reached: Connection refused".to_owned(),
                ),
                version: 17,
                version_since: Some(START - 60),
                flow_logs: 1,
                ..ServiceStatus::default()
            }),
            spool: SpoolStatus {
                path: "/spool".to_owned(),
                bytes: 12_345,
                max_bytes: 1 << 30,
                files: 9,
                pending_windows: 2,
                drains: 1,
            },
            losses: vec![
                loss(Cause::MapFull, 0, 0),
                loss(Cause::Unparsable, 1_000, 2),
                loss(Cause::PowerLoss, 0, 1),
            ],
            interfaces: vec![captured, waiting],
            security: SecurityStatus {
                enis: vec![
                    JudgedStatus {
                        eni_id: "eni-1".to_owned(),
                        mode: "enforce".to_owned(),
                        groups: 2,
                        rules: Some(1_000),
                        epoch: Some(7),
                        netfilter: true,
                        error: None,
                    },
                    JudgedStatus {
                        eni_id: "eni-3".to_owned(),
                        mode: "off".to_owned(),
                        groups: 1,
                        ..JudgedStatus::default()
                    },
                ],
                sessions: 1_234,
                max_sessions: 262_144,
                packets_without_session: 1,
                error: None,
                netfilter: "recorded".to_owned(),
                unmatched_drops: 2,
                missed_drops: 0,
            },
            conservation: vec![
                balance("in", 1_000_000, 200_034),
                balance("out", 1_200_036, 0),
            ],
            last_error: Some(ErrorStatus {
                at: START,
                message: "no space left".to_owned(),
            }),
        }
    }

    #[test]
    fn the_report_says_everything() {
        let document = document();
        let lines = lines(&document, &document.troubles());
        let text: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
        let expected = include_str!("render.txt");
        assert_eq!(text.join("\n") + "\n", expected);
    }

    #[test]
    fn the_service_is_told_in_a_line() {
        let service = ServiceStatus {
            url: "http://a".to_owned(),
            ..ServiceStatus::default()
        };
        assert_eq!(
            service_line(&service),
            "Service: http://a, not asked yet; no desired state"
        );
        let service = ServiceStatus {
            connected: true,
            since: Some(START),
            version: 3,
            flow_logs: 2,
            ..service
        };
        assert_eq!(
            service_line(&service),
            "Service: http://a, connected since 2026-11-22 14:00:00 UTC; desired state 3, 2 flow logs"
        );
    }

    #[test]
    fn an_agent_that_has_just_started_is_well() {
        let lines = lines(&StatusDocument::default(), &[]);
        assert_eq!(lines.last().map(String::as_str), Some("All is well."));
        assert!(
            !lines.iter().any(|line| line.contains("FLOW LOG")),
            "{lines:?}"
        );
    }
}
