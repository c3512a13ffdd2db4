//! The product's API: every action, and what is wrong with a request.
use flowlog::serve::service::Role;
use serde_json::json;

use crate::rig::{Answered, Key, Rig, Rpc, owned};

const CREATE: [(&str, &str); 4] = [
    ("RegionId", "local"),
    ("ResourceType", "VPC"),
    ("ResourceId", "vpc-1"),
    ("TrafficType", "All"),
];

/// A service with an agent that has reported and is away, so that nobody is waited for; and an administrator's key.
async fn with_resources() -> (Rig, Key) {
    let rig = Rig::new();
    let agent = rig.key(Role::Agent);
    assert_eq!(rig.report(&agent, "h1", &[1], 0).await.code(), "OK");
    rig.advance(120_000);
    let admin = rig.key(Role::Administrator);
    (rig, admin)
}

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    CREATE.iter().chain(more).copied().collect()
}

async fn create(rig: &Rig, key: &Key) -> String {
    let answer = rig.rpc(key, "CreateFlowLog", &CREATE).await;
    assert_eq!(answer.code(), "OK");
    answer.body["FlowLogId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_flow_log_is_described_with_every_field() {
    let (rig, key) = with_resources().await;
    let given = with(&[
        ("FlowLogName", "my flow-log_1"),
        ("Description", "d/é"),
        ("ProjectName", "project-1"),
        ("LogStoreName", "store_1"),
        ("AggregationInterval", "1"),
        ("IpVersion", "IPv4"),
        ("LogFormat", "${srcaddr}"),
        ("TrafficPath.1", "all"),
        ("Tag.1.Key", "k"),
        ("Tag.1.Value", "v"),
        ("ResourceGroupId", "rg-1"),
    ]);
    let created = rig.rpc(&key, "CreateFlowLog", &given).await;
    assert_eq!(created.body["Success"], "true");
    assert_eq!(created.body["ResourceGroupId"], "rg-1");
    let id = created.body["FlowLogId"].clone();
    let described = rig.rpc(&key, "DescribeFlowLogs", &[]).await;
    let expected = json!({
        "RequestId": described.body["RequestId"], "Success": "true", "PageNumber": "1", "PageSize": "20", "TotalCount": "1",
        "FlowLogs": { "FlowLog": [{
            "AggregationInterval": 1, "BusinessStatus": "Normal", "CreationTime": "2026-11-22T05:02:00Z", "Description": "d/é",
            "FlowLogDeliverStatus": "", "FlowLogDeliverErrorMessage": "", "FlowLogId": id, "FlowLogName": "my flow-log_1",
            "IpVersion": "IPv4", "LogFormat": "${srcaddr}", "LogStoreName": "store_1", "ProjectName": "project-1",
            "RegionId": "local", "ResourceGroupId": "rg-1", "ResourceId": "vpc-1", "ResourceType": "VPC", "ServiceType": "sls",
            "Status": "Active", "TrafficType": "All", "Tags": { "Tag": [{ "Key": "k", "Value": "v" }] },
            "TrafficPath": { "TrafficPathList": ["all"] },
        }] },
    });
    assert_eq!(described.body, expected);
}

#[tokio::test]
async fn every_action_from_create_to_delete() {
    let (rig, key) = with_resources().await;
    let id = create(&rig, &key).await;
    let of = |more: &[(&'static str, &'static str)]| -> Vec<(&'static str, String)> {
        let given = more
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        [("RegionId", "local".into()), ("FlowLogId", id.clone())]
            .into_iter()
            .chain(given)
            .collect()
    };
    let call = async |action: &str, given: Vec<(&'static str, String)>| -> Answered {
        let given: Vec<(&str, &str)> = given
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        rig.rpc(&key, action, &given).await
    };
    let status = async || {
        let answer = call("DescribeFlowLogs", of(&[])).await;
        answer.body["FlowLogs"]["FlowLog"][0]["Status"]
            .as_str()
            .unwrap_or("gone")
            .to_owned()
    };
    assert_eq!(
        call("ActiveFlowLog", of(&[])).await.code(),
        "IncorrectStatus.flowlog"
    );
    assert_eq!(
        call("DeactiveFlowLog", of(&[])).await.body["Success"],
        "true"
    );
    assert_eq!(status().await, "Inactive");
    assert_eq!(
        call("DeactiveFlowLog", of(&[])).await.code(),
        "IncorrectStatus.flowlog"
    );
    assert_eq!(call("ActiveFlowLog", of(&[])).await.body["Success"], "true");
    let modify = of(&[("FlowLogName", "new"), ("AggregationInterval", "5")]);
    assert_eq!(
        call("ModifyFlowLogAttribute", modify).await.body["Success"],
        "true"
    );
    let resource = [("ResourceType", "FLOWLOG"), ("ResourceId", "")];
    let resource = |more: &[(&'static str, &'static str)]| {
        let mut given = of(&resource);
        given.extend(
            more.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        for (name, value) in &mut given {
            if *name == "ResourceId" {
                value.clone_from(&id);
            }
        }
        given
    };
    let moved = call(
        "MoveResourceGroup",
        resource(&[("NewResourceGroupId", "rg-2")]),
    )
    .await;
    assert_eq!(moved.code(), "OK");
    let listed = |more: &[(&'static str, &'static str)]| {
        let mut given = resource(more);
        given.push(("ResourceId.1", id.clone()));
        given
    };
    let tagged = call(
        "TagResources",
        listed(&[("Tag.1.Key", "a"), ("Tag.2.Key", "b")]),
    )
    .await;
    assert_eq!(tagged.code(), "OK");
    let page = call("ListTagResources", listed(&[("MaxResults", "1")])).await;
    assert_eq!(page.body["TagResources"]["TagResource"][0]["TagKey"], "a");
    let token = page.body["NextToken"].as_str().unwrap().to_owned();
    let mut next = listed(&[]);
    next.push(("NextToken", token));
    let page = call("ListTagResources", next).await;
    assert_eq!(
        page.body["TagResources"]["TagResource"],
        json!([{ "ResourceId": id, "ResourceType": "FLOWLOG", "TagKey": "b", "TagValue": "" }])
    );
    assert_eq!(page.body["NextToken"], "");
    assert_eq!(
        call("UnTagResources", listed(&[])).await.code(),
        "MissingParameter.TagKey"
    );
    assert_eq!(
        call("UnTagResources", listed(&[("TagKey.1", "a")]))
            .await
            .code(),
        "OK"
    );
    assert_eq!(
        call("UntagResources", listed(&[("All", "true")]))
            .await
            .code(),
        "OK"
    );
    let described = call("DescribeFlowLogs", of(&[])).await;
    let described = &described.body["FlowLogs"]["FlowLog"][0];
    assert_eq!(described["Tags"]["Tag"], json!([]));
    assert_eq!(
        (
            &described["FlowLogName"],
            &described["AggregationInterval"],
            &described["ResourceGroupId"]
        ),
        (&json!("new"), &json!(5), &json!("rg-2"))
    );
    assert_eq!(call("DeleteFlowLog", of(&[])).await.body["Success"], "true");
    assert_eq!(status().await, "gone");
    for action in ["ActiveFlowLog", "DeactiveFlowLog", "DeleteFlowLog"] {
        let answer = call(action, of(&[])).await;
        assert_eq!(
            (answer.status, answer.code()),
            (404, "InvalidFlowLogId.NotFound")
        );
    }
    let empty = call("DescribeFlowLogs", of(&[])).await;
    assert_eq!(
        empty.body["FlowLogs"]["FlowLog"],
        json!([]),
        "an empty list, not none"
    );
}

#[tokio::test]
async fn the_service_is_opened() {
    let (rig, key) = with_resources().await;
    let region = [("RegionId", "local"), ("ClientToken", "t")];
    let status = rig.rpc(&key, "GetFlowLogServiceStatus", &region).await;
    assert_eq!(status.body["Enabled"], json!(false));
    let opened = rig.rpc(&key, "OpenFlowLogService", &region).await;
    assert_eq!(opened.code(), "OK");
    assert!(opened.body["Code"].is_string() && opened.body["Message"].is_string());
    let status = rig.rpc(&key, "GetFlowLogServiceStatus", &region).await;
    assert_eq!(status.body["Enabled"], json!(true));
    let again = rig.rpc(&key, "OpenFlowLogService", &region).await;
    assert_eq!(again.code(), "OperationFailed.ExceedPurchaseLimit");
}

#[tokio::test]
async fn parameters_that_are_missing() {
    let (rig, key) = with_resources().await;
    for (name, _) in CREATE {
        let mut given = CREATE.to_vec();
        given.retain(|(given, _)| *given != name);
        let answer = rig.rpc(&key, "CreateFlowLog", &given).await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, &*format!("MissingParameter.{name}"))
        );
        given.push((name, ""));
        let answer = rig.rpc(&key, "CreateFlowLog", &given).await;
        assert_eq!(answer.code(), format!("MissingParameter.{name}"), "empty");
    }
    for action in [
        "ModifyFlowLogAttribute",
        "ActiveFlowLog",
        "DeactiveFlowLog",
        "DeleteFlowLog",
    ] {
        let answer = rig.rpc(&key, action, &[("RegionId", "local")]).await;
        assert_eq!(answer.code(), "MissingParameter.FlowLogId", "{action}");
        let answer = rig.rpc(&key, action, &[("FlowLogId", "fl-1")]).await;
        assert_eq!(answer.code(), "MissingParameter.RegionId", "{action}");
    }
}

#[tokio::test]
async fn parameters_at_their_edges() {
    let (rig, key) = with_resources().await;
    let (name, long_name) = ("流".repeat(128), "流".repeat(129));
    let (text, long_text) = ("流".repeat(256), "流".repeat(257));
    let (store, long_store) = ("a".repeat(63), "a".repeat(64));
    for (parameter, value) in [
        ("FlowLogName", "a"),
        ("FlowLogName", &*name),
        ("Description", "流"),
        ("Description", &*text),
        ("ProjectName", "a-1"),
        ("ProjectName", &*store),
        ("LogStoreName", "a_1"),
        ("AggregationInterval", "10"),
        ("IpVersion", "DualStack"),
        ("TrafficPath.1", "all"),
    ] {
        let created = rig
            .rpc(&key, "CreateFlowLog", &with(&[(parameter, value)]))
            .await;
        assert_eq!(created.code(), "OK", "{parameter} {value}");
        let id = created.body["FlowLogId"].as_str().unwrap();
        let deleted = [("RegionId", "local"), ("FlowLogId", id)];
        assert_eq!(rig.rpc(&key, "DeleteFlowLog", &deleted).await.code(), "OK");
    }
    for (parameter, value) in [
        ("FlowLogName", ""),
        ("FlowLogName", &*long_name),
        ("FlowLogName", "http://a"),
        ("FlowLogName", "https://a"),
        ("Description", ""),
        ("Description", &*long_text),
        ("Description", "https://a"),
        ("ProjectName", "ab"),
        ("ProjectName", &*long_store),
        ("ProjectName", "a_b"),
        ("ProjectName", "Abc"),
        ("ProjectName", "-ab"),
        ("LogStoreName", "ab_"),
        ("LogStoreName", "流量日志"),
        ("AggregationInterval", "2"),
        ("AggregationInterval", "ten"),
        ("AggregationInterval", "1.0"),
        ("AggregationInterval", "-1"),
        ("IpVersion", "IPv5"),
        ("LogFormat", "${nothing}"),
        ("TrafficPath.1", "some"),
        ("TrafficPath.0", "all"),
        ("Tag.1.Key", "acs:a"),
        ("Tag.1.Key", "aliyun"),
        ("Tag.1.Value", "without a key"),
        ("Tag.51.Key", "k"),
        ("ResourceType", "VPC"),
    ] {
        let answer = rig
            .rpc(&key, "CreateFlowLog", &with(&[(parameter, value)]))
            .await;
        assert!(
            answer.code().starts_with("InvalidParameter."),
            "{parameter} {value}"
        );
        assert_eq!(answer.status, 400);
    }
    // The product has it, and no agent can do it.
    let gateway = with(&[("TrafficPath.1", "internetGateway")]);
    let answer = rig.rpc(&key, "CreateFlowLog", &gateway).await;
    assert_eq!(
        (answer.status, answer.code()),
        (400, "UnsupportedFeature.TrafficPath")
    );
    let tags: Vec<(String, String)> = (1..=21)
        .map(|number| (format!("Tag.{number}.Key"), format!("k{number}")))
        .collect();
    let given: Vec<(&str, &str)> = tags
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let answer = rig.rpc(&key, "CreateFlowLog", &with(&given)).await;
    assert_eq!(answer.code(), "QuotaExceeded.Tag");
    assert_eq!(
        rig.rpc(&key, "CreateFlowLog", &with(&given[..20]))
            .await
            .code(),
        "OK"
    );
}

#[tokio::test]
async fn what_there_is_not() {
    let (rig, key) = with_resources().await;
    let region = [("RegionId", "local")];
    let answer = rig.rpc(&key, "DescribeVpcs", &region).await;
    assert_eq!(
        (answer.status, answer.code()),
        (404, "InvalidAction.NotFound")
    );
    let request = Rpc {
        version: "2014-05-26",
        ..Rpc::new(&rig)
    };
    assert_eq!(
        rig.send(request.signed(&key)).await.code(),
        "InvalidVersion"
    );
    let request = Rpc {
        method: "PUT",
        ..Rpc::new(&rig)
    };
    let answer = rig.send(request.signed(&key)).await;
    assert_eq!(
        (answer.status, answer.code()),
        (405, "UnsupportedHTTPMethod")
    );
    let xml = [("Format", "XML")];
    assert_eq!(
        rig.rpc(&key, "DescribeFlowLogs", &xml).await.code(),
        "InvalidFormat"
    );
    let elsewhere = [("RegionId", "a b")];
    let answer = rig.rpc(&key, "DescribeFlowLogs", &elsewhere).await;
    assert_eq!(
        (answer.status, answer.code()),
        (404, "InvalidRegionId.NotFound")
    );
    let unknown = [
        ("RegionId", "local"),
        ("ResourceType", "VSwitch"),
        ("ResourceId", "vsw-none"),
        ("TrafficType", "Drop"),
    ];
    let answer = rig.rpc(&key, "CreateFlowLog", &unknown).await;
    assert_eq!(
        (answer.status, answer.code()),
        (404, "InvalidResourceId.NotFound")
    );
    for (size, code) in [
        ("50", "OK"),
        ("51", "InvalidParameter.PageSize"),
        ("x", "InvalidParameter.PageSize"),
    ] {
        assert_eq!(
            rig.rpc(&key, "DescribeFlowLogs", &[("PageSize", size)])
                .await
                .code(),
            code
        );
    }
    let id = create(&rig, &key).await;
    let elsewhere = [("RegionId", "there"), ("FlowLogId", id.as_str())];
    assert_eq!(
        rig.rpc(&key, "DeleteFlowLog", &elsewhere).await.code(),
        "InvalidFlowLogId.NotFound"
    );
}

#[tokio::test]
async fn the_quota_is_ten() {
    let (rig, key) = with_resources().await;
    for _ in 0..10 {
        create(&rig, &key).await;
    }
    let answer = rig.rpc(&key, "CreateFlowLog", &CREATE).await;
    assert_eq!(
        (answer.status, answer.code()),
        (400, "QuotaExceeded.FlowLog")
    );
}

#[tokio::test]
async fn roles_are_kept_apart() {
    let (rig, admin) = with_resources().await;
    let id = create(&rig, &admin).await;
    let (reader, agent) = (rig.key(Role::Reader), rig.key(Role::Agent));
    let region = [("RegionId", "local")];
    for action in ["DescribeFlowLogs", "GetFlowLogServiceStatus"] {
        assert_eq!(rig.rpc(&reader, action, &region).await.code(), "OK");
        assert_eq!(
            rig.rpc(&agent, action, &region).await.code(),
            "Forbidden.Role"
        );
    }
    let of = [
        ("RegionId", "local"),
        ("FlowLogId", id.as_str()),
        ("FlowLogName", "n"),
    ];
    for action in [
        "ModifyFlowLogAttribute",
        "DeactiveFlowLog",
        "DeleteFlowLog",
        "OpenFlowLogService",
    ] {
        let answer = rig.rpc(&reader, action, &of).await;
        assert_eq!(
            (answer.status, answer.code()),
            (403, "Forbidden.Role"),
            "{action}"
        );
    }
    assert_eq!(
        rig.rpc(&reader, "CreateFlowLog", &CREATE).await.code(),
        "Forbidden.Role"
    );
}

#[tokio::test]
async fn concurrent_changes_of_one_flow_log_do_not_mix() {
    let rig = Rig::new();
    let (admin, agent) = (rig.key(Role::Administrator), rig.key(Role::Agent));
    rig.report(&agent, "h1", &[1], 0).await;
    rig.advance(1);
    let id = create(&rig, &admin).await;
    let version = rig.report(&agent, "h1", &[1], 0).await.body["version"]
        .as_u64()
        .unwrap();
    rig.report(&agent, "h1", &[1], version).await;
    let of = owned(&[("RegionId", "local"), ("FlowLogId", &id)]);
    let of: Vec<(&str, &str)> = of
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let (one, two, three, four) = tokio::join!(
        rig.rpc(&admin, "DeactiveFlowLog", &of),
        rig.rpc(&admin, "DeactiveFlowLog", &of),
        rig.rpc(&admin, "DeleteFlowLog", &of),
        rig.rpc(&admin, "DeleteFlowLog", &of),
    );
    let mut codes = [one.code(), two.code(), three.code(), four.code()];
    codes.sort_unstable();
    let busy = "IncorrectStatus.flowlog";
    assert_eq!(
        codes,
        [busy, busy, busy, "OK"],
        "one wins, the others are refused"
    );
}
