//! What a running agent tells of itself, by a Unix socket: `flowlog-agent status`.
//!
//! Whoever connects gets one JSON document, a [`StatusDocument`], and the connection is closed. Nothing is asked, so there is nothing to
//! be parsed by the agent. The loop that owns everything makes the document, as it does with a scrape of the metrics.
//!
//! | file | what it does |
//! |---|---|
//! | `document` | what is told |
//! | `socket` | the agent's end and the asker's |
//! | `render` | the document for people |
//! | `command` | `flowlog-agent status` |

mod command;
mod document;
mod render;
mod socket;

pub(crate) use command::{StatusOptions, run};
pub use document::{
    AgentStatus, Conservation, ErrorStatus, Hooks, InterfaceStatus, JudgedStatus, Loss, Refused,
    SecurityStatus, ServiceStatus, SinkStatus, SpoolStatus, StatusDocument, WindowStatus,
    WindowsStatus,
};
pub use socket::{Request, Requests, StatusError, serve};
pub(crate) use socket::{check_is_socket, check_replaceable};
