//! Requests, answers and what can go wrong with them.
use std::{
    future::Future,
    io,
    path::Path,
    pin::pin,
    time::{Duration, UNIX_EPOCH},
};

use flowlog_model::signature::{
    acs3::Outgoing,
    encoding::{self, Parameter},
    log_v1,
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
    rt::{Read, Write},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use crate::{AccessKey, ServiceUrl, tls};

/// Characters of the service's message that are shown.
const MAX_SHOWN_CHARS: usize = 500;

/// Version of the Log Service's API.
const LOG_API_VERSION: &str = "0.6.0";

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Call<'c> {
    /// `GET`, `POST` and so on.
    pub method: &'c str,
    /// The path, as it travels.
    pub path: &'c str,
    /// The parameters of the query.
    pub query: &'c [Parameter],
    /// The body, which is JSON; empty for none.
    pub body: &'c [u8],
    /// How long the answer may take, with the connection.
    pub patience: Duration,
    /// Most bytes that the answer's body may have.
    pub max_answer_bytes: usize,
}

/// A request of the Log Service's API, ours or the product's.
#[derive(Clone, Copy, Debug)]
pub struct LogCall<'c> {
    /// `GET`, `POST` and so on.
    pub method: &'c str,
    /// The project; none for the calls that need none.
    pub project: Option<&'c str>,
    /// The path, as it travels.
    pub path: &'c str,
    /// The parameters of the query.
    pub query: &'c [Parameter],
    /// `content-type` and headers of the Log Service, in lower case; those that every request has are not among them.
    pub headers: &'c [(&'c str, &'c str)],
    /// The body; empty for none.
    pub body: &'c [u8],
    /// How long the answer may take, with the connection.
    pub patience: Duration,
    /// Most bytes that the answer's body may have.
    pub max_answer_bytes: usize,
}

/// What the service has answered, and that it went well.
#[derive(Clone, Debug)]
pub struct Answer {
    url: ServiceUrl,
    /// The status code, from 200 to 299.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer that can be used, in one sentence.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is nobody to be trusted.
    #[error("https needs an authority to trust: {0}")]
    Authorities(io::Error),
    /// No connection.
    #[error("{url} cannot be reached: {source}")]
    Unreachable {
        /// The service.
        url: ServiceUrl,
        /// Why.
        source: io::Error,
    },
    /// No answer in time.
    #[error("{url} has not answered within {} s", .patience.as_secs())]
    TooSlow {
        /// The service.
        url: ServiceUrl,
        /// How long it had.
        patience: Duration,
    },
    /// An answer that is too large.
    #[error("the answer of {url} is larger than {limit} bytes")]
    TooLarge {
        /// The service.
        url: ServiceUrl,
        /// How large it may be.
        limit: usize,
    },
    /// The connection broke, or speaks something else.
    #[error("{url} does not answer as Flowlog's service does: {reason}")]
    Strange {
        /// The service.
        url: ServiceUrl,
        /// What it does.
        reason: String,
    },
    /// The service says no.
    #[error("{message} ({code}{})", .request_id.as_ref().map(|id| format!(", request {id}")).unwrap_or_default())]
    Refused {
        /// The status code.
        status: u16,
        /// The service's code for it, such as `IncorrectStatus`.
        code: String,
        /// What it says, without a final stop.
        message: String,
        /// The number under which the service has it in its log.
        request_id: Option<String>,
    },
}

/// The shape of all the service's errors; the Log Service's have names of their own.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    #[serde(alias = "errorCode")]
    code: String,
    #[serde(alias = "errorMessage")]
    message: String,
    request_id: Option<String>,
}

/// Sends requests to one service with one access key.
#[derive(Clone)]
pub struct Client {
    url: ServiceUrl,
    key: AccessKey,
    tls: Option<TlsConnector>,
}

impl Client {
    /// A client. Of an `https` service, an authority in `ca_file` must have signed the certificate; without such a file, one that this
    /// system trusts.
    ///
    /// # Errors
    ///
    /// [`ClientError::Authorities`].
    pub fn new(
        url: ServiceUrl,
        key: AccessKey,
        ca_file: Option<&Path>,
    ) -> Result<Self, ClientError> {
        let connector = || tls::connector(ca_file).map_err(ClientError::Authorities);
        let tls = url.is_tls().then(connector).transpose()?;
        Ok(Self { url, key, tls })
    }

    /// The service.
    #[must_use]
    pub fn url(&self) -> &ServiceUrl {
        &self.url
    }

    /// Sends a request and gives the answer to it. `wall` is the time by the wall clock, since 1970.
    ///
    /// # Errors
    ///
    /// [`ClientError`], also for an answer with an error's status code.
    pub async fn send(&self, call: &Call<'_>, wall: Duration) -> Result<Answer, ClientError> {
        let request = self.request(call, wall)?;
        self.answer(request, call.patience, call.max_answer_bytes)
            .await
    }

    /// As [`Self::send`], to the Log Service, with version 1 of its signature. The project is the first label of the host; the
    /// connection is to the host without it, so that no name but the service's own must be known.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub async fn send_log(
        &self,
        call: &LogCall<'_>,
        wall: Duration,
    ) -> Result<Answer, ClientError> {
        let request = self.log_request(call, wall)?;
        self.answer(request, call.patience, call.max_answer_bytes)
            .await
    }

    async fn answer(
        &self,
        request: Request<Full<Bytes>>,
        patience: Duration,
        max_bytes: usize,
    ) -> Result<Answer, ClientError> {
        let answered = tokio::time::timeout(patience, self.exchange(request, max_bytes)).await;
        let (status, body) = answered.map_err(|_| ClientError::TooSlow {
            url: self.url.clone(),
            patience,
        })??;
        if (200..300).contains(&status) {
            let url = self.url.clone();
            Ok(Answer { url, status, body })
        } else {
            Err(self.refused(status, &body))
        }
    }

    fn request(
        &self,
        call: &Call<'_>,
        wall: Duration,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let host = self.url.authority();
        let (date, nonce) = (date(wall), self.nonce()?);
        let signed = Outgoing {
            method: call.method,
            host: &host,
            path: call.path,
            query: call.query,
            body: call.body,
            date: &date,
            nonce: &nonce,
        };
        let mut request = Request::builder()
            .method(call.method)
            .uri(target(call.path, call.query))
            .header(HOST, &host);
        for (name, value) in signed.headers(self.key.id(), self.key.secret()) {
            request = request.header(name, value);
        }
        if !call.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::new(Bytes::copy_from_slice(call.body)))
            .map_err(|error| self.strange(&error))
    }

    fn log_request(
        &self,
        call: &LogCall<'_>,
        wall: Duration,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let authority = self.url.authority();
        let host = match call.project {
            Some(project) => format!("{project}.{authority}"),
            None => authority,
        };
        let date = httpdate::fmt_http_date(UNIX_EPOCH + wall);
        let mut headers = vec![("x-log-apiversion", LOG_API_VERSION)];
        headers.extend_from_slice(call.headers);
        let signed = log_v1::Outgoing {
            method: call.method,
            path: call.path,
            query: call.query,
            headers: &headers,
            body: call.body,
            date: &date,
        };
        let mut request = Request::builder()
            .method(call.method)
            .uri(target(call.path, call.query))
            .header(HOST, host);
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        for (name, value) in signed.headers(self.key.id(), self.key.secret()) {
            request = request.header(name, value);
        }
        request
            .body(Full::new(Bytes::copy_from_slice(call.body)))
            .map_err(|error| self.strange(&error))
    }

    fn nonce(&self) -> Result<String, ClientError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| self.strange(&error))?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<(u16, Bytes), ClientError> {
        let unreachable = |source| ClientError::Unreachable {
            url: self.url.clone(),
            source,
        };
        let stream = TcpStream::connect((self.url.host(), self.url.port()))
            .await
            .map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        match &self.tls {
            None => self.over(TokioIo::new(stream), request, limit).await,
            Some(tls) => {
                let name = ServerName::try_from(self.url.host().to_owned())
                    .map_err(|error| unreachable(io::Error::other(error)))?;
                let stream = tls.connect(name, stream).await.map_err(unreachable)?;
                self.over(TokioIo::new(stream), request, limit).await
            }
        }
    }

    async fn over(
        &self,
        stream: impl Read + Write + Unpin,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<(u16, Bytes), ClientError> {
        let (mut sender, connection) = http1::handshake(stream)
            .await
            .map_err(|error| self.strange(&error))?;
        let answer = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| self.strange(&error))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), limit).collect().await;
            let body = body.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    let url = self.url.clone();
                    ClientError::TooLarge { url, limit }
                } else {
                    self.strange(&*error)
                }
            })?;
            Ok((status, body.to_bytes()))
        };
        drive(answer, connection).await
    }

    fn refused(&self, status: u16, body: &[u8]) -> ClientError {
        match serde_json::from_slice(body) {
            Ok(Refusal {
                code,
                message,
                request_id,
            }) => ClientError::Refused {
                status,
                code: one_line(&code),
                message: one_line(message.trim_end_matches('.')),
                request_id: request_id.as_deref().map(one_line),
            },
            Err(_) => {
                let reason = format!("it refuses with status {status} and no reason");
                let url = self.url.clone();
                ClientError::Strange { url, reason }
            }
        }
    }

    fn strange(&self, error: &(impl std::error::Error + ?Sized)) -> ClientError {
        strange(&self.url, error)
    }
}

impl Answer {
    /// The body, which is to be JSON.
    ///
    /// # Errors
    ///
    /// [`ClientError::Strange`] if it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| strange(&self.url, &error))
    }
}

/// The target of a request: the path, and the query if there is any.
fn target(path: &str, query: &[Parameter]) -> String {
    let query = query
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    match encoding::query(query) {
        query if query.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

fn strange(url: &ServiceUrl, error: &(impl std::error::Error + ?Sized)) -> ClientError {
    ClientError::Strange {
        url: url.clone(),
        reason: one_line(&error.to_string()),
    }
}

/// The answer, while the connection under it is kept going.
async fn drive<T>(
    answer: impl Future<Output = T>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> T {
    let mut answer = pin!(answer);
    tokio::select! {
        biased;
        answered = &mut answer => answered,
        // If it has failed, so does what is left of the answer.
        _ = connection => answer.await,
    }
}

/// A Unix time as `2026-11-22T04:52:11Z`.
fn date(wall: Duration) -> String {
    let seconds = i64::try_from(wall.as_secs()).unwrap_or_default();
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (hour, minute, second) = time.to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", time.date())
}

/// A text of somebody else's, as it can be shown in a line.
fn one_line(text: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_SHOWN_CHARS).map(visible).collect()
}

#[cfg(test)]
mod tests;
