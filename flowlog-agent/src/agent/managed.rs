//! Following the flow logs that the service manages, beside those of the configuration, and reporting to it.
//!
//! A desired state is on the disk before it is followed, so that an agent that is killed in between finds the flow logs that its open
//! windows are for. Flow logs that are gone from it are kept there too, as long as they wait for windows.
use std::{collections::BTreeMap, sync::Arc};

use super::{Agent, AgentError};
use crate::{
    clock::Clock,
    config::{Config, FlowLogConfig},
    drain::DrainError,
    management::{Managed, Management},
    sink::SinkEvent,
    spool::Spool,
};

/// What an agent begins with.
pub(super) struct Beginning {
    /// The flow logs that a service manages, if there is one.
    pub(super) management: Option<Management>,
    /// The flow logs to be followed, those of the configuration and those of the service.
    pub(super) flow_logs: Vec<FlowLogConfig>,
    /// Those that are followed no more, and wait for windows.
    pub(super) ending: Vec<FlowLogConfig>,
}

/// Begins to follow the service of the configuration, if there is one.
pub(super) fn start(config: &Config, spool: &Spool, clock: Clock) -> Result<Beginning, AgentError> {
    let local = &config.flow_logs;
    let Some(service) = config.service.clone() else {
        return Ok(Beginning {
            management: None,
            flow_logs: local.clone(),
            ending: Vec::new(),
        });
    };
    let mut management =
        Management::start(service, spool.managed()?, Arc::new(move || clock.now()))?;
    let managed = management.plan(management.flow_logs(), local);
    let flow_logs = [&**local, &*managed.flow_logs].concat();
    let ending = management.plan(management.gone(), &flow_logs).flow_logs;
    management.set_managed(managed);
    Ok(Beginning {
        management: Some(management),
        flow_logs,
        ending,
    })
}

impl Agent {
    /// Follows the state that the service wants, if it is another one. If the spool takes nothing, that is tried again with the spool.
    pub(super) fn follow_service(&mut self) -> Result<(), AgentError> {
        let Some(management) = &self.management else {
            return Ok(());
        };
        let Some(wanted) = management.wanted() else {
            return Ok(());
        };
        let ending = self.ending.iter();
        let waiting = ending.map(|output| output.flow_log.name.as_str()).collect();
        let kept = management.kept(wanted, &waiting);
        let managed = management.plan(&wanted.flow_logs, &self.config.flow_logs);
        let followed = match self.spool.keep_managed(&kept) {
            Ok(()) => self.follow_both(self.config.flow_logs.clone(), managed),
            Err(error) => Err(DrainError::Spool(error)),
        };
        match followed {
            Ok(()) => {}
            Err(DrainError::Spool(error)) => {
                self.spool_failed(&error);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let was_unknown = self.others_stay();
        if let Some(management) = &mut self.management {
            management.has_followed(kept, self.clock.now().boot);
            tracing::info!(
                version = management.version(),
                "following {} flow logs of the service",
                management.flow_logs().len()
            );
        }
        if was_unknown {
            self.open_windows();
            self.forget_others();
        }
        Ok(())
    }

    /// Whether flow logs that nobody knows keep their windows: they may be the service's, and it is not known yet what that wants.
    pub(super) fn others_stay(&self) -> bool {
        let management = self.management.as_ref();
        management.is_some_and(|management| !management.is_known())
    }

    /// Follows other flow logs of the configuration, beside those of the service.
    pub(super) fn follow_local(&mut self, local: Vec<FlowLogConfig>) -> Result<(), DrainError> {
        let management = self.management.as_ref();
        let managed = management
            .map(|management| management.plan(management.flow_logs(), &local))
            .unwrap_or_default();
        self.follow_both(local, managed)
    }

    fn follow_both(
        &mut self,
        local: Vec<FlowLogConfig>,
        managed: Managed,
    ) -> Result<(), DrainError> {
        let before = self.management.as_ref().map(Management::managed);
        let is_other = local != self.config.flow_logs
            || before.is_some_and(|before| before.flow_logs != managed.flow_logs);
        if is_other {
            self.follow(&[&*local, &*managed.flow_logs].concat())?;
            self.config.flow_logs = local;
        }
        if let Some(management) = &mut self.management {
            management.set_managed(managed);
        }
        Ok(())
    }

    /// Something has changed that the service is to know.
    pub(super) fn report_is_due(&mut self) {
        if let Some(management) = &mut self.management {
            management.report_is_due();
        }
    }

    /// Takes note of what changes how the deliveries of a flow log stand, before it is dealt with.
    pub(super) fn note_for_report(&mut self, event: &SinkEvent) {
        let is_news = match event {
            SinkEvent::Failed { .. } => true,
            SinkEvent::Delivered { flow_log, .. } => self
                .sink_health
                .get(flow_log)
                .is_some_and(|health| health.next_attempt.is_some()),
            SinkEvent::Unreadable { .. } | SinkEvent::StdoutClosed => false,
        };
        if is_news {
            self.report_is_due();
        }
    }

    /// Reports to the service, if there is something new.
    pub(super) fn report(&mut self) {
        let Some(management) = self.management.as_mut().filter(|of| of.has_news()) else {
            return;
        };
        let now = self.clock.now().boot;
        if !management.can_report(self.discovery.has_told_all(), now) {
            return;
        }
        let failures: BTreeMap<&str, &str> = self
            .sink_health
            .iter()
            .filter(|(_, health)| health.next_attempt.is_some())
            .filter_map(|(name, health)| {
                Some((name.as_str(), health.last_error.as_ref()?.1.as_str()))
            })
            .collect();
        management.report(self.capture.known_enis(), &failures);
    }
}
