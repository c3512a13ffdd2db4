//! `flowlog project …`.
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::CliError;
use super::output::{OutputForm, or_dash, print, table};
use super::session::{LogRequest, Session};

/// Entries that are asked for at a time.
const PAGE: usize = 500;
/// The most that are listed.
const MAX_LISTED: usize = 100_000;

#[derive(Debug, clap::Args)]
pub(super) struct ProjectOptions {
    #[command(subcommand)]
    command: ProjectCommand,
}

/// What is done with projects.
#[derive(Debug, Subcommand)]
enum ProjectCommand {
    /// Create a project, in which logstores can be created.
    Create(CreateOptions),
    /// List the account's projects, by name.
    List,
    /// Show all that is known of a project.
    Show(OneOptions),
    /// Delete a project, with its logstores and all logs in them.
    Delete(DeleteOptions),
}

#[derive(Debug, clap::Args)]
struct CreateOptions {
    /// Name: 3 to 63 of a-z, 0-9 and `-`, with a letter or digit at both ends.
    #[arg(value_name = "PROJECT")]
    name: String,
    /// What it is for.
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
}

#[derive(Debug, clap::Args)]
struct OneOptions {
    /// The project.
    #[arg(value_name = "PROJECT")]
    name: String,
}

#[derive(Debug, clap::Args)]
struct DeleteOptions {
    /// The project.
    #[arg(value_name = "PROJECT")]
    name: String,
    /// Delete also if there are logstores in it.
    #[arg(long)]
    with_logstores: bool,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Project {
    project_name: String,
    description: String,
    region: String,
    owner: String,
    create_time: String,
    last_modify_time: String,
}

#[derive(Debug, Deserialize)]
struct Projects {
    total: usize,
    projects: Vec<Project>,
}

/// Does it.
pub(super) fn run(
    session: &Session,
    options: &ProjectOptions,
    form: OutputForm,
) -> Result<(), CliError> {
    match &options.command {
        ProjectCommand::Create(CreateOptions { name, description }) => {
            let body = json!({ "projectName": name, "description": description });
            session.log_done(&LogRequest::new("POST", Some(name), "/").with_body(&body))?;
            let created = json!({ "project": name });
            print(form, &created, || {
                vec![format!("The project {name} is there.")]
            });
        }
        ProjectCommand::List => {
            let projects = list(session)?;
            print(form, &projects, || lines(&projects));
        }
        ProjectCommand::Show(OneOptions { name }) => {
            let project: Project = session.log(&LogRequest::new("GET", Some(name), "/"))?;
            print(form, &project, || lines(std::slice::from_ref(&project)));
        }
        ProjectCommand::Delete(DeleteOptions {
            name,
            with_logstores,
        }) => {
            let logstores = super::logstore::names(session, name)?;
            if !*with_logstores && !logstores.is_empty() {
                return Err(CliError::NotEmpty {
                    project: name.clone(),
                    logstores: logstores.len(),
                });
            }
            session.log_done(&LogRequest::new("DELETE", Some(name), "/"))?;
            let deleted = json!({ "project": name });
            print(form, &deleted, || {
                vec![format!("The project {name} is deleted.")]
            });
        }
    }
    Ok(())
}

fn list(session: &Session) -> Result<Vec<Project>, CliError> {
    let mut listed = Vec::new();
    loop {
        let request = LogRequest::new("GET", None, "/").with_page(listed.len(), PAGE);
        let Projects { total, projects } = session.log(&request)?;
        let is_last = projects.is_empty() || listed.len() + projects.len() >= total.min(MAX_LISTED);
        listed.extend(projects);
        if is_last {
            return Ok(listed);
        }
    }
}

fn lines(projects: &[Project]) -> Vec<String> {
    let mut table = table(["PROJECT", "ACCOUNT", "CREATED", "DESCRIPTION"]);
    for project in projects {
        table.add_row([
            project.project_name.clone(),
            project.owner.clone(),
            project.create_time.clone(),
            or_dash(&project.description),
        ]);
    }
    table.lines().collect()
}
