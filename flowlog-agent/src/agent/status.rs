//! Telling how the agent stands: to `flowlog-agent status`, by the status socket.
use std::time::Duration;

use flowlog_common::ABI_VERSION;
use flowlog_model::protocol::RefusedEni;

use super::{Agent, AgentError, deliver::SinkHealth, windows::Why};
use crate::{
    capture::{InterfaceState, JudgedEni},
    firewall::FirewallState,
    ledger,
    metrics::Standing,
    sink::Output,
    status::{
        AgentStatus, Conservation, ErrorStatus, Hooks, InterfaceStatus, JudgedStatus, Loss,
        Refused, SecurityStatus, ServiceStatus, SinkStatus, SpoolStatus, StatusDocument,
        WindowStatus, WindowsStatus,
    },
    window::Window,
};

impl Agent {
    /// The status. The kernel is drained first, so that what was counted until now is accounted for.
    pub(super) fn status(&mut self) -> Result<StatusDocument, AgentError> {
        self.drain(Why::Now)?;
        self.sweep_sessions();
        let open = self.windows.labels();
        let last_error = self.last_error.as_ref();
        Ok(StatusDocument {
            agent: AgentStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                since: self.wall_seconds(self.started),
                abi_version: ABI_VERSION,
            },
            windows: WindowsStatus {
                committed: self.windows_committed,
                open: open.map(|(length, label)| window(length, label)).collect(),
                last_closed: self
                    .last_closed
                    .map(|(length, label)| window(length, label)),
            },
            sinks: self.sinks_status(),
            service: self.service_status(),
            spool: self.spool_status(),
            losses: self.losses(),
            interfaces: self.capture.interfaces().map(interface).collect(),
            security: self.security_status(),
            conservation: self.conservation(),
            last_error: last_error.map(|(at, message)| self.error_status(*at, message)),
        })
    }

    /// The metrics, as text. Nothing is drained for them: who asks for metrics asks often.
    pub(super) fn metrics_text(&self) -> String {
        self.metrics.text(&Standing {
            capture: &self.capture,
            drainer: &self.drainer,
            spool: &self.spool_status(),
            sinks: &self.sinks_status(),
            service: self.service_status().as_ref(),
            losses: &self.losses(),
            security: &self.security_status(),
        })
    }

    fn service_status(&self) -> Option<ServiceStatus> {
        let management = self.management.as_ref()?;
        let standing = management.standing();
        let refused = |(id, reason): (&String, &String)| Refused {
            id: id.clone(),
            reason: reason.clone(),
        };
        let refused_eni = |eni: &RefusedEni| Refused {
            id: eni.eni_id.clone(),
            reason: eni.reason.clone(),
        };
        Some(ServiceStatus {
            url: management.url(),
            connected: standing.is_connected(),
            since: standing.since().map(|since| self.wall_seconds(since)),
            error: standing.error().map(str::to_owned),
            failed_requests: standing.failures,
            version: management.version(),
            version_since: management
                .followed_since()
                .map(|since| self.wall_seconds(since)),
            flow_logs: management.flow_logs().len() as u64,
            refused: management.managed().refused.iter().map(refused).collect(),
            refused_enis: standing.refused_enis.iter().map(refused_eni).collect(),
        })
    }

    /// The wall-clock time of a boot time, by today's difference of the two, in Unix seconds.
    fn wall_seconds(&self, boot: Duration) -> u64 {
        let now = self.clock.now();
        (now.wall + boot).saturating_sub(now.boot).as_secs()
    }

    fn error_status(&self, at: Duration, message: &str) -> ErrorStatus {
        ErrorStatus {
            at: self.wall_seconds(at),
            message: message.to_owned(),
        }
    }

    fn spool_status(&self) -> SpoolStatus {
        let usage = self.spool.usage();
        SpoolStatus {
            path: self.config.spool.path.display().to_string(),
            bytes: usage.bytes,
            max_bytes: self.config.spool.max_size_bytes,
            files: usage.files,
            pending_windows: usage.pending_windows,
            drains: usage.drains,
        }
    }

    fn sinks_status(&self) -> Vec<SinkStatus> {
        let outputs = self.outputs.iter().chain(&self.ending);
        outputs.map(|output| self.sink_status(output)).collect()
    }

    fn sink_status(&self, output: &Output) -> SinkStatus {
        let name = output.flow_log.name.as_str();
        let nothing = SinkHealth::default();
        let health = self.sink_health.get(name).unwrap_or(&nothing);
        let pending = self.spool.pending(name);
        let now = self.clock.now().boot;
        SinkStatus {
            flow_log: name.to_owned(),
            destination: output.destination.to_string(),
            delivered_windows: health.delivered,
            pending_windows: pending.len() as u64,
            oldest_pending: pending.first().map(|window| window.label().start),
            last_error: health
                .last_error
                .as_ref()
                .map(|(at, message)| self.error_status(*at, message)),
            next_attempt_in_seconds: health
                .next_attempt
                .map(|at| at.saturating_sub(now).as_secs()),
        }
    }

    fn security_status(&self) -> SecurityStatus {
        let judged = |eni: JudgedEni| JudgedStatus {
            eni_id: eni.eni_id,
            mode: eni.mode.to_string(),
            groups: eni.groups as u64,
            rules: eni
                .in_force
                .and_then(|policy| policy.rules)
                .map(|rules| rules as u64),
            epoch: eni.in_force.map(|policy| policy.epoch),
            netfilter: eni.netfilter,
            error: eni.error,
        };
        let security = self.capture.security();
        let (sessions, max_sessions) = security.sessions();
        let (netfilter, missed_drops) = match self.capture.firewall() {
            FirewallState::NotWanted => ("not wanted".to_owned(), 0),
            FirewallState::Counted { missed } => ("recorded".to_owned(), missed),
            FirewallState::Unavailable(reason) => (reason, 0),
        };
        let mut enis: Vec<_> = self.capture.judged().map(judged).collect();
        enis.sort_by(|a, b| a.eni_id.cmp(&b.eni_id));
        SecurityStatus {
            enis,
            sessions,
            max_sessions: max_sessions.into(),
            packets_without_session: self.packets_without_session,
            error: security.error().map(str::to_owned),
            netfilter,
            unmatched_drops: self.unmatched_drops,
            missed_drops,
        }
    }

    fn losses(&self) -> Vec<Loss> {
        let loss = |(cause, lost): (&ledger::Cause, &ledger::Loss)| Loss {
            cause: *cause,
            packets: lost.packets,
            bytes: lost.bytes,
            windows: lost.windows,
        };
        self.ledger.losses().iter().map(loss).collect()
    }

    pub(super) fn conservation(&self) -> Vec<Conservation> {
        let of_eni = |(eni_id, directions): (&str, [ledger::Conservation; 2])| {
            let eni_id = eni_id.to_owned();
            ["in", "out"]
                .into_iter()
                .zip(directions)
                .map(move |(direction, of)| Conservation {
                    eni_id: eni_id.clone(),
                    direction: direction.to_owned(),
                    interface_counted: of.interface,
                    recorded: of.counted.recorded,
                    skipped: of.counted.skipped,
                    not_ip: of.counted.not_ip,
                    merged_segments: of.merged_segments,
                    unseen: of.counted.unseen,
                    difference: of.difference,
                })
        };
        self.ledger.conservation().flat_map(of_eni).collect()
    }
}

fn window(length_seconds: u64, label: Window) -> WindowStatus {
    WindowStatus {
        length_seconds,
        start: label.start,
        end: label.end,
    }
}

fn interface(state: InterfaceState) -> InterfaceStatus {
    InterfaceStatus {
        eni_id: state.eni_id,
        device: state.device,
        namespace: state.namespace,
        captured: state.hooks.is_some(),
        hooks: state.hooks.map(|[ingress, egress]| Hooks {
            ingress: ingress.as_str().to_owned(),
            egress: egress.as_str().to_owned(),
        }),
        reason: state.reason,
        errors: state.failed_attempts,
    }
}
