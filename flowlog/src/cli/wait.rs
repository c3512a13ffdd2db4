//! Waiting until a change has come to the agents.
use std::{thread, time::Duration};

use flowlog_client::ClientError;
use flowlog_model::signature::encoding::encode;

use super::{CliError, session::Session};
use crate::api::FlowLog;

/// Between two looks at how a change is going.
const LOOK: Duration = Duration::from_millis(200);

/// The code of an answer that there is no such flow log.
const NOT_FOUND: u16 = 404;

/// Whether and how long a change is waited for.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct WaitOptions {
    /// Return as soon as the service knows of the change, not only when the agents concerned have followed.
    #[arg(long)]
    no_wait: bool,
    /// Wait no longer than this, in seconds: 1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl WaitOptions {
    /// Waits until the flow log is in no state that passes. Gives it as it is then; none if it is gone.
    pub(super) fn wait(
        self,
        session: &Session,
        flow_log: FlowLog,
    ) -> Result<Option<FlowLog>, CliError> {
        let mut flow_log = flow_log;
        let looks = self.timeout * 1000 / u64::try_from(LOOK.as_millis()).unwrap_or(1);
        for _ in 0..looks {
            if self.no_wait || !passes(&flow_log.status) {
                return Ok(Some(flow_log));
            }
            thread::sleep(LOOK);
            let path = format!("/flow-logs/{}", encode(&flow_log.id));
            let region = [("region", &flow_log.region)];
            flow_log = match session.get(&path, &std::collections::BTreeMap::from(region)) {
                Ok(flow_log) => flow_log,
                Err(ClientError::Refused {
                    status: NOT_FOUND, ..
                }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        }
        Err(CliError::TooSlow {
            id: flow_log.id,
            status: flow_log.status,
            seconds: self.timeout,
        })
    }
}

/// Whether a state passes by itself: those that end in `-ing`.
fn passes(status: &str) -> bool {
    status.ends_with("ing")
}

#[cfg(test)]
mod tests {
    use flowlog_model::managed::State;

    use super::*;

    #[test]
    fn states_that_pass_are_told_from_those_that_stay() {
        let staying: Vec<State> = State::ALL
            .iter()
            .copied()
            .filter(|state| !passes(state.as_str()))
            .collect();
        assert_eq!(staying, [State::Active, State::Inactive]);
    }
}
