//! The service layer on a state of its own, with a clock that tests set.
mod access;
mod agents;
mod flow_logs;
mod states;

use std::sync::Arc;

use flowlog_model::managed::DeliverStatus;
use flowlog_model::protocol::{DesiredState, EniReport, FlowLogReport, Report, ReportAnswer};
use rusqlite::Transaction;
use tempfile::TempDir;

use super::{Caller, Context, Role, access_keys, agents as agent, flow_logs as flow_log};
use crate::api;
use crate::serve::config::Config;
use crate::serve::error::{ApiError, Code};
use crate::serve::moment::Moment;
use crate::serve::secrets::Seal;
use crate::serve::store::Store;

/// When the service started.
const STARTED: i64 = 1_800_000_000_000;

struct Rig {
    store: Store,
    seal: Seal,
    config: Config,
    /// Milliseconds since the start.
    now: i64,
    /// How far the wall clock was set ahead, in milliseconds.
    ahead: i64,
    folder: TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(folder.path()).unwrap(),
            seal: Seal::open(folder.path(), false).unwrap(),
            config,
            now: 0,
            ahead: 0,
            folder,
        }
    }

    /// The service ends, and is started again at the same moment.
    fn restart(&mut self) {
        self.store = Store::open(self.folder.path()).unwrap();
        self.ahead += self.now;
        self.now = 0;
    }

    fn cx(&self, account_id: &str, role: Role, key_id: &str) -> Context {
        Context {
            caller: Caller {
                key_id: key_id.into(),
                account_id: account_id.into(),
                role,
            },
            now: Moment(STARTED + self.ahead + self.now),
            request_id: format!("request-{}", self.now),
            config: Arc::new(self.config.clone()),
            uptime_ms: self.now,
        }
    }

    fn admin(&self) -> Context {
        self.cx("1", Role::Administrator, "admin")
    }

    fn run<T>(
        &self,
        cx: &Context,
        change: impl FnOnce(&Transaction<'_>, &Context) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.store.write_here(|state| change(state, cx))
    }

    /// As administrator.
    fn ok<T>(&self, change: impl FnOnce(&Transaction<'_>, &Context) -> Result<T, ApiError>) -> T {
        self.run(&self.admin(), change).unwrap()
    }

    /// As administrator, where it is refused.
    fn refused<T: std::fmt::Debug>(
        &self,
        change: impl FnOnce(&Transaction<'_>, &Context) -> Result<T, ApiError>,
    ) -> Code {
        self.run(&self.admin(), change).unwrap_err().kind()
    }

    /// An agent's access key in an account.
    fn agent(&self, account_id: &str) -> Context {
        let asked = api::CreateAccessKey {
            role: "agent".into(),
            account_id: Some(account_id.into()),
            ..Default::default()
        };
        let key = self.ok(|state, cx| access_keys::create(state, cx, &self.seal, &asked));
        self.cx(account_id, Role::Agent, &key.id)
    }

    /// The agent reports now.
    fn report(&self, agent: &Context, report: &Report) -> Result<ReportAnswer, ApiError> {
        let now = self.cx(&agent.caller.account_id, Role::Agent, &agent.caller.key_id);
        self.run(&now, |state, cx| agent::report(state, cx, report))
    }

    fn desired(&self, agent: &Context) -> DesiredState {
        self.run(agent, agent::desired_state).unwrap()
    }

    /// The agent applies what it is to have, and reports so.
    fn apply(&self, agent: &Context, report: &Report) {
        let applied = Report {
            applied_version: self.desired(agent).version,
            ..report.clone()
        };
        self.report(agent, &applied).unwrap();
    }

    fn create(&self, asked: &api::CreateFlowLog) -> api::FlowLog {
        self.ok(|state, cx| flow_log::create(state, cx, asked))
    }

    /// The status of a flow log; `Gone` if there is none.
    fn status(&self, id: &str) -> String {
        let cx = self.admin();
        match self.run(&cx, |state, cx| flow_log::get(state, cx, None, id)) {
            Ok(flow_log) => flow_log.status,
            Err(error) => {
                assert_eq!(error.kind(), Code::FlowLogNotFound);
                "Gone".into()
            }
        }
    }
}

fn eni(number: u32) -> EniReport {
    EniReport {
        eni_id: format!("eni-{number}"),
        vswitch_id: "vsw-1".into(),
        vpc_id: "vpc-1".into(),
        account_id: "1".into(),
        vm_id: None,
        region: None,
        captured: true,
    }
}

/// A host's first report.
fn host(host_id: &str, enis: &[EniReport]) -> Report {
    Report {
        host_id: host_id.into(),
        agent_version: "0.1.0".into(),
        enis: enis.to_vec(),
        applied_version: 0,
        flow_logs: Vec::new(),
    }
}

fn delivery(flow_log_id: &str, status: DeliverStatus, message: &str) -> FlowLogReport {
    FlowLogReport {
        flow_log_id: flow_log_id.into(),
        version: 1,
        deliver_status: status,
        deliver_error_message: message.into(),
    }
}

/// A flow log of the VPC `vpc-1`.
fn of_vpc() -> api::CreateFlowLog {
    api::CreateFlowLog {
        resource_type: "VPC".into(),
        resource_id: "vpc-1".into(),
        traffic_type: "All".into(),
        ..Default::default()
    }
}

/// A flow log of a resource that nobody has.
fn of_nobody() -> api::CreateFlowLog {
    api::CreateFlowLog {
        resource_id: "vpc-none".into(),
        allow_unknown_resource: true,
        ..of_vpc()
    }
}
