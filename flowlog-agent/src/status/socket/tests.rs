use std::{io::Read as _, os::unix::fs::PermissionsExt as _};

use tempfile::TempDir;

use super::*;
use crate::status::document::AgentStatus;

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    (folder, path)
}

fn document() -> StatusDocument {
    StatusDocument {
        agent: AgentStatus {
            version: "0.1.0".to_owned(),
            pid: 604,
            since: 1_795_356_575,
            abi_version: 1,
        },
        ..StatusDocument::default()
    }
}

/// The loop of an agent that answers every request.
async fn answer_requests(mut requests: Requests) {
    while let Some(request) = requests.recv().await {
        // Whoever asked may have gone.
        let _ = request.send(document());
    }
}

#[tokio::test(flavor = "current_thread")]
async fn whoever_asks_gets_the_document() {
    let (_folder, path) = place();
    let requests = serve(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600, "for this user alone");
    let agent = tokio::spawn(answer_requests(requests));
    for _ in 0..2 * MAX_CONNECTIONS {
        let (told, text) = ask(&path).await.unwrap();
        assert_eq!(told, document());
        let raw: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(raw["agent"]["abi-version"], 1);
        assert_eq!(raw["last-error"], serde_json::Value::Null);
    }
    agent.abort();
    assert!(agent.await.unwrap_err().is_cancelled());
    assert!(!path.exists(), "the socket goes with the agent");
}

#[tokio::test(flavor = "current_thread")]
async fn a_dead_agents_socket_is_replaced_and_a_live_ones_is_not() {
    let (_folder, path) = place();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(ask(&path).await, Err(StatusError::NoAgent { .. })));
    let first = serve(&path).unwrap();
    let refused = serve(&path).unwrap_err().to_string();
    let reason = "another process listens on it (`status-socket` of the configuration)";
    assert_eq!(
        refused,
        format!("cannot tell the status on {}: {reason}", path.display())
    );
    let agent = tokio::spawn(answer_requests(first));
    ask(&path).await.unwrap();
    agent.abort();
}

/// A live process whose queue of connections is full neither looks dead nor holds up whoever tries.
#[tokio::test(flavor = "current_thread")]
async fn a_busy_process_is_not_taken_for_a_dead_one() {
    let (_folder, path) = place();
    let busy = unix_socket().unwrap();
    bind(busy.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&busy, Backlog::new(1).unwrap()).unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = UnixStream::connect(&path).await {
        waiting.push(stream);
    }
    let refused = serve(&path).unwrap_err().to_string();
    assert!(
        refused.contains("another process listens on it"),
        "{refused}"
    );
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_no_socket_is_left_alone() {
    let (folder, path) = place();
    fs::write(&path, "precious").unwrap();
    let refused = serve(&path).unwrap_err().to_string();
    assert!(
        refused.contains("there is a file that is not a socket"),
        "{refused}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let nowhere = folder.path().join("no/such/folder/agent.sock");
    assert!(serve(&nowhere).is_err());
}

/// Connections that want nothing keep the agent from answering others for a bounded time only.
#[tokio::test(flavor = "current_thread")]
async fn idle_connections_do_not_keep_others_waiting() {
    let (_folder, path) = place();
    let requests = serve(&path).unwrap();
    let agent = tokio::spawn(answer_requests(requests));
    let idle: Vec<_> = (0..2 * MAX_CONNECTIONS)
        .map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap())
        .collect();
    let (told, _) = ask(&path).await.unwrap();
    assert_eq!(told, document());
    // Each of them has got its answer too.
    for mut stream in idle {
        stream.set_nonblocking(true).unwrap();
        let mut text = String::new();
        while let Err(error) = stream.read_to_string(&mut text) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            tokio::task::yield_now().await;
        }
        serde_json::from_str::<StatusDocument>(&text).unwrap();
    }
    agent.abort();
}

#[tokio::test(flavor = "current_thread")]
async fn an_agent_that_closes_without_an_answer_is_silent() {
    let (_folder, path) = place();
    let mut requests = serve(&path).unwrap();
    let agent = tokio::spawn(async move { drop(requests.recv().await) });
    let error = ask(&path).await.unwrap_err();
    assert!(matches!(error, StatusError::Silent { .. }), "{error}");
    agent.await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn errors_say_what_is_wrong() {
    let (_folder, path) = place();
    let error = ask(&path).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("no agent is running: nobody listens on {}", path.display())
    );
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n")
            .await
            .unwrap();
    });
    let error = ask(&path).await.unwrap_err();
    assert!(
        matches!(error, StatusError::NotUnderstood { .. }),
        "{error}"
    );
}
