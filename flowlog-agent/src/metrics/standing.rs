//! The metrics that tell the same as `flowlog-agent status`: how the spool, the flow logs and the books stand.
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{FlowLogLabels, shown};
use crate::{
    ledger::Cause,
    status::{Conservation, Loss, SecurityStatus, ServiceStatus, SinkStatus, SpoolStatus},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    url: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    eni: String,
    mode: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConservationLabels {
    eni: String,
    direction: String,
}

/// Names and meanings of the numbers of a [`Conservation`], in the order of [`packets`].
const CONSERVATION: [(&str, &str); 7] = [
    (
        "conservation_interface_packets",
        "Packets that the device of an ENI has counted by itself, until it was last read, at the end of a window or for the status",
    ),
    (
        "conservation_recorded_packets",
        "Packets in OK records, or that will be, until the device was last read",
    ),
    (
        "conservation_skipped_packets",
        "Packets in SKIPDATA records, or that will be, until the device was last read",
    ),
    (
        "conservation_not_ip_packets",
        "Frames that are not IP, until the device was last read",
    ),
    (
        "conservation_merged_segments",
        "Segments that the device has counted together with others, until it was last read",
    ),
    (
        "conservation_unseen_packets",
        "Packets in REJECT records that were dropped before they came to the device, until it was last read",
    ),
    (
        "conservation_difference_packets",
        "Packets that the device has counted and no record has, or, below 0, the reverse, until the device was last read",
    ),
];

fn packets(of: &Conservation) -> [i64; 7] {
    [
        shown(of.interface_counted),
        shown(of.recorded),
        shown(of.skipped),
        shown(of.not_ip),
        shown(of.merged_segments),
        shown(of.unseen),
        of.difference,
    ]
}

/// All at 0.
#[derive(Default)]
pub(super) struct StandingMetrics {
    spool_bytes: Gauge,
    spool_max_bytes: Gauge,
    spool_files: Gauge,
    spool_pending_windows: Gauge,
    spool_drains: Gauge,
    windows_delivered: Family<FlowLogLabels, Counter>,
    delivery_failures: Family<FlowLogLabels, Counter>,
    windows_pending: Family<FlowLogLabels, Gauge>,
    delivery_failing: Family<FlowLogLabels, Gauge>,
    service: Family<ServiceLabels, Gauge>,
    service_version: Family<ServiceLabels, Gauge>,
    service_failures: Family<ServiceLabels, Counter>,
    lost_packets: Family<CauseLabels, Counter>,
    lost_bytes: Family<CauseLabels, Counter>,
    lost_windows: Family<CauseLabels, Counter>,
    sessions: Gauge,
    max_sessions: Gauge,
    missed_drops: Gauge,
    policy_rules: Family<PolicyLabels, Gauge>,
    policy_epoch: Family<PolicyLabels, Gauge>,
    policy_behind: Family<PolicyLabels, Gauge>,
    conservation: [Family<ConservationLabels, Gauge>; CONSERVATION.len()],
}

impl StandingMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        self.register_spool(r);
        r.register(
            "windows_delivered",
            "Windows whose records a flow log has",
            self.windows_delivered.clone(),
        );
        r.register(
            "windows_pending",
            "Closed windows that wait for a flow log",
            self.windows_pending.clone(),
        );
        r.register(
            "delivery_failures",
            "Attempts to deliver to a flow log that failed",
            self.delivery_failures.clone(),
        );
        r.register(
            "delivery_failing",
            "1 if the last attempt to deliver to a flow log failed, else 0",
            self.delivery_failing.clone(),
        );
        r.register(
            "service_connected",
            "1 if the service that manages flow logs has answered the last question and the last report, else 0",
            self.service.clone(),
        );
        r.register(
            "service_desired_state_version",
            "Version of the desired state that the agent works by, 0 for none",
            self.service_version.clone(),
        );
        r.register(
            "service_request_failures",
            "Requests to the service that have failed",
            self.service_failures.clone(),
        );
        r.register(
            "lost_packets",
            "Packets in SKIPDATA records, or that will be, by cause, also before the agent was started",
            self.lost_packets.clone(),
        );
        r.register_with_unit(
            "lost",
            "Octets of the IP datagrams of lost_packets",
            Unit::Bytes,
            self.lost_bytes.clone(),
        );
        r.register(
            "lost_windows",
            "Windows that were given up whole, by cause, also before the agent was started",
            self.lost_windows.clone(),
        );
        self.register_security(r);
        for ((name, help), family) in CONSERVATION.into_iter().zip(&self.conservation) {
            r.register(name, help, family.clone());
        }
    }

    fn register_security(&self, r: &mut Registry) {
        r.register(
            "sessions",
            "Sessions of all ENIs, when they were last swept",
            self.sessions.clone(),
        );
        r.register(
            "sessions_max",
            "Sessions that there can be",
            self.max_sessions.clone(),
        );
        r.register(
            "drops_missed",
            "Drops of the host, for whatever reason, that the program for netfilter's drops could not look at, since it was attached",
            self.missed_drops.clone(),
        );
        r.register(
            "policy_rules",
            "Rules of all security groups of an ENI together, as they are in force",
            self.policy_rules.clone(),
        );
        r.register(
            "policy_epoch",
            "Number of the policy that is in force, which is another each time that it changes",
            self.policy_epoch.clone(),
        );
        r.register(
            "policy_behind",
            "1 where the policy of the inventory could not be brought into force, so that none holds or the one before, else 0",
            self.policy_behind.clone(),
        );
    }

    fn register_spool(&self, r: &mut Registry) {
        r.register_with_unit(
            "spool",
            "Size of the spool's files",
            Unit::Bytes,
            self.spool_bytes.clone(),
        );
        r.register_with_unit(
            "spool_max",
            "Size that the spool's files may have",
            Unit::Bytes,
            self.spool_max_bytes.clone(),
        );
        r.register(
            "spool_files",
            "Number of the spool's files",
            self.spool_files.clone(),
        );
        r.register(
            "spool_pending_windows",
            "Closed windows that not every flow log has",
            self.spool_pending_windows.clone(),
        );
        r.register(
            "spool_drains",
            "Drains that are kept for open and pending windows",
            self.spool_drains.clone(),
        );
    }

    pub(super) fn delivered(&self, flow_log: &FlowLogLabels) {
        self.windows_delivered.get_or_create(flow_log).inc();
    }

    pub(super) fn delivery_failed(&self, flow_log: &FlowLogLabels) {
        self.delivery_failures.get_or_create(flow_log).inc();
    }

    pub(super) fn forget_flow_log(&self, flow_log: &FlowLogLabels) {
        self.windows_delivered.remove(flow_log);
        self.delivery_failures.remove(flow_log);
    }

    pub(super) fn set_spool(&self, spool: &SpoolStatus) {
        self.spool_bytes.set(shown(spool.bytes));
        self.spool_max_bytes.set(shown(spool.max_bytes));
        self.spool_files.set(shown(spool.files));
        self.spool_pending_windows.set(shown(spool.pending_windows));
        self.spool_drains.set(shown(spool.drains));
    }

    pub(super) fn set_sinks(&self, sinks: &[SinkStatus]) {
        // Flow logs that are no longer configured must not be shown on.
        self.windows_pending.clear();
        self.delivery_failing.clear();
        for sink in sinks {
            let labels = FlowLogLabels::new(&sink.flow_log);
            // From 0 on, so that the first one is seen as an increase.
            drop(self.windows_delivered.get_or_create(&labels));
            drop(self.delivery_failures.get_or_create(&labels));
            self.windows_pending
                .get_or_create(&labels)
                .set(shown(sink.pending_windows));
            self.delivery_failing
                .get_or_create(&labels)
                .set(sink.next_attempt_in_seconds.is_some().into());
        }
    }

    /// Nothing is shown where there is no service.
    pub(super) fn set_service(&self, service: Option<&ServiceStatus>) {
        if let Some(service) = service {
            let labels = ServiceLabels {
                url: service.url.clone(),
            };
            self.service
                .get_or_create(&labels)
                .set(service.connected.into());
            let version = shown(service.version);
            self.service_version.get_or_create(&labels).set(version);
            let failures = self.service_failures.get_or_create(&labels);
            failures
                .inner()
                .store(service.failed_requests, Ordering::Relaxed);
        }
    }

    pub(super) fn set_losses(&self, losses: &[Loss]) {
        for cause in Cause::ALL {
            let labels = CauseLabels {
                cause: cause.as_str(),
            };
            let loss = losses.iter().find(|loss| loss.cause == *cause);
            let [packets, bytes, windows] =
                loss.map_or([0; 3], |loss| [loss.packets, loss.bytes, loss.windows]);
            for (family, number) in [
                (&self.lost_packets, packets),
                (&self.lost_bytes, bytes),
                (&self.lost_windows, windows),
            ] {
                // The ledger counts, over restarts.
                let counter = family.get_or_create(&labels);
                counter.inner().store(number, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn set_security(&self, security: &SecurityStatus) {
        self.sessions.set(shown(security.sessions));
        self.max_sessions.set(shown(security.max_sessions));
        self.missed_drops.set(shown(security.missed_drops));
        // ENIs that are gone must not be shown on.
        self.policy_rules.clear();
        self.policy_epoch.clear();
        self.policy_behind.clear();
        for eni in &security.enis {
            let labels = PolicyLabels {
                eni: eni.eni_id.clone(),
                mode: eni.mode.clone(),
            };
            if let Some(rules) = eni.rules {
                self.policy_rules.get_or_create(&labels).set(shown(rules));
            }
            if let Some(epoch) = eni.epoch {
                self.policy_epoch.get_or_create(&labels).set(epoch.into());
            }
            if eni.epoch.is_some() || eni.error.is_some() {
                let behind = i64::from(eni.error.is_some());
                self.policy_behind.get_or_create(&labels).set(behind);
            }
        }
    }

    pub(super) fn set_conservation(&self, conservation: &[Conservation]) {
        // ENIs that are gone must not be shown on.
        self.conservation.iter().for_each(Family::clear);
        for of in conservation {
            let labels = ConservationLabels {
                eni: of.eni_id.clone(),
                direction: of.direction.clone(),
            };
            for (family, number) in self.conservation.iter().zip(packets(of)) {
                family.get_or_create(&labels).set(number);
            }
        }
    }
}
