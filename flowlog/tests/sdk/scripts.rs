//! The scripts beside this file, each of which starts a service of its own. They need the Python environment that `cargo xtask setup`
//! makes.
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::skip::skip;

/// The environment's interpreter; none, and said so, where there is none.
fn python(test: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python");
    let python = folder.join("bin/python");
    if python.exists() {
        return Some(python);
    }
    let reason = "there is no target/python with the official SDKs: run `cargo xtask setup`";
    skip(test, reason);
    None
}

fn run(script: &str) {
    let Some(python) = python(script) else {
        return;
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk");
    let output = Command::new(python)
        // No `__pycache__` in the sources.
        .args(["-B", "-m", "unittest", "-v", script])
        .current_dir(folder)
        .env("FLOWLOG_BIN", env!("CARGO_BIN_EXE_flowlog"))
        // Loopback needs no proxy.
        .env("NO_PROXY", "*")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}:\n{said}");
    assert!(!said.contains("Ran 0 tests"), "{said}");
}

#[test]
fn log_service_sdk() {
    run("log_service");
}

#[test]
fn newer_sdk() {
    run("newer");
}

#[test]
fn older_sdk() {
    run("older");
}

#[test]
fn what_terraform_does() {
    run("terraform");
}
