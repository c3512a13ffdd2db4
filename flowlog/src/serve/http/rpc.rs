//! The product's API, VPC 2016-04-28: one path, the action in a header or a parameter, parameters in query or form, GET or POST.
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use flowlog_model::signature::acs3;
use flowlog_model::spelled_enum;
use flowlog_model::text::Text as _;
use rusqlite::Transaction;
use serde_json::{Value, json};

use super::App;
use super::auth::Verified;
use super::observe::Observed;
use super::params::Params;
use crate::api;
use crate::serve::error::{ApiError, Code};
use crate::serve::service::tags::{self, Tagged};
use crate::serve::service::{self, Context, flow_logs, shown};

/// The version of the API.
const VERSION: &str = "2016-04-28";
/// The resource type of a flow log in actions that are not about flow logs alone.
const RESOURCE_TYPE: &str = "FLOWLOG";
/// Tags on a page of ListTagResources, where nobody says…
const DEFAULT_MAX_RESULTS: u64 = 50;
/// … and the most.
const MAX_RESULTS: u64 = 100;

spelled_enum! {
    /// The actions.
    pub enum Action {
        /// CreateFlowLog.
        Create = "CreateFlowLog",
        /// DescribeFlowLogs.
        Describe = "DescribeFlowLogs",
        /// ModifyFlowLogAttribute.
        Modify = "ModifyFlowLogAttribute",
        /// ActiveFlowLog.
        Active = "ActiveFlowLog",
        /// DeactiveFlowLog.
        Deactive = "DeactiveFlowLog",
        /// DeleteFlowLog.
        Delete = "DeleteFlowLog",
        /// GetFlowLogServiceStatus.
        ServiceStatus = "GetFlowLogServiceStatus",
        /// OpenFlowLogService.
        OpenService = "OpenFlowLogService",
        /// MoveResourceGroup.
        MoveResourceGroup = "MoveResourceGroup",
        /// TagResources.
        Tag = "TagResources",
        /// UnTagResources.
        UnTag = "UnTagResources",
        /// ListTagResources.
        ListTags = "ListTagResources",
    }
}

impl Action {
    /// The older SDK writes one name in another case.
    fn find(name: &str) -> Option<Self> {
        if name == "UntagResources" {
            return Some(Self::UnTag);
        }
        Self::from_text(name)
    }

    const fn changes(self) -> bool {
        !matches!(self, Self::Describe | Self::ServiceStatus | Self::ListTags)
    }
}

/// Answers a request on `/`.
pub(super) async fn handle(
    State(app): State<Arc<App>>,
    Extension(observed): Extension<Arc<Observed>>,
    Extension(verified): Extension<Verified>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if method != Method::GET && method != Method::POST {
        return Err(ApiError::new(
            Code::MethodNotAllowed,
            "Requests of the API are GET or POST.",
        ));
    }
    let params = Params(verified.parameters);
    let said = Said {
        headers: verified.signs_headers.then_some(&headers),
        params: &params,
    };
    let action = action(&said)?;
    let _ = observed.action.set(action.as_str());
    check_envelope(&said, &headers, &verified.body)?;
    let cx = verified.context;
    let mut answer = if action.changes() {
        app.change(cx, move |state, cx| run(state, cx, action, &params))
            .await?
    } else {
        app.read(cx, move |state, cx| run(state, cx, action, &params))
            .await?
    };
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("RequestId".into(), observed.request_id.clone().into());
    }
    let body = serde_json::to_vec(&answer).map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Where a request says its action and version.
struct Said<'a> {
    /// None where the signature is not over them: whoever passes the request on could add one.
    headers: Option<&'a HeaderMap>,
    params: &'a Params,
}

impl<'a> Said<'a> {
    /// A value that stands in a signed header or, without that, in a parameter.
    fn header_or(
        &self,
        header: &str,
        parameter: &'static str,
    ) -> Result<Option<&'a str>, ApiError> {
        match self.headers.and_then(|headers| headers.get(header)) {
            Some(value) => value.to_str().map(Some).map_err(|_| {
                ApiError::new(Code::MalformedRequest, format!("{header} is not ASCII."))
            }),
            None => self.params.get(parameter),
        }
    }
}

fn action(said: &Said<'_>) -> Result<Action, ApiError> {
    let name = said
        .header_or(acs3::ACTION, "Action")?
        .ok_or_else(|| ApiError::missing("Action"))?;
    Action::find(name).ok_or_else(|| {
        ApiError::new(
            Code::ActionNotFound,
            format!("There is no action \"{}\".", shown(name)),
        )
    })
}

fn check_envelope(said: &Said<'_>, headers: &HeaderMap, body: &[u8]) -> Result<(), ApiError> {
    let version = said.header_or(acs3::VERSION, "Version")?;
    if version != Some(VERSION) {
        return Err(ApiError::new(
            Code::UnsupportedVersion,
            format!("The version of the API is {VERSION}."),
        ));
    }
    if said
        .params
        .get("Format")?
        .is_some_and(|format| !format.eq_ignore_ascii_case("json"))
    {
        return Err(ApiError::new(
            Code::UnsupportedFormat,
            "Answers are JSON; no other Format can be had.",
        ));
    }
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    if !body.is_empty() && !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(ApiError::new(
            Code::ContentType,
            "A body is application/x-www-form-urlencoded here.",
        ));
    }
    Ok(())
}

fn run(
    state: &Transaction<'_>,
    cx: &Context,
    action: Action,
    params: &Params,
) -> Result<Value, ApiError> {
    let region = match params.filter("RegionId")? {
        Some(region) => cx.region(Some(&region))?,
        None if action == Action::Describe => cx.region(None)?,
        None => return Err(ApiError::missing("RegionId")),
    };
    let id = || params.required("FlowLogId");
    let done = json!({ "Success": "true" });
    match action {
        Action::Create => create(state, cx, region, params),
        Action::Describe => describe(state, cx, region, params),
        Action::Modify => modify(state, cx, &region, params).map(|()| done),
        Action::Active => flow_logs::activate(state, cx, Some(&region), id()?).map(|_| done),
        Action::Deactive => flow_logs::deactivate(state, cx, Some(&region), id()?).map(|_| done),
        Action::Delete => flow_logs::delete(state, cx, Some(&region), id()?).map(|_| done),
        Action::ServiceStatus => {
            let service = service::service(state, cx, Some(&region))?;
            Ok(json!({ "Enabled": service.enabled }))
        }
        Action::OpenService => {
            service::open_service(state, cx, Some(&region))?;
            Ok(json!({ "Code": "OK", "Message": "successful" }))
        }
        Action::MoveResourceGroup => {
            check_resource_type(params)?;
            let group = params.required("NewResourceGroupId")?;
            let id = params.required("ResourceId")?;
            tags::move_resource_group(state, cx, Some(&region), id, group).map(|_| json!({}))
        }
        Action::Tag => tag(state, cx, &region, params),
        Action::UnTag => untag(state, cx, &region, params),
        Action::ListTags => list_tags(state, cx, &region, params),
    }
}

fn create(
    state: &Transaction<'_>,
    cx: &Context,
    region: String,
    params: &Params,
) -> Result<Value, ApiError> {
    let paths = params.list("TrafficPath")?;
    let asked = api::CreateFlowLog {
        region: Some(region),
        resource_type: params.required("ResourceType")?.to_owned(),
        resource_id: params.required("ResourceId")?.to_owned(),
        traffic_type: params.required("TrafficType")?.to_owned(),
        name: params.text("FlowLogName")?,
        description: params.text("Description")?,
        project: params.text("ProjectName")?,
        logstore: params.text("LogStoreName")?,
        aggregation_interval: params.number("AggregationInterval")?,
        ip_version: params.text("IpVersion")?,
        log_format: params.text("LogFormat")?,
        traffic_path: paths.into_iter().map(str::to_owned).collect(),
        resource_group: params.filter("ResourceGroupId")?,
        tags: params.pairs("Tag")?.into_iter().collect(),
        allow_unknown_resource: false,
    };
    let created = flow_logs::create(state, cx, &asked)?;
    Ok(
        json!({ "Success": "true", "FlowLogId": created.id, "ResourceGroupId": created.resource_group }),
    )
}

fn modify(
    state: &Transaction<'_>,
    cx: &Context,
    region: &str,
    params: &Params,
) -> Result<(), ApiError> {
    let id = params.required("FlowLogId")?;
    let asked = api::ModifyFlowLog {
        name: params.text("FlowLogName")?,
        description: params.text("Description")?,
        aggregation_interval: params.number("AggregationInterval")?,
        ip_version: params.text("IpVersion")?,
        log_format: params.text("LogFormat")?,
    };
    flow_logs::modify(state, cx, Some(region), id, &asked).map(|_| ())
}

fn describe(
    state: &Transaction<'_>,
    cx: &Context,
    region: String,
    params: &Params,
) -> Result<Value, ApiError> {
    let filter = api::FlowLogFilter {
        region: Some(region),
        id: params.filter("FlowLogId")?,
        name: params.filter("FlowLogName")?,
        search: None,
        description: params.filter("Description")?,
        resource_type: params.filter("ResourceType")?,
        resource_id: params.filter("ResourceId")?,
        vpc_id: params.filter("VpcId")?,
        traffic_type: params.filter("TrafficType")?,
        project: params.filter("ProjectName")?,
        logstore: params.filter("LogStoreName")?,
        status: params.filter("Status")?,
        resource_group: params.filter("ResourceGroupId")?,
        page_number: params.number("PageNumber")?,
        page_size: params.number("PageSize")?,
    };
    // The plural is the newer SDK's.
    let mut tags = params.pairs("Tags")?;
    tags.extend(params.pairs("Tag")?);
    let page = flow_logs::list(state, cx, &filter, &tags)?;
    let flow_logs: Vec<Value> = page.flow_logs.iter().map(described).collect();
    Ok(json!({
        "Success": "true",
        "PageNumber": page.page_number.to_string(),
        "PageSize": page.page_size.to_string(),
        "TotalCount": page.total_count.to_string(),
        "FlowLogs": { "FlowLog": flow_logs },
    }))
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

fn check_resource_type(params: &Params) -> Result<(), ApiError> {
    if params
        .required("ResourceType")?
        .eq_ignore_ascii_case(RESOURCE_TYPE)
    {
        return Ok(());
    }
    Err(ApiError::invalid("ResourceType", "allowed is FLOWLOG"))
}

/// The flow logs that tags are about.
fn resource_ids(params: &Params) -> Result<Vec<&str>, ApiError> {
    check_resource_type(params)?;
    let ids = params.list("ResourceId")?;
    if ids.is_empty() {
        return Err(ApiError::missing("ResourceId"));
    }
    Ok(ids)
}

fn tag(
    state: &Transaction<'_>,
    cx: &Context,
    region: &str,
    params: &Params,
) -> Result<Value, ApiError> {
    let ids = resource_ids(params)?;
    let set = params.pairs("Tag")?;
    if set.is_empty() {
        return Err(ApiError::missing("Tag"));
    }
    let change = api::ChangeTags {
        set: set.into_iter().collect(),
        remove: Vec::new(),
    };
    tags::change(state, cx, Some(region), &ids, &change).map(|()| json!({}))
}

fn untag(
    state: &Transaction<'_>,
    cx: &Context,
    region: &str,
    params: &Params,
) -> Result<Value, ApiError> {
    let ids = resource_ids(params)?;
    let keys = params.list("TagKey")?;
    // Python's SDKs write `True`.
    let all = params.filter("All")?.map(|all| all.to_ascii_lowercase());
    let all = match all.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(ApiError::invalid("All", "allowed are true and false")),
    };
    // As the product does: All counts where no key is named.
    if keys.is_empty() && !all {
        return Err(ApiError::missing("TagKey"));
    }
    for id in ids {
        let remove = if keys.is_empty() {
            tags::of(state, id)?.into_keys().collect()
        } else {
            keys.iter().map(|key| (*key).to_owned()).collect()
        };
        let change = api::ChangeTags {
            remove,
            ..Default::default()
        };
        tags::change(state, cx, Some(region), &[id], &change)?;
    }
    Ok(json!({}))
}

fn list_tags(
    state: &Transaction<'_>,
    cx: &Context,
    region: &str,
    params: &Params,
) -> Result<Value, ApiError> {
    check_resource_type(params)?;
    let ids = params.list("ResourceId")?;
    let tags = params.pairs("Tag")?;
    let limit = params.number("MaxResults")?.unwrap_or(DEFAULT_MAX_RESULTS);
    if !(1..=MAX_RESULTS).contains(&limit) {
        return Err(ApiError::invalid(
            "MaxResults",
            "allowed are whole numbers from 1 to 100",
        ));
    }
    let limit = usize::try_from(limit).map_err(ApiError::internal)?;
    // The token is the last tag of the page before: flow log and key.
    let token = params.filter("NextToken")?.unwrap_or_default();
    let after = token.split_once('/').unwrap_or((&token, ""));
    let wanted = |tag: &Tagged| {
        (ids.is_empty() || ids.contains(&tag.flow_log_id.as_str()))
            && (tags.is_empty()
                || tags.iter().any(|(key, value)| {
                    tag.key == *key && (value.is_empty() || tag.value == *value)
                }))
    };
    let mut found = tags::list(state, cx, region, after, limit + 1, wanted)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map_or(String::new(), |tag| {
        format!("{}/{}", tag.flow_log_id, tag.key)
    });
    let found: Vec<Value> = found
        .into_iter()
        .map(|tag| {
            json!({ "ResourceId": tag.flow_log_id, "ResourceType": RESOURCE_TYPE, "TagKey": tag.key, "TagValue": tag.value })
        })
        .collect();
    Ok(json!({ "NextToken": next, "TagResources": { "TagResource": found } }))
}
