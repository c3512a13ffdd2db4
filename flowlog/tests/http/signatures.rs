//! Both signatures: what is accepted, and everything that is not.
use axum::body::Body;
use axum::http::Request;
use flowlog::serve::service::Role;
use flowlog_model::signature::acs3;
use flowlog_model::signature::encoding;

use crate::rig::{HOST, Key, Rig, Rpc, owned, uri};

#[tokio::test]
async fn parameters_of_every_kind_are_verified() {
    let rig = Rig::new();
    let key = rig.key(Role::Reader);
    let odd = owned(&[
        ("RegionId", "local"),
        ("Description", "d/é 流+~%&="),
        ("Empty", ""),
        ("Repeated", "b"),
        ("Repeated", "a"),
        ("*'()", "!"),
    ]);
    for method in ["GET", "POST"] {
        let request = Rpc {
            method,
            query: odd.clone(),
            ..Rpc::new(&rig)
        };
        assert_eq!(
            rig.send(request.signed(&key)).await.code(),
            "OK",
            "{method}"
        );
    }
    let form = encoding::query(
        odd.iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    let request = Rpc {
        query: Vec::new(),
        form: Some(form),
        ..Rpc::new(&rig)
    };
    assert_eq!(
        rig.send(request.signed(&key)).await.code(),
        "OK",
        "in a form"
    );
    for method in ["GET", "POST"] {
        let mut more: Vec<(&str, &str)> = odd
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        more.push(("Action", "DescribeFlowLogs"));
        let parameters = rig.v1(&key, method, &more);
        let request = Request::builder()
            .method(method)
            .uri(uri("/", &parameters))
            .header("host", HOST);
        let answer = rig.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.code(), "OK", "V1 {method}");
    }
    // Some in the query and some in a form: both are signed.
    let parameters = rig.v1(&key, "POST", &[("Action", "DescribeFlowLogs")]);
    let (query, form) = parameters.split_at(4);
    let form = encoding::query(
        form.iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    let request = Request::post(uri("/", query)).header("host", HOST).header(
        "content-type",
        "application/x-www-form-urlencoded; charset=utf-8",
    );
    let answer = rig.send(request.body(Body::from(form)).unwrap()).await;
    assert_eq!(answer.code(), "OK", "V1 in query and form");
}

#[tokio::test]
async fn everything_that_must_be_signed_is_asked_for() {
    let rig = Rig::new();
    let key = rig.key(Role::Reader);
    for unsigned in [
        "host",
        acs3::ACTION,
        acs3::CONTENT_SHA256,
        acs3::DATE,
        acs3::NONCE,
        acs3::VERSION,
    ] {
        let request = Rpc {
            unsigned,
            ..Rpc::new(&rig)
        };
        let answer = rig.send(request.signed(&key)).await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, "IncompleteSignature"),
            "{unsigned}"
        );
    }
    // What a client signs besides is its own affair.
    let request = Rpc {
        unsigned: "accept",
        ..Rpc::new(&rig)
    };
    assert_eq!(rig.send(request.signed(&key)).await.code(), "OK");
}

#[tokio::test]
async fn what_was_changed_on_the_way_is_refused() {
    let rig = Rig::new();
    let key = rig.key(Role::Reader);
    for (header, value) in [
        ("host", "other.test"),
        (acs3::ACTION, "DeleteFlowLog"),
        (acs3::NONCE, "another"),
        ("accept", "text/plain"),
    ] {
        let mut request = Rpc::new(&rig).signed(&key);
        request.headers_mut().insert(header, value.parse().unwrap());
        let response = rig.send(request).await;
        assert_eq!(response.body["Code"], "SignatureDoesNotMatch", "{header}");
    }
    let mut request = Rpc::new(&rig).signed(&key);
    *request.uri_mut() = "/?RegionId=local&PageSize=1".parse().unwrap();
    assert_eq!(rig.send(request).await.code(), "SignatureDoesNotMatch");
    let mut request = Rpc::new(&rig).signed(&key);
    *request.method_mut() = "GET".parse().unwrap();
    assert_eq!(rig.send(request).await.code(), "SignatureDoesNotMatch");
    let request = Rpc::new(&rig).signed(&key).map(|_| Body::from("x"));
    assert_eq!(rig.send(request).await.code(), "InvalidContentHash");
    // A header that is there twice is read by nobody in two ways.
    let mut request = Rpc::new(&rig).signed(&key);
    request
        .headers_mut()
        .append(acs3::DATE, rig.date().parse().unwrap());
    assert_eq!(rig.send(request).await.code(), "IncompleteSignature");
    let mut parameters = rig.v1(&key, "POST", &[("Action", "DescribeFlowLogs")]);
    parameters.push(("PageSize".into(), "1".into()));
    let request = Request::post(uri("/", &parameters)).header("host", HOST);
    let answer = rig.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.code(), "SignatureDoesNotMatch");
}

/// V1 signs no header, so that anybody on the way could add one.
#[tokio::test]
async fn headers_say_nothing_where_they_are_not_signed() {
    let rig = Rig::new();
    let key = rig.key(Role::Administrator);
    let asked = [("Action", "DescribeFlowLogs"), ("RegionId", "local")];
    for (header, value) in [
        (acs3::ACTION, "DeleteFlowLog"),
        (acs3::ACTION, "NoSuchAction"),
        (acs3::VERSION, "2000-01-01"),
    ] {
        let request = Request::post(uri("/", &rig.v1(&key, "POST", &asked)))
            .header("host", HOST)
            .header(header, value);
        let answer = rig.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.code(), "OK", "{header}: {value}");
        assert_eq!(
            answer.body["TotalCount"], "0",
            "the action of the parameter"
        );
    }
    // Nor do they stand in for a parameter.
    let request = Request::post(uri("/", &rig.v1(&key, "POST", &asked[1..])))
        .header("host", HOST)
        .header(acs3::ACTION, "DescribeFlowLogs");
    let answer = rig.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.code(), "MissingParameter.Action");
}

#[tokio::test]
async fn keys_that_are_not_good() {
    let rig = Rig::new();
    let key = rig.key(Role::Reader);
    let unknown = Key {
        id: "nobody".into(),
        ..key.clone()
    };
    let answer = rig.send(Rpc::new(&rig).signed(&unknown)).await;
    assert_eq!(
        (answer.status, answer.code()),
        (404, "InvalidAccessKeyId.NotFound")
    );
    let wrong = Key {
        secret: "wrong".into(),
        ..key
    };
    let answer = rig.send(Rpc::new(&rig).signed(&wrong)).await;
    assert_eq!(
        (answer.status, answer.code()),
        (400, "SignatureDoesNotMatch")
    );
    let parameters = rig.v1(&wrong, "POST", &[("Action", "DescribeFlowLogs")]);
    let request = Request::post(uri("/", &parameters)).header("host", HOST);
    let answer = rig.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.code(), "SignatureDoesNotMatch");
}

#[tokio::test]
async fn nothing_is_answered_unsigned() {
    let rig = Rig::new();
    for (method, path) in [
        ("GET", "/"),
        ("POST", "/?Action=DescribeFlowLogs"),
        ("GET", "/api/v1/flow-logs"),
        ("POST", "/api/v1/access-keys"),
        ("GET", "/agent/v1/desired-state"),
        ("POST", "/agent/v1/report"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", HOST);
        let answer = rig.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, "IncompleteSignature"),
            "{path}"
        );
    }
    // The older signature says nothing about a path.
    let key = rig.key(Role::Administrator);
    let parameters = rig.v1(&key, "GET", &[]);
    let request = Request::get(uri("/api/v1/flow-logs", &parameters)).header("host", HOST);
    let answer = rig.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.code(), "IncompleteSignature");
    for header in ["", "Basic eDp5", "ACS3-HMAC-SHA256 Credential=x"] {
        let request = Request::get("/api/v1/flow-logs")
            .header("host", HOST)
            .header("authorization", header);
        let answer = rig.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.code(), "IncompleteSignature", "{header}");
    }
    for path in ["/health", "/ready", "/metrics", "/api/v1/openapi.json"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        assert_eq!(rig.send(request).await.status, 200, "{path}");
    }
}
