//! Flow logs as the product's API has them.
use rusqlite::Transaction;
use serde_json::{Value, json};

use super::Request;
use crate::api;
use crate::serve::error::ApiError;
use crate::serve::service::{Context, flow_logs};

/// A change of a flow log that is named by its id alone.
type Change = fn(&Transaction<'_>, &Context, Option<&str>, &str) -> Result<api::FlowLog, ApiError>;

/// Whoever asks for a change is told that it was made, and looks at the flow log for what became of it.
fn done(_: api::FlowLog) -> Value {
    json!({ "Success": "true" })
}

impl Request<'_> {
    pub(super) fn create(&self) -> Result<Value, ApiError> {
        let paths = self.params.list("TrafficPath")?;
        let asked = api::CreateFlowLog {
            region: Some(self.region.to_owned()),
            resource_type: self.params.required("ResourceType")?.to_owned(),
            resource_id: self.params.required("ResourceId")?.to_owned(),
            traffic_type: self.params.required("TrafficType")?.to_owned(),
            name: self.params.text("FlowLogName")?,
            description: self.params.text("Description")?,
            project: self.params.text("ProjectName")?,
            logstore: self.params.text("LogStoreName")?,
            aggregation_interval: self.params.number("AggregationInterval")?,
            ip_version: self.params.text("IpVersion")?,
            log_format: self.params.text("LogFormat")?,
            traffic_path: paths.into_iter().map(str::to_owned).collect(),
            resource_group: self.params.filter("ResourceGroupId")?,
            tags: self.params.pairs("Tag")?.into_iter().collect(),
            allow_unknown_resource: false,
        };
        let created = flow_logs::create(self.state, self.cx, &asked)?;
        Ok(
            json!({ "Success": "true", "FlowLogId": created.id, "ResourceGroupId": created.resource_group }),
        )
    }

    pub(super) fn modify(&self) -> Result<Value, ApiError> {
        let id = self.params.required("FlowLogId")?;
        let asked = api::ModifyFlowLog {
            name: self.params.text("FlowLogName")?,
            description: self.params.text("Description")?,
            aggregation_interval: self.params.number("AggregationInterval")?,
            ip_version: self.params.text("IpVersion")?,
            log_format: self.params.text("LogFormat")?,
        };
        flow_logs::modify(self.state, self.cx, Some(self.region), id, &asked).map(done)
    }

    /// Makes such a change.
    pub(super) fn switch(&self, change: Change) -> Result<Value, ApiError> {
        let id = self.params.required("FlowLogId")?;
        change(self.state, self.cx, Some(self.region), id).map(done)
    }

    pub(super) fn describe(&self) -> Result<Value, ApiError> {
        let filter = api::FlowLogFilter {
            region: Some(self.region.to_owned()),
            id: self.params.filter("FlowLogId")?,
            name: self.params.filter("FlowLogName")?,
            search: None,
            description: self.params.filter("Description")?,
            resource_type: self.params.filter("ResourceType")?,
            resource_id: self.params.filter("ResourceId")?,
            vpc_id: self.params.filter("VpcId")?,
            traffic_type: self.params.filter("TrafficType")?,
            project: self.params.filter("ProjectName")?,
            logstore: self.params.filter("LogStoreName")?,
            status: self.params.filter("Status")?,
            resource_group: self.params.filter("ResourceGroupId")?,
            page_number: self.params.number("PageNumber")?,
            page_size: self.params.number("PageSize")?,
        };
        // The plural is the newer SDK's.
        let mut tags = self.params.pairs("Tags")?;
        tags.extend(self.params.pairs("Tag")?);
        let page = flow_logs::list(self.state, self.cx, &filter, &tags)?;
        let flow_logs: Vec<Value> = page.flow_logs.iter().map(described).collect();
        Ok(json!({
            "Success": "true",
            "PageNumber": page.page_number.to_string(),
            "PageSize": page.page_size.to_string(),
            "TotalCount": page.total_count.to_string(),
            "FlowLogs": { "FlowLog": flow_logs },
        }))
    }
}

fn described(flow_log: &api::FlowLog) -> Value {
    let tags: Vec<Value> = flow_log
        .tags
        .iter()
        .map(|(key, value)| json!({ "Key": key, "Value": value }))
        .collect();
    json!({
        "AggregationInterval": flow_log.aggregation_interval,
        "BusinessStatus": "Normal",
        "CreationTime": flow_log.created_at,
        "Description": flow_log.description,
        "FlowLogDeliverStatus": flow_log.deliver_status,
        "FlowLogDeliverErrorMessage": flow_log.deliver_error_message,
        "FlowLogId": flow_log.id,
        "FlowLogName": flow_log.name,
        "IpVersion": flow_log.ip_version,
        "LogFormat": flow_log.log_format,
        "LogStoreName": flow_log.logstore,
        "ProjectName": flow_log.project,
        "RegionId": flow_log.region,
        "ResourceGroupId": flow_log.resource_group,
        "ResourceId": flow_log.resource_id,
        "ResourceType": flow_log.resource_type,
        "ServiceType": "sls",
        "Status": flow_log.status,
        "TrafficType": flow_log.traffic_type,
        "Tags": { "Tag": tags },
        "TrafficPath": { "TrafficPathList": flow_log.traffic_path },
    })
}
