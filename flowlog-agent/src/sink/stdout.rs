//! Standard output. It cannot tell a redelivery from a delivery, nor go back; so what failed is tried again from where it stopped.
use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd as _,
};

use super::attempts::Attempts;

/// Standard output.
pub(super) struct Stdout(Box<dyn Write + Send>);

impl Stdout {
    /// Without the standard library's buffer and lock: a thread may wait here for its reader when the agent ends.
    pub(super) fn open() -> io::Result<Self> {
        let file: File = io::stdout().as_fd().try_clone_to_owned()?.into();
        Ok(Self::to(file))
    }

    pub(super) fn to(writer: impl Write + Send + 'static) -> Self {
        Self(Box::new(writer))
    }

    /// Writes all of it; an error if nobody reads, or if it fails when the agent ends.
    pub(super) fn write(&mut self, lines: &[u8], attempts: &mut Attempts<'_>) -> io::Result<()> {
        let mut rest = lines;
        let mut failed = false;
        while !rest.is_empty() {
            match self.0.write(rest) {
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    if std::mem::take(&mut failed) {
                        attempts.succeeded();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(error),
                Err(error) if !attempts.again_after(&error) => return Err(error),
                Err(_) => failed = true,
            }
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
