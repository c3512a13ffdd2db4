//! The REST face: [`crate::api`] says what travels. `openapi.json` is made of what stands here.
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post, put};
use flowlog_model::signature::encoding;
use rusqlite::Transaction;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::App;
use super::auth::Verified;
use super::observe::Observed;
use super::params::Params;
use crate::api;
use crate::serve::error::{ApiError, Code};
use crate::serve::service::{self, Context, access_keys, audit, flow_logs, resources, tags};

/// What a handler gives.
pub(super) type Answer = Result<Response, ApiError>;

/// The OpenAPI document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Flowlog management API",
        description = "Each request is signed by ACS3-HMAC-SHA256. Every error has an ErrorBody."
    ),
    paths(
        list_flow_logs,
        create_flow_log,
        get_flow_log,
        modify_flow_log,
        delete_flow_log,
        activate_flow_log,
        deactivate_flow_log,
        move_resource_group,
        change_tags,
        list_access_keys,
        create_access_key,
        modify_access_key,
        delete_access_key,
        list_resources,
        list_agents,
        list_audit,
        get_service,
        open_service,
    ),
    components(schemas(api::ErrorBody)),
    modifiers(&Signed),
    security(("acs3" = []))
)]
struct Document;

/// How each request is signed, for the document.
struct Signed;

impl Modify for Signed {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = ApiKey::Header(ApiKeyValue::with_description(
            "Authorization",
            "`ACS3-HMAC-SHA256 Credential=ID,SignedHeaders=NAMES,Signature=HEX`: an access key's signature of the request. \
             `host`, `x-acs-date`, `x-acs-signature-nonce` and `x-acs-content-sha256` must be among the signed headers.",
        ));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("acs3", SecurityScheme::ApiKey(scheme));
    }
}

/// The OpenAPI document, as pretty JSON with a line feed at its end.
///
/// # Errors
/// The serialiser's.
pub fn openapi() -> Result<String, serde_json::Error> {
    Document::openapi().to_pretty_json().map(|json| json + "\n")
}

/// Answers with the OpenAPI document; not signed.
pub(super) async fn document() -> Answer {
    let document = openapi().map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], document).into_response())
}

/// The paths.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(
            "/api/v1/flow-logs",
            get(list_flow_logs).post(create_flow_log),
        )
        .route(
            "/api/v1/flow-logs/{id}",
            get(get_flow_log)
                .patch(modify_flow_log)
                .delete(delete_flow_log),
        )
        .route("/api/v1/flow-logs/{id}/activate", post(activate_flow_log))
        .route(
            "/api/v1/flow-logs/{id}/deactivate",
            post(deactivate_flow_log),
        )
        .route(
            "/api/v1/flow-logs/{id}/resource-group",
            put(move_resource_group),
        )
        .route("/api/v1/flow-logs/{id}/tags", patch(change_tags))
        .route(
            "/api/v1/access-keys",
            get(list_access_keys).post(create_access_key),
        )
        .route(
            "/api/v1/access-keys/{id}",
            patch(modify_access_key).delete(delete_access_key),
        )
        .route("/api/v1/resources", get(list_resources))
        .route("/api/v1/agents", get(list_agents))
        .route("/api/v1/audit", get(list_audit))
        .route("/api/v1/service", get(get_service).post(open_service))
}

/// What every handler is given: the service, the request, and who asks.
pub(super) struct Asked {
    app: Arc<App>,
    observed: Arc<Observed>,
    verified: Verified,
    uri: Uri,
}

impl FromRequestParts<Arc<App>> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &Arc<App>,
    ) -> Result<Self, Self::Rejection> {
        // Both were put there before any handler is reached.
        let missing = || ApiError::internal("a request that is not verified");
        let extensions = &parts.extensions;
        Ok(Self {
            app: Arc::clone(app),
            observed: extensions.get().cloned().ok_or_else(missing)?,
            verified: extensions.get().cloned().ok_or_else(missing)?,
            uri: parts.uri.clone(),
        })
    }
}

impl Asked {
    /// The body, which is JSON.
    fn body<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        body(&self.verified.body)
    }

    /// The query.
    fn query<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        query(&self.uri)
    }

    /// The query without the parameters `tag`, which can be given several times, and these: `KEY=VALUE`, or `KEY` for any value.
    fn query_and_tags<T: DeserializeOwned>(&self) -> Result<(T, Vec<(String, String)>), ApiError> {
        let (tags, rest): (Vec<_>, Vec<_>) = self
            .verified
            .parameters
            .iter()
            .partition(|(name, _)| name == "tag");
        let pair = |tag: &str| match tag.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (tag.to_owned(), String::new()),
        };
        let tags = tags.iter().map(|(_, tag)| pair(tag)).collect();
        let rest = encoding::query(
            rest.iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        let uri = format!("/?{rest}").parse().map_err(ApiError::internal)?;
        Ok((query(&uri)?, tags))
    }

    /// The region in the query.
    fn region(&self) -> Result<Option<String>, ApiError> {
        Params(self.verified.parameters.clone()).filter("region")
    }

    async fn read<T: Serialize + Send + 'static>(
        self,
        action: &'static str,
        read: impl FnOnce(&Transaction<'_>, &Context) -> Result<T, ApiError> + Send + 'static,
    ) -> Answer {
        let _ = self.observed.action.set(action);
        json(&self.app.read(self.verified.context, read).await?)
    }

    async fn change<T: Serialize + Send + 'static>(
        self,
        action: &'static str,
        change: impl FnOnce(&Transaction<'_>, &Context) -> Result<T, ApiError> + Send + 'static,
    ) -> Answer {
        let _ = self.observed.action.set(action);
        json(&self.app.change(self.verified.context, change).await?)
    }
}

fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    Query::try_from_uri(uri)
        .map(|Query(query)| query)
        .map_err(|error| ApiError::new(Code::MalformedRequest, error.body_text()))
}

/// Reads a JSON body.
pub(super) fn body<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::new(
            Code::MalformedRequest,
            format!("The body is not as it should be: {error}."),
        )
    })
}

/// Answers with JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Answer {
    let body = serde_json::to_vec(value).map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Lists flow logs, the newest first.
#[utoipa::path(get, path = "/api/v1/flow-logs", params(api::FlowLogFilter, ("tag" = Option<Vec<String>>, Query, description = "Tags, as `KEY=VALUE`, or `KEY` for any value; can be given several times, and all must fit")), responses((status = 200, body = api::FlowLogPage), (status = "default", body = api::ErrorBody)))]
async fn list_flow_logs(request: Asked) -> Answer {
    let (asked, tags) = request.query_and_tags::<api::FlowLogFilter>()?;
    request
        .read("DescribeFlowLogs", move |state, cx| {
            flow_logs::list(state, cx, &asked, &tags)
        })
        .await
}

/// Creates a flow log.
#[utoipa::path(post, path = "/api/v1/flow-logs", request_body = api::CreateFlowLog, responses((status = 200, body = api::FlowLog), (status = "default", body = api::ErrorBody)))]
async fn create_flow_log(request: Asked) -> Answer {
    let asked: api::CreateFlowLog = request.body()?;
    request
        .change("CreateFlowLog", move |state, cx| {
            flow_logs::create(state, cx, &asked)
        })
        .await
}

/// Gets a flow log.
#[utoipa::path(get, path = "/api/v1/flow-logs/{id}", params(("id" = String, Path, description = "Its id"), ("region" = Option<String>, Query, description = "Region")), responses((status = 200, body = api::FlowLog), (status = "default", body = api::ErrorBody)))]
async fn get_flow_log(Path(id): Path<String>, request: Asked) -> Answer {
    let region = request.region()?;
    request
        .read("DescribeFlowLogs", move |state, cx| {
            flow_logs::get(state, cx, region.as_deref(), &id)
        })
        .await
}

/// Changes a flow log's attributes.
#[utoipa::path(patch, path = "/api/v1/flow-logs/{id}", params(("id" = String, Path, description = "Its id"), ("region" = Option<String>, Query, description = "Region")), request_body = api::ModifyFlowLog, responses((status = 200, body = api::FlowLog), (status = "default", body = api::ErrorBody)))]
async fn modify_flow_log(Path(id): Path<String>, request: Asked) -> Answer {
    let region = request.region()?;
    let asked: api::ModifyFlowLog = request.body()?;
    request
        .change("ModifyFlowLogAttribute", move |state, cx| {
            flow_logs::modify(state, cx, region.as_deref(), &id, &asked)
        })
        .await
}

/// Deletes a flow log. What was captured stays.
#[utoipa::path(delete, path = "/api/v1/flow-logs/{id}", params(("id" = String, Path, description = "Its id"), ("region" = Option<String>, Query, description = "Region")), responses((status = 200, body = api::FlowLog), (status = "default", body = api::ErrorBody)))]
async fn delete_flow_log(Path(id): Path<String>, request: Asked) -> Answer {
    let region = request.region()?;
    request
        .change("DeleteFlowLog", move |state, cx| {
            flow_logs::delete(state, cx, region.as_deref(), &id)
        })
        .await
}

/// Activates a flow log that is Inactive.
#[utoipa::path(post, path = "/api/v1/flow-logs/{id}/activate", params(("id" = String, Path, description = "Its id"), ("region" = Option<String>, Query, description = "Region")), responses((status = 200, body = api::FlowLog), (status = "default", body = api::ErrorBody)))]
async fn activate_flow_log(Path(id): Path<String>, request: Asked) -> Answer {
    let region = request.region()?;
    request
        .change("ActiveFlowLog", move |state, cx| {
            flow_logs::activate(state, cx, region.as_deref(), &id)
        })
        .await
}

/// Deactivates a flow log that is Active.
#[utoipa::path(post, path = "/api/v1/flow-logs/{id}/deactivate", params(("id" = String, Path, description = "Its id"), ("region" = Option<String>, Query, description = "Region")), responses((status = 200, body = api::FlowLog), (status = "default", body = api::ErrorBody)))]
async fn deactivate_flow_log(Path(id): Path<String>, request: Asked) -> Answer {
    let region = request.region()?;
    request
        .change("DeactiveFlowLog", move |state, cx| {
            flow_logs::deactivate(state, cx, region.as_deref(), &id)
        })
        .await
}

/// Moves a flow log to another resource group.
#[utoipa::path(put, path = "/api/v1/flow-logs/{id}/resource-group", params(("id" = String, Path, description = "Its id"), ("region" = Option<String>, Query, description = "Region")), request_body = api::MoveResourceGroup, responses((status = 200, body = api::FlowLog), (status = "default", body = api::ErrorBody)))]
async fn move_resource_group(Path(id): Path<String>, request: Asked) -> Answer {
    let region = request.region()?;
    let asked: api::MoveResourceGroup = request.body()?;
    request
        .change("MoveResourceGroup", move |state, cx| {
            tags::move_resource_group(state, cx, region.as_deref(), &id, &asked.resource_group)
        })
        .await
}

/// Changes a flow log's tags.
#[utoipa::path(patch, path = "/api/v1/flow-logs/{id}/tags", params(("id" = String, Path, description = "Its id"), ("region" = Option<String>, Query, description = "Region")), request_body = api::ChangeTags, responses((status = 200, body = api::FlowLog), (status = "default", body = api::ErrorBody)))]
async fn change_tags(Path(id): Path<String>, request: Asked) -> Answer {
    let region = request.region()?;
    let asked: api::ChangeTags = request.body()?;
    request
        .change("ChangeTags", move |state, cx| {
            tags::change(state, cx, region.as_deref(), &[&id], &asked)?;
            flow_logs::get(state, cx, None, &id)
        })
        .await
}

/// Lists the access keys of the account.
#[utoipa::path(get, path = "/api/v1/access-keys", responses((status = 200, body = api::AccessKeys), (status = "default", body = api::ErrorBody)))]
async fn list_access_keys(request: Asked) -> Answer {
    request
        .read("ListAccessKeys", move |state, cx| {
            access_keys::list(state, cx)
        })
        .await
}

/// Creates an access key. Its secret is told this once.
#[utoipa::path(post, path = "/api/v1/access-keys", request_body = api::CreateAccessKey, responses((status = 200, body = api::CreatedAccessKey), (status = "default", body = api::ErrorBody)))]
async fn create_access_key(request: Asked) -> Answer {
    let asked: api::CreateAccessKey = request.body()?;
    let app = Arc::clone(&request.app);
    request
        .change("CreateAccessKey", move |state, cx| {
            access_keys::create(state, cx, &app.seal, &asked)
        })
        .await
}

/// Activates or deactivates an access key.
#[utoipa::path(patch, path = "/api/v1/access-keys/{id}", params(("id" = String, Path, description = "Its id")), request_body = api::ModifyAccessKey, responses((status = 200, body = api::AccessKey), (status = "default", body = api::ErrorBody)))]
async fn modify_access_key(Path(id): Path<String>, request: Asked) -> Answer {
    let asked: api::ModifyAccessKey = request.body()?;
    request
        .change("ModifyAccessKey", move |state, cx| {
            access_keys::modify(state, cx, &id, &asked)
        })
        .await
}

/// Deletes an access key, and what an agent has reported with it.
#[utoipa::path(delete, path = "/api/v1/access-keys/{id}", params(("id" = String, Path, description = "Its id")), responses((status = 200, body = api::AccessKey), (status = "default", body = api::ErrorBody)))]
async fn delete_access_key(Path(id): Path<String>, request: Asked) -> Answer {
    request
        .change("DeleteAccessKey", move |state, cx| {
            access_keys::delete(state, cx, &id)
        })
        .await
}

/// Lists the VPCs, VSwitches and ENIs that agents have reported.
#[utoipa::path(get, path = "/api/v1/resources", responses((status = 200, body = api::Resources), (status = "default", body = api::ErrorBody)))]
async fn list_resources(request: Asked) -> Answer {
    request
        .read("ListResources", move |state, cx| {
            resources::resources(state, cx)
        })
        .await
}

/// Lists the agents.
#[utoipa::path(get, path = "/api/v1/agents", responses((status = 200, body = api::Agents), (status = "default", body = api::ErrorBody)))]
async fn list_agents(request: Asked) -> Answer {
    request.read("ListAgents", resources::agents).await
}

/// Lists changes, the newest first.
#[utoipa::path(get, path = "/api/v1/audit", params(api::AuditFilter), responses((status = 200, body = api::Audit), (status = "default", body = api::ErrorBody)))]
async fn list_audit(request: Asked) -> Answer {
    let asked: api::AuditFilter = request.query()?;
    request
        .read("ListAudit", move |state, cx| audit::list(state, cx, &asked))
        .await
}

/// Tells whether the account has opened the service in a region.
#[utoipa::path(get, path = "/api/v1/service", params(("region" = Option<String>, Query, description = "Region")), responses((status = 200, body = api::Service), (status = "default", body = api::ErrorBody)))]
async fn get_service(request: Asked) -> Answer {
    let region = request.region()?;
    request
        .read("GetFlowLogServiceStatus", move |state, cx| {
            service::service(state, cx, region.as_deref())
        })
        .await
}

/// Opens the service in a region.
#[utoipa::path(post, path = "/api/v1/service", params(("region" = Option<String>, Query, description = "Region")), responses((status = 200, body = api::Service), (status = "default", body = api::ErrorBody)))]
async fn open_service(request: Asked) -> Answer {
    let region = request.region()?;
    request
        .change("OpenFlowLogService", move |state, cx| {
            service::open_service(state, cx, region.as_deref())
        })
        .await
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_is_current() {
        let document = super::openapi().unwrap();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        if std::env::var_os("FLOWLOG_UPDATE").is_some() {
            std::fs::write(path, &document).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == document,
            "run this test with FLOWLOG_UPDATE=1 and commit openapi.json"
        );
    }
}
