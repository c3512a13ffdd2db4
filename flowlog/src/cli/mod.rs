//! The command line.
//!
//! | module | what it holds |
//! |---|---|
//! | `session` | where the service is, whose access key is used, and requests to the REST face |
//! | `flow_log` | `flowlog create`, `list`, `show`, `enable`, `disable`, `modify`, `delete` |
//! | `wait` | waiting until a change has come to the agents |
//! | `access_key` | `flowlog access-key …` |
//! | `inspect` | `flowlog resources`, `agents`, `audit` |
//! | `output` | tables for people, JSON for programs |
//! | `generate` | `flowlog completions` and `flowlog man` |
mod access_key;
mod error;
mod flow_log;
mod generate;
mod inspect;
mod output;
mod session;
mod wait;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::serve;
use access_key::AccessKeyCommand;
use error::CliError;
use output::OutputForm;
use session::{ConnectionOptions, Session};

/// Flow logs for your own Linux hosts: the service, and what manages it.
#[derive(Debug, Parser)]
#[command(name = "flowlog", version)]
struct Cli {
    #[command(flatten)]
    connection: ConnectionOptions,
    /// Form of what is printed.
    #[arg(long, global = true, value_enum, default_value_t)]
    output: OutputForm,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service, until SIGTERM or Ctrl-C.
    ///
    /// Exit code 64 means that the options or the configuration are to be mended.
    Serve(serve::ServeOptions),
    /// Copy the service's state to a file, also while it runs.
    Backup(serve::BackupOptions),
    /// Create a flow log of an ENI, a VSwitch or a VPC; it captures at once.
    Create(flow_log::CreateOptions),
    /// List flow logs, the newest first.
    List(flow_log::ListOptions),
    /// Show all that is known of a flow log.
    Show(flow_log::OneOptions),
    /// Have a flow log capture again.
    Enable(flow_log::ChangeOptions),
    /// Have a flow log capture no more; it is kept, and can be enabled again.
    Disable(flow_log::ChangeOptions),
    /// Change a flow log's name, description, interval, IP version or format.
    Modify(flow_log::ModifyOptions),
    /// Delete a flow log; what it has captured stays where it is.
    Delete(flow_log::ChangeOptions),
    /// Make, list and delete access keys.
    #[command(subcommand)]
    AccessKey(AccessKeyCommand),
    /// List the VPCs, VSwitches and ENIs that agents have reported.
    Resources,
    /// List the agents that have reported.
    Agents,
    /// List the changes that were made, the newest first.
    Audit(inspect::AuditOptions),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command, into a folder.
    Man {
        /// The folder; made if there is none.
        #[arg(value_name = "DIR")]
        folder: std::path::PathBuf,
    },
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Serve(options) => return serve::main(&options),
        Command::Backup(options) => return serve::backup(&options),
        _ => {}
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flowlog: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), CliError> {
    let Cli {
        connection,
        output,
        command,
    } = cli;
    let open = || Session::open(&connection);
    match command {
        Command::Create(options) => flow_log::create(&open()?, options, output),
        Command::List(options) => flow_log::list(&open()?, options, output),
        Command::Show(options) => flow_log::show(&open()?, &options, output),
        Command::Enable(options) => flow_log::enable(&open()?, &options, output),
        Command::Disable(options) => flow_log::disable(&open()?, &options, output),
        Command::Modify(options) => flow_log::modify(&open()?, options, output),
        Command::Delete(options) => flow_log::delete(&open()?, &options, output),
        Command::AccessKey(command) => access_key::run(&open()?, command, output),
        Command::Resources => inspect::resources(&open()?, output),
        Command::Agents => inspect::agents(&open()?, output),
        Command::Audit(options) => inspect::audit(&open()?, options, output),
        Command::Completions { shell } => {
            generate::completions(shell);
            Ok(())
        }
        Command::Man { folder } => generate::man(&folder),
        // They are not this program's to dispatch: see `main`.
        Command::Serve(_) | Command::Backup(_) => Ok(()),
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
