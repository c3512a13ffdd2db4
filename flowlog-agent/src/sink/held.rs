//! Windows and cursors that are held in memory, and go with the agent.
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use flowlog_model::{flow_log::FlowLog, record::Record};

use super::{
    cursor::{Cursor, CursorStore},
    delivery::{Delivery, WindowIdentity},
};
use crate::{route, store::ClosedWindow, window::Window};

/// A closed window.
pub(crate) struct HeldWindow {
    /// What tells it from all others.
    pub identity: WindowIdentity,
    /// The window.
    pub window: Arc<ClosedWindow>,
}

impl Delivery for HeldWindow {
    fn identity(&self) -> &WindowIdentity {
        &self.identity
    }

    fn label(&self) -> Window {
        self.window.window
    }

    fn render(&self, flow_log: &FlowLog, each: &mut dyn FnMut(&Record<'_>)) -> io::Result<()> {
        route::records(&self.window, flow_log, each);
        Ok(())
    }
}

/// Cursors, by flow log.
#[derive(Default)]
pub(crate) struct HeldCursors(Mutex<HashMap<String, Cursor>>);

impl CursorStore for HeldCursors {
    fn load(&self, flow_log: &str) -> io::Result<Option<Cursor>> {
        let cursors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(cursors.get(flow_log).cloned())
    }

    fn store(&self, flow_log: &str, cursor: &Cursor) -> io::Result<()> {
        let mut cursors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cursors.insert(flow_log.to_owned(), cursor.clone());
        Ok(())
    }
}
