//! What is asked, held against the rules. The names in errors are those of the product's parameters.
use flowlog_model::flow_log::{ResourceType, TrafficType};
use flowlog_model::managed::{
    Description, IpVersion, LogFormat, Logstore, MAX_TAGS, Name, Project, State, TagKey, TagValue,
    TrafficPath,
};
use flowlog_model::text::{Id, Text};

use crate::api;
use crate::serve::error::{ApiError, Code};

/// The capture windows' lengths, in minutes.
const INTERVALS: [u64; 3] = [1, 5, 10];
/// The default of the windows' length, in minutes.
const DEFAULT_INTERVAL: u64 = 10;

/// A text that stands for a `T`.
///
/// # Errors
/// [`Code::InvalidParameter`] with what is allowed.
pub fn text<T: Text>(parameter: &'static str, text: &str) -> Result<T, ApiError> {
    T::from_text(text).ok_or_else(|| ApiError::invalid(parameter, T::allowed()))
}

/// As [`text`], where it may be missing.
///
/// # Errors
/// As [`text`].
pub fn optional<T: Text>(
    parameter: &'static str,
    given: Option<&str>,
) -> Result<Option<T>, ApiError> {
    given.map(|given| text(parameter, given)).transpose()
}

/// A text for the state, where it may be missing: then it is empty.
fn stored<T: Text + std::fmt::Display>(
    parameter: &'static str,
    given: Option<&str>,
) -> Result<String, ApiError> {
    Ok(optional::<T>(parameter, given)?.map_or(String::new(), |value| value.to_string()))
}

/// The length of the windows, in minutes.
///
/// # Errors
/// [`Code::InvalidParameter`].
pub fn interval(given: u64) -> Result<u64, ApiError> {
    if INTERVALS.contains(&given) {
        return Ok(given);
    }
    Err(ApiError::invalid(
        "AggregationInterval",
        "allowed are 1, 5 and 10",
    ))
}

/// A flow log to be created, every value of which keeps the rules.
#[derive(Clone, Debug)]
pub struct NewFlowLog {
    /// Kind of resource.
    pub resource_type: ResourceType,
    /// Resource.
    pub resource_id: String,
    /// Traffic type.
    pub traffic_type: TrafficType,
    /// Name; empty if there is none, as are the next.
    pub name: String,
    /// Description.
    pub description: String,
    /// Project.
    pub project: String,
    /// Logstore.
    pub logstore: String,
    /// Length of the windows, in minutes.
    pub aggregation_interval: u64,
    /// IP versions.
    pub ip_version: IpVersion,
    /// Template of the records; empty for the default.
    pub log_format: String,
    /// Traffic paths, separated by commas.
    pub traffic_path: String,
    /// Resource group.
    pub resource_group: String,
    /// Tags.
    pub tags: Vec<(TagKey, TagValue)>,
}

/// The resource group of what is in no other.
pub const DEFAULT_RESOURCE_GROUP: &str = "rg-default";

impl NewFlowLog {
    /// Checks what is asked.
    ///
    /// # Errors
    /// [`Code::InvalidParameter`] for the first value that is not allowed; [`Code::QuotaTags`].
    pub fn check(asked: &api::CreateFlowLog) -> Result<Self, ApiError> {
        let mut paths = Vec::new();
        for path in &asked.traffic_path {
            let path: TrafficPath = text("TrafficPath", path)?;
            // All traffic under the name of some of it would be worse than none.
            if path != TrafficPath::All {
                let why = "no agent can tell which packets cross a gateway; allowed is all";
                return Err(ApiError::unsupported("TrafficPath", why));
            }
            if paths.contains(&path) {
                return Err(ApiError::invalid("TrafficPath", "each path is given once"));
            }
            paths.push(path);
        }
        let group = optional::<Id>("ResourceGroupId", asked.resource_group.as_deref())?;
        Ok(Self {
            resource_type: text("ResourceType", &asked.resource_type)?,
            resource_id: text::<Id>("ResourceId", &asked.resource_id)?.to_string(),
            traffic_type: text("TrafficType", &asked.traffic_type)?,
            name: stored::<Name>("FlowLogName", asked.name.as_deref())?,
            description: stored::<Description>("Description", asked.description.as_deref())?,
            project: stored::<Project>("ProjectName", asked.project.as_deref())?,
            logstore: stored::<Logstore>("LogStoreName", asked.logstore.as_deref())?,
            aggregation_interval: interval(asked.aggregation_interval.unwrap_or(DEFAULT_INTERVAL))?,
            ip_version: optional("IpVersion", asked.ip_version.as_deref())?
                .unwrap_or(IpVersion::DualStack),
            log_format: stored::<LogFormat>("LogFormat", asked.log_format.as_deref())?,
            traffic_path: TrafficPath::All.to_string(),
            resource_group: group.map_or(DEFAULT_RESOURCE_GROUP.into(), |group| group.to_string()),
            tags: tags(
                asked
                    .tags
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str())),
            )?,
        })
    }
}

/// Tags.
///
/// # Errors
/// [`Code::InvalidParameter`]; [`Code::QuotaTags`] where there are more than a flow log can have.
pub fn tags<'a>(
    given: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<(TagKey, TagValue)>, ApiError> {
    let mut tags = Vec::new();
    for (key, value) in given {
        if tags.len() == MAX_TAGS {
            return Err(too_many_tags());
        }
        tags.push((text("Tag.Key", key)?, text("Tag.Value", value)?));
    }
    Ok(tags)
}

/// The error that there would be more tags than a flow log can have.
#[must_use]
pub fn too_many_tags() -> ApiError {
    ApiError::new(
        Code::QuotaTags,
        format!("A flow log has at most {MAX_TAGS} tags."),
    )
}

/// Checks the values of a filter: one that no flow log can have is refused, so that a slip of the pen does not look like an empty list.
///
/// # Errors
/// [`Code::InvalidParameter`].
pub fn filter(asked: &api::FlowLogFilter) -> Result<(), ApiError> {
    optional::<ResourceType>("ResourceType", asked.resource_type.as_deref())?;
    optional::<TrafficType>("TrafficType", asked.traffic_type.as_deref())?;
    optional::<State>("Status", asked.status.as_deref())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_checked() {
        let good = api::CreateFlowLog {
            resource_type: "VPC".into(),
            resource_id: "vpc-1".into(),
            traffic_type: "All".into(),
            ..Default::default()
        };
        let new = NewFlowLog::check(&good).unwrap();
        assert_eq!(
            (new.aggregation_interval, new.traffic_path.as_str()),
            (10, "all")
        );
        type Break = fn(&mut api::CreateFlowLog);
        let broken: [(&str, Break); 12] = [
            ("ResourceType", |new| new.resource_type = "Vpc".into()),
            ("ResourceId", |new| new.resource_id = "vpc 1".into()),
            ("TrafficType", |new| new.traffic_type = "Accept".into()),
            ("FlowLogName", |new| new.name = Some(String::new())),
            ("Description", |new| {
                new.description = Some("http://x".into());
            }),
            ("ProjectName", |new| new.project = Some("ab".into())),
            ("LogStoreName", |new| new.logstore = Some("_ab".into())),
            ("AggregationInterval", |new| {
                new.aggregation_interval = Some(2);
            }),
            ("IpVersion", |new| new.ip_version = Some("ipv4".into())),
            ("LogFormat", |new| new.log_format = Some("${x}".into())),
            ("TrafficPath", |new| new.traffic_path = vec!["some".into()]),
            ("Tag.Key", |new| {
                new.tags.insert("acs:x".into(), String::new());
            }),
        ];
        let gateway = api::CreateFlowLog {
            traffic_path: vec!["all".into(), "internetGateway".into()],
            ..good.clone()
        };
        let error = NewFlowLog::check(&gateway).unwrap_err();
        assert_eq!(error.code(), "UnsupportedFeature.TrafficPath");
        for (parameter, break_it) in broken {
            let mut asked = good.clone();
            break_it(&mut asked);
            let error = NewFlowLog::check(&asked).unwrap_err();
            assert_eq!(error.code(), format!("InvalidParameter.{parameter}"));
            assert!(error.message().contains("allowed"), "{error}");
        }
    }

    #[test]
    fn twenty_tags_and_no_more() {
        let keys: Vec<String> = (0..21).map(|number| format!("k{number}")).collect();
        let given = |count| keys.iter().take(count).map(|key| (key.as_str(), "v"));
        assert_eq!(tags(given(20)).unwrap().len(), 20);
        assert_eq!(tags(given(21)).unwrap_err().kind(), Code::QuotaTags);
    }
}
