//! Programs that the demo starts. They end with it, also when it is killed: what then starts them is this program under [`GUARD`], which
//! asks the kernel for a SIGTERM when its parent dies, and becomes the program.
use std::{
    convert::Infallible,
    ffi::OsString,
    os::unix::process::{CommandExt as _, parent_id},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::Pid,
};

/// The name of the command that [`become_guarded`] is for.
pub(crate) const GUARD: &str = "guarded";

/// A program that is to end when the thread that starts it does.
///
/// # Errors
///
/// If this program does not know its own file.
pub(crate) fn guarded(program: &Path) -> Result<Command> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(own);
    command
        .arg(GUARD)
        .args(["--parent", &std::process::id().to_string()])
        .arg(program);
    Ok(command)
}

/// Becomes the program of these words, which gets a SIGTERM when the process `parent` ends.
///
/// # Errors
///
/// It returns only when the program cannot be started.
pub(crate) fn become_guarded(parent: u32, words: &[OsString]) -> Result<Infallible> {
    let Some((program, arguments)) = words.split_first() else {
        bail!("no program is named");
    };
    prctl::set_pdeathsig(Signal::SIGTERM).context("cannot ask for a signal")?;
    // It may have ended before that.
    if parent_id() != parent {
        bail!("what started this has ended");
    }
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", Path::new(program).display()))
}

/// A name without a folder is a file here, not a program of `PATH`.
pub(crate) fn program(path: &Path) -> PathBuf {
    if path.components().count() == 1 {
        Path::new(".").join(path)
    } else {
        path.to_owned()
    }
}

/// Asks a process to end. It must not have been waited for.
pub(crate) fn terminate(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}
