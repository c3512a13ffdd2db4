//! Programs that are run in a namespace to their end.
use std::{
    io::{self, Write as _},
    process::{Command, Output, Stdio},
};

use super::Namespace;
use crate::{Error, Result};

impl Namespace {
    /// Runs a program in this namespace, the words of `line` being its name and arguments, with `input` as its standard input, and returns
    /// what it wrote to standard output.
    ///
    /// # Errors
    /// If it is missing or fails; the error has its command line and what it wrote to standard error.
    pub fn run(&self, line: &str, input: &str) -> Result<String> {
        let output = self
            .enter(|| output_of(line, input))?
            .map_err(Error::system(format!(
                "run `{line}` (has `cargo xtask setup` installed it?)"
            )))?;
        if !output.status.success() {
            return Err(Error::Command {
                command: format!("{line} <<< {input:?}"),
                stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Adds to the rules of nftables what a script says, in one step.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn nft(&self, script: &str) -> Result<()> {
        self.run("nft -f -", script).map(drop)
    }
}

fn output_of(line: &str, input: &str) -> io::Result<Output> {
    let mut words = line.split_whitespace();
    let mut child = Command::new(words.next().unwrap_or_default())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It is closed with that, which is the input's end.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    child.wait_with_output()
}
