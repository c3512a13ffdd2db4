//! Waiting until a change has come to the agents.
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use flowlog_client::ClientError;
use flowlog_model::signature::encoding::encode;

use super::{CliError, session::Session};
use crate::{api::FlowLog, serve::error::Code};

/// Between two looks at how a change is going.
const LOOK: Duration = Duration::from_millis(200);

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
    /// Waits until the flow log is in no state that passes. Gives it as it is then; none if it is gone. A service that cannot be reached may
    /// be starting anew: it is asked again, as long as there is time.
    pub(super) fn wait(
        self,
        session: &Session,
        flow_log: FlowLog,
    ) -> Result<Option<FlowLog>, CliError> {
        let deadline = Instant::now() + Duration::from_secs(self.timeout);
        let look = |flow_log: &FlowLog| {
            thread::sleep(LOOK);
            let path = format!("/flow-logs/{}", encode(&flow_log.id));
            session.get(&path, &BTreeMap::from([("region", &flow_log.region)]))
        };
        self.follow(flow_log, look, || Instant::now() >= deadline)
    }

    /// Looks, at least once, until the state stays or it is too late.
    fn follow(
        self,
        mut flow_log: FlowLog,
        mut look: impl FnMut(&FlowLog) -> Result<FlowLog, ClientError>,
        mut is_late: impl FnMut() -> bool,
    ) -> Result<Option<FlowLog>, CliError> {
        while !self.no_wait && passes(&flow_log.status) {
            let looked = look(&flow_log);
            let is_late = is_late();
            match looked {
                Ok(now) => flow_log = now,
                // Other things may be missing too, such as the access key.
                Err(ClientError::Refused { code, .. })
                    if code == Code::FlowLogNotFound.as_str() =>
                {
                    return Ok(None);
                }
                Err(ClientError::Unreachable { .. }) if !is_late => {}
                Err(error) => return Err(error.into()),
            }
            if is_late && passes(&flow_log.status) {
                return Err(CliError::TooSlow {
                    id: flow_log.id,
                    status: flow_log.status,
                    seconds: self.timeout,
                });
            }
        }
        Ok(Some(flow_log))
    }
}

/// Whether a state passes by itself: those that end in `-ing`.
fn passes(status: &str) -> bool {
    status.ends_with("ing")
}

#[cfg(test)]
mod tests {
    use std::io;

    use flowlog_model::managed::State;

    use super::*;

    fn flow_log(status: &str) -> FlowLog {
        FlowLog {
            status: status.to_owned(),
            ..FlowLog::default()
        }
    }

    /// Follows a flow log that is being deactivated, through answers of which each takes a second of three.
    fn follow(answers: Vec<Result<FlowLog, ClientError>>) -> Result<Option<String>, CliError> {
        let options = WaitOptions {
            no_wait: false,
            timeout: 3,
        };
        let mut answers = answers.into_iter();
        let mut passed = 0;
        let followed = options.follow(
            flow_log("Deactivating"),
            |_| answers.next().expect("no look is made too late"),
            || {
                passed += 1;
                passed >= 3
            },
        );
        assert!(answers.next().is_none(), "nothing is left out");
        followed.map(|flow_log| flow_log.map(|flow_log| flow_log.status))
    }

    fn refused(code: &str) -> Result<FlowLog, ClientError> {
        Err(ClientError::Refused {
            status: 404,
            code: code.to_owned(),
            message: String::new(),
            request_id: None,
        })
    }

    fn unreachable() -> Result<FlowLog, ClientError> {
        Err(ClientError::Unreachable {
            url: "http://127.0.0.1:1".parse().unwrap(),
            source: io::ErrorKind::ConnectionRefused.into(),
        })
    }

    #[test]
    fn only_a_flow_log_that_is_not_found_is_gone() {
        let gone = follow(vec![refused("InvalidFlowLogId.NotFound")]).unwrap();
        assert_eq!(gone, None);
        for code in ["InvalidAccessKeyId.NotFound", "InvalidPath.NotFound"] {
            let error = follow(vec![refused(code)]).unwrap_err().to_string();
            assert!(error.contains(code), "{error}");
        }
    }

    #[test]
    fn a_service_that_is_away_is_asked_again_as_long_as_there_is_time() {
        let there = || Ok(flow_log("Inactive"));
        let followed = follow(vec![unreachable(), unreachable(), there()]).unwrap();
        assert_eq!(followed.as_deref(), Some("Inactive"));
        let away = follow(vec![unreachable(), unreachable(), unreachable()]);
        let error = away.unwrap_err().to_string();
        assert!(error.contains("cannot be reached"), "{error}");
    }

    #[test]
    fn what_takes_too_long_is_said_after_a_last_look() {
        let passing = || Ok(flow_log("Deactivating"));
        let followed = follow(vec![passing(), passing(), Ok(flow_log("Inactive"))]).unwrap();
        assert_eq!(followed.as_deref(), Some("Inactive"));
        let error = follow(vec![passing(), passing(), passing()]).unwrap_err();
        assert!(matches!(error, CliError::TooSlow { .. }), "{error}");
    }

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
