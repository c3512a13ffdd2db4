//! The agent protocol, as an agent speaks it.
use std::time::Duration;

use flowlog::serve::service::Role;
use serde_json::{Value, json};

use crate::rig::{Answered, Key, Rig};

async fn desired(rig: &Rig, key: &Key, after: u64, wait: &str) -> Answered {
    let after = after.to_string();
    let query = [("after", after.as_str()), ("wait", wait)];
    rig.call(key, "GET", "/agent/v1/desired-state", &query, &Value::Null)
        .await
}

fn of_vpc() -> Value {
    json!({ "resource_type": "VPC", "resource_id": "vpc-1", "traffic_type": "All" })
}

#[tokio::test]
async fn a_change_ends_the_wait() {
    let rig = Rig::new();
    let (admin, agent) = (rig.key(Role::Administrator), rig.key(Role::Agent));
    assert_eq!(
        desired(&rig, &agent, 0, "0").await.code(),
        "IncorrectStatus.Agent"
    );
    rig.report(&agent, "h1", &[1], 0).await;
    let first = desired(&rig, &agent, 0, "60").await;
    assert_eq!(first.body["flow_logs"], json!([]));
    let version = first.body["version"].as_u64().unwrap();
    let same = desired(&rig, &agent, version, "0").await;
    assert_eq!(same.body["version"], version);
    rig.advance(1000);
    let asked = of_vpc();
    // Whichever of the two comes first: the change is not missed.
    let (waited, created) = tokio::join!(
        desired(&rig, &agent, version, "60"),
        rig.call(&admin, "POST", "/api/v1/flow-logs", &[], &asked),
    );
    assert_eq!(created.body["status"], "Activating");
    assert!(waited.body["version"].as_u64().unwrap() > version);
    let flow_log = &waited.body["flow_logs"][0];
    assert_eq!(
        (&flow_log["flow_log_id"], &flow_log["status"]),
        (&created.body["id"], &json!("Active"))
    );
    assert_eq!(flow_log["aggregation_interval"], 10);
    let applied = waited.body["version"].as_u64().unwrap();
    rig.report(&agent, "h1", &[1], applied).await;
    let path = format!("/api/v1/flow-logs/{}", created.body["id"].as_str().unwrap());
    let after = rig.call(&admin, "GET", &path, &[], &Value::Null).await;
    assert_eq!(after.body["status"], "Active");
}

#[tokio::test]
async fn what_is_nothing_to_an_agent_does_not_end_its_wait() {
    let rig = Rig::new();
    let (admin, agent) = (rig.key(Role::Administrator), rig.key(Role::Agent));
    rig.report(&agent, "h1", &[1], 0).await;
    let version = desired(&rig, &agent, 0, "0").await.body["version"]
        .as_u64()
        .unwrap();
    rig.advance(1000);
    let elsewhere = json!({ "resource_type": "VPC", "resource_id": "vpc-2", "traffic_type": "All", "allow_unknown_resource": true });
    let waiting = desired(&rig, &agent, version, "60");
    tokio::pin!(waiting);
    tokio::select! {
        answer = &mut waiting => panic!("{answer:?}"),
        created = rig.call(&admin, "POST", "/api/v1/flow-logs", &[], &elsewhere) => assert_eq!(created.code(), "OK"),
    }
    // Its own does.
    let asked = of_vpc();
    let (answer, created) = tokio::join!(
        waiting,
        rig.call(&admin, "POST", "/api/v1/flow-logs", &[], &asked)
    );
    assert_eq!(created.code(), "OK");
    assert_eq!(answer.body["flow_logs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_end_of_the_service_ends_the_wait() {
    let rig = Rig::new();
    let agent = rig.key(Role::Agent);
    rig.report(&agent, "h1", &[1], 0).await;
    let version = desired(&rig, &agent, 0, "0").await.body["version"]
        .as_u64()
        .unwrap();
    let waiting = desired(&rig, &agent, version, "60");
    let ended = async {
        tokio::task::yield_now().await;
        rig.end.send_replace(true);
    };
    let both = async { tokio::join!(waiting, ended) };
    let (answer, ()) = tokio::time::timeout(Duration::from_secs(50), both)
        .await
        .unwrap();
    assert_eq!(answer.body["version"], version);
}

/// What is refused to a new request must not go on in an old one.
#[tokio::test]
async fn a_key_that_is_disabled_or_deleted_ends_its_wait() {
    for (method, body, code) in [
        (
            "PATCH",
            json!({ "status": "Inactive" }),
            "InvalidAccessKeyId.Inactive",
        ),
        ("DELETE", Value::Null, "InvalidAccessKeyId.NotFound"),
    ] {
        let rig = Rig::new();
        let (admin, agent) = (rig.key(Role::Administrator), rig.key(Role::Agent));
        rig.report(&agent, "h1", &[1], 0).await;
        let version = desired(&rig, &agent, 0, "0").await.body["version"]
            .as_u64()
            .unwrap();
        let waiting = desired(&rig, &agent, version, "60");
        let path = format!("/api/v1/access-keys/{}", agent.id);
        let both = async { tokio::join!(waiting, rig.call(&admin, method, &path, &[], &body)) };
        let (answer, changed) = tokio::time::timeout(Duration::from_secs(50), both)
            .await
            .unwrap();
        assert_eq!((changed.code(), answer.code()), ("OK", code));
    }
}

#[tokio::test]
async fn others_may_not_speak_the_protocol() {
    let rig = Rig::new();
    for role in [Role::Administrator, Role::Reader] {
        let key = rig.key(role);
        assert_eq!(
            rig.report(&key, "h1", &[1], 0).await.code(),
            "Forbidden.Role"
        );
        assert_eq!(desired(&rig, &key, 0, "0").await.code(), "Forbidden.Role");
    }
    let (one, two) = (rig.key(Role::Agent), rig.key(Role::Agent));
    assert_eq!(
        rig.report(&one, "h1", &[1], 0).await.body["accepted_enis"],
        1
    );
    let answer = rig.report(&two, "h1", &[1], 0).await;
    assert_eq!((answer.status, answer.code()), (403, "Forbidden.Host"));
    let answer = rig.report(&two, "h2", &[1, 2], 0).await;
    assert_eq!(answer.body["accepted_enis"], 1);
    assert_eq!(
        answer.body["refused_enis"],
        json!([{ "eni_id": "eni-1", "reason": "the agent on h1 has reported it" }])
    );
    for path in [
        "/api/v1/flow-logs",
        "/api/v1/access-keys",
        "/api/v1/audit",
        "/api/v1/resources",
    ] {
        let answer = rig.call(&one, "GET", path, &[], &Value::Null).await;
        assert_eq!(
            (answer.status, answer.code()),
            (403, "Forbidden.Role"),
            "{path}"
        );
    }
    for bad in [json!({}), json!({ "host_id": 1 }), Value::Null] {
        let answer = rig.call(&one, "POST", "/agent/v1/report", &[], &bad).await;
        assert_eq!(answer.code(), "MalformedRequest", "{bad}");
    }
}
