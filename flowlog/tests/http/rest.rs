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
