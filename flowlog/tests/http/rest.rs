//! The REST face.
use flowlog::serve::service::Role;
use serde_json::{Value, json};

use crate::rig::Rig;

fn of_nobody() -> Value {
    json!({ "resource_type": "VPC", "resource_id": "vpc-none", "traffic_type": "Drop", "allow_unknown_resource": true })
}

#[tokio::test]
async fn a_flow_log_lives_and_is_deleted() {
    let rig = Rig::new();
    let key = rig.key(Role::Administrator);
    let call = async |method: &str, path: &str, body: Value| {
        rig.call(&key, method, path, &[], &body).await
    };
    let created = call("POST", "/api/v1/flow-logs", of_nobody()).await;
    assert_eq!(created.code(), "OK");
    assert_eq!(created.body["status"], "Active");
    let path = format!("/api/v1/flow-logs/{}", created.body["id"].as_str().unwrap());
    assert_eq!(call("GET", &path, Value::Null).await.body, created.body);
    let modified = call("PATCH", &path, json!({ "description": "流量" })).await;
    assert_eq!(modified.body["description"], "流量");
    let inactive = call("POST", &format!("{path}/deactivate"), Value::Null).await;
    assert_eq!(inactive.body["status"], "Inactive");
    let active = call("POST", &format!("{path}/activate"), Value::Null).await;
    assert_eq!(active.body["status"], "Active");
    let moved = call(
        "PUT",
        &format!("{path}/resource-group"),
        json!({ "resource_group": "rg-2" }),
    )
    .await;
    assert_eq!(moved.body["resource_group"], "rg-2");
    let tagged = call(
        "PATCH",
        &format!("{path}/tags"),
        json!({ "set": { "a": "b" } }),
    )
    .await;
    assert_eq!(tagged.body["tags"], json!({ "a": "b" }));
    let query = [("search", "fl-"), ("page_size", "1")];
    let listed = rig
        .call(&key, "GET", "/api/v1/flow-logs", &query, &Value::Null)
        .await;
    assert_eq!(listed.body["flow_logs"], json!([tagged.body]));
    assert_eq!(listed.body["total_count"], 1);
    assert_eq!(
        call("DELETE", &path, Value::Null).await.body["status"],
        "Deleting"
    );
    assert_eq!(
        call("GET", &path, Value::Null).await.code(),
        "InvalidFlowLogId.NotFound"
    );
    let trail = call("GET", "/api/v1/audit", Value::Null).await;
    let entries = trail.body["entries"].as_array().unwrap();
    let deleted = entries
        .iter()
        .find(|entry| entry["action"] == "DeleteFlowLog")
        .unwrap();
    assert_eq!(deleted["access_key_id"], key.id);
    assert_eq!(deleted["at"], "2026-11-22T05:00:00Z");
}

#[tokio::test]
async fn flow_logs_are_listed_by_tags() {
    let rig = Rig::new();
    let key = rig.key(Role::Administrator);
    let logs = "/api/v1/flow-logs";
    let mut ids = Vec::new();
    for tags in [json!({ "a": "1", "b": "x=y&z 流" }), json!({ "a": "2" })] {
        let mut asked = of_nobody();
        asked["tags"] = tags;
        let created = rig.call(&key, "POST", logs, &[], &asked).await;
        ids.push(created.body["id"].clone());
    }
    let (first, second) = (vec![ids[0].clone()], vec![ids[1].clone()]);
    let both = vec![ids[0].clone(), ids[1].clone()];
    for (query, expected) in [
        (&[("tag", "a=1")][..], first.clone()),
        (&[("tag", "a")], both.clone()),
        (&[("tag", "a=2"), ("page_size", "1")], second),
        (&[("tag", "a"), ("tag", "b=x=y&z 流")], first),
        (&[("tag", "a=1"), ("tag", "a=2")], vec![]),
        (&[("tag", "c")], vec![]),
        (&[("resource_group", "rg-default")], both),
        (&[("resource_group", "rg-none")], vec![]),
    ] {
        let listed = rig.call(&key, "GET", logs, query, &Value::Null).await;
        let mut found: Vec<Value> = listed.body["flow_logs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|log| log["id"].clone())
            .collect();
        let mut expected = expected;
        found.sort_by_key(Value::to_string);
        expected.sort_by_key(Value::to_string);
        assert_eq!(found, expected, "{query:?}");
    }
    let many: Vec<(&str, &str)> = std::iter::repeat_n(("tag", "a"), 21).collect();
    let answer = rig.call(&key, "GET", logs, &many, &Value::Null).await;
    assert_eq!(answer.code(), "QuotaExceeded.Tag");
}

#[tokio::test]
async fn the_document_says_how_requests_are_signed() {
    let rig = Rig::new();
    let request = axum::http::Request::get("/api/v1/openapi.json").header("host", crate::rig::HOST);
    let document = rig
        .send(request.body(axum::body::Body::empty()).unwrap())
        .await
        .body;
    assert_eq!(document["security"], json!([{ "acs3": [] }]));
    let scheme = &document["components"]["securitySchemes"]["acs3"];
    assert_eq!(
        (&scheme["type"], &scheme["in"]),
        (&json!("apiKey"), &json!("header"))
    );
}

#[tokio::test]
async fn access_keys_are_made_and_used_and_deleted() {
    let rig = Rig::new();
    let admin = rig.key(Role::Administrator);
    let keys = "/api/v1/access-keys";
    let made = rig
        .call(
            &admin,
            "POST",
            keys,
            &[],
            &json!({ "role": "reader", "description": "for Grafana" }),
        )
        .await;
    let key = crate::rig::Key {
        id: made.body["id"].as_str().unwrap().into(),
        secret: made.body["secret"].as_str().unwrap().into(),
    };
    let list = async |key| rig.call(key, "GET", keys, &[], &Value::Null).await;
    let listed = list(&key).await;
    assert_eq!(listed.body["access_keys"].as_array().unwrap().len(), 2);
    assert!(listed.body["access_keys"][1]["secret"].is_null());
    let refused = rig
        .call(&key, "POST", keys, &[], &json!({ "role": "reader" }))
        .await;
    assert_eq!(refused.code(), "Forbidden.Role");
    let path = format!("{keys}/{}", key.id);
    rig.call(
        &admin,
        "PATCH",
        &path,
        &[],
        &json!({ "status": "Inactive" }),
    )
    .await;
    let answer = list(&key).await;
    assert_eq!(
        (answer.status, answer.code()),
        (403, "InvalidAccessKeyId.Inactive")
    );
    rig.call(&admin, "DELETE", &path, &[], &Value::Null).await;
    assert_eq!(list(&key).await.code(), "InvalidAccessKeyId.NotFound");
    let path = format!("{keys}/{}", admin.id);
    let answer = rig.call(&admin, "DELETE", &path, &[], &Value::Null).await;
    assert_eq!(
        (answer.status, answer.code()),
        (409, "OperationDenied.LastAdministrator")
    );
}

#[tokio::test]
async fn resources_and_agents_are_what_agents_have_reported() {
    let rig = Rig::new();
    let (admin, agent) = (rig.key(Role::Administrator), rig.key(Role::Agent));
    rig.report(&agent, "h1", &[1, 2], 0).await;
    let resources = rig
        .call(&admin, "GET", "/api/v1/resources", &[], &Value::Null)
        .await;
    assert_eq!(
        resources.body["vpcs"],
        json!([{ "id": "vpc-1", "vswitches": 1, "enis": 2 }])
    );
    assert_eq!(
        resources.body["vswitches"],
        json!([{ "id": "vsw-1", "vpc_id": "vpc-1", "enis": 2 }])
    );
    assert_eq!(resources.body["enis"][1]["id"], "eni-2");
    let agents = rig
        .call(&admin, "GET", "/api/v1/agents", &[], &Value::Null)
        .await;
    let agent = &agents.body["agents"][0];
    assert_eq!(
        (&agent["host_id"], &agent["enis"], &agent["present"]),
        (&json!("h1"), &json!(2), &json!(true))
    );
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let rig = Rig::new();
    let key = rig.key(Role::Administrator);
    let logs = "/api/v1/flow-logs";
    for (method, path, body, code) in [
        ("POST", logs, json!({}), "MalformedRequest"),
        ("POST", logs, json!([]), "MalformedRequest"),
        ("POST", logs, json!("x"), "MalformedRequest"),
        ("POST", logs, Value::Null, "MalformedRequest"),
        (
            "POST",
            logs,
            json!({ "resource_type": 1, "resource_id": "x", "traffic_type": "All" }),
            "MalformedRequest",
        ),
        (
            "POST",
            logs,
            json!({ "resource_type": "VPC", "resource_id": "x", "traffic_type": "All", "x": 1 }),
            "MalformedRequest",
        ),
        (
            "POST",
            logs,
            json!({ "resource_type": "VPC", "resource_id": "x", "traffic_type": "all" }),
            "InvalidParameter.TrafficType",
        ),
        (
            "GET",
            "/api/v1/flow-logs/fl-none",
            Value::Null,
            "InvalidFlowLogId.NotFound",
        ),
        (
            "PATCH",
            "/api/v1/flow-logs/fl-none",
            json!({}),
            "MissingParameter.FlowLogName",
        ),
        (
            "GET",
            "/api/v1/flow-logs/%FF",
            Value::Null,
            "MalformedRequest",
        ),
        (
            "GET",
            "/api/v1/nothing",
            Value::Null,
            "InvalidPath.NotFound",
        ),
        ("DELETE", logs, Value::Null, "UnsupportedHTTPMethod"),
    ] {
        let answer = rig.call(&key, method, path, &[], &body).await;
        assert_eq!(answer.code(), code, "{method} {path} {body}");
    }
    for query in [("page_size", "x"), ("page", "1"), ("page_size", "-1")] {
        let answer = rig.call(&key, "GET", logs, &[query], &Value::Null).await;
        assert_eq!(answer.code(), "MalformedRequest", "{query:?}");
    }
}
