//! The commands that build the project and run what was built.

use std::{
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;

use crate::{
    cli::{BuildAndRun, Ebpf},
    process::{become_program, is_root, on_path, output, run, say, step},
    setup::{Purpose, setup},
    toolchain::Toolchain,
};

/// A cargo profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    /// Quick to compile.
    Dev,
    /// Optimised.
    Release,
}

/// `cargo xtask build`: the whole workspace.
///
/// # Errors
///
/// When something that it needs cannot be installed, or when it does not compile.
pub(crate) fn build(root: &Path, release: bool) -> Result<()> {
    setup(root, Purpose::Build, false)?;
    let profile = if release {
        Profile::Release
    } else {
        Profile::Dev
    };
    step("build", || {
        run(cargo_build(root, profile).arg("--workspace"))
    })
}

/// `cargo xtask ebpf`: the BPF programs alone. The path of the object file goes to standard output.
///
/// # Errors
///
/// When something that it needs cannot be installed, or when it does not compile.
pub(crate) fn ebpf(root: &Path, options: &Ebpf) -> Result<()> {
    setup(root, Purpose::Build, false)?;
    let toolchain = Toolchain::find(root).map_err(|error| anyhow!(error))?;
    let folder = options
        .target_dir
        .clone()
        .unwrap_or_else(|| root.join("target/ebpf"));
    let folder = std::path::absolute(&folder)
        .with_context(|| format!("cannot find {}", folder.display()))?;
    println!(
        "{}",
        toolchain
            .build(root, &folder, "flowlog-ebpf")
            .map_err(|error| anyhow!(error))?
            .display()
    );
    Ok(())
}

/// `cargo xtask test`: every test, of the workspace or as the arguments for nextest (or `cargo test`) choose.
///
/// # Errors
///
/// When not run by root, when something that it needs cannot be installed, or when a test fails.
pub(crate) fn test(root: &Path, arguments: &[String]) -> Result<()> {
    need_root("the tests make network namespaces and load BPF programs")?;
    setup(root, Purpose::Test, false)?;
    let has_nextest = on_path("cargo-nextest").is_some();
    let skips = empty_skips_file(root)?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root).env(SKIPS_VARIABLE, &skips);
    cargo.args(if has_nextest {
        &["nextest", "run"][..]
    } else {
        &["test"]
    });
    if !arguments
        .iter()
        .any(|argument| argument == "-p" || argument.starts_with("--package"))
    {
        cargo.arg("--workspace");
    }
    let tested = step("tests", || run(cargo.args(arguments)));
    report_skips(&skips);
    tested?;
    // Nextest leaves the examples in the documentation out; `cargo test` has run them.
    if has_nextest && arguments.is_empty() {
        let mut doc = Command::new("cargo");
        step("examples in the documentation", || {
            run(doc
                .args(["test", "--doc", "--workspace", "--quiet"])
                .current_dir(root))
        })?;
    }
    Ok(())
}

/// Names the file to which a test that skips something appends a line with its name and the reason.
///
/// The output of a test that passes is not shown; what it skipped has to be.
const SKIPS_VARIABLE: &str = "FLOWLOG_SKIPS";

fn empty_skips_file(root: &Path) -> Result<PathBuf> {
    let file = root.join("target/skipped-tests.txt");
    let cannot = || format!("cannot write {}", file.display());
    fs::create_dir_all(root.join("target")).with_context(cannot)?;
    fs::write(&file, "").with_context(cannot)?;
    Ok(file)
}

fn report_skips(file: &Path) {
    let skips = fs::read_to_string(file)
        .unwrap_or_else(|error| format!("(unknown: cannot read {}: {error})", file.display()));
    let mut lines: Vec<&str> = skips.lines().collect();
    // Tests run at once, so their order means nothing.
    lines.sort_unstable();
    for line in lines {
        say(&format!("skipped: {line}"));
    }
}

/// `cargo xtask build-and-run`: the agent on a lab of its own with a service, or the agent alone on this machine's interfaces with a
/// configuration.
///
/// # Errors
///
/// When not run by root, when something that it needs cannot be installed, or when it does not compile; otherwise the
/// program that is run takes this one's place and does not return.
pub(crate) fn build_and_run(root: &Path, options: &BuildAndRun) -> Result<()> {
    need_root("the agent attaches BPF programs to network interfaces")?;
    setup(root, Purpose::Run, false)?;
    let mut cargo = cargo_build(root, Profile::Dev);
    // The lab needs nothing of what flowlog-tests builds by default for its tests, and neither agent nor service has features.
    cargo.arg("--no-default-features");
    cargo.args(["--package", "flowlog-agent", "--bin", "flowlog-agent"]);
    let program = if options.config.is_some() {
        step("build of the agent (the first time some minutes)", || {
            run(&mut cargo)
        })?;
        "flowlog-agent"
    } else {
        cargo.args(["--package", "flowlog-tests", "--bin", "flowlog-lab"]);
        cargo.args(["--package", "flowlog", "--bin", "flowlog"]);
        step(
            "build of the agent, the lab, and the service with its query engine (the first time up to 15 minutes on two cores)",
            || run(&mut cargo),
        )?;
        "flowlog-lab"
    };
    let folder = binaries(root, Profile::Dev)?;
    Err(become_program(
        Command::new(folder.join(program)).args(options.program_arguments(&folder)),
    ))
}

/// `cargo xtask bench`: the measurements, on an optimised build.
///
/// # Errors
///
/// As [`build_and_run`].
pub(crate) fn bench(root: &Path, arguments: &[String]) -> Result<()> {
    need_root("the measurements load BPF programs and make network namespaces")?;
    setup(root, Purpose::Run, false)?;
    let mut cargo = cargo_build(root, Profile::Release);
    cargo.args(["--package", "flowlog", "--bin", "flowlog"]);
    step("build", || {
        run(binary_arguments(&mut cargo, "flowlog-bench"))
    })?;
    let floor = Toolchain::find(root)
        .and_then(|toolchain| toolchain.build(root, &root.join("target/ebpf"), "floor"))
        .map_err(|error| anyhow!(error))?;
    let program = binaries(root, Profile::Release)?.join("flowlog-bench");
    let mut bench = Command::new(program);
    bench.arg("--floor").arg(floor).args(arguments);
    Err(become_program(&mut bench))
}

/// `cargo xtask soak`: the agent as it is shipped, optimised, under traffic and disturbances.
///
/// # Errors
///
/// As [`build_and_run`].
pub(crate) fn soak(root: &Path, minutes: NonZeroU32, seed: Option<u64>) -> Result<()> {
    need_root("the soak makes network namespaces, and its agent loads BPF programs")?;
    setup(root, Purpose::Run, false)?;
    let mut cargo = cargo_build(root, Profile::Release);
    step("build", || {
        run(binary_arguments(&mut cargo, "flowlog-soak"))
    })?;
    let folder = binaries(root, Profile::Release)?;
    let mut soak = Command::new(folder.join("flowlog-soak"));
    soak.arg("--agent").arg(folder.join("flowlog-agent"));
    soak.args(["--minutes", &minutes.to_string()]);
    if let Some(seed) = seed {
        soak.args(["--seed", &seed.to_string()]);
    }
    Err(become_program(&mut soak))
}

fn need_root(why: &str) -> Result<()> {
    if !is_root() {
        bail!("this needs root, because {why}: run it again as root");
    }
    Ok(())
}

fn cargo_build(root: &Path, profile: Profile) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.arg("build").current_dir(root);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    cargo
}

/// Restricts a build to the agent and one binary of flowlog-tests; neither is among the workspace's default members.
fn binary_arguments<'a>(cargo: &'a mut Command, binary: &str) -> &'a mut Command {
    cargo.args(["--package", "flowlog-agent", "--bin", "flowlog-agent"]);
    cargo.args(["--package", "flowlog-tests", "--bin", binary])
}

/// The folder in which cargo leaves the binaries of a profile.
fn binaries(root: &Path, profile: Profile) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let mut cargo = Command::new("cargo");
    cargo
        .args(["metadata", "--format-version=1", "--no-deps", "--quiet"])
        .current_dir(root);
    let metadata: Metadata = serde_json::from_slice(&output(&mut cargo)?)
        .context("cargo metadata is not as expected")?;
    Ok(metadata
        .target_directory
        .join(if profile == Profile::Release {
            "release"
        } else {
            "debug"
        }))
}
