//! `cargo xtask lint`: everything that is checked without running the tests.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, anyhow, bail};

use crate::{
    licences,
    process::{on_path, output, run, say, step},
    setup::{Purpose, setup},
    toolchain::Toolchain,
};

type Check = fn(&Path) -> Result<()>;

/// Runs every check, also after one has failed.
///
/// # Errors
///
/// One sentence that names the checks that failed.
pub(crate) fn lint(root: &Path) -> Result<()> {
    setup(root, Purpose::Build, false)?;
    let checks: [(&str, Check); 7] = [
        ("format", format),
        ("format of flowlog-ebpf", format_ebpf),
        ("clippy", clippy),
        ("the agent as it is shipped", shipped_agent),
        ("warnings of flowlog-ebpf", warnings_ebpf),
        ("licences", licences::check),
        ("advisories", advisories),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(error) = step(name, || check(root)) {
            say(&format!("{error:#}"));
            failed.push(name);
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("these checks failed: {}", failed.join(", "))
    }
}

fn format(root: &Path) -> Result<()> {
    run(Command::new("cargo")
        .args(["fmt", "--all", "--check"])
        .current_dir(root))
}

fn format_ebpf(root: &Path) -> Result<()> {
    run(Command::new("cargo")
        .args(["fmt", "--check"])
        .current_dir(root.join("flowlog-ebpf")))
}

fn clippy(root: &Path) -> Result<()> {
    run(Command::new("cargo")
        .args(["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"])
        .current_dir(root))
}

/// The tests' agent can be told to kill itself (`flowlog-agent/src/failpoint`); no other can. Clippy has seen only the tests' so far.
fn shipped_agent(root: &Path) -> Result<()> {
    // Cargo gives a package one set of features in a build: what anything that is built without tests asks for is here.
    let tree = output(
        Command::new("cargo")
            .args(["tree", "--workspace", "--edges", "no-dev"])
            .args(["--prefix", "none", "--format", "{p} {f}"])
            .current_dir(root),
    )?;
    let tree = String::from_utf8_lossy(&tree);
    let agents = || {
        tree.lines()
            .filter(|line| line.starts_with("flowlog-agent "))
    };
    if agents().next().is_none() {
        bail!("`cargo tree` does not list flowlog-agent");
    }
    if let Some(line) = agents().find(|line| line.contains("failpoints")) {
        bail!("the agent is built with failpoints where no test is: {line}");
    }
    run(Command::new("cargo")
        .args(["clippy", "--package", "flowlog-agent", "--", "-Dwarnings"])
        .current_dir(root))
}

/// Clippy has no `core` for BPF; the compiler's own warnings are what can be had.
fn warnings_ebpf(root: &Path) -> Result<()> {
    let mut toolchain = Toolchain::find(root).map_err(|error| anyhow!(error))?;
    toolchain.deny_warnings = true;
    toolchain
        .build(root, &root.join("target/ebpf"), "flowlog-ebpf")
        .map_err(|error| anyhow!(error))?;
    Ok(())
}

/// Checks for known vulnerabilities where cargo-deny and its database can be had, and otherwise says that it did not.
fn advisories(root: &Path) -> Result<()> {
    if on_path("cargo-deny").is_none() {
        say(
            "advisories were NOT checked: cargo-deny is not installed (`cargo install cargo-deny --locked`)",
        );
        return Ok(());
    }
    let fetched = Command::new("cargo")
        .args(["deny", "fetch", "db"])
        .current_dir(root)
        .stdout(Stdio::null())
        .status();
    if !fetched.is_ok_and(|status| status.success()) {
        say(
            "advisories were NOT checked: cargo-deny could not fetch its database (https://github.com/rustsec/advisory-db)",
        );
        return Ok(());
    }
    for manifest in ["Cargo.toml", "flowlog-ebpf/Cargo.toml"] {
        let mut deny = Command::new("cargo");
        deny.args(["deny", "--manifest-path", manifest, "check", "--config"])
            .arg(root.join("deny.toml"));
        deny.args(["--disable-fetch", "advisories"]);
        run(deny.current_dir(root))?;
    }
    Ok(())
}
