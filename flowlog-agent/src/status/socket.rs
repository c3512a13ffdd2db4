//! The Unix socket: the agent's end, and the end of whoever asks.
use std::{
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::FileTypeExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
        },
        stat::{Mode, fchmod},
    },
};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::document::StatusDocument;

/// A request for the current document.
pub type Request = oneshot::Sender<StatusDocument>;

/// Connections that are answered at once. Others wait to be accepted.
const MAX_CONNECTIONS: usize = 4;

/// Connections that may wait to be accepted; those beyond are refused.
const MAX_WAITING: i32 = 16;

/// How long a connection may take, from being accepted to its end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long whoever asks waits for the end of the answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(15);

/// Pause after a connection could not be accepted, for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Largest document, in bytes: some 4,000 ENIs take a tenth of it.
const MAX_DOCUMENT_BYTES: u64 = 32 << 20;

/// Why there is no status.
#[derive(Debug, Error)]
pub enum StatusError {
    /// The agent cannot tell it.
    #[error("cannot tell the status on {}: {source} (`status-socket` of the configuration)", .path.display())]
    Serve {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration has no socket.
    #[error("{} has `status-socket = \"off\"`: its agent tells nobody its status", .config.display())]
    Off {
        /// The configuration.
        config: PathBuf,
    },
    /// Nobody listens.
    #[error("no agent is running: nobody listens on {}", .path.display())]
    NoAgent {
        /// The socket.
        path: PathBuf,
    },
    /// The agent cannot be asked.
    #[error("cannot ask the agent on {}: {source}{advice}", .path.display(), advice = advice(.source))]
    Ask {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent does not answer.
    #[error("the agent on {} did not answer in time", .path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
    },
    /// The answer is no status.
    #[error("what the agent on {} answers is not understood; is it of another version? {source}", .path.display())]
    NotUnderstood {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "; root alone may"
    } else {
        ""
    }
}

/// Requests that come in by the socket. When this is dropped, the socket is gone.
#[derive(Debug)]
pub struct Requests {
    requests: mpsc::Receiver<Request>,
    server: JoinHandle<()>,
    path: PathBuf,
}

impl Requests {
    /// The next request, to be answered with the document. None if no more come. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Request> {
        self.requests.recv().await
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.server.abort();
        // A next agent replaces it if it is left.
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers whoever connects to the socket `path`, which is made for this user alone. One that a dead agent has left is replaced. Each
/// request is answered by whoever receives it. To be called within a tokio runtime.
///
/// # Errors
///
/// If the socket cannot be made, or another process listens on it.
pub fn serve(path: &Path) -> Result<Requests, StatusError> {
    let listener = listen_on(path).and_then(|socket| {
        let listener = std::os::unix::net::UnixListener::from(socket);
        UnixListener::from_std(listener)
    });
    let listener = listener.map_err(|source| StatusError::Serve {
        path: path.to_owned(),
        source,
    })?;
    let (sender, requests) = mpsc::channel(MAX_CONNECTIONS);
    Ok(Requests {
        requests,
        server: tokio::spawn(answer_all(listener, sender)),
        path: path.to_owned(),
    })
}

/// A listening socket, not blocking.
fn listen_on(path: &Path) -> io::Result<OwnedFd> {
    let address = UnixAddr::new(path)?;
    let listener = unix_socket()?;
    // The file has the mode of the socket from its first moment.
    fchmod(&listener, Mode::S_IRUSR | Mode::S_IWUSR)?;
    match bind(listener.as_raw_fd(), &address) {
        Err(Errno::EADDRINUSE) => {
            make_room(path)?;
            bind(listener.as_raw_fd(), &address)?;
        }
        other => other?,
    }
    listen(&listener, Backlog::new(MAX_WAITING)?)?;
    Ok(listener)
}

fn unix_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::Stream, flags, None)?)
}

/// Removes a socket on which nobody listens.
fn make_room(path: &Path) -> io::Result<()> {
    check_replaceable(path)?;
    fs::remove_file(path)
}

/// Whether there is a socket.
///
/// # Errors
///
/// If there is nothing, or something else.
pub(crate) fn check_is_socket(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.file_type().is_socket() {
        Ok(())
    } else {
        Err(io::Error::other("there is a file that is not a socket"))
    }
}

/// Whether there is a socket that a dead process has left. A process that listens is connected to.
///
/// # Errors
///
/// If there is nothing, or something else, or somebody listens.
pub(crate) fn check_replaceable(path: &Path) -> io::Result<()> {
    check_is_socket(path)?;
    match connect(unix_socket()?.as_fd().as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED) => Ok(()),
        Ok(()) | Err(Errno::EAGAIN) => Err(io::Error::other("another process listens on it")),
        Err(error) => Err(error.into()),
    }
}

async fn answer_all(listener: UnixListener, sender: mpsc::Sender<Request>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // It is never closed.
    while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    // Whoever asked may have gone; that is no concern of ours.
                    let _ = timeout(ANSWER_TIMEOUT, answer(stream, &sender)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the status cannot be asked for; will try again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, sender: &mpsc::Sender<Request>) -> io::Result<()> {
    let (reply, document) = oneshot::channel();
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    sender
        .send(reply)
        .await
        .map_err(|_| io::ErrorKind::BrokenPipe)?;
    let document = document.await.map_err(gone)?;
    let mut text = serde_json::to_vec_pretty(&document)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    stream.shutdown().await
}

/// Asks the agent that listens on `path`. Gives the document, and its text as it came.
///
/// # Errors
///
/// [`StatusError`].
pub(super) async fn ask(path: &Path) -> Result<(StatusDocument, String), StatusError> {
    let mut text = String::new();
    let answer = timeout(ASK_TIMEOUT, async {
        let stream = UnixStream::connect(path).await?;
        stream
            .take(MAX_DOCUMENT_BYTES)
            .read_to_string(&mut text)
            .await
    });
    let path = || path.to_owned();
    match answer.await {
        Err(_) | Ok(Ok(0)) => Err(StatusError::Silent { path: path() }),
        Ok(Err(error)) => Err(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                StatusError::NoAgent { path: path() }
            }
            _ => StatusError::Ask {
                path: path(),
                source: error,
            },
        }),
        Ok(Ok(_)) => match serde_json::from_str(&text) {
            Ok(document) => Ok((document, text)),
            Err(source) => Err(StatusError::NotUnderstood {
                path: path(),
                source,
            }),
        },
    }
}

#[cfg(test)]
mod tests;
