//! `flowlog-agent policy`: what security groups make of a packet, and of recorded flows, asked before they are changed.
//!
//! Nothing here needs a running agent, root or the kernel.
mod replay;
mod verdict;

use std::{io, path::PathBuf, process::ExitCode};

use clap::Subcommand;
use flowlog_model::{
    record::Action,
    security_group::{DescribedPacket, Reason},
};
use thiserror::Error;

use crate::{agent::AgentError, cli::EXIT_CONFIGURATION, report::ReportForm};

/// A question about security groups.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Give the verdict on a described packet, the rule that decides, and the others that match.
    ///
    /// The packet is judged as the first of a session; what answers it passes, or does not, as it does.
    Test(TestArguments),
    /// List the recorded flows that the inventory's groups would reject and that were accepted, and the reverse.
    ///
    /// Records do not say who opened a session. Of flows in both directions with one 5-tuple, one is the reply and follows the other. Who
    /// opened it is told by an earlier capture window, by TCP's SYN where the records have tcp-flags, or by the ports; where none of
    /// them tells and it matters, the flows are listed apart. A flow whose other direction is not in the records is taken for what
    /// opened its session. Lines that are no records are counted and named, and passed over.
    Replay(ReplayArguments),
}

/// What `policy test` is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct TestArguments {
    /// The inventory with the groups.
    #[arg(long, value_name = "FILE")]
    inventory: PathBuf,
    /// The ENI that judges the packet; if not given, that which has the packet's own address.
    #[arg(long, value_name = "ID")]
    eni: Option<String>,
    /// A packet, as in "tcp 10.0.0.1:1234 > 10.0.0.2:80 in" or "icmpv6 fd00::1 > fd00::2 out"; can be given several times.
    #[arg(long = "packet", value_name = "PACKET", required = true)]
    packets: Vec<DescribedPacket>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    output: ReportForm,
}

/// What `policy replay` is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArguments {
    /// The inventory with the new groups.
    #[arg(long, value_name = "NEW")]
    inventory: PathBuf,
    /// Recorded flow logs, as JSON lines or as text with the default fields; - for standard input.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    records: Vec<PathBuf>,
    /// Flows to list of each kind, those with the most packets first; all of them are counted.
    #[arg(long, value_name = "N", default_value_t = 100)]
    rows: usize,
    /// Form of the report.
    #[arg(long, value_enum, default_value_t)]
    output: ReportForm,
}

/// Why there is no answer.
#[derive(Debug, Error)]
enum PolicyError {
    /// The inventory.
    #[error(transparent)]
    Inventory(#[from] AgentError),
    /// No such ENI.
    #[error("{} has no ENI {eni_id}: allowed are its eni-ids", .inventory.display())]
    UnknownEni { inventory: PathBuf, eni_id: String },
    /// The packet's own address is not that of exactly one ENI.
    #[error(
        "{address}, the packet's own address, is that of {count} ENIs of {}: name the ENI by --eni",
        .inventory.display()
    )]
    NotOneEni {
        inventory: PathBuf,
        address: std::net::IpAddr,
        count: usize,
    },
    /// Records.
    #[error("{file} cannot be read: {source}")]
    Records { file: String, source: io::Error },
}

/// Answers, and gives the exit code: 0 for an answer, whatever it is, 64 for a bad inventory.
pub(crate) fn run(command: &PolicyCommand) -> ExitCode {
    let result = match command {
        PolicyCommand::Test(arguments) => verdict::run(arguments),
        PolicyCommand::Replay(arguments) => replay::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flowlog-agent: {error}");
            match error {
                PolicyError::Inventory(_)
                | PolicyError::UnknownEni { .. }
                | PolicyError::NotOneEni { .. } => ExitCode::from(EXIT_CONFIGURATION),
                PolicyError::Records { .. } => ExitCode::FAILURE,
            }
        }
    }
}

/// Why, in words.
fn why(action: Action, reason: &Reason) -> String {
    match (reason, action) {
        (Reason::Rule(rule), _) => rule.rule.to_string(),
        (Reason::NoGroup, _) => "the ENI is in no group".to_owned(),
        (Reason::InnerAccess, Action::Accept) => {
            "both are members of a group whose inner access policy is accept".to_owned()
        }
        (Reason::InnerAccess, Action::Reject) => {
            "both are members of a group whose inner access policy is drop, and no rule matches"
                .to_owned()
        }
        (Reason::Default, Action::Accept) => {
            "no rule matches, and a basic group accepts what goes out".to_owned()
        }
        (Reason::Default, Action::Reject) => "no rule matches".to_owned(),
    }
}
