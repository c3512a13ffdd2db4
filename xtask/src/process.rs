//! Running other programs, and speaking to the developer. Everything goes to standard error: standard output is for records.

use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Error, Result, bail};

/// Writes one line to the developer.
pub(crate) fn say(line: &str) {
    // Standard error may be closed; there is then nobody to tell.
    let _ = writeln!(io::stderr().lock(), "xtask: {line}");
}

/// Runs a command, with its standard output sent to standard error.
///
/// # Errors
///
/// When it cannot be started or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command
        .stdout(Stdio::from(io::stderr()))
        .status()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Runs a command and returns its standard output.
///
/// # Errors
///
/// When it cannot be started or does not succeed.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let shown = shown(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({})", output.status);
    }
    Ok(output.stdout)
}

/// Becomes the program of the command: signals such as Ctrl-C then reach it alone, and its exit code is ours.
///
/// # Errors
///
/// It returns only when the program cannot be started.
pub(crate) fn become_program(command: &mut Command) -> Error {
    let error = with_search_path(command).exec();
    Error::new(error).context(format!("cannot run `{}`", shown(command)))
}

/// Runs a step, and says its name before and its time after it.
///
/// # Errors
///
/// Those of the step.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(&format!("{name} …"));
    let start = Instant::now();
    let result = work();
    let outcome = if result.is_ok() { "done" } else { "failed" };
    say(&format!(
        "{name}: {outcome} in {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    result
}

/// The path of an executable program in one of the folders of [`search_path`].
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let is_executable = |path: &PathBuf| {
        fs::metadata(path)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    search_path()
        .into_iter()
        .map(|folder| folder.join(program))
        .find(is_executable)
}

/// The folders of `PATH`, and those of the system's administration.
///
/// Debian's `su` without a dash makes a root whose `PATH` lacks the latter: what apt-get needs is there.
fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    for folder in ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// Gives a command [`search_path`] as its `PATH`.
fn with_search_path(command: &mut Command) -> &mut Command {
    match env::join_paths(search_path()) {
        Ok(path) => command.env("PATH", path),
        // A folder with a colon in its name, which cannot have come out of `PATH`.
        Err(_) => command,
    }
}

/// Whether this process has the effective user id of root.
pub(crate) fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| effective_uid(&status) == Some(0))
}

/// The effective user id in the text of `/proc/<pid>/status`, whose line `Uid:` lists real, effective, saved and file system's.
fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// A command as a developer would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.display().to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_uid_is_the_second_number() {
        assert_eq!(
            effective_uid("Name:\tx\nUid:\t1000\t0\t1000\t1000\nGid:\t5\t5\t5\t5\n"),
            Some(0)
        );
        assert_eq!(effective_uid("Name:\tx\nUid:\t0\t1000\t0\t0\n"), Some(1000));
        assert_eq!(effective_uid("Name:\tx\n"), None);
    }

    #[test]
    fn failed_command_is_named_with_its_arguments() {
        let error = run(Command::new("false").args(["one", "two"]))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("`false one two` failed"), "{error}");
    }
}
