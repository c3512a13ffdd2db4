//! The command line.
use std::{
    io::{self, IsTerminal as _},
    num::NonZeroU64,
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    agent::{self, AgentError, RunOptions},
    check, interfaces,
    output::{OutputForm, OutputOptions},
    policy::{self, PolicyCommand},
    report::ReportForm,
    status::{self, StatusOptions},
};

/// `EX_USAGE` of sysexits.h: the configuration or the inventory is to be mended.
pub(crate) const EXIT_CONFIGURATION: u8 = 64;

/// Exact VPC flow log records from every elastic network interface of this host.
#[derive(Debug, Parser)]
#[command(name = "flowlog-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Capture, until SIGTERM or Ctrl-C; SIGHUP reads inventory and flow logs again.
    ///
    /// Exit code 64 means that the configuration or the inventory is to be mended.
    Run(RunArguments),
    /// Tell whether this kernel and this configuration will do, and what each missing thing costs.
    ///
    /// What can be tried is tried: maps, programs, counting a packet, every hook, in a network namespace made for it. Nothing is left
    /// behind, and a running agent is not disturbed. Needs root. Exit code 0: the agent works here; 1: it does not; 64: the
    /// configuration or the inventory is to be mended.
    Check(ReportArguments),
    /// List network devices: which ENI each is, what is attached to it and in which order, and why one is not captured.
    ///
    /// Shows the devices of the host and of the network namespaces that the inventory names, whether or not the agent is running.
    /// Without root, what is attached is not seen.
    Interfaces(ReportArguments),
    /// Ask the running agent how it stands: windows, flow logs, spool, losses, interfaces, and whether what was counted adds up.
    ///
    /// Needs root. Exit code 0: the agent has answered; 1: it has not, or, with --check, something is not well.
    Status(StatusArguments),
    /// Ask what security groups make of a packet, or of recorded flows, before they are changed.
    #[command(subcommand)]
    Policy(PolicyCommand),
}

#[derive(Debug, clap::Args)]
struct ReportArguments {
    /// The configuration; /etc/flowlog/agent.toml if there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Form of the report.
    #[arg(long, value_enum, default_value_t)]
    output: ReportForm,
}

#[derive(Debug, clap::Args)]
struct StatusArguments {
    /// The configuration, which names the socket; /etc/flowlog/agent.toml if there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The agent's socket, whatever the configuration says.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Form of the report.
    #[arg(long, value_enum, default_value_t)]
    output: ReportForm,
    /// Fail, with exit code 1, if a destination does not take its records, an ENI is not captured, or the records do not add up.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, clap::Args)]
struct RunArguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/flowlog/agent.toml")]
    config: PathBuf,
    /// End after this many windows.
    #[arg(long, value_name = "N")]
    windows: Option<u64>,
    /// Length of all windows, whatever the flow logs say: as 5s, 1m or 10m.
    #[arg(long, value_name = "LENGTH", value_parser = parse_window)]
    window: Option<NonZeroU64>,
    /// Write the records of all flow logs that go to no Log Service to standard output, in this form.
    #[arg(long, value_enum)]
    output: Option<OutputForm>,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    abort_on_panic();
    let cli = Cli::parse();
    // What a report is about is in the report.
    start_tracing(match cli.command {
        Command::Run(_) => "info",
        Command::Check(_) | Command::Interfaces(_) | Command::Status(_) | Command::Policy(_) => {
            "error"
        }
    });
    let result = match cli.command {
        Command::Run(arguments) => run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Check(ReportArguments { config, output }) => {
            return check::run(config.as_deref(), output);
        }
        Command::Interfaces(ReportArguments { config, output }) => {
            interfaces::run(config.as_deref(), output).map(|()| ExitCode::SUCCESS)
        }
        Command::Status(arguments) => status::run(&StatusOptions {
            config: arguments.config.as_deref(),
            socket: arguments.socket.as_deref(),
            form: arguments.output,
            check: arguments.check,
        }),
        Command::Policy(command) => return policy::run(&command),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("flowlog-agent: {error}");
            if error.is_configuration() {
                ExitCode::from(EXIT_CONFIGURATION)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn run(arguments: &RunArguments) -> Result<(), AgentError> {
    let options = RunOptions {
        windows: arguments.windows,
        output: OutputOptions {
            form: arguments.output,
            window_seconds: arguments.window,
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| AgentError::System {
            what: "start the runtime",
            source,
        })?;
    let result = runtime.block_on(agent::run(&arguments.config, &options));
    // A compaction of the spool may take minutes, and is of no use any more.
    runtime.shutdown_background();
    result
}

/// Has a panic end the process, whichever thread it is in: what it leaves half done is taken up by the next start.
fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |what| {
        tell(what);
        std::process::abort();
    }));
}

/// Logs go to standard error: standard output is the records'.
fn start_tracing(default_level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FLOWLOG_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default_level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}

fn parse_window(text: &str) -> Result<NonZeroU64, String> {
    const LONGEST_SECONDS: u64 = 3600;
    let allowed = || {
        format!(
            "{text:?} is no window: allowed are whole seconds or minutes up to an hour, as 5s or 1m"
        )
    };
    let (number, unit) = match (text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(number), _) => (number, 1),
        (_, Some(number)) => (number, 60),
        _ => return Err(allowed()),
    };
    let seconds = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|seconds| *seconds <= LONGEST_SECONDS);
    seconds.and_then(NonZeroU64::new).ok_or_else(allowed)
}
