//! Requests that are too large, too many or not to be read.
use axum::body::Body;
use axum::http::Request;
use flowlog::serve::service::Role;
use flowlog_model::protocol::{MAX_REPORT_BYTES, REPORT_PATH};
use flowlog_model::signature::encoding;
use proptest::prelude::*;
use serde_json::json;

use crate::rig::{HOST, Never, Rig, Rpc, owned};

const ACTIONS: &str = "CreateFlowLog|DescribeFlowLogs|ModifyFlowLogAttribute|ActiveFlowLog|DeleteFlowLog|TagResources|UnTagResources|\
    ListTagResources|MoveResourceGroup|OpenFlowLogService|GetFlowLogServiceStatus";
const NAMES: &str = "FlowLogId|FlowLogName|Description|ResourceType|ResourceId|TrafficType|ProjectName|LogStoreName|LogFormat|IpVersion|\
    AggregationInterval|PageNumber|PageSize|Status|VpcId|TrafficPath[.][0-9]{1,2}|Tags?[.][0-9]{1,2}[.](Key|Value)|TagKey[.]1|\
    ResourceId[.][1-3]|NewResourceGroupId|MaxResults|NextToken|All";
const VALUES: &str = "VPC|FLOWLOG|All|vpc-1|10|true|-1|99999999999999999999|.{0,8}|[a-z0-9]{3}";

#[tokio::test]
async fn a_body_has_at_most_a_mebibyte() {
    let rig = Rig::new();
    let key = rig.key(Role::Administrator);
    for (bytes, code) in [(1024 * 1024, "OK"), (1024 * 1024 + 1, "RequestTooLarge")] {
        let request = Rpc {
            form: Some(format!("A={}", "a".repeat(bytes - 2))),
            ..Rpc::new(&rig)
        };
        let answer = rig.send(request.signed(&key)).await;
        assert_eq!(answer.code(), code, "{bytes} bytes");
    }
}

#[tokio::test]
async fn a_body_is_not_read_before_it_is_known_who_sends_it() {
    let rig = Rig::new();
    let (key, mut forged) = (rig.key(Role::Administrator), rig.key(Role::Administrator));
    forged.id.clone_from(&key.id);
    let request = |key| {
        let request = Rpc {
            form: Some("A=b".into()),
            ..Rpc::new(&rig)
        };
        request.signed(key).map(|_| Body::new(Never::default()))
    };
    assert_eq!(
        rig.send(request(&forged)).await.code(),
        "SignatureDoesNotMatch"
    );
    let unsigned = Request::post("/api/v1/flow-logs").header("host", HOST);
    let unsigned = unsigned.body(Body::new(Never::default())).unwrap();
    assert_eq!(rig.send(unsigned).await.code(), "IncompleteSignature");
}

/// The older signature may be in the body, which is read to find out.
#[tokio::test]
async fn a_body_with_the_older_signature_has_at_most_64_kibibytes() {
    let rig = Rig::new();
    let key = rig.key(Role::Administrator);
    let form = |filler: usize| {
        let filler = "a".repeat(filler);
        let more = [("Action", "DescribeFlowLogs"), ("Filler", &filler)];
        let parameters = rig.v1(&key, "POST", &more);
        let pairs = parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        encoding::query(pairs)
    };
    for (bytes, code) in [(64 * 1024, "OK"), (64 * 1024 + 1, "RequestTooLarge")] {
        // How long a signature is as it travels differs: some of its characters are encoded.
        let form = (0..100)
            .map(|_| form(bytes - form(0).len()))
            .find(|form| form.len() == bytes)
            .unwrap();
        let request = Request::post("/")
            .header("host", HOST)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form));
        assert_eq!(
            rig.send(request.unwrap()).await.code(),
            code,
            "{bytes} bytes"
        );
    }
}

#[tokio::test]
async fn a_report_has_at_most_four_mebibytes() {
    let rig = Rig::new();
    let key = rig.key(Role::Agent);
    let empty = json!({"host_id": "h", "agent_version": "1", "enis": [], "applied_version": 0, "flow_logs": []});
    let report = |message: &str| {
        let mut report = empty.clone();
        report["flow_logs"] = json!([{"flow_log_id": "fl-1", "version": 0, "deliver_status": "FAILED",
            "deliver_error_message": message}]);
        report
    };
    let rest = report("").to_string().len();
    for (bytes, code) in [
        (MAX_REPORT_BYTES, "OK"),
        (MAX_REPORT_BYTES + 1, "RequestTooLarge"),
    ] {
        let body = report(&"x".repeat(bytes - rest));
        assert_eq!(body.to_string().len(), bytes);
        let answer = rig.call(&key, "POST", REPORT_PATH, &[], &body).await;
        assert_eq!(answer.code(), code, "{bytes} bytes");
    }
}

#[tokio::test]
async fn a_request_has_at_most_a_thousand_parameters() {
    let rig = Rig::new();
    let key = rig.key(Role::Administrator);
    for (count, code) in [(1000, "OK"), (1001, "TooManyParameters")] {
        let parameters = |from, to| -> Vec<(String, String)> {
            (from..to)
                .map(|number| (format!("P{number}"), String::new()))
                .collect()
        };
        let request = Rpc {
            query: parameters(0, count),
            ..Rpc::new(&rig)
        };
        assert_eq!(
            rig.send(request.signed(&key)).await.code(),
            code,
            "{count} in the query"
        );
        // Query and form count together.
        let form: Vec<String> = parameters(500, count)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let request = Rpc {
            query: parameters(0, 500),
            form: Some(form.join("&")),
            ..Rpc::new(&rig)
        };
        assert_eq!(
            rig.send(request.signed(&key)).await.code(),
            code,
            "{count} in both"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let rig = Rig::new();
    let key = rig.key(Role::Administrator);
    for query in ["a=%", "a=%zz", "a=%C3", "%FF=1"] {
        let request = Request::post(format!("/?{query}")).header("host", HOST);
        let answer = rig.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.code(), "MalformedRequest", "{query}");
    }
    let request = Rpc {
        form: Some("a=%".into()),
        ..Rpc::new(&rig)
    };
    assert_eq!(
        rig.send(request.signed(&key)).await.code(),
        "MalformedRequest"
    );
    let mut request = Rpc {
        form: Some("{}".into()),
        ..Rpc::new(&rig)
    }
    .signed(&key);
    let json = "application/json".parse().unwrap();
    request.headers_mut().insert("content-type", json);
    let answer = rig.send(request).await;
    assert_eq!(
        (answer.status, answer.code()),
        (415, "UnsupportedContentType")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever comes, the answer is one of ours: nothing panics, and nobody gets in.
    #[test]
    fn any_request_has_an_answer(
        method in "GET|POST|PUT|DELETE|X",
        path in "/(|api/v1/flow-logs|api/v1/[a-z]{0,4}|agent/v1/report|x)",
        query in "([A-Za-z.%+&=0-9~]|Signature=|Timestamp=|AccessKeyId=){0,40}",
        headers in prop::collection::vec(("authorization|x-acs-date|x-acs-action|content-type|x-acs-content-sha256", "[ -~]{0,60}"), 0..6),
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new();
            let mut request = Request::builder().method(method.as_str()).uri(format!("{path}?{query}")).header("host", HOST);
            for (name, value) in &headers {
                request = request.header(name, value);
            }
            let answer = rig.send(request.body(Body::from(body)).unwrap()).await;
            prop_assert!((400..500).contains(&answer.status), "{answer:?}");
            prop_assert!(!answer.code().is_empty());
            Ok(())
        })?;
    }

    /// Whatever somebody asks who may: the answer is theirs, and nothing goes wrong inside.
    #[test]
    fn any_signed_request_has_an_answer(
        requests in prop::collection::vec((ACTIONS, prop::collection::vec((NAMES, VALUES), 0..12)), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new();
            let (key, agent) = (rig.key(Role::Administrator), rig.key(Role::Agent));
            rig.report(&agent, "h1", &[1], 0).await;
            rig.advance(120_000);
            for (action, mut query) in requests {
                query.extend(owned(&[("RegionId", "local")]));
                let request = Rpc { action: &action, query, ..Rpc::new(&rig) };
                let answer = rig.send(request.signed(&key)).await;
                prop_assert!(answer.status < 500, "{action}: {answer:?}");
                prop_assert!(!answer.code().is_empty());
            }
            Ok(())
        })?;
    }
}
