//! Where the service is, whose access key is used, and requests to the REST face.
use std::{
    cell::RefCell,
    path::PathBuf,
    pin::pin,
    time::{Duration, SystemTime},
};

use flowlog_client::{AccessKey, Answer, Call, Client, ClientError, LogCall, ServiceUrl};
use flowlog_model::signature::encoding::Parameter;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    runtime::Runtime,
    time::{interval, sleep},
};

use super::CliError;

/// How long the service may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the Log Service may take: a query has a minute.
const LOG_PATIENCE: Duration = Duration::from_secs(90);

/// Between two calls while an answer is awaited.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks at how far an answer is.
const LOOK: Duration = Duration::from_millis(500);

/// Most bytes of an answer: what is known of some 100,000 ENIs.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Where the service is, and whose access key is used.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Service")]
pub(super) struct ConnectionOptions {
    /// Where the service is.
    #[arg(
        long,
        global = true,
        env = "FLOWLOG_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8480"
    )]
    url: ServiceUrl,
    /// File with the access key that signs requests: a JSON object with `id` and `secret`, for its owner alone.
    #[arg(
        long,
        global = true,
        env = "FLOWLOG_ACCESS_KEY_FILE",
        value_name = "FILE",
        default_value = "/var/lib/flowlog/administrator.json"
    )]
    access_key_file: PathBuf,
    /// Authorities, in PEM, of which one has signed the service's certificate; without it, those that this system trusts.
    #[arg(long, global = true, env = "FLOWLOG_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// Requests to one service with one access key.
pub(super) struct Session {
    client: Client,
    runtime: Runtime,
}

impl Session {
    /// A session; nothing is sent yet.
    pub(super) fn open(options: &ConnectionOptions) -> Result<Self, CliError> {
        let key = AccessKey::load(&options.access_key_file)?;
        let client = Client::new(options.url.clone(), key, options.ca_file.as_deref())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(CliError::Start)?;
        Ok(Self { client, runtime })
    }

    /// Asks for something. The path is without what stands before it on the REST face.
    pub(super) fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.send("GET", path, &parameters(query), b"")?.json()
    }

    /// Has something changed.
    pub(super) fn change<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        query: &impl Serialize,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_value(body).unwrap_or_default();
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        self.send(method, path, &parameters(query), &body)?.json()
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        query: &[Parameter],
        body: &[u8],
    ) -> Result<Answer, ClientError> {
        let call = Call {
            method,
            path: &format!("/api/v1{path}"),
            query,
            body,
            patience: PATIENCE,
            max_answer_bytes: MAX_ANSWER_BYTES,
        };
        self.runtime.block_on(self.client.send(&call, wall()))
    }

    /// Asks the Log Service for something.
    pub(super) fn log<T: DeserializeOwned>(
        &self,
        request: &LogRequest<'_>,
    ) -> Result<T, ClientError> {
        self.runtime.block_on(self.send_log(request))?.json()
    }

    /// Likewise. While the answer is awaited, `watch` is asked for again and again, and `tick` called with its last answer.
    pub(super) fn log_watched<T: DeserializeOwned, W: DeserializeOwned + Clone>(
        &self,
        request: &LogRequest<'_>,
        watch: &LogRequest<'_>,
        mut tick: impl FnMut(Option<W>),
    ) -> Result<T, ClientError> {
        let last = RefCell::new(None);
        let watching = async {
            loop {
                sleep(LOOK).await;
                // Who does not answer it may still answer the request.
                if let Ok(answer) = self.send_log(watch).await {
                    last.replace(answer.json().ok());
                }
            }
        };
        let answer = self.runtime.block_on(async {
            let mut answer = pin!(self.send_log(request));
            let mut watching = pin!(watching);
            let mut ticks = interval(TICK);
            loop {
                tokio::select! {
                    answer = &mut answer => return answer,
                    () = &mut watching => {}
                    _ = ticks.tick() => tick(last.borrow().clone()),
                }
            }
        });
        answer?.json()
    }

    /// Has the Log Service do something that it answers with nothing.
    pub(super) fn log_done(&self, request: &LogRequest<'_>) -> Result<(), ClientError> {
        self.runtime.block_on(self.send_log(request)).map(drop)
    }

    async fn send_log(&self, request: &LogRequest<'_>) -> Result<Answer, ClientError> {
        let raw_bytes = request.body.len().to_string();
        let mut headers = vec![("x-log-bodyrawsize", raw_bytes.as_str())];
        if !request.body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        let call = LogCall {
            method: request.method,
            project: request.project,
            path: &request.path,
            query: &request.query,
            headers: &headers,
            body: &request.body,
            patience: LOG_PATIENCE,
            max_answer_bytes: MAX_ANSWER_BYTES,
        };
        self.client.send_log(&call, wall()).await
    }
}

/// A request of the Log Service's API.
#[derive(Clone, Debug)]
pub(super) struct LogRequest<'r> {
    method: &'r str,
    project: Option<&'r str>,
    path: String,
    query: Vec<Parameter>,
    body: Vec<u8>,
}

impl<'r> LogRequest<'r> {
    /// A request, whose path is as it travels.
    pub(super) fn new(method: &'r str, project: Option<&'r str>, path: &str) -> Self {
        Self {
            method,
            project,
            path: path.to_owned(),
            query: Vec::new(),
            body: Vec::new(),
        }
    }

    /// With parameters.
    pub(super) fn with_query(self, query: &impl Serialize) -> Self {
        Self {
            query: parameters(query),
            ..self
        }
    }

    /// With a body of JSON.
    pub(super) fn with_body(self, body: &impl Serialize) -> Self {
        // Text and numbers with text keys always can be.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self { body, ..self }
    }

    /// For a page of a list.
    pub(super) fn with_page(mut self, offset: usize, size: usize) -> Self {
        for (name, number) in [("offset", offset), ("size", size)] {
            self.query.push((name.to_owned(), number.to_string()));
        }
        self
    }
}

/// The time by the wall clock, since 1970.
pub(super) fn wall() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// The fields of a struct as parameters of a query, without those that are none; a list is one parameter for each item.
fn parameters(query: &impl Serialize) -> Vec<Parameter> {
    let Ok(Value::Object(fields)) = serde_json::to_value(query) else {
        return Vec::new();
    };
    let text = |value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let named = |(name, value): (String, Value)| {
        let values = match value {
            Value::Null => Vec::new(),
            Value::Array(values) => values,
            one => vec![one],
        };
        let parameter = move |value| (name.clone(), text(value));
        values.into_iter().map(parameter)
    };
    fields.into_iter().flat_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::FlowLogFilter;

    #[test]
    fn a_filter_becomes_the_parameters_that_it_has() {
        let filter = FlowLogFilter {
            name: Some("a b".to_owned()),
            page_size: Some(50),
            ..FlowLogFilter::default()
        };
        let expected = [("name", "a b"), ("page_size", "50")];
        assert_eq!(
            parameters(&filter),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(parameters(&()), []);
        let list = serde_json::json!({ "tag": ["a=1", "b"], "x": [] });
        let pair = |value: &str| ("tag".to_owned(), value.to_owned());
        assert_eq!(parameters(&list), [pair("a=1"), pair("b")]);
    }
}
