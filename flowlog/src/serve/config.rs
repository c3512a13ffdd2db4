//! The service's configuration: one TOML file, which may be missing, with the keys of `Keys`.
use flowlog_model::input::{Document, InputError, Table};
use flowlog_model::text::{Id, WholeNumber};
use serde::Deserialize;

/// The configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Account of the administrator's access key that the first start makes.
    pub account_id: String,
    /// Region that is meant where a request names none.
    pub default_region: String,
    /// The regions that there are; any, where the list is empty.
    pub regions: Vec<String>,
    /// Quota: flow logs of an account in a region.
    pub flow_logs_per_region: u64,
    /// Quota where any region is taken: regions in which an account has flow logs, and in which it has opened the service.
    pub regions_per_account: u64,
    /// Whether flow logs may be created for resources that no agent has reported.
    pub allow_unknown_resources: bool,
    /// After how many milliseconds without a word an agent is away: nobody waits for it, and others may report its ENIs.
    pub agent_away_ms: i64,
    /// Requests a second that an access key may make on average…
    pub requests_per_second: u64,
    /// … and at once.
    pub requests_at_once: u64,
    /// Connections that are open at the same time.
    pub connections: usize,
    /// Access keys of an account.
    pub access_keys_per_account: u64,
    /// Entries of the audit trail of an account; the oldest go first.
    pub audit_entries_per_account: u64,
}

/// The keys of the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Keys {
    account_id: Option<Id>,
    default_region: Option<Id>,
    regions: Vec<Id>,
    flow_logs_per_region: Option<WholeNumber<0, 100_000>>,
    regions_per_account: Option<WholeNumber<1, 100_000>>,
    allow_unknown_resources: bool,
    agent_away_seconds: Option<WholeNumber<1, 86_400>>,
    requests_per_second: Option<WholeNumber<1, 1_000_000>>,
    requests_at_once: Option<WholeNumber<1, 1_000_000>>,
    connections: Option<WholeNumber<1, 100_000>>,
    access_keys_per_account: Option<WholeNumber<1, 1_000_000>>,
    audit_entries_per_account: Option<WholeNumber<1, 1_000_000_000>>,
}

impl Config {
    /// Reads the configuration; `file` is only for errors.
    ///
    /// # Errors
    /// [`InputError`] for something that is not allowed.
    pub fn parse(text: &str, file: &str) -> Result<Self, InputError> {
        let Table(keys) = Document::new(text, file).parse::<Table<Keys>>()?;
        Ok(keys.into())
    }
}

impl Default for Config {
    fn default() -> Self {
        Keys::default().into()
    }
}

impl From<Keys> for Config {
    fn from(keys: Keys) -> Self {
        fn number<const MIN: u64, const MAX: u64>(
            given: Option<WholeNumber<MIN, MAX>>,
            default: u64,
        ) -> u64 {
            given.map_or(default, WholeNumber::get)
        }
        let away_seconds = number(keys.agent_away_seconds, 60);
        Self {
            account_id: keys.account_id.map_or("1".into(), |id| id.to_string()),
            default_region: keys
                .default_region
                .map_or("local".into(), |id| id.to_string()),
            regions: keys.regions.iter().map(ToString::to_string).collect(),
            flow_logs_per_region: number(keys.flow_logs_per_region, 10),
            regions_per_account: number(keys.regions_per_account, 32),
            allow_unknown_resources: keys.allow_unknown_resources,
            agent_away_ms: i64::try_from(away_seconds * 1000).unwrap_or(i64::MAX),
            requests_per_second: number(keys.requests_per_second, 50),
            requests_at_once: number(keys.requests_at_once, 100),
            connections: usize::try_from(number(keys.connections, 4096)).unwrap_or(usize::MAX),
            access_keys_per_account: number(keys.access_keys_per_account, 10_000),
            audit_entries_per_account: number(keys.audit_entries_per_account, 100_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Config::parse("", "f").unwrap(), Config::default());
        assert_eq!(Config::default().flow_logs_per_region, 10);
    }

    #[test]
    fn the_sample_shows_every_key_with_its_default() {
        let sample = include_str!("../../../flowlog.toml");
        assert_eq!(
            Config::parse(sample, "flowlog.toml").unwrap(),
            Config::default()
        );
        let error = Config::parse("x = 1", "f").unwrap_err().to_string();
        let keys: Vec<&str> = error
            .split_once("allowed are ")
            .unwrap()
            .1
            .split([',', ' '])
            .filter(|word| !word.is_empty() && *word != "and")
            .collect();
        assert_eq!(keys.len(), 12, "{error}");
        for key in keys {
            assert!(
                sample.contains(&format!("\n{key} = ")),
                "{key} is not in the sample"
            );
        }
    }

    #[test]
    fn keys_are_checked() {
        let parsed = Config::parse(
            "regions = [\"cn-hangzhou\"]\nflow-logs-per-region = 3\nagent-away-seconds = 2",
            "f",
        )
        .unwrap();
        assert_eq!(
            (
                parsed.regions.len(),
                parsed.flow_logs_per_region,
                parsed.agent_away_ms
            ),
            (1, 3, 2000)
        );
        for (bad, says) in [
            ("quota = 1", "not known here"),
            ("agent-away-seconds = 0", "whole numbers from 1"),
            ("default-region = \"a b\"", "A-Z"),
        ] {
            let error = Config::parse(bad, "f").unwrap_err().to_string();
            assert!(
                error.starts_with("f:1: ") && error.contains(says),
                "{error}"
            );
        }
    }
}
