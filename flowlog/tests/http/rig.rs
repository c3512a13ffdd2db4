//! A service on a state of its own, with a clock that tests set, and clients that sign.
use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{self, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::{HeaderMap, Request};
use flowlog::api;
use flowlog::log_service::api::LogService;
use flowlog::serve::config::Config;
use flowlog::serve::http::{App, Metrics, router};
use flowlog::serve::moment::Moment;
use flowlog::serve::nonces::Nonces;
use flowlog::serve::rate::Rates;
use flowlog::serve::secrets::Seal;
use flowlog::serve::service::{Caller, Context, Role, access_keys};
use flowlog::serve::store::Store;
use flowlog_model::protocol::{EniReport, Report};
use flowlog_model::signature::acs3::{self, Authorization, Outgoing, Signed};
use flowlog_model::signature::encoding::{self, Parameter};
use flowlog_model::signature::v1;
use hyper::body::Frame;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tower::ServiceExt as _;

/// Host that clients call.
pub(crate) const HOST: &str = "flowlog.test:8480";

pub(crate) struct Rig {
    pub(crate) app: Arc<App>,
    pub(crate) router: Router,
    pub(crate) now: Arc<AtomicI64>,
    nonces: AtomicU64,
    pub(crate) end: watch::Sender<bool>,
    _folder: TempDir,
}

/// The Log Service. On a thread of its own, for a rig is made within a runtime.
fn logs(folder: &Path) -> LogService {
    let open = || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(LogService::open(folder)).unwrap()
    };
    std::thread::scope(|scope| scope.spawn(open).join().unwrap())
}

/// An access key.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) secret: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answered {
    /// The error's code; `OK` if there is none.
    pub(crate) fn code(&self) -> &str {
        if self.status == 200 {
            return "OK";
        }
        let text = |name: &str| self.body[name].as_str().unwrap_or_default();
        // Every error has the whole shape.
        assert_eq!(
            text("RequestId"),
            self.headers["x-acs-request-id"].to_str().unwrap()
        );
        assert_eq!(text("HostId"), HOST);
        assert!(!text("Message").is_empty() && !text("Recommend").is_empty());
        self.body["Code"].as_str().unwrap()
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let started = Moment::parse("2026-11-22T05:00:00Z").unwrap();
        let now = Arc::new(AtomicI64::new(started.0));
        let (clock, uptime) = (Arc::clone(&now), Arc::clone(&now));
        let (end, ending) = watch::channel(false);
        let app = Arc::new(App {
            logs: logs(folder.path()),
            store: Store::open(folder.path()).unwrap(),
            seal: Seal::open(folder.path(), false).unwrap(),
            nonces: Nonces::open(folder.path()).unwrap(),
            rates: Rates::new(&config),
            config: Arc::new(config),
            metrics: Metrics::default(),
            clock: Box::new(move || Moment(clock.load(Ordering::SeqCst))),
            uptime: Box::new(move || uptime.load(Ordering::SeqCst) - started.0),
            changes: watch::Sender::new(()),
            ending,
        });
        Self {
            router: router(Arc::clone(&app)),
            app,
            now,
            nonces: AtomicU64::new(0),
            end,
            _folder: folder,
        }
    }

    pub(crate) fn advance(&self, milliseconds: i64) {
        self.now.fetch_add(milliseconds, Ordering::SeqCst);
    }

    /// Now, as requests have it.
    pub(crate) fn date(&self) -> String {
        Moment(self.now.load(Ordering::SeqCst)).rfc3339()
    }

    /// A nonce that was not used.
    pub(crate) fn nonce(&self) -> String {
        format!("nonce-{}", self.nonces.fetch_add(1, Ordering::SeqCst))
    }

    /// An access key of account 1.
    pub(crate) fn key(&self, role: Role) -> Key {
        self.key_of("1", role)
    }

    /// An access key of an account.
    pub(crate) fn key_of(&self, account: &str, role: Role) -> Key {
        let cx = Context {
            caller: Caller {
                key_id: "test".into(),
                account_id: account.into(),
                role: Role::Administrator,
            },
            now: (self.app.clock)(),
            request_id: "test".into(),
            config: Arc::clone(&self.app.config),
            uptime_ms: (self.app.uptime)(),
        };
        let asked = api::CreateAccessKey {
            role: role.to_string(),
            ..Default::default()
        };
        let made = self
            .app
            .store
            .write_here(|state| access_keys::create(state, &cx, &self.app.seal, &asked))
            .unwrap();
        Key {
            id: made.id,
            secret: made.secret,
        }
    }

    /// As [`Self::send`], without waiting for the answer, which is dropped.
    pub(crate) fn begin(&self, request: Request<Body>) {
        tokio::spawn(self.router.clone().oneshot(request));
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answered {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 16 << 20).await.unwrap();
        Answered {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&body)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned())),
        }
    }

    /// A request to REST face or agent protocol.
    pub(crate) async fn call(
        &self,
        key: &Key,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: &Value,
    ) -> Answered {
        let body = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body).unwrap()
        };
        let query = owned(query);
        let (date, nonce) = (self.date(), self.nonce());
        let outgoing = Outgoing {
            method,
            host: HOST,
            path,
            query: &query,
            body: &body,
            date: &date,
            nonce: &nonce,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(uri(path, &query))
            .header("host", HOST);
        for (name, value) in outgoing.headers(&key.id, &key.secret) {
            request = request.header(name, value);
        }
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    /// A request to the RPC face, signed as the newer SDKs do.
    pub(crate) async fn rpc(&self, key: &Key, action: &str, query: &[(&str, &str)]) -> Answered {
        let request = Rpc {
            action,
            query: owned(query),
            ..Rpc::new(self)
        };
        self.send(request.signed(key)).await
    }

    /// A request to the RPC face, signed as the older SDKs do.
    pub(crate) fn v1(&self, key: &Key, method: &str, more: &[(&str, &str)]) -> Vec<Parameter> {
        let mut parameters = owned(&[
            ("Version", "2016-04-28"),
            ("Format", "JSON"),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureType", ""),
            ("SignatureVersion", "1.0"),
            ("AccessKeyId", &key.id),
            ("Timestamp", &self.date()),
            ("SignatureNonce", &self.nonce()),
        ]);
        parameters.extend(owned(more));
        let signature = v1::signature(&key.secret, method, &parameters);
        parameters.push((v1::SIGNATURE.into(), signature));
        parameters
    }

    /// An agent's report of ENIs `eni-N` in `vpc-1`.
    pub(crate) async fn report(
        &self,
        key: &Key,
        host: &str,
        enis: &[u32],
        applied: u64,
    ) -> Answered {
        let enis = enis.iter().map(|number| EniReport {
            eni_id: format!("eni-{number}"),
            vswitch_id: "vsw-1".into(),
            vpc_id: "vpc-1".into(),
            account_id: "1".into(),
            vm_id: None,
            region: None,
            captured: true,
        });
        let report = Report {
            host_id: host.into(),
            agent_version: "0.1.0".into(),
            enis: enis.collect(),
            applied_version: applied,
            flow_logs: Vec::new(),
        };
        let body = serde_json::to_value(report).unwrap();
        self.call(key, "POST", "/agent/v1/report", &[], &body).await
    }
}

/// A request to the RPC face, to be broken before it is signed or after.
pub(crate) struct Rpc<'a> {
    pub(crate) method: &'a str,
    pub(crate) action: &'a str,
    pub(crate) version: &'a str,
    pub(crate) date: String,
    pub(crate) nonce: String,
    pub(crate) query: Vec<Parameter>,
    pub(crate) form: Option<String>,
    /// Left out of what is signed.
    pub(crate) unsigned: &'a str,
}

impl<'a> Rpc<'a> {
    pub(crate) fn new(rig: &Rig) -> Self {
        Self {
            method: "POST",
            action: "DescribeFlowLogs",
            version: "2016-04-28",
            date: rig.date(),
            nonce: rig.nonce(),
            query: owned(&[("RegionId", "local")]),
            form: None,
            unsigned: "",
        }
    }

    pub(crate) fn signed(&self, key: &Key) -> Request<Body> {
        let body = self.form.clone().unwrap_or_default();
        let sha256 = acs3::sha256_hex(body.as_bytes());
        let all = [
            ("accept", "application/json"),
            ("host", HOST),
            (acs3::ACTION, self.action),
            (acs3::CONTENT_SHA256, &sha256),
            (acs3::DATE, &self.date),
            (acs3::NONCE, &self.nonce),
            (acs3::VERSION, self.version),
        ];
        let headers: Vec<(&str, &str)> = all
            .into_iter()
            .filter(|(name, _)| *name != self.unsigned)
            .collect();
        let signed = Signed {
            method: self.method,
            path: "/",
            query: &self.query,
            headers: &headers,
            content_sha256: &sha256,
        };
        let authorization = Authorization {
            credential: key.id.clone(),
            signed_headers: headers.iter().map(|(name, _)| (*name).to_owned()).collect(),
            signature: signed.signature(&key.secret),
        };
        let mut request = Request::builder()
            .method(self.method)
            .uri(uri("/", &self.query))
            .header("authorization", authorization.to_string());
        for (name, value) in all {
            request = request.header(name, value);
        }
        if self.form.is_some() {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        request.body(Body::from(body)).unwrap()
    }
}

pub(crate) fn owned(pairs: &[(&str, &str)]) -> Vec<Parameter> {
    let owned = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    owned.collect()
}

/// As it travels: a space as `+`.
pub(crate) fn uri(path: &str, query: &[Parameter]) -> String {
    let pairs = query
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    format!("{path}?{}", encoding::query(pairs).replace("%20", "+"))
}

/// A body that never comes: whoever waits for it hangs.
#[derive(Default)]
pub(crate) struct Never {
    /// Told when it is waited for.
    pub(crate) awaited: Option<UnboundedSender<()>>,
}

impl HttpBody for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(awaited) = self.awaited.take() {
            let _ = awaited.send(());
        }
        Poll::Pending
    }
}
