//! `flowlog access-key …`.
use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use flowlog_model::signature::encoding::encode;

use super::{
    CliError,
    output::{OutputForm, or_dash, print, table},
    session::Session,
};
use crate::api::{AccessKey, AccessKeys, CreateAccessKey, CreatedAccessKey, ModifyAccessKey};

#[derive(Debug, clap::Args)]
pub(super) struct AccessKeyOptions {
    #[command(subcommand)]
    command: AccessKeyCommand,
}

/// What is done with access keys.
#[derive(Debug, Subcommand)]
enum AccessKeyCommand {
    /// Make an access key. Its secret is told this once.
    Create(CreateOptions),
    /// List the access keys of the account, without their secrets.
    List,
    /// Take requests signed with an access key again.
    Enable(OneOptions),
    /// Refuse requests signed with an access key, which is kept.
    Disable(OneOptions),
    /// Delete an access key.
    Delete(OneOptions),
}

/// What an access key may do.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Role {
    /// Everything.
    Administrator,
    /// See everything, and change nothing.
    Reader,
    /// What an agent does: report, and ask what it is to do.
    Agent,
}

#[derive(Debug, clap::Args)]
struct CreateOptions {
    /// What it may do.
    #[arg(long, value_enum)]
    role: Role,
    /// What it is for: at most 256 characters.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    description: String,
    /// Account; that of the access key in use without it.
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// Write the access key to this file, for its owner alone, and do not print the secret; the file must not exist.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct OneOptions {
    /// Id of the access key.
    #[arg(value_name = "ID")]
    id: String,
}

/// Does it.
pub(super) fn run(
    session: &Session,
    options: &AccessKeyOptions,
    form: OutputForm,
) -> Result<(), CliError> {
    match &options.command {
        AccessKeyCommand::Create(options) => create(session, options, form),
        AccessKeyCommand::List => list(session, form),
        AccessKeyCommand::Enable(OneOptions { id }) => set_status(session, id, "Active", form),
        AccessKeyCommand::Disable(OneOptions { id }) => set_status(session, id, "Inactive", form),
        AccessKeyCommand::Delete(OneOptions { id }) => {
            let key: AccessKey = session.change("DELETE", &path(id), &(), &())?;
            print(form, &key, || vec![format!("{id} is deleted.")]);
            Ok(())
        }
    }
}

fn path(id: &str) -> String {
    format!("/access-keys/{}", encode(id))
}

fn create(session: &Session, options: &CreateOptions, form: OutputForm) -> Result<(), CliError> {
    let CreateOptions {
        role,
        description,
        account,
        file,
    } = options;
    let body = CreateAccessKey {
        role: match role {
            Role::Administrator => "administrator",
            Role::Reader => "reader",
            Role::Agent => "agent",
        }
        .to_owned(),
        description: description.clone(),
        account_id: account.clone(),
    };
    // Before there is a key whose secret nobody could be told.
    let target = file
        .as_deref()
        .map(|path| Ok::<_, CliError>((new_file(path)?, path)))
        .transpose()?;
    let created = session.change("POST", "/access-keys", &(), &body);
    let Some((mut file, path)) = target else {
        let created: CreatedAccessKey = created?;
        print(form, &created, || {
            vec![
                format!("id      {}", created.id),
                format!("secret  {}", created.secret),
                "The secret is not told again.".to_owned(),
            ]
        });
        return Ok(());
    };
    let created: CreatedAccessKey = created.inspect_err(|_| {
        // It is empty, and was made by this very call.
        drop(std::fs::remove_file(path));
    })?;
    let text = serde_json::to_string_pretty(&created).unwrap_or_default();
    writeln!(file, "{text}")
        .and_then(|()| file.sync_all())
        .map_err(|source| CliError::Write {
            path: path.to_owned(),
            source,
        })?;
    let without_secret = serde_json::json!({"id": created.id, "file": path, "role": created.role});
    print(form, &without_secret, || {
        vec![format!("{} is in {}.", created.id, path.display())]
    });
    Ok(())
}

fn new_file(path: &Path) -> Result<std::fs::File, CliError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| CliError::Write {
            path: path.to_owned(),
            source,
        })
}

fn list(session: &Session, form: OutputForm) -> Result<(), CliError> {
    let keys: AccessKeys = session.get("/access-keys", &())?;
    print(form, &keys, || lines(&keys.access_keys));
    Ok(())
}

fn lines(keys: &[AccessKey]) -> Vec<String> {
    let mut table = table(["ID", "ROLE", "STATUS", "HOST", "CREATED", "DESCRIPTION"]);
    for key in keys {
        table.add_row([
            key.id.clone(),
            key.role.clone(),
            key.status.clone(),
            or_dash(&key.host_id),
            key.created_at.clone(),
            or_dash(&key.description),
        ]);
    }
    table.lines().collect()
}

fn set_status(session: &Session, id: &str, status: &str, form: OutputForm) -> Result<(), CliError> {
    let body = ModifyAccessKey {
        status: status.to_owned(),
    };
    let key: AccessKey = session.change("PATCH", &path(id), &(), &body)?;
    print(form, &key, || lines(std::slice::from_ref(&key)));
    Ok(())
}
