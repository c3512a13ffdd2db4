//! The service that manages flow logs: whether it answers, and takes the access key.
use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use flowlog_client::{Call, ClientError};
use flowlog_model::protocol::{DESIRED_STATE_PATH, DesiredState};

use super::{
    Finding, counted,
    host::{log_service, refusal},
};
use crate::{
    config::{Destination, ManagedDestination, ServiceConfig},
    management::{self, ManagementError},
};

const CHECK: &str = "service";

/// The service's code for an agent that it has not heard of yet.
const NOT_REPORTED: &str = "IncorrectStatus.Agent";

/// How long the service may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most bytes of a desired state.
const MAX_STATE_BYTES: usize = 32 << 20;

/// Whether the service answers, and whether records can go where its flow logs' are to. Nothing changes at the service.
pub(super) fn findings(config: &ServiceConfig) -> Vec<Finding> {
    vec![answer(config), destination(config)]
}

fn answer(config: &ServiceConfig) -> Finding {
    let url = &config.url;
    match ask(config) {
        Ok(state) => Finding::ok(
            CHECK,
            format!(
                "{url} answers: {} for this agent",
                counted(state.flow_logs.len(), "flow log")
            ),
        ),
        Err(ManagementError::Client(ClientError::Refused { code, .. })) if code == NOT_REPORTED => {
            Finding::ok(CHECK, format!("{url} answers, and waits for this agent's first report"))
        }
        Err(error @ ManagementError::Key(_)) => Finding::fail(CHECK, error.to_string())
            .so("the agent does not start; mend service.access-key-file"),
        Err(error @ ManagementError::Client(ClientError::Authorities(_))) => {
            Finding::fail(CHECK, error.to_string()).so("the agent does not start; mend service.ca-file")
        }
        Err(error @ ManagementError::Client(ClientError::Refused { .. })) => {
            Finding::warn(CHECK, format!("{url} refuses: {error}")).so(
                "the agent works by what the service said last; its access key must be there, active and an agent's",
            )
        }
        Err(error) => Finding::warn(CHECK, error.to_string())
            .so("the agent works by what the service said last, and tries again"),
    }
}

fn ask(config: &ServiceConfig) -> Result<DesiredState, ManagementError> {
    let client = management::client(config)?;
    let query = [
        ("after".to_owned(), "0".to_owned()),
        ("wait".to_owned(), "0".to_owned()),
    ];
    let call = Call {
        method: "GET",
        path: DESIRED_STATE_PATH,
        query: &query,
        body: b"",
        patience: PATIENCE,
        max_answer_bytes: MAX_STATE_BYTES,
    };
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let unreachable = |source| ClientError::Unreachable {
        url: config.url.clone(),
        source,
    };
    let answer = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(unreachable)?
        .block_on(client.send(&call, wall))?;
    Ok(answer.json()?)
}

/// Whether the folder above all that differs by flow log can be written to.
fn destination(config: &ServiceConfig) -> Finding {
    const CHECK: &str = "flow logs of the service";
    let ManagedDestination::Pattern(pattern) = &config.destination else {
        return Finding::ok(CHECK, format!("to the Log Service at {}", config.url));
    };
    let path = match pattern {
        Destination::Stdout => return Finding::ok(CHECK, "to standard output"),
        Destination::LogService(logstore) => return log_service(CHECK, logstore),
        Destination::File { path, .. } | Destination::Folder { path, .. } => path,
    };
    let is_fixed = |path: &&Path| !path.to_string_lossy().contains('{');
    let folder = path.ancestors().find(is_fixed).unwrap_or(Path::new("/"));
    match refusal(&folder.join("flow.log")) {
        None => Finding::ok(CHECK, format!("to {}", path.display())),
        Some(reason) => Finding::fail(CHECK, reason)
            .so("their records wait in the spool; the agent, without its other privileges, must be able to write there"),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::{check::Status, config::Config};

    fn config(folder: &Path, url: &str) -> ServiceConfig {
        let folder = folder.display();
        let text = format!(
            "inventory = 'i'\n[service]\nurl = '{url}'\naccess-key-file = '{folder}/key.json'\n\
             destination = {{ type = 'folder', path = '{folder}/a/{{logstore}}/{{flow-log-id}}' }}\n"
        );
        Config::parse(&text, "agent.toml").unwrap().service.unwrap()
    }

    #[test]
    fn a_service_that_is_away_is_warned_of_and_a_key_that_is_not_there_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        // Nobody listens on the port of a listener that is gone.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let config = config(folder.path(), &url);
        let [without_key, destination] = &findings(&config)[..] else {
            panic!("two findings")
        };
        assert_eq!(without_key.status, Status::Fail, "{without_key:?}");
        assert_eq!(destination.status, Status::Ok, "{destination:?}");
        let key = folder.path().join("key.json");
        fs::write(&key, r#"{"id": "a", "secret": "b"}"#).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let away = answer(&config);
        assert_eq!(away.status, Status::Warn, "{away:?}");
        assert!(away.found.contains("cannot be reached"), "{away:?}");
    }

    #[test]
    fn a_destination_that_cannot_be_written_to_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        let finding = destination(&config(folder.path(), "http://127.0.0.1:1"));
        assert_eq!(finding.status, Status::Fail, "{finding:?}");
    }
}
