//! The product's API, VPC 2016-04-28: one path, the action in a header or a parameter, parameters in query or form, GET or POST.
mod flow_log;
mod tag;

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
use crate::serve::error::{ApiError, Code};
use crate::serve::service::{self, Context, flow_logs, shown};

/// The version of the API.
const VERSION: &str = "2016-04-28";
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

/// A request whose action and envelope are good.
struct Request<'r> {
    state: &'r Transaction<'r>,
    cx: &'r Context,
    region: &'r str,
    params: &'r Params,
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
    let request = Request {
        state,
        cx,
        region: &region,
        params,
    };
    match action {
        Action::Create => request.create(),
        Action::Describe => request.describe(),
        Action::Modify => request.modify(),
        Action::Active => request.switch(flow_logs::activate),
        Action::Deactive => request.switch(flow_logs::deactivate),
        Action::Delete => request.switch(flow_logs::delete),
        Action::ServiceStatus => {
            let service = service::service(state, cx, Some(&region))?;
            Ok(json!({ "Enabled": service.enabled }))
        }
        Action::OpenService => {
            service::open_service(state, cx, Some(&region))?;
            Ok(json!({ "Code": "OK", "Message": "successful" }))
        }
        Action::MoveResourceGroup => request.move_resource_group(),
        Action::Tag => request.tag(),
        Action::UnTag => request.untag(),
        Action::ListTags => request.list_tags(),
    }
}
