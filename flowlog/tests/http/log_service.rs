//! The Log Service's API where the official client does not go: projects named in other places, requests that are not right, limits,
//! and what is left of a removal that was interrupted.
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::http::Request;
use flowlog::log_service::api::look_after;
use flowlog::log_service::catalogue;
use flowlog::serve::config::Config;
use flowlog::serve::service::{Caller, Context, Role};
use flowlog_model::log_group::{Content, Log, LogGroup, MAX_RAW_BYTES, compress};
use flowlog_model::signature::encoding;
use flowlog_model::signature::log_v1::Outgoing;
use prost::Message as _;
use serde_json::json;
use tokio::sync::mpsc;

use crate::rig::{Answered, Key, Never, Rig};

/// A request, to be changed before it is sent.
struct Call<'c> {
    method: &'c str,
    host: &'c str,
    /// Path and query.
    target: &'c str,
    headers: Vec<(&'c str, String)>,
    body: Vec<u8>,
}

fn call<'c>(method: &'c str, host: &'c str, target: &'c str) -> Call<'c> {
    Call {
        method,
        host,
        target,
        headers: vec![("x-log-apiversion", "0.6.0".into())],
        body: Vec::new(),
    }
}

impl Call<'_> {
    fn json(mut self, body: &serde_json::Value) -> Self {
        self.headers
            .push(("content-type", "application/json".into()));
        self.body = body.to_string().into_bytes();
        self
    }

    fn signed(&self, rig: &Rig, key: &Key) -> Request<Body> {
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        let query = encoding::parameters(query, 9).unwrap();
        let headers: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let now = UNIX_EPOCH + Duration::from_millis((rig.app.clock)().0.unsigned_abs());
        let outgoing = Outgoing {
            method: self.method,
            path,
            query: &query,
            headers: &headers,
            body: &self.body,
            date: &httpdate::fmt_http_date(now),
        };
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.target)
            .header("host", self.host);
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        for (name, value) in outgoing.headers(&key.id, &key.secret) {
            request = request.header(name, value);
        }
        request.body(Body::from(self.body.clone())).unwrap()
    }

    async fn send(&self, rig: &Rig, key: &Key) -> Answered {
        rig.send(self.signed(rig, key)).await
    }
}

/// The status and the code of an answer; every error has the product's shape.
fn code(answered: &Answered) -> (u16, &str) {
    assert!(answered.headers.contains_key("x-log-requestid"));
    if answered.status == 200 {
        return (200, "OK");
    }
    assert!(!answered.body["errorMessage"].as_str().unwrap().is_empty());
    (
        answered.status,
        answered.body["errorCode"].as_str().unwrap(),
    )
}

/// A rig with `project-1` and `flows` in it, which is searched.
async fn rig() -> (Rig, Key) {
    rig_with(Config::default()).await
}

async fn rig_with(config: Config) -> (Rig, Key) {
    let rig = Rig::with(config);
    let key = rig.key(Role::Administrator);
    for (host, target, body) in [
        (
            "h",
            "/",
            json!({ "projectName": "project-1", "description": "" }),
        ),
        (
            "project-1.h",
            "/logstores",
            json!({ "logstoreName": "flows", "ttl": 3 }),
        ),
        (
            "project-1.h",
            "/logstores/flows/index",
            json!({ "line": {} }),
        ),
    ] {
        let answered = call("POST", host, target)
            .json(&body)
            .send(&rig, &key)
            .await;
        assert_eq!(code(&answered), (200, "OK"), "{target}");
    }
    (rig, key)
}

/// A put of logs, `key` being `value`.
fn put(rig: &Rig, values: &[&str]) -> Call<'static> {
    let content = |value: &&str| Content {
        key: "key".into(),
        value: value.as_bytes().to_vec(),
    };
    let time = u32::try_from((rig.app.clock)().0 / 1000).unwrap();
    let log = |value| Log {
        time,
        contents: vec![content(value)],
        time_ns: None,
    };
    let group = LogGroup {
        logs: values.iter().map(log).collect(),
        ..LogGroup::default()
    };
    let raw = group.encode_to_vec();
    let mut put = call("POST", "project-1.h", "/logstores/flows/shards/lb");
    put.headers.extend([
        ("content-type", "application/x-protobuf".into()),
        ("x-log-bodyrawsize", raw.len().to_string()),
        ("x-log-compresstype", "lz4".into()),
    ]);
    put.body = compress(&raw);
    put
}

async fn found(rig: &Rig, key: &Key) -> u64 {
    let body = json!({ "from": 0, "to": u32::MAX, "query": "*", "line": "100" });
    let answered = call("POST", "project-1.h", "/logstores/flows/logs")
        .json(&body)
        .send(rig, key)
        .await;
    assert_eq!(code(&answered), (200, "OK"));
    answered.body["meta"]["count"].as_u64().unwrap()
}

#[tokio::test]
async fn the_project_is_named_in_any_of_three_places() {
    let (rig, key) = rig().await;
    for (host, target) in [
        ("project-1.127.0.0.1:8480", "/logstores/flows"),
        ("127.0.0.1:8480", "/project-1/logstores/flows"),
        ("127.0.0.1:8480", "/logstores/flows?project=project-1"),
        ("other.h", "/project-1/logstores/flows"),
    ] {
        let answered = call("GET", host, target).send(&rig, &key).await;
        assert_eq!(code(&answered), (200, "OK"), "{host} {target}");
        assert_eq!(answered.body["logstoreName"], "flows");
    }
    let nameless = call("GET", "127.0.0.1:8480", "/logstores/flows");
    assert_eq!(
        code(&nameless.send(&rig, &key).await),
        (404, "ProjectNotExist")
    );
}

#[tokio::test]
async fn requests_that_are_not_right() {
    let (rig, key) = rig().await;
    let get = || call("GET", "project-1.h", "/logstores/flows");
    let mut unsigned = get().signed(&rig, &key);
    unsigned.headers_mut().remove("authorization");
    assert_eq!(code(&rig.send(unsigned).await), (401, "Unauthorized"));
    let mut without_date = get().signed(&rig, &key);
    without_date.headers_mut().remove("date");
    assert_eq!(
        code(&rig.send(without_date).await),
        (401, "SignatureNotMatch")
    );
    let late = get().signed(&rig, &key);
    rig.advance(16 * 60 * 1000);
    assert_eq!(code(&rig.send(late).await), (400, "RequestTimeTooSkewed"));
    let mut other_body = put(&rig, &["a"]).signed(&rig, &key);
    *other_body.body_mut() = Body::from(put(&rig, &["b"]).body);
    assert_eq!(
        code(&rig.send(other_body).await),
        (401, "SignatureNotMatch")
    );
    let mut garbage = put(&rig, &["a"]);
    garbage.body = b"garbage".to_vec();
    assert_eq!(
        code(&garbage.send(&rig, &key).await),
        (400, "PostBodyInvalid")
    );
    for (method, target, expected) in [
        ("PATCH", "/logstores/flows", (404, "InvalidPath")),
        ("GET", "/logstores/flows/x", (404, "InvalidPath")),
        ("GET", "/logstores/flows?a=%zz", (400, "ParameterInvalid")),
        ("GET", "/logstores?size=501", (400, "ParameterInvalid")),
        ("GET", "/logstores/Flows", (404, "LogStoreNotExist")),
        ("POST", "/logstores", (400, "PostBodyInvalid")),
    ] {
        let mut request = call(method, "project-1.h", target);
        // A client that signs what it cannot encode does not exist.
        if target.contains("%zz") {
            request.target = "/logstores/flows";
            let mut request = request.signed(&rig, &key);
            *request.uri_mut() = target.parse().unwrap();
            assert_eq!(code(&rig.send(request).await), expected, "{target}");
        } else {
            assert_eq!(code(&request.send(&rig, &key).await), expected, "{target}");
        }
    }
    assert_eq!(found(&rig, &key).await, 0, "nothing was stored");
}

#[tokio::test]
async fn bodies_have_limits() {
    let (rig, key) = rig().await;
    let mut large = put(&rig, &["a"]);
    large.body = vec![0; MAX_RAW_BYTES + 1];
    assert_eq!(
        code(&large.send(&rig, &key).await),
        (400, "PostBodyTooLarge")
    );
    let mut large = call("POST", "project-1.h", "/logstores");
    large.body = vec![b' '; (1 << 20) + 1];
    assert_eq!(
        code(&large.send(&rig, &key).await),
        (400, "PostBodyTooLarge")
    );
    let many: String = (0..101).map(|number| format!("p{number}=1&")).collect();
    let target = format!("/logstores?{many}");
    let mut many = call("GET", "project-1.h", "/logstores").signed(&rig, &key);
    *many.uri_mut() = target.parse().unwrap();
    assert_eq!(code(&rig.send(many).await), (400, "ParameterInvalid"));
}

#[tokio::test]
async fn bodies_that_are_slow_to_come_leave_room_for_others() {
    let (rig, key) = rig().await;
    let (awaited, mut are_awaited) = mpsc::unbounded_channel();
    let slow = || {
        // Without a length, as long as is allowed; and as many logs.
        let mut slow = put(&rig, &["a"]);
        for (name, value) in &mut slow.headers {
            if *name == "x-log-bodyrawsize" {
                *value = MAX_RAW_BYTES.to_string();
            }
        }
        let awaited = Some(awaited.clone());
        slow.signed(&rig, &key)
            .map(|_| Body::new(Never { awaited }))
    };
    // All that one account may have in hand: 320 MiB.
    for _ in 0..10 {
        rig.begin(slow());
        are_awaited.recv().await.unwrap();
    }
    assert_eq!(code(&rig.send(slow()).await), (503, "ServerBusy"));
    let short = |key: &Key| {
        let mut short = put(&rig, &["a"]);
        let length = short.body.len().to_string();
        short.headers.push(("content-length", length));
        short.signed(&rig, key)
    };
    assert_eq!(code(&rig.send(short(&key)).await), (200, "OK"));
    // It comes as far as to the project, which is not this account's.
    let other = rig.key_of("2", Role::Administrator);
    let answered = put(&rig, &["a"]).send(&rig, &other).await;
    assert_eq!(code(&answered), (401, "Unauthorized"));
}

#[tokio::test]
async fn how_far_a_query_is_can_be_asked_for() {
    let (rig, key) = rig().await;
    let ask = async |id: &str| {
        let target = format!("/logstores/flows?type=progress&queryId={id}");
        call("GET", "project-1.h", &target).send(&rig, &key).await
    };
    // While it runs it has a number: the engine's tests have queries that wait.
    let none = ask("no-such").await;
    assert_eq!(none.body, json!({ "progress": null }));
    let long = ask(&"x".repeat(65)).await;
    assert_eq!(code(&long), (400, "ParameterInvalid"));
    let other = rig.key_of("2", Role::Administrator);
    let target = "/logstores/flows?type=progress&queryId=a";
    let other = call("GET", "project-1.h", target).send(&rig, &other).await;
    assert_eq!(code(&other), (401, "Unauthorized"));
}

#[tokio::test]
async fn answers_are_compressed_for_clients_that_take_it() {
    let (rig, key) = rig().await;
    let answered = put(&rig, &["a"; 50]).send(&rig, &key).await;
    assert_eq!((answered.status, answered.body.as_str()), (200, Some("")));
    let now = (rig.app.clock)().0 / 1000;
    let body = json!({ "from": now, "to": now + 1, "query": "*" });
    let mut get = call("POST", "project-1.h", "/logstores/flows/logs").json(&body);
    get.headers.push(("accept-encoding", "gzip, lz4".into()));
    let answered = get.send(&rig, &key).await;
    assert_eq!(answered.status, 200);
    assert_eq!(answered.headers["x-log-compresstype"], "lz4");
    let plain = call("POST", "project-1.h", "/logstores/flows/logs")
        .json(&body)
        .send(&rig, &key)
        .await;
    assert!(!plain.headers.contains_key("x-log-compresstype"));
    assert_eq!(
        plain.headers["x-log-bodyrawsize"], answered.headers["x-log-bodyrawsize"],
        "both tell the size that is not compressed"
    );
    assert_eq!(plain.body["meta"]["progress"], "Complete");
    assert_eq!(plain.body["data"][49]["key"], "a");
}

#[tokio::test]
async fn a_removal_that_was_interrupted_is_finished() {
    let (rig, key) = rig().await;
    assert_eq!(put(&rig, &["a"]).send(&rig, &key).await.status, 200);
    let cx = Context {
        caller: Caller {
            key_id: key.id.clone(),
            account_id: "1".into(),
            role: Role::Administrator,
        },
        now: (rig.app.clock)(),
        request_id: "r".into(),
        config: rig.app.config.clone(),
        uptime_ms: (rig.app.uptime)(),
    };
    rig.app
        .store
        .write_here(|state| {
            catalogue::mark_going(state, &cx, "project-1", "flows").unwrap();
            Ok(())
        })
        .unwrap();
    // From now on nobody sees it, and another one of its name must wait until its logs are gone.
    let get = call("GET", "project-1.h", "/logstores/flows");
    assert_eq!(code(&get.send(&rig, &key).await), (404, "LogStoreNotExist"));
    let refused = put(&rig, &["b"]).send(&rig, &key).await;
    assert_eq!(code(&refused), (404, "LogStoreNotExist"));
    let create = || {
        let body = json!({ "logstoreName": "flows", "ttl": 3 });
        call("POST", "project-1.h", "/logstores").json(&body)
    };
    let early = create().send(&rig, &key).await;
    assert_eq!(code(&early), (503, "ServerBusy"));
    look_after(&rig.app).await.unwrap();
    assert_eq!(create().send(&rig, &key).await.status, 200);
    let index = call("POST", "project-1.h", "/logstores/flows/index").json(&json!({ "line": {} }));
    assert_eq!(index.send(&rig, &key).await.status, 200);
    assert_eq!(found(&rig, &key).await, 0);
}

#[tokio::test]
async fn requests_count_against_the_rate_of_their_key() {
    let config = Config {
        requests_per_second: 1,
        requests_at_once: 5,
        ..Config::default()
    };
    // Three of the five requests at once make project, logstore and index.
    let (rig, key) = rig_with(config).await;
    let get = || call("GET", "project-1.h", "/logstores/flows");
    for _ in 0..2 {
        assert_eq!(code(&get().send(&rig, &key).await), (200, "OK"));
    }
    let refused = get().send(&rig, &key).await;
    assert_eq!(code(&refused), (403, "ReadQuotaExceed"));
    let refused = call("GET", "project-1.h", "/no/such")
        .send(&rig, &key)
        .await;
    assert_eq!(code(&refused), (403, "ReadQuotaExceed"));
    let refused = put(&rig, &["a"]).send(&rig, &key).await;
    assert_eq!(code(&refused), (403, "WriteQuotaExceed"));
    let other = rig.key(Role::Administrator);
    assert_eq!(code(&get().send(&rig, &other).await), (200, "OK"));
    // A put takes a twentieth of a request.
    rig.advance(1000);
    for _ in 0..20 {
        assert_eq!(put(&rig, &["a"]).send(&rig, &key).await.status, 200);
    }
    let refused = put(&rig, &["a"]).send(&rig, &key).await;
    assert_eq!(code(&refused), (403, "WriteQuotaExceed"));
    rig.advance(1000);
    assert_eq!(found(&rig, &key).await, 20);
}
