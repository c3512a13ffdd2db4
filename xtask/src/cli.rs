//! The command line of `cargo xtask`.

use std::{
    ffi::OsString,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Everything a developer of Flowlog runs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// One thing to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Find what this machine lacks to build, run and test Flowlog, and install it.
    Setup {
        /// Only say what would be installed.
        #[arg(long)]
        dry_run: bool,
    },
    /// Build everything.
    Build {
        /// Optimise (takes several times as long).
        #[arg(long)]
        release: bool,
    },
    /// Build the BPF programs alone, and print the path of the object file.
    Ebpf(Ebpf),
    /// Run the agent on a lab of its own and the service that keeps its records, and show them as tables until Ctrl-C.
    BuildAndRun(BuildAndRun),
    /// Run every test, also those on real interfaces.
    Test {
        /// Arguments for `cargo nextest run` (`cargo test` where nextest is not installed).
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Measure what DESIGN sets a budget for.
    Bench {
        /// Arguments for flowlog-bench.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the agent under traffic, kill and disturb it again and again, and count what is missing from its records.
    Soak {
        /// How long.
        #[arg(long, value_name = "N", default_value = "10")]
        minutes: NonZeroU32,
        /// What is drawn at random is drawn from this number, which an earlier run has told.
        #[arg(long, value_name = "NUMBER")]
        seed: Option<u64>,
    },
    /// Check format, lints, licences, and known vulnerabilities: what `.ci/run` does after the tests.
    #[command(visible_alias = "ci")]
    Lint,
}

/// Options of `cargo xtask ebpf`.
#[derive(Debug, Args)]
pub(crate) struct Ebpf {
    /// Cargo's target folder for it [default: target/ebpf].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) target_dir: Option<PathBuf>,
}

/// Options of `cargo xtask build-and-run`.
#[derive(Debug, Args)]
pub(crate) struct BuildAndRun {
    /// End after this many capture windows, instead of at Ctrl-C.
    #[arg(long, value_name = "N")]
    pub(crate) windows: Option<NonZeroU32>,
    /// Length of a capture window, such as 5s or 1m [default: 5s in the lab, otherwise what FILE says].
    #[arg(long, value_name = "DURATION", value_parser = window_length)]
    pub(crate) window: Option<String>,
    /// Form of the records.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Run on this machine's interfaces with this agent.toml, instead of in a lab.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// How records are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// One JSON object a line.
    Json,
    /// One record a line, in the default field order.
    Text,
    /// A table that follows the windows.
    Table,
}

impl BuildAndRun {
    /// The arguments for `flowlog-lab`, or for `flowlog-agent` itself when there is a configuration. `folder` has the programs.
    pub(crate) fn program_arguments(&self, folder: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = match &self.config {
            Some(config) => vec!["run".into(), "--config".into(), config.into()],
            None => vec![
                "demo".into(),
                "--agent".into(),
                folder.join("flowlog-agent").into(),
                "--flowlog".into(),
                folder.join("flowlog").into(),
            ],
        };
        if let Some(windows) = self.windows {
            arguments.extend(["--windows".into(), windows.to_string().into()]);
        }
        // The first records should come soon; a configuration's own window is left alone.
        let window = self
            .window
            .as_deref()
            .or(self.config.is_none().then_some("5s"));
        if let Some(window) = window {
            arguments.extend(["--window".into(), window.into()]);
        }
        let output = match self.output {
            Output::Json => "json",
            Output::Text => "text",
            Output::Table => "table",
        };
        arguments.extend(["--output".into(), output.into()]);
        arguments
    }
}

/// Checks a window's length here as the agent does, so that a slip is told before the build and not after it.
fn window_length(text: &str) -> Result<String, String> {
    const LONGEST_SECONDS: u64 = 3600;
    let seconds = |unit: char, seconds: u64| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(seconds)
    };
    match seconds('s', 1).or_else(|| seconds('m', 60)) {
        Some(1..=LONGEST_SECONDS) => Ok(text.to_owned()),
        _ => Err("allowed are whole seconds or minutes up to an hour, such as 5s or 1m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// The arguments that the program to be run is given.
    fn passed_on(line: &[&str]) -> Vec<String> {
        let cli = Cli::try_parse_from(["cargo xtask", "build-and-run"].iter().chain(line)).unwrap();
        let Task::BuildAndRun(options) = cli.task else {
            panic!("another task")
        };
        let arguments = options.program_arguments(Path::new("/t"));
        arguments
            .into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect()
    }

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lab_has_short_windows_and_a_table() {
        assert_eq!(
            passed_on(&[]),
            [
                "demo",
                "--agent",
                "/t/flowlog-agent",
                "--flowlog",
                "/t/flowlog",
                "--window",
                "5s",
                "--output",
                "table"
            ]
        );
        assert_eq!(
            passed_on(&["--windows", "2", "--window", "1m", "--output", "json"]),
            [
                "demo",
                "--agent",
                "/t/flowlog-agent",
                "--flowlog",
                "/t/flowlog",
                "--windows",
                "2",
                "--window",
                "1m",
                "--output",
                "json"
            ]
        );
    }

    #[test]
    fn configuration_keeps_its_own_window() {
        assert_eq!(
            passed_on(&["--config", "a.toml"]),
            ["run", "--config", "a.toml", "--output", "table"]
        );
    }

    #[test]
    fn bad_lengths_and_counts_are_refused_before_the_build() {
        for bad in [
            ["--window", "5"],
            ["--window", "0s"],
            ["--window", "5 s"],
            ["--window", "5d"],
            ["--window", "500ms"],
            ["--window", "1h"],
            ["--window", "61m"],
            ["--window", ""],
            ["--windows", "0"],
        ] {
            assert!(
                Cli::try_parse_from(["cargo xtask", "build-and-run"].iter().chain(&bad)).is_err(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn arguments_of_other_programs_pass_unchanged() {
        let cli =
            Cli::try_parse_from(["cargo xtask", "test", "--", "-p", "x", "--nocapture"]).unwrap();
        assert!(
            matches!(cli.task, Task::Test { arguments } if arguments == ["-p", "x", "--nocapture"])
        );
        let cli = Cli::try_parse_from(["cargo xtask", "bench", "--json", "out.json"]).unwrap();
        assert!(
            matches!(cli.task, Task::Bench { arguments } if arguments == ["--json", "out.json"])
        );
    }
}
