//! `flowlog query`, `flowlog tail` and `flowlog top`: what is in a logstore.
//!
//! | module | what it holds |
//! |---|---|
//! | `answer` | what the service is asked and what it answers |
//! | `form` | answers as a table, JSON, CSV or Arrow |
//! | `query` | `flowlog query` |
//! | `range` | ranges of time |
//! | `record` | records in short |
//! | `tail` | `flowlog tail` |
//! | `top` | `flowlog top` |
mod answer;
mod form;
mod query;
mod range;
mod record;
mod tail;
mod top;

pub(super) use answer::{GetLogs, Logs};
pub(super) use form::AnswerForm;
pub(super) use query::{QueryOptions, query};
pub(super) use tail::{RecordForm, Tail, TailOptions};
pub(super) use top::{TopOptions, screen, top};

use flowlog_model::managed::{Logstore, Project};

/// Which logstore.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LogstoreOptions {
    /// Project.
    #[arg(long, env = "FLOWLOG_PROJECT", value_name = "NAME")]
    pub(super) project: Project,
    /// Logstore in the project.
    #[arg(long, env = "FLOWLOG_LOGSTORE", value_name = "NAME")]
    pub(super) logstore: Logstore,
}
