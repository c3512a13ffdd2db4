//! Completion scripts and manual pages.
use std::{fs, io, path::Path};

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, CliError};

/// Prints a completion script.
pub(super) fn completions(shell: Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "flowlog", &mut io::stdout());
}

/// Writes the manual pages into a folder.
pub(super) fn man(folder: &Path) -> Result<(), CliError> {
    let written =
        fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    written.map_err(|source| CliError::Write {
        path: folder.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command() {
        let folder = tempfile::tempdir().unwrap();
        let pages = folder.path().join("man");
        man(&pages).unwrap();
        let names: std::collections::BTreeSet<String> = fs::read_dir(&pages)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        for name in [
            "flowlog.1",
            "flowlog-create.1",
            "flowlog-access-key-create.1",
            "flowlog-project-create.1",
            "flowlog-logstore-modify.1",
            "flowlog-query.1",
            "flowlog-tail.1",
            "flowlog-top.1",
        ] {
            assert!(names.contains(name), "{names:?}");
        }
        let page = fs::read_to_string(pages.join("flowlog-create.1")).unwrap();
        assert!(page.contains("vswitch"), "{page}");
    }

    #[test]
    fn there_is_a_script_for_each_shell() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "flowlog", &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in ["access-key", "logstore", "query", "tail", "top"] {
                assert!(script.contains(command), "{shell}: {command}");
            }
        }
    }
}
