//! The service, and where the records of the flow logs that it manages go.
use std::path::{Path, PathBuf};

use flowlog_client::ServiceUrl;
use flowlog_model::field::DEFAULT_FIELDS;
use flowlog_model::format::Format;
use flowlog_model::input::{Document, InputError, Table};
use flowlog_model::managed::{Logstore, Project};
use flowlog_model::text::{Id, Text as _, in_words};
use serde::Deserialize;
use toml::Spanned;

use super::flow_logs::{FormatKind, RawDestination};
use super::values::AnyPath;
use super::{Destination, LogstoreDestination};

/// What stands in the path of a managed destination for what differs by flow log.
const PLACEHOLDERS: [&str; 3] = ["{project}", "{logstore}", "{flow-log-id}"];

/// The one that is in every path, so that each flow log has a file or a folder of its own.
const FLOW_LOG_ID: &str = PLACEHOLDERS[2];

/// What stands for a project or a logstore where a flow log has none.
const NONE: &str = "none";

/// The service that manages flow logs, beside those of the configuration.
///
/// | key | default | allowed |
/// |---|---|---|
/// | `url` | required | `http` or `https`, a host and perhaps a port |
/// | `access-key-file` | required | a path; if relative, to the configuration's folder. The file's owner alone may have rights |
/// | `ca-file` | what the system trusts | a path, likewise: the authorities, in PEM, that may have signed the service's certificate |
/// | `host-id` | the host's name | an [`Id`] |
/// | `format` | `text` | `json`, `text`; for flow logs that have no format of their own |
/// | `destination` | the Log Service at `url` | as a flow log's; its path has `{flow-log-id}` in it. Of a Log Service the type alone, for project and logstore are the flow log's |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Where it is.
    pub url: ServiceUrl,
    /// The file with the access key. [`super::Config::load`] makes it relative to the configuration's folder.
    pub access_key_file: PathBuf,
    /// The authorities to be trusted, likewise; none for those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// How the service is to know this host; none for the host's name.
    pub host_id: Option<String>,
    /// How a record becomes a line, where a flow log does not say it.
    pub format: Format,
    /// Where the records go.
    pub destination: ManagedDestination,
}

/// Where the records of the service's flow logs go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManagedDestination {
    /// To the project and the logstore that the flow log names, at the service.
    LogService,
    /// To a destination whose path has places for what differs by flow log.
    Pattern(Destination),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawService {
    url: ServiceUrl,
    access_key_file: AnyPath,
    ca_file: Option<AnyPath>,
    host_id: Option<Id>,
    #[serde(default)]
    format: FormatKind,
    destination: Option<Spanned<Table<RawDestination>>>,
}

pub(super) fn check(
    raw: Spanned<Table<RawService>>,
    document: &Document<'_>,
) -> Result<ServiceConfig, InputError> {
    let Table(raw) = raw.into_inner();
    Ok(ServiceConfig {
        url: raw.url,
        access_key_file: raw.access_key_file.0,
        ca_file: raw.ca_file.map(|path| path.0),
        host_id: raw.host_id.map(Id::into_string),
        format: match raw.format {
            FormatKind::Text => Format::text(&DEFAULT_FIELDS),
            FormatKind::Json => Format::json(&DEFAULT_FIELDS),
        },
        destination: match raw.destination {
            None => ManagedDestination::LogService,
            Some(destination) => destination_of(destination, document)?,
        },
    })
}

fn destination_of(
    raw: Spanned<Table<RawDestination>>,
    document: &Document<'_>,
) -> Result<ManagedDestination, InputError> {
    let span = raw.span();
    let Table(raw) = raw.into_inner();
    if raw.is_log_service_alone() {
        return Ok(ManagedDestination::LogService);
    }
    if let Some(path) = &raw.path {
        let text = path.get_ref().0.to_string_lossy();
        if let Err(clause) = check_placeholders(&text) {
            return Err(document.refuse(&path.span(), clause));
        }
    }
    raw.check(&span, document).map(ManagedDestination::Pattern)
}

/// What is allowed, unless the path is.
fn check_placeholders(path: &str) -> Result<(), String> {
    let rest = PLACEHOLDERS
        .iter()
        .fold(path.to_owned(), |rest, known| rest.replace(known, ""));
    if rest.contains(['{', '}']) {
        return Err(format!(
            "allowed are {} in braces",
            in_words(PLACEHOLDERS.map(|known| format!("`{known}`")))
        ));
    }
    if !path.contains(FLOW_LOG_ID) {
        return Err(format!(
            "allowed is a path with `{FLOW_LOG_ID}` in it, so that no two flow logs write to one file"
        ));
    }
    Ok(())
}

impl ServiceConfig {
    /// Takes paths that are relative for paths in `folder`.
    pub(super) fn read_from(&mut self, folder: &Path) {
        self.access_key_file = folder.join(&self.access_key_file);
        if let Some(path) = &mut self.ca_file {
            *path = folder.join(&*path);
        }
    }
}

impl ServiceConfig {
    /// The destination of a flow log's records.
    ///
    /// # Errors
    ///
    /// If the flow log names no project and logstore where those are needed, or a name has what no part of a path should have.
    pub fn destination_of(
        &self,
        flow_log_id: &str,
        project: Option<&str>,
        logstore: Option<&str>,
    ) -> Result<Destination, &'static str> {
        match &self.destination {
            ManagedDestination::LogService => {
                let names = Option::zip(
                    project.and_then(Project::from_text),
                    logstore.and_then(Logstore::from_text),
                );
                let (project, logstore) =
                    names.ok_or("it names no project and logstore for its records")?;
                Ok(Destination::LogService(LogstoreDestination {
                    endpoint: self.url.clone(),
                    project,
                    logstore,
                    access_key_file: self.access_key_file.clone(),
                    ca_file: self.ca_file.clone(),
                }))
            }
            ManagedDestination::Pattern(pattern) => {
                filled(pattern, flow_log_id, project, logstore).ok_or(
                    "its project and logstore are no parts of a path: allowed are letters, digits, `-` and `_`",
                )
            }
        }
    }
}

/// The destination of a flow log by a pattern; none if a name has what no part of a path should have.
fn filled(
    pattern: &Destination,
    flow_log_id: &str,
    project: Option<&str>,
    logstore: Option<&str>,
) -> Option<Destination> {
    let values = [
        project.unwrap_or(NONE),
        logstore.unwrap_or(NONE),
        flow_log_id,
    ];
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_part = |value: &&str| !value.is_empty() && value.chars().all(legal);
    if !values.iter().all(is_part) {
        return None;
    }
    let mut destination = pattern.clone();
    match &mut destination {
        Destination::Stdout | Destination::LogService(_) => {}
        Destination::File { path, .. } | Destination::Folder { path, .. } => {
            let mut text = path.to_string_lossy().into_owned();
            for (placeholder, value) in PLACEHOLDERS.iter().zip(values) {
                text = text.replace(placeholder, value);
            }
            *path = text.into();
        }
    }
    Some(destination)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const LEAST: &str = "url = 'http://127.0.0.1:8080'\naccess-key-file = 'key.json'\n";

    fn service(lines: &str) -> Result<ServiceConfig, InputError> {
        let text = format!("inventory = 'i.toml'\n[service]\n{lines}");
        Config::parse(&text, "agent.toml").map(|config| config.service.unwrap())
    }

    fn path(destination: &Destination) -> &str {
        match destination {
            Destination::File { path, .. } | Destination::Folder { path, .. } => {
                path.to_str().unwrap()
            }
            Destination::Stdout | Destination::LogService(_) => "",
        }
    }

    #[test]
    fn the_service_has_defaults() {
        let config = service(LEAST).unwrap();
        assert_eq!(config.url.to_string(), "http://127.0.0.1:8080");
        assert_eq!(config.access_key_file, Path::new("key.json"));
        assert_eq!((config.ca_file, config.host_id), (None, None));
        assert_eq!(config.format, Format::text(&DEFAULT_FIELDS));
        assert_eq!(config.destination, ManagedDestination::LogService);
        let same = "destination = { type = 'log-service' }";
        let same = service(&format!("{LEAST}{same}\n")).unwrap();
        assert_eq!(same.destination, ManagedDestination::LogService);
    }

    #[test]
    fn every_key_of_the_service() {
        let config = service(
            "url = 'https://flowlog.example'\naccess-key-file = '/etc/key.json'\nca-file = '/etc/ca.pem'\nhost-id = 'host-1.a_b'\n\
             format = 'json'\ndestination = { type = 'folder', path = '/a/{flow-log-id}', max-files = 3 }\n",
        )
        .unwrap();
        assert!(config.url.is_tls());
        assert_eq!(config.ca_file.as_deref(), Some(Path::new("/etc/ca.pem")));
        assert_eq!(config.host_id.as_deref(), Some("host-1.a_b"));
        assert!(config.format.is_json());
        let folder = Destination::Folder {
            path: "/a/{flow-log-id}".into(),
            max_files: 3,
        };
        assert_eq!(config.destination, ManagedDestination::Pattern(folder));
    }

    #[test]
    fn each_flow_log_has_a_place_of_its_own() {
        let pattern = "destination = { type = 'file', path = '/var/log/flowlog/{project}/{logstore}/{flow-log-id}.log' }";
        let config = service(&format!("{LEAST}{pattern}\n")).unwrap();
        let of = |id, project, logstore| {
            let destination = config.destination_of(id, project, logstore).ok();
            destination.map(|destination| path(&destination).to_owned())
        };
        assert_eq!(
            of("fl-1", Some("p-1"), Some("l_1")).unwrap(),
            "/var/log/flowlog/p-1/l_1/fl-1.log"
        );
        assert_eq!(
            of("fl-1", None, None).unwrap(),
            "/var/log/flowlog/none/none/fl-1.log"
        );
        for bad in ["", ".", "..", "a/b", "a\0", "{logstore}"] {
            assert_eq!(of("fl-1", Some(bad), Some("l")), None, "{bad:?}");
            assert_eq!(of("fl-1", Some("p"), Some(bad)), None, "{bad:?}");
            assert_eq!(of(bad, Some("p"), Some("l")), None, "{bad:?}");
        }
    }

    #[test]
    fn records_go_to_the_logstore_that_the_flow_log_names() {
        let config = service(LEAST).unwrap();
        let destination = config.destination_of("fl-1", Some("p-1"), Some("l_1"));
        assert_eq!(
            destination.unwrap().to_string(),
            "p-1/l_1 at http://127.0.0.1:8080"
        );
        for (project, logstore) in [
            (None, Some("l_1")),
            (Some("p-1"), None),
            (Some("P"), Some("l_1")),
        ] {
            assert_eq!(
                config.destination_of("fl-1", project, logstore),
                Err("it names no project and logstore for its records")
            );
        }
    }

    #[test]
    fn paths_that_would_be_shared_and_unknown_placeholders_are_refused() {
        for (path, expected) in [
            (
                "/a/{project}/{logstore}.log",
                "allowed is a path with `{flow-log-id}` in it, so that no two flow logs write to one file",
            ),
            (
                "/a/{flow-log-id}/{name}.log",
                "allowed are `{project}`, `{logstore}` and `{flow-log-id}` in braces",
            ),
            (
                "/a/{flow-log-id}}",
                "allowed are `{project}`, `{logstore}` and `{flow-log-id}` in braces",
            ),
        ] {
            let error = service(&format!(
                "{LEAST}destination = {{ type = 'file', path = '{path}' }}\n"
            ))
            .unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("agent.toml:5: `path` is '{path}': {expected}")
            );
        }
    }

    #[test]
    fn what_the_service_needs_is_told() {
        for (lines, expected) in [
            (
                "access-key-file = 'a'\n",
                "`url` is missing: `[service]` needs it",
            ),
            (
                "url = 'http://a'\n",
                "`access-key-file` is missing: `[service]` needs it",
            ),
            (
                "url = 'a'\naccess-key-file = 'a'\n",
                "allowed is a URL with a host",
            ),
            (
                "url = 'http://a'\naccess-key-file = 'a'\nhost-id = 'a b'\n",
                "allowed are 1 to 64 characters of A-Z",
            ),
        ] {
            let error = service(lines).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn files_are_looked_for_beside_the_configuration() {
        let mut config = service(&format!("{LEAST}ca-file = '/etc/ca.pem'\n")).unwrap();
        config.read_from(Path::new("/etc/flowlog"));
        assert_eq!(config.access_key_file, Path::new("/etc/flowlog/key.json"));
        assert_eq!(config.ca_file.as_deref(), Some(Path::new("/etc/ca.pem")));
    }
}
