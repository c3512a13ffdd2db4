use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

fn client(url: &str) -> Client {
    Client::new(url.parse().unwrap(), AccessKey::new("id", "secret"), None).unwrap()
}

const CALL: Call<'static> = Call {
    method: "GET",
    path: "/a",
    query: &[],
    body: b"",
    patience: Duration::from_secs(10),
    max_answer_bytes: 100,
};

/// What the client makes of an answer to [`CALL`], and what it sent.
async fn answered(answer: &'static str) -> (Result<Answer, ClientError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sent = vec![0; 4096];
        let length = stream.read(&mut sent).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        sent.truncate(length);
        String::from_utf8(sent).unwrap()
    };
    let query = [("b c".to_owned(), "d/é".to_owned())];
    let call = Call {
        query: &query,
        ..CALL
    };
    let client = client(&url);
    tokio::join!(
        client.send(&call, Duration::from_secs(1_795_356_575)),
        serve
    )
}

#[tokio::test]
async fn a_request_is_signed_and_its_answer_read() {
    let (answer, sent) = answered("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\": 17}").await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200);
    let body: serde_json::Value = answer.json().unwrap();
    assert_eq!(body["a"], 17);
    assert!(
        sent.starts_with("GET /a?b%20c=d%2F%C3%A9 HTTP/1.1\r\n"),
        "{sent}"
    );
    for part in [
        "x-acs-date: 2026-11-22T14:09:35Z\r\n",
        "authorization: ACS3-HMAC-SHA256 Credential=id,SignedHeaders=host;",
    ] {
        assert!(sent.contains(part), "{sent}");
    }
}

#[tokio::test]
async fn a_request_to_the_log_service_names_its_project_and_is_signed_its_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sent = vec![0; 4096];
        let length = stream.read(&mut sent).await.unwrap();
        let answer = "HTTP/1.1 404 No\r\ncontent-length: 52\r\n\r\n\
             {\"errorCode\":\"ProjectNotExist\",\"errorMessage\":\"No.\"}";
        stream.write_all(answer.as_bytes()).await.unwrap();
        sent.truncate(length);
        String::from_utf8(sent).unwrap()
    };
    let call = LogCall {
        method: "POST",
        project: Some("p-1"),
        path: "/logstores/l-1/shards/lb",
        query: &[],
        headers: &[("x-log-bodyrawsize", "1")],
        body: b"a",
        patience: Duration::from_secs(10),
        max_answer_bytes: 100,
    };
    let client = client(&format!("http://{address}"));
    let wall = Duration::from_secs(1_795_356_575);
    let (answer, sent) = tokio::join!(client.send_log(&call, wall), serve);
    assert_eq!(answer.unwrap_err().to_string(), "No (ProjectNotExist)");
    for part in [
        "POST /logstores/l-1/shards/lb HTTP/1.1\r\n",
        &format!("host: p-1.{address}\r\n"),
        "x-log-apiversion: 0.6.0\r\n",
        "x-log-bodyrawsize: 1\r\n",
        "date: Sun, 22 Nov 2026 14:09:35 GMT\r\n",
        "content-md5: 0CC175B9C0F1B6A831C399E269772661\r\n",
        "authorization: LOG id:",
    ] {
        assert!(sent.contains(part), "{sent}");
    }
}

#[tokio::test]
async fn what_goes_wrong_is_told_in_a_sentence() {
    for (answer, expected) in [
        (
            "HTTP/1.1 409 Conflict\r\ncontent-length: 67\r\n\r\n\
             {\"Code\": \"TaskConflict\", \"Message\": \"It is changing.\", \"HostId\": 1}",
            "It is changing (TaskConflict)",
        ),
        (
            "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n",
            "does not answer as Flowlog's service does: it refuses with status 500 and no reason",
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\n0123456789012345678901234567890123456789012345678901234567890123456789\
             0123456789012345678901234567890123456789",
            "is larger than 100 bytes",
        ),
        ("SSH-2.0-OpenSSH_9.9\r\n", "does not answer as Flowlog's"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{",
            "does not answer as Flowlog's",
        ),
    ] {
        let error = answered(answer).await.0.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn nobody_there_and_somebody_silent_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let call = Call {
        patience: Duration::from_millis(10),
        ..CALL
    };
    let silent = client(&url).send(&call, Duration::ZERO).await.unwrap_err();
    assert!(matches!(silent, ClientError::TooSlow { .. }), "{silent}");
    drop(listener);
    let gone = client(&url).send(&CALL, Duration::ZERO).await.unwrap_err();
    assert!(matches!(gone, ClientError::Unreachable { .. }), "{gone}");
}
