//! The flow logs of a configuration.
use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

use flowlog_client::ServiceUrl;
use flowlog_model::field::{DEFAULT_FIELDS, EXTENDED_FIELDS, Field};
use flowlog_model::flow_log::{
    CaptureWindow, Description, FlowLog, FlowLogName, ResourceType, Status, TrafficType,
};
use flowlog_model::format::Format;
use flowlog_model::input::{Document, InputError, Table};
use flowlog_model::managed::IpVersion;
use flowlog_model::managed::{Logstore, Project};
use flowlog_model::spelled_enum;
use flowlog_model::text::{Id, Text, allowed_spellings};
use serde::Deserialize;
use toml::Spanned;

use super::values::{AbsolutePath, Size};
use super::{Destination, FlowLogConfig, LogstoreDestination, MAX_FLOW_LOGS};

/// Size of a file of a flow log, in bytes, unless the configuration says otherwise: 100 MiB.
pub(super) const DEFAULT_MAX_SIZE_BYTES: u64 = 100 << 20;

/// Files of a rotated file unless the configuration says otherwise, and at most.
pub(super) const FILES_OF_A_FILE: (u16, u64) = (10, 1000);

/// Files of a folder unless the configuration says otherwise, and at most.
const FILES_OF_A_FOLDER: (u32, u64) = (10_000, 1_000_000);

/// Types of destinations as errors spell them.
const FILE_OR_FOLDER: &str = "type = \"file\" and type = \"folder\"";
const LOG_SERVICE: &str = "type = \"log-service\"";

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawFlowLog {
    name: Spanned<FlowLogName>,
    resource_type: ResourceType,
    resource_id: Id,
    traffic_type: Option<TrafficType>,
    #[serde(default)]
    window: CaptureWindow,
    status: Option<Status>,
    description: Option<Description>,
    #[serde(default)]
    format: FormatKind,
    template: Option<Spanned<String>>,
    fields: Option<Spanned<Vec<Spanned<String>>>>,
    destination: Spanned<Table<RawDestination>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawDestination {
    r#type: DestinationType,
    pub(super) path: Option<Spanned<AbsolutePath>>,
    /// 1 KiB to 1 TiB.
    max_size: Option<Spanned<Size<0x400, 0x100_0000_0000>>>,
    max_files: Option<Spanned<toml::Value>>,
    endpoint: Option<Spanned<ServiceUrl>>,
    project: Option<Spanned<Project>>,
    logstore: Option<Spanned<Logstore>>,
    access_key_file: Option<Spanned<AbsolutePath>>,
    ca_file: Option<Spanned<AbsolutePath>>,
}

spelled_enum! {
    #[derive(Default)]
    pub(super) enum FormatKind {
        #[default]
        Text = "text",
        Json = "json",
    }
}

spelled_enum! {
    enum DestinationType {
        Stdout = "stdout",
        File = "file",
        Folder = "folder",
        LogService = "log-service",
    }
}

/// Checks each flow log, and that they get on with each other.
pub(super) fn check(
    raw_flow_logs: Vec<Spanned<Table<RawFlowLog>>>,
    document: &Document<'_>,
) -> Result<Vec<FlowLogConfig>, InputError> {
    if let Some(beyond) = raw_flow_logs.get(MAX_FLOW_LOGS) {
        return Err(document.refuse(
            &beyond.span(),
            format_args!("allowed are {MAX_FLOW_LOGS} flow logs in all"),
        ));
    }
    let mut names = HashMap::new();
    let mut taken = Vec::new();
    let mut flow_logs = Vec::with_capacity(raw_flow_logs.len());
    for raw in raw_flow_logs {
        let Table(raw) = raw.into_inner();
        let name_span = raw.name.span();
        let line = document.line(&name_span);
        if let Some(earlier) = names.insert(raw.name.get_ref().clone(), line) {
            let clause = format_args!(
                "allowed is one flow log of a name, and line {earlier} has this one already"
            );
            return Err(document.refuse(&name_span, clause));
        }
        let Table(destination) = raw.destination.get_ref();
        if let Some(path) = &destination.path {
            let is_folder = destination.r#type == DestinationType::Folder;
            check_path(path, is_folder, &mut taken, document)?;
        }
        flow_logs.push(raw.check(document)?);
    }
    Ok(flow_logs)
}

/// A file or folder that a flow log writes to.
struct Taken {
    path: PathBuf,
    is_folder: bool,
    line: usize,
}

/// Refuses a file or folder that would get in the way of an earlier flow log's.
fn check_path(
    path: &Spanned<AbsolutePath>,
    is_folder: bool,
    taken: &mut Vec<Taken>,
    document: &Document<'_>,
) -> Result<(), InputError> {
    let own = Taken {
        path: path.get_ref().0.clone(),
        is_folder,
        line: document.line(&path.span()),
    };
    if let Some(earlier) = taken.iter().find(|earlier| own.collides(earlier)) {
        let clause = format_args!(
            "allowed is a file or folder of its own for each flow log, and that of line {} is in its way",
            earlier.line
        );
        return Err(document.refuse(&path.span(), clause));
    }
    taken.push(own);
    Ok(())
}

impl Taken {
    /// Whether two flow logs would get in each other's way: by one path, by a file that is the other's rotated one, such as
    /// `all.log.1`, or by a file in the other's folder.
    fn collides(&self, other: &Self) -> bool {
        let is_in = |one: &Self, other: &Self| {
            other.is_folder && !one.is_folder && one.path.parent() == Some(&other.path)
        };
        let is_rotated = |one: &Self, of: &Self| {
            let extension = one
                .path
                .extension()
                .and_then(|extension| extension.to_str())
                .unwrap_or_default();
            !of.is_folder
                && one.path.with_extension("") == of.path
                && extension.starts_with(|first: char| first.is_ascii_digit())
        };
        let in_the_way = |one, other| is_in(one, other) || is_rotated(one, other);
        self.path == other.path || in_the_way(self, other) || in_the_way(other, self)
    }
}

impl RawFlowLog {
    fn check(self, document: &Document<'_>) -> Result<FlowLogConfig, InputError> {
        let format = format(
            self.format,
            self.template.as_ref(),
            self.fields.as_ref(),
            document,
        )?;
        let destination_span = self.destination.span();
        let destination = self
            .destination
            .into_inner()
            .0
            .check(&destination_span, document)?;
        let flow_log = FlowLog {
            name: self.name.into_inner(),
            resource_type: self.resource_type,
            resource_id: self.resource_id,
            traffic_type: self.traffic_type.unwrap_or(TrafficType::All),
            window: self.window,
            status: self.status.unwrap_or(Status::Active),
            description: self.description,
            account_id: None,
            region: None,
            ip_version: IpVersion::DualStack,
        };
        Ok(FlowLogConfig {
            flow_log,
            format,
            destination,
        })
    }
}

fn format(
    kind: FormatKind,
    template: Option<&Spanned<String>>,
    fields: Option<&Spanned<Vec<Spanned<String>>>>,
    document: &Document<'_>,
) -> Result<Format, InputError> {
    if let Some(template) = template {
        if kind == FormatKind::Json {
            return Err(document.refuse(
                &template.span(),
                "a template is allowed with format = \"text\" alone",
            ));
        }
        if let Some(fields) = fields {
            return Err(document.refuse(
                &fields.span(),
                "allowed is either fields or a template, which names its fields itself",
            ));
        }
        return Format::template(template.get_ref())
            .map_err(|error| document.refuse(&template.span(), error));
    }
    let mut all = DEFAULT_FIELDS.to_vec();
    for name in fields
        .map(|fields| fields.get_ref().as_slice())
        .unwrap_or_default()
    {
        let extended =
            Field::from_text(name.get_ref()).filter(|field| EXTENDED_FIELDS.contains(field));
        let Some(field) = extended else {
            let allowed = allowed_spellings(EXTENDED_FIELDS.map(Field::as_str));
            return Err(document.refuse(
                &name.span(),
                format_args!("{allowed}, for the default fields are there anyway"),
            ));
        };
        if all.contains(&field) {
            return Err(document.refuse(&name.span(), "allowed is each field once"));
        }
        all.push(field);
    }
    Ok(match kind {
        FormatKind::Text => Format::text(&all),
        FormatKind::Json => Format::json(&all),
    })
}

impl RawDestination {
    pub(super) fn check(
        self,
        span: &Range<usize>,
        document: &Document<'_>,
    ) -> Result<Destination, InputError> {
        self.check_keys(document)?;
        if self.r#type == DestinationType::LogService {
            return self.logstore(span, document).map(Destination::LogService);
        }
        let Self {
            r#type,
            path,
            max_size,
            max_files,
            ..
        } = self;
        if r#type == DestinationType::Stdout {
            return Ok(Destination::Stdout);
        }
        let path = path.ok_or_else(|| {
            let clause = format_args!("a destination with type = \"{type}\" needs it");
            document.missing(span, "path", clause)
        })?;
        let path = path.into_inner().0;
        Ok(if r#type == DestinationType::Folder {
            Destination::Folder {
                path,
                max_files: files(max_files.as_ref(), FILES_OF_A_FOLDER, document)?,
            }
        } else {
            Destination::File {
                path,
                max_size_bytes: max_size
                    .map_or(DEFAULT_MAX_SIZE_BYTES, |size| size.into_inner().bytes()),
                max_files: files(max_files.as_ref(), FILES_OF_A_FILE, document)?,
            }
        })
    }
}

impl RawDestination {
    /// Whether it is a Log Service, and nothing more is said of it.
    pub(super) fn is_log_service_alone(&self) -> bool {
        let Self {
            r#type,
            endpoint,
            project,
            logstore,
            access_key_file,
            ca_file,
            path,
            max_size,
            max_files,
        } = self;
        *r#type == DestinationType::LogService
            && endpoint.is_none()
            && (project.is_none() && logstore.is_none())
            && (access_key_file.is_none() && ca_file.is_none())
            && (path.is_none() && max_size.is_none() && max_files.is_none())
    }

    /// Refuses a key of another type's.
    fn check_keys(&self, document: &Document<'_>) -> Result<(), InputError> {
        use DestinationType::{File, Folder, LogService};
        fn span<T>(value: &Option<Spanned<T>>) -> Option<Range<usize>> {
            value.as_ref().map(Spanned::span)
        }
        let keys: [(_, &[DestinationType], _); 8] = [
            (span(&self.path), &[File, Folder], FILE_OR_FOLDER),
            (span(&self.max_size), &[File], "type = \"file\""),
            (span(&self.max_files), &[File, Folder], FILE_OR_FOLDER),
            (span(&self.endpoint), &[LogService], LOG_SERVICE),
            (span(&self.project), &[LogService], LOG_SERVICE),
            (span(&self.logstore), &[LogService], LOG_SERVICE),
            (span(&self.access_key_file), &[LogService], LOG_SERVICE),
            (span(&self.ca_file), &[LogService], LOG_SERVICE),
        ];
        for (span, types, spelled) in keys {
            if let Some(span) = span
                && !types.contains(&self.r#type)
            {
                let clause = format_args!("it is allowed with {spelled} alone");
                return Err(document.refuse(&span, clause));
            }
        }
        Ok(())
    }

    fn logstore(
        self,
        span: &Range<usize>,
        document: &Document<'_>,
    ) -> Result<LogstoreDestination, InputError> {
        fn needed<T>(
            value: Option<Spanned<T>>,
            key: &str,
            span: &Range<usize>,
            document: &Document<'_>,
        ) -> Result<T, InputError> {
            let clause = format_args!("a destination with {LOG_SERVICE} needs it");
            value
                .map(Spanned::into_inner)
                .ok_or_else(|| document.missing(span, key, clause))
        }
        Ok(LogstoreDestination {
            endpoint: needed(self.endpoint, "endpoint", span, document)?,
            project: needed(self.project, "project", span, document)?,
            logstore: needed(self.logstore, "logstore", span, document)?,
            access_key_file: needed(self.access_key_file, "access-key-file", span, document)?.0,
            ca_file: self.ca_file.map(|path| path.into_inner().0),
        })
    }
}

/// A number of files from 2 to `max`, which fits in `N`.
fn files<N: TryFrom<i64>>(
    value: Option<&Spanned<toml::Value>>,
    (default, max): (N, u64),
    document: &Document<'_>,
) -> Result<N, InputError> {
    let Some(value) = value else {
        return Ok(default);
    };
    value
        .get_ref()
        .as_integer()
        .filter(|number| (2..=max).contains(&number.cast_unsigned()))
        .and_then(|number| N::try_from(number).ok())
        .ok_or_else(|| {
            let clause = format_args!("allowed are whole numbers from 2 to {max}");
            document.refuse(&value.span(), clause)
        })
}
