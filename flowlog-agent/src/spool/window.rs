//! Closed windows.
use super::{SpoolError, WindowReader};
use crate::window::Window;

/// A closed window: what identifies it. What is in it is read by [`StoredWindow::read`], from any thread.
#[derive(Debug)]
pub struct StoredWindow {
    id: u64,
    length_seconds: u64,
    label: Window,
    flow_logs: Vec<String>,
}

impl Default for StoredWindow {
    fn default() -> Self {
        Self {
            id: 1,
            length_seconds: 60,
            label: Window { start: 0, end: 60 },
            flow_logs: Vec::new(),
        }
    }
}

impl StoredWindow {
    /// Its number: later windows have higher ones.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Length that it should have had, in seconds.
    #[must_use]
    pub fn length_seconds(&self) -> u64 {
        self.length_seconds
    }

    /// Its label.
    #[must_use]
    pub fn label(&self) -> Window {
        self.label
    }

    /// Names of the flow logs that are to have it, or have it already.
    #[must_use]
    pub fn flow_logs(&self) -> &[String] {
        &self.flow_logs
    }

    /// Opens what is in it.
    ///
    /// # Errors
    ///
    /// If files cannot be opened; to be tried again.
    pub fn read(&self) -> Result<WindowReader, SpoolError> {
        Ok(WindowReader::default())
    }
}
