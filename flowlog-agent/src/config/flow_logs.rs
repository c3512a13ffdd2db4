//! The flow logs of a configuration.
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use flowlog_model::field::{DEFAULT_FIELDS, EXTENDED_FIELDS, Field};
use flowlog_model::flow_log::{
    CaptureWindow, Description, FlowLog, FlowLogName, ResourceType, Status, TrafficType,
};
use flowlog_model::format::Format;
use flowlog_model::input::{Document, InputError, Table};
use flowlog_model::spelled_enum;
use flowlog_model::text::{Id, Text, WholeNumber, allowed_spellings};
use serde::Deserialize;
use toml::Spanned;

use super::raw::narrow;
use super::values::{AbsolutePath, Size};
use super::{Destination, FlowLogConfig, MAX_FLOW_LOGS};

/// Size of a file of a flow log, in bytes, unless the configuration says otherwise: 100 MiB.
const DEFAULT_MAX_SIZE_BYTES: u64 = 100 << 20;

/// Files of a flow log unless the configuration says otherwise.
const DEFAULT_MAX_FILES: u16 = 10;

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
struct RawDestination {
    r#type: DestinationType,
    path: Option<Spanned<AbsolutePath>>,
    /// 1 KiB to 1 TiB.
    max_size: Option<Spanned<Size<0x400, 0x100_0000_0000>>>,
    max_files: Option<Spanned<WholeNumber<2, 1000>>>,
}

spelled_enum! {
    #[derive(Default)]
    enum FormatKind {
        #[default]
        Text = "text",
        Json = "json",
    }
}

spelled_enum! {
    enum DestinationType {
        Stdout = "stdout",
        File = "file",
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
    let mut files = Vec::new();
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
        if let Some(path) = &raw.destination.get_ref().0.path {
            check_file(path, &mut files, document)?;
        }
        flow_logs.push(raw.check(document)?);
    }
    Ok(flow_logs)
}

/// Refuses a file that an earlier flow log writes to, or into which it rotates.
fn check_file(
    path: &Spanned<AbsolutePath>,
    files: &mut Vec<(PathBuf, usize)>,
    document: &Document<'_>,
) -> Result<(), InputError> {
    let AbsolutePath(file) = path.get_ref();
    if let Some((_, earlier)) = files.iter().find(|(other, _)| collide(file, other)) {
        let clause = format_args!(
            "allowed is a file of its own for each flow log, and that of line {earlier} is in its way"
        );
        return Err(document.refuse(&path.span(), clause));
    }
    files.push((file.clone(), document.line(&path.span())));
    Ok(())
}

/// Whether two flow logs would get in each other's way: one file, or one the other's rotated file, such as `all.log.1`.
fn collide(one: &Path, other: &Path) -> bool {
    let is_rotated = |file: &Path, of: &Path| {
        let extension = file
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default();
        file.with_extension("") == of && extension.starts_with(|first: char| first.is_ascii_digit())
    };
    one == other || is_rotated(one, other) || is_rotated(other, one)
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
    fn check(
        self,
        span: &Range<usize>,
        document: &Document<'_>,
    ) -> Result<Destination, InputError> {
        let Self {
            r#type,
            path,
            max_size,
            max_files,
        } = self;
        if r#type == DestinationType::Stdout {
            let of_a_file = [
                path.map(|path| path.span()),
                max_size.map(|size| size.span()),
                max_files.map(|files| files.span()),
            ];
            return match of_a_file.into_iter().flatten().next() {
                Some(span) => {
                    Err(document.refuse(&span, "it is allowed with type = \"file\" alone"))
                }
                None => Ok(Destination::Stdout),
            };
        }
        let path = path.ok_or_else(|| {
            document.missing(span, "path", "a destination with type = \"file\" needs it")
        })?;
        Ok(Destination::File {
            path: path.into_inner().0,
            max_size_bytes: max_size
                .map_or(DEFAULT_MAX_SIZE_BYTES, |size| size.into_inner().bytes()),
            max_files: narrow(max_files.map(Spanned::into_inner), DEFAULT_MAX_FILES),
        })
    }
}
