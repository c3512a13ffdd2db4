//! Tags and resource groups as the product's API has them, for resources of every kind.
use serde_json::{Value, json};

use super::Request;
use crate::api;
use crate::serve::error::ApiError;
use crate::serve::service::tags::{self, Tagged};

/// The resource type of a flow log in these actions.
const RESOURCE_TYPE: &str = "FLOWLOG";
/// Tags on a page of ListTagResources, where nobody says…
const DEFAULT_MAX_RESULTS: u64 = 50;
/// … and the most.
const MAX_RESULTS: u64 = 100;

impl<'r> Request<'r> {
    pub(super) fn move_resource_group(&self) -> Result<Value, ApiError> {
        self.check_resource_type()?;
        let group = self.params.required("NewResourceGroupId")?;
        let id = self.params.required("ResourceId")?;
        tags::move_resource_group(self.state, self.cx, Some(self.region), id, group)
            .map(|_| json!({}))
    }

    pub(super) fn tag(&self) -> Result<Value, ApiError> {
        let ids = self.resource_ids()?;
        let set = self.params.pairs("Tag")?;
        if set.is_empty() {
            return Err(ApiError::missing("Tag"));
        }
        let change = api::ChangeTags {
            set: set.into_iter().collect(),
            remove: Vec::new(),
        };
        tags::change(self.state, self.cx, Some(self.region), &ids, &change).map(|()| json!({}))
    }

    pub(super) fn untag(&self) -> Result<Value, ApiError> {
        let ids = self.resource_ids()?;
        let keys = self.params.list("TagKey")?;
        // Python's SDKs write `True`.
        let all = self
            .params
            .filter("All")?
            .map(|all| all.to_ascii_lowercase());
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
                tags::of(self.state, id)?.into_keys().collect()
            } else {
                keys.iter().map(|key| (*key).to_owned()).collect()
            };
            let change = api::ChangeTags {
                remove,
                ..Default::default()
            };
            tags::change(self.state, self.cx, Some(self.region), &[id], &change)?;
        }
        Ok(json!({}))
    }

    pub(super) fn list_tags(&self) -> Result<Value, ApiError> {
        self.check_resource_type()?;
        let ids = self.params.list("ResourceId")?;
        let tags = self.params.pairs("Tag")?;
        let limit = self
            .params
            .number("MaxResults")?
            .unwrap_or(DEFAULT_MAX_RESULTS);
        if !(1..=MAX_RESULTS).contains(&limit) {
            return Err(ApiError::invalid(
                "MaxResults",
                "allowed are whole numbers from 1 to 100",
            ));
        }
        let limit = usize::try_from(limit).map_err(ApiError::internal)?;
        // The token is the last tag of the page before: flow log and key.
        let token = self.params.filter("NextToken")?.unwrap_or_default();
        let after = token.split_once('/').unwrap_or((&token, ""));
        let wanted = |tag: &Tagged| {
            (ids.is_empty() || ids.contains(&tag.flow_log_id.as_str()))
                && (tags.is_empty()
                    || tags.iter().any(|(key, value)| {
                        tag.key == *key && (value.is_empty() || tag.value == *value)
                    }))
        };
        let mut found = tags::list(self.state, self.cx, self.region, after, limit + 1, wanted)?;
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

    /// The flow logs that tags are about.
    fn resource_ids(&self) -> Result<Vec<&'r str>, ApiError> {
        self.check_resource_type()?;
        let ids = self.params.list("ResourceId")?;
        if ids.is_empty() {
            return Err(ApiError::missing("ResourceId"));
        }
        Ok(ids)
    }

    fn check_resource_type(&self) -> Result<(), ApiError> {
        if self
            .params
            .required("ResourceType")?
            .eq_ignore_ascii_case(RESOURCE_TYPE)
        {
            return Ok(());
        }
        Err(ApiError::invalid("ResourceType", "allowed is FLOWLOG"))
    }
}
