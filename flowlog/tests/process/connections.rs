//! The limits of connections, and their end.
use std::io::{Read as _, Write as _};

use crate::service::Service;

fn service() -> (tempfile::TempDir, Service) {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(&folder.path().join("data"));
    (folder, service)
}

#[test]
fn heads_have_a_limit() {
    let (_folder, service) = service();
    let with = |headers: &str| {
        let request =
            format!("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        service.exchange(request.as_bytes())
    };
    let bytes = |count: usize| format!("a: {}\r\n", "b".repeat(count));
    assert!(with(&bytes(32 * 1024)).starts_with("HTTP/1.1 200"));
    assert!(with(&bytes(128 * 1024)).starts_with("HTTP/1.1 431"));
    let headers = |count: usize| -> String { (0..count).map(|n| format!("h{n}: x\r\n")).collect() };
    assert!(with(&headers(98)).starts_with("HTTP/1.1 200"));
    assert!(with(&headers(99)).starts_with("HTTP/1.1 431"));
    let long = format!("/?{}", "a".repeat(128 * 1024));
    let answer = service.get(&long);
    assert!(
        answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
}

#[test]
fn what_is_not_http_is_refused() {
    let (_folder, service) = service();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"x\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let answer = service.exchange(bytes);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
    }
    assert!(service.get("/health").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_has_come() {
    let (_folder, service) = service();
    let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1048577\r\n\r\n";
    let answer = service.exchange(&[head.as_bytes(), &[b'a'; 2 << 20]].concat());
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 413"),
        "{answer}"
    );
}

#[test]
fn an_open_connection_does_not_hold_up_the_end() {
    let (_folder, service) = service();
    let mut idle = service.connect();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert_eq!(service.end(), Some(0));
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
}
