//! `flowlog logstore …`.
use clap::Subcommand;
use flowlog_client::ClientError;
use flowlog_model::field::Field;
use flowlog_model::signature::encoding::encode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::CliError;
use super::output::{OutputForm, facts, print, print_lines};
use super::session::{LogRequest, Session};
use crate::log_service::catalogue::FOR_EVER_DAYS;

/// Names that are asked for at a time.
const PAGE: usize = 500;
/// The most that are listed.
const MAX_LISTED: usize = 100_000;
/// The Log Service's code for a logstore that is not searched.
const NO_INDEX: &str = "IndexConfigNotExist";

#[derive(Debug, clap::Args)]
pub(super) struct LogstoreOptions {
    #[command(subcommand)]
    command: LogstoreCommand,
}

/// What is done with logstores.
#[derive(Debug, Subcommand)]
enum LogstoreCommand {
    /// Create a logstore, to which flow logs can deliver.
    Create(CreateOptions),
    /// List the names of a project's logstores.
    List(ListOptions),
    /// Show all that is known of a logstore.
    Show(OneOptions),
    /// Change how long a logstore keeps its logs, and whether it is searched.
    Modify(ModifyOptions),
    /// Delete a logstore and all logs in it.
    Delete(OneOptions),
}

#[derive(Debug, clap::Args)]
struct Named {
    /// The project.
    #[arg(long, value_name = "PROJECT")]
    project: String,
    /// The logstore.
    #[arg(value_name = "LOGSTORE")]
    name: String,
}

#[derive(Debug, clap::Args)]
struct CreateOptions {
    #[command(flatten)]
    named: Named,
    /// How many days logs are kept for, from 1 to 3650; 3650 is for ever.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    ttl: u32,
    /// Without an index: logs are kept and pulled, but not searched.
    #[arg(long)]
    no_index: bool,
}

#[derive(Debug, clap::Args)]
struct ModifyOptions {
    #[command(flatten)]
    named: Named,
    /// How many days logs are kept for, from 1 to 3650; 3650 is for ever.
    #[arg(long, value_name = "DAYS")]
    ttl: Option<u32>,
    /// Whether the logstore is searched.
    #[arg(long, value_name = "ON|OFF")]
    index: Option<Switch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

#[derive(Debug, clap::Args)]
struct ListOptions {
    /// The project.
    #[arg(long, value_name = "PROJECT")]
    project: String,
}

#[derive(Debug, clap::Args)]
struct OneOptions {
    #[command(flatten)]
    named: Named,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Logstore {
    logstore_name: String,
    ttl: u32,
    create_time: i64,
    last_modify_time: i64,
}

/// A logstore as programs are told of it.
#[derive(Debug, Serialize)]
struct Shown {
    project: String,
    logstore: String,
    ttl_days: u32,
    index: bool,
    /// Unix seconds.
    created_at: i64,
    /// Unix seconds.
    changed_at: i64,
}

#[derive(Debug, Deserialize)]
struct Logstores {
    total: usize,
    logstores: Vec<String>,
}

/// Does it.
pub(super) fn run(
    session: &Session,
    options: &LogstoreOptions,
    form: OutputForm,
) -> Result<(), CliError> {
    match &options.command {
        LogstoreCommand::Create(options) => create(session, options, form),
        LogstoreCommand::List(ListOptions { project }) => {
            let names = names(session, project)?;
            print(form, &names, || names.clone());
            Ok(())
        }
        LogstoreCommand::Show(OneOptions { named }) => show(session, named, form),
        LogstoreCommand::Modify(options) => modify(session, options, form),
        LogstoreCommand::Delete(OneOptions { named }) => {
            session.log_done(&request("DELETE", named, &path(named)))?;
            let Named { project, name } = named;
            let deleted = json!({ "project": project, "logstore": name });
            print(form, &deleted, || {
                vec![format!("The logstore {name} of {project} is deleted.")]
            });
            Ok(())
        }
    }
}

/// The names of a project's logstores.
pub(super) fn names(session: &Session, project: &str) -> Result<Vec<String>, CliError> {
    let mut names = Vec::new();
    loop {
        let request =
            LogRequest::new("GET", Some(project), "/logstores").with_page(names.len(), PAGE);
        let Logstores { total, logstores } = session.log(&request)?;
        let is_last =
            logstores.is_empty() || names.len() + logstores.len() >= total.min(MAX_LISTED);
        names.extend(logstores);
        if is_last {
            return Ok(names);
        }
    }
}

fn path(named: &Named) -> String {
    format!("/logstores/{}", encode(&named.name))
}

fn index_path(named: &Named) -> String {
    format!("{}/index", path(named))
}

fn request<'r>(method: &'r str, named: &'r Named, path: &str) -> LogRequest<'r> {
    LogRequest::new(method, Some(&named.project), path)
}

fn create(session: &Session, options: &CreateOptions, form: OutputForm) -> Result<(), CliError> {
    let named = &options.named;
    let body = json!({ "logstoreName": named.name, "ttl": options.ttl, "shardCount": 1 });
    session.log_done(&request("POST", named, "/logstores").with_body(&body))?;
    if !options.no_index {
        set_index(session, named, Switch::On)?;
    }
    show(session, named, form)
}

fn modify(session: &Session, options: &ModifyOptions, form: OutputForm) -> Result<(), CliError> {
    let named = &options.named;
    if let Some(ttl) = options.ttl {
        let body = json!({ "logstoreName": named.name, "ttl": ttl });
        session.log_done(&request("PUT", named, &path(named)).with_body(&body))?;
    }
    if let Some(switch) = options.index
        && has_index(session, named)? != (switch == Switch::On)
    {
        set_index(session, named, switch)?;
    }
    show(session, named, form)
}

fn set_index(session: &Session, named: &Named, switch: Switch) -> Result<(), CliError> {
    let path = index_path(named);
    match switch {
        Switch::On => session.log_done(&request("POST", named, &path).with_body(&index()))?,
        Switch::Off => session.log_done(&request("DELETE", named, &path))?,
    }
    Ok(())
}

/// An index of all fields of a record.
fn index() -> Value {
    let key = |field: &Field| {
        let kind = if field.is_number() { "long" } else { "text" };
        (
            field.as_str().to_owned(),
            json!({ "type": kind, "doc_value": true }),
        )
    };
    let keys: Map<String, Value> = Field::ALL.iter().map(key).collect();
    json!({ "line": {}, "keys": keys })
}

fn has_index(session: &Session, named: &Named) -> Result<bool, CliError> {
    match session.log::<Value>(&request("GET", named, &index_path(named))) {
        Ok(_) => Ok(true),
        Err(ClientError::Refused { code, .. }) if code == NO_INDEX => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn show(session: &Session, named: &Named, form: OutputForm) -> Result<(), CliError> {
    let found: Logstore = session.log(&request("GET", named, &path(named)))?;
    let shown = Shown {
        project: named.project.clone(),
        logstore: found.logstore_name,
        ttl_days: found.ttl,
        index: has_index(session, named)?,
        created_at: found.create_time,
        changed_at: found.last_modify_time,
    };
    if form == OutputForm::Table {
        let retention = match shown.ttl_days {
            FOR_EVER_DAYS.. => "for ever".to_owned(),
            1 => "1 day".to_owned(),
            days => format!("{days} days"),
        };
        let index = if shown.index { "on" } else { "off" };
        let table = facts([
            ("project", shown.project),
            ("logstore", shown.logstore),
            ("kept for", retention),
            ("index", index.to_owned()),
            ("created", date(shown.created_at)),
            ("changed", date(shown.changed_at)),
        ]);
        print_lines(table.lines());
    } else {
        print(form, &shown, Vec::<String>::new);
    }
    Ok(())
}

fn date(seconds: i64) -> String {
    crate::serve::moment::Moment(seconds.saturating_mul(1000)).rfc3339()
}
