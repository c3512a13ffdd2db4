//! What a request asks for: the project, by its name in one of three places, and the call.
use std::net::IpAddr;

use axum::http::Method;
use flowlog_model::signature::encoding::Parameter;

use super::error::{Code, LogError};

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    CreateProject,
    ListProjects,
    GetProject,
    UpdateProject,
    DeleteProject,
    CreateLogstore,
    ListLogstores,
    /// A call of the logstore of this name.
    Logstore(String, LogstoreCall),
}

/// A call of a logstore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogstoreCall {
    Get,
    Update,
    Delete,
    GetIndex,
    CreateIndex,
    UpdateIndex,
    DeleteIndex,
    Put,
    /// With parameters.
    GetLogs,
    /// With a body of JSON.
    GetLogsV2,
    Histogram,
    /// How far a query has come. The product has no such call.
    QueryProgress,
    ListShards,
    Cursor,
    Pull,
}

impl Call {
    /// The name, for the access log and the metrics.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::CreateProject => "CreateProject",
            Self::ListProjects => "ListProject",
            Self::GetProject => "GetProject",
            Self::UpdateProject => "UpdateProject",
            Self::DeleteProject => "DeleteProject",
            Self::CreateLogstore => "CreateLogStore",
            Self::ListLogstores => "ListLogStores",
            Self::Logstore(_, call) => match call {
                LogstoreCall::Get => "GetLogStore",
                LogstoreCall::Update => "UpdateLogStore",
                LogstoreCall::Delete => "DeleteLogStore",
                LogstoreCall::GetIndex => "GetIndex",
                LogstoreCall::CreateIndex => "CreateIndex",
                LogstoreCall::UpdateIndex => "UpdateIndex",
                LogstoreCall::DeleteIndex => "DeleteIndex",
                LogstoreCall::Put => "PutLogs",
                LogstoreCall::GetLogs => "GetLogs",
                LogstoreCall::GetLogsV2 => "GetLogsV2",
                LogstoreCall::Histogram => "GetHistograms",
                LogstoreCall::QueryProgress => "GetQueryProgress",
                LogstoreCall::ListShards => "ListShards",
                LogstoreCall::Cursor => "GetCursor",
                LogstoreCall::Pull => "PullLogs",
            },
        }
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The project; none where the request names none. It may be no project's name.
    pub(super) project: Option<String>,
    pub(super) call: Call,
}

impl Target {
    /// Reads it. The project is that of the parameter `project`, else the first segment of the path, unless that is `logstores`, else
    /// the first label of the host, unless that is an address or has no other label.
    ///
    /// # Errors
    /// [`Code::InvalidPath`], and [`Code::ParameterInvalid`] for a `type` that there is not.
    pub(super) fn read(
        method: &Method,
        host: &str,
        path: &str,
        query: &[Parameter],
    ) -> Result<Self, LogError> {
        let mut segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut project = parameter(query, "project").map(str::to_owned);
        if segments.first().is_some_and(|first| *first != "logstores") {
            let first = segments.remove(0).to_owned();
            project = project.or(Some(first));
        }
        let project = project.or_else(|| project_of_host(host));
        let call = match segments.as_slice() {
            [] => of_projects(method, query, project.is_some()),
            ["logstores", rest @ ..] => of_logstores(method, rest, query)?,
            _ => None,
        };
        let call = call.ok_or_else(|| {
            let shown: String = path.chars().take(64).collect();
            let message = format!("There is no call {method} {}.", shown.escape_debug());
            LogError::new(Code::InvalidPath, message)
        })?;
        Ok(Self { project, call })
    }
}

/// The value of a parameter.
pub(super) fn parameter<'q>(query: &'q [Parameter], name: &str) -> Option<&'q str> {
    query
        .iter()
        .find(|(other, _)| other == name)
        .map(|(_, value)| value.as_str())
}

fn project_of_host(host: &str) -> Option<String> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let is_address = name.starts_with('[') || name.parse::<IpAddr>().is_ok();
    let (project, endpoint) = name.split_once('.').filter(|_| !is_address)?;
    (!project.is_empty() && !endpoint.is_empty()).then(|| project.to_owned())
}

fn of_projects(method: &Method, query: &[Parameter], is_named: bool) -> Option<Call> {
    // To a service that is called by a name, the list of projects looks like a project named after the name's first label.
    let is_list = ["offset", "size"]
        .iter()
        .any(|name| parameter(query, name).is_some());
    match *method {
        Method::POST => Some(Call::CreateProject),
        Method::GET if is_list || !is_named => Some(Call::ListProjects),
        Method::GET => Some(Call::GetProject),
        Method::PUT => Some(Call::UpdateProject),
        Method::DELETE => Some(Call::DeleteProject),
        _ => None,
    }
}

fn of_logstores(
    method: &Method,
    segments: &[&str],
    query: &[Parameter],
) -> Result<Option<Call>, LogError> {
    use LogstoreCall as L;
    let (logstore, rest) = match segments {
        [] => {
            return Ok(match *method {
                Method::POST => Some(Call::CreateLogstore),
                Method::GET => Some(Call::ListLogstores),
                _ => None,
            });
        }
        [logstore, rest @ ..] => ((*logstore).to_owned(), rest),
    };
    let kind = parameter(query, "type");
    let of_type = |allowed: &[(&str, L)]| {
        let found = allowed.iter().find(|(name, _)| Some(*name) == kind);
        found.map(|(_, call)| *call).ok_or_else(|| {
            let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
            LogError::parameter("type", format_args!("allowed are {}", names.join(", ")))
        })
    };
    let call = match (method, rest) {
        (&Method::GET, []) if kind.is_some() => of_type(&[
            ("log", L::GetLogs),
            ("histogram", L::Histogram),
            ("progress", L::QueryProgress),
        ])?,
        (&Method::GET, []) => L::Get,
        (&Method::PUT, []) => L::Update,
        (&Method::DELETE, []) => L::Delete,
        (&Method::POST, ["logs"]) => L::GetLogsV2,
        (&Method::GET, ["index"]) => L::GetIndex,
        (&Method::POST, ["index"]) => L::CreateIndex,
        (&Method::PUT, ["index"]) => L::UpdateIndex,
        (&Method::DELETE, ["index"]) => L::DeleteIndex,
        (&Method::GET, ["shards"]) => L::ListShards,
        (&Method::POST, ["shards", "lb" | "route"]) => L::Put,
        (&Method::GET, ["shards", "0"]) => of_type(&[("cursor", L::Cursor), ("log", L::Pull)])?,
        (&Method::GET, ["shards", _]) => {
            let message = "A logstore has the shard 0 alone.";
            return Err(LogError::new(Code::ShardNotExist, message));
        }
        _ => return Ok(None),
    };
    Ok(Some(Call::Logstore(logstore, call)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, host: &str, target: &str) -> Result<Target, Code> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = flowlog_model::signature::encoding::parameters(query, 9).unwrap();
        let method = method.parse().unwrap();
        Target::read(&method, host, path, &query).map_err(|error| error.code())
    }

    #[test]
    fn the_project_in_its_three_places() {
        for (host, target, expected) in [
            ("p.127.0.0.1", "/logstores", Some("p")),
            ("p.127.0.0.1:8480", "/logstores", Some("p")),
            ("p.localhost", "/logstores", Some("p")),
            ("p.flowlog.example:80", "/logstores", Some("p")),
            ("127.0.0.1:8480", "/logstores", None),
            ("[::1]:8480", "/logstores", None),
            ("localhost:8480", "/logstores", None),
            ("", "/logstores", None),
            ("x.example", "/p/logstores", Some("p")),
            ("x.example", "/q/logstores?project=p", Some("p")),
            ("127.0.0.1", "/logstores?project=p", Some("p")),
            ("127.0.0.1", "/p", Some("p")),
        ] {
            let method = if target == "/p" { "DELETE" } else { "GET" };
            let read = read(method, host, target).unwrap();
            assert_eq!(read.project.as_deref(), expected, "{host} {target}");
        }
    }

    #[test]
    fn calls() {
        use LogstoreCall as L;
        let logstore = |call| Call::Logstore("flows".into(), call);
        for (method, target, expected) in [
            ("POST", "/", Call::CreateProject),
            ("GET", "/?offset=0&size=100", Call::ListProjects),
            ("GET", "/", Call::GetProject),
            ("PUT", "/", Call::UpdateProject),
            ("DELETE", "/", Call::DeleteProject),
            ("POST", "/logstores", Call::CreateLogstore),
            ("GET", "/logstores?offset=0", Call::ListLogstores),
            ("GET", "/logstores/flows", logstore(L::Get)),
            ("PUT", "/logstores/flows", logstore(L::Update)),
            ("DELETE", "/logstores/flows", logstore(L::Delete)),
            (
                "GET",
                "/logstores/flows?type=log&from=1",
                logstore(L::GetLogs),
            ),
            (
                "GET",
                "/logstores/flows?type=histogram",
                logstore(L::Histogram),
            ),
            (
                "GET",
                "/logstores/flows?type=progress&queryId=a",
                logstore(L::QueryProgress),
            ),
            ("POST", "/logstores/flows/logs", logstore(L::GetLogsV2)),
            ("POST", "/logstores/flows/shards/lb", logstore(L::Put)),
            (
                "POST",
                "/logstores/flows/shards/route?key=0f",
                logstore(L::Put),
            ),
            ("GET", "/logstores/flows/shards", logstore(L::ListShards)),
            (
                "GET",
                "/logstores/flows/shards/0?type=cursor",
                logstore(L::Cursor),
            ),
            (
                "GET",
                "/logstores/flows/shards/0?type=log",
                logstore(L::Pull),
            ),
            ("POST", "/logstores/flows/index", logstore(L::CreateIndex)),
            ("PUT", "/logstores/flows/index", logstore(L::UpdateIndex)),
            ("GET", "/logstores/flows/index", logstore(L::GetIndex)),
            ("DELETE", "/logstores/flows/index", logstore(L::DeleteIndex)),
        ] {
            let read = read(method, "p.127.0.0.1", target).unwrap();
            assert_eq!(read.call, expected, "{method} {target}");
        }
        for (method, target, expected) in [
            ("PATCH", "/", Code::InvalidPath),
            ("GET", "/p/q", Code::InvalidPath),
            ("DELETE", "/logstores", Code::InvalidPath),
            ("GET", "/logstores/flows/logs", Code::InvalidPath),
            ("GET", "/logstores/flows?type=topic", Code::ParameterInvalid),
            ("GET", "/logstores/flows/shards/0", Code::ParameterInvalid),
            (
                "GET",
                "/logstores/flows/shards/1?type=log",
                Code::ShardNotExist,
            ),
            ("GET", "/logstores/flows/shards/0/x", Code::InvalidPath),
        ] {
            assert_eq!(
                read(method, "p.h", target),
                Err(expected),
                "{method} {target}"
            );
        }
    }

    #[test]
    fn without_a_project_there_is_only_the_list() {
        assert_eq!(
            read("GET", "127.0.0.1", "/").unwrap().call,
            Call::ListProjects
        );
    }
}
