//! The command line.
//!
//! | module | what it holds |
//! |---|---|
//! | `session` | where the service is, whose access key is used, and requests to the REST face |
//! | `flow_log` | `flowlog create`, `list`, `show`, `enable`, `disable`, `modify`, `delete` |
//! | `wait` | waiting until a change has come to the agents |
//! | `access_key` | `flowlog access-key …` |
//! | `project`, `logstore` | `flowlog project …`, `flowlog logstore …` |
//! | `logs`, `follow`, `progress` | `flowlog query`, `tail` and `top` |
//! | `inspect` | `flowlog resources`, `agents`, `audit` |
//! | `output` | tables for people, JSON for programs |
//! | `generate` | `flowlog completions` and `flowlog man` |
mod access_key;
mod error;
mod flow_log;
mod follow;
mod generate;
mod inspect;
mod logs;
mod logstore;
mod output;
mod progress;
mod project;
mod session;
mod wait;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

use crate::serve;
use access_key::AccessKeyOptions;
use error::CliError;
use logstore::LogstoreOptions;
use output::OutputForm;
use project::ProjectOptions;
use session::{ConnectionOptions, Session};

/// Flow logs for your own Linux hosts: the service, and what manages it.
#[derive(Debug, Parser)]
#[command(name = "flowlog", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// A command that asks the service, and prints in one of the forms `F`.
#[derive(Debug, clap::Args)]
struct Asking<O, F = OutputForm>
where
    O: clap::Args,
    F: ValueEnum + Default + Send + Sync + 'static,
{
    #[command(flatten)]
    options: O,
    /// Form of what is printed.
    #[arg(long, global = true, value_enum, default_value_t)]
    output: F,
    #[command(flatten)]
    connection: ConnectionOptions,
}

/// No options of its own.
#[derive(Debug, clap::Args)]
struct Nothing {}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service, until SIGTERM or Ctrl-C.
    ///
    /// Exit code 64 means that the options or the configuration are to be mended.
    Serve(serve::ServeOptions),
    /// Copy the service's state to a file, also while it runs.
    Backup(serve::BackupOptions),
    /// Create a flow log of an ENI, a VSwitch or a VPC; it captures at once.
    Create(Asking<flow_log::CreateOptions>),
    /// List flow logs, the newest first.
    List(Asking<flow_log::ListOptions>),
    /// Show all that is known of a flow log.
    Show(Asking<flow_log::OneOptions>),
    /// Have a flow log capture again.
    Enable(Asking<flow_log::ChangeOptions>),
    /// Have a flow log capture no more; it is kept, and can be enabled again.
    Disable(Asking<flow_log::ChangeOptions>),
    /// Change a flow log's name, description, interval, IP version, format, tags or resource group.
    Modify(Asking<flow_log::ModifyOptions>),
    /// Delete a flow log; what it has captured stays where it is.
    Delete(Asking<flow_log::ChangeOptions>),
    /// Make, list and delete access keys.
    AccessKey(Asking<AccessKeyOptions>),
    /// Create, list, show and delete projects, in which logstores are.
    Project(Asking<ProjectOptions>),
    /// Create, list, show, change and delete logstores, in which records are kept.
    Logstore(Asking<LogstoreOptions>),
    /// Search a logstore, and sum up what is found.
    Query(Asking<logs::QueryOptions, logs::AnswerForm>),
    /// Follow a logstore: show new records as they come.
    Tail(Asking<logs::TailOptions, logs::RecordForm>),
    /// Show the heaviest talkers of the last windows, live.
    Top(Asking<logs::TopOptions, logs::AnswerForm>),
    /// List the VPCs, VSwitches and ENIs that agents have reported.
    Resources(Asking<Nothing>),
    /// List the agents that have reported.
    Agents(Asking<Nothing>),
    /// List the changes that were made, the newest first.
    Audit(Asking<inspect::AuditOptions>),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command, into a folder.
    Man {
        /// The folder; made if there is none.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(options) => return serve::main(&options),
        Command::Backup(options) => return serve::backup(&options),
        Command::Completions { shell } => {
            generate::completions(shell);
            Ok(())
        }
        Command::Man { folder } => generate::man(&folder),
        Command::Create(asking) => asking.run(flow_log::create),
        Command::List(asking) => asking.run(flow_log::list),
        Command::Show(asking) => asking.run(flow_log::show),
        Command::Enable(asking) => asking.run(flow_log::enable),
        Command::Disable(asking) => asking.run(flow_log::disable),
        Command::Modify(asking) => asking.run(flow_log::modify),
        Command::Delete(asking) => asking.run(flow_log::delete),
        Command::AccessKey(asking) => asking.run(access_key::run),
        Command::Project(asking) => asking.run(project::run),
        Command::Logstore(asking) => asking.run(logstore::run),
        Command::Query(asking) => asking.run(follow::query),
        Command::Tail(asking) => asking.run(follow::tail),
        Command::Top(asking) => asking.run(follow::top),
        Command::Resources(asking) => {
            asking.run(|session, _, form| inspect::resources(session, form))
        }
        Command::Agents(asking) => asking.run(|session, _, form| inspect::agents(session, form)),
        Command::Audit(asking) => asking.run(inspect::audit),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flowlog: {error}");
            ExitCode::FAILURE
        }
    }
}

impl<O, F> Asking<O, F>
where
    O: clap::Args,
    F: ValueEnum + Default + Send + Sync + 'static,
{
    fn run(
        self,
        command: impl FnOnce(&Session, &O, F) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let session = Session::open(&self.connection)?;
        command(&session, &self.options, self.output)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn command_lines_are_read() {
        for (line, is_right) in [
            ("serve --listen 127.0.0.1:0", true),
            ("serve --url http://a", false),
            ("create --vpc v --traffic drop --tag a=b --tag c=d", true),
            ("create --vpc v --eni e", false),
            ("create --traffic all", false),
            ("list --output json --url http://[::1]:8480", true),
            ("list --url 127.0.0.1", false),
            ("modify x", false),
            (
                "modify x --tag a=b --remove-tag c --resource-group rg-2",
                true,
            ),
            ("modify x --tag a", false),
            ("modify x --interval 3", false),
            ("modify x --interval 5 --ip-version IPv4", true),
            ("modify x --ip-version v4", false),
            ("list --status Running", false),
            ("list --status Active", true),
            ("list --tag a --tag b=c --resource-group rg-2", true),
            ("modify x --name y --timeout 5", true),
            ("delete x --timeout 0", false),
            ("access-key create --role agent --url https://a", true),
            ("access-key --output json list", true),
            ("access-key create --role owner", false),
            ("audit --limit 1001", false),
            ("project create p-1 --description d", true),
            ("project delete p-1 --with-logstores", true),
            ("logstore create --project p-1 s-1 --ttl 7 --no-index", true),
            ("logstore create s-1", false),
            ("logstore --output json list --project p-1", true),
            ("logstore modify --project p-1 s-1 --index off", true),
            ("query --project p-1 --logstore s-1 --last 1h *", true),
            ("query --output arrow --project p-1 --logstore s-1", true),
            ("tail --output csv --project p-1 --logstore s-1", false),
            ("top --project p-1 --logstore s-1 --by source --once", true),
            ("completions fish", true),
        ] {
            let words = std::iter::once("flowlog").chain(line.split(' '));
            let read = Cli::try_parse_from(words);
            assert_eq!(read.is_ok(), is_right, "{line}: {:?}", read.err());
        }
    }

    #[test]
    fn every_command_and_option_says_what_it_is() {
        fn check(command: &clap::Command) {
            assert!(
                command.get_about().is_some(),
                "{} says nothing",
                command.get_name()
            );
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {argument} says nothing",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
