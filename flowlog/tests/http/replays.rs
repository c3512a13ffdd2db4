//! Replays, stale dates and too many requests.
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use flowlog::serve::config::Config;
use flowlog::serve::service::Role;

use hyper::body::Frame;

use crate::rig::{Rig, Rpc};

#[tokio::test]
async fn a_request_is_answered_once() {
    let rig = Rig::new();
    let key = rig.key(Role::Reader);
    let request = Rpc::new(&rig);
    assert_eq!(rig.send(request.signed(&key)).await.code(), "OK");
    let answer = rig.send(request.signed(&key)).await;
    assert_eq!((answer.status, answer.code()), (400, "SignatureNonceUsed"));
    // Later too, as long as its date is good.
    rig.advance(15 * 60 * 1000);
    assert_eq!(
        rig.send(request.signed(&key)).await.code(),
        "SignatureNonceUsed"
    );
    rig.advance(1000);
    assert_eq!(
        rig.send(request.signed(&key)).await.code(),
        "InvalidTimeStamp.Expired"
    );
}

#[tokio::test]
async fn a_forged_request_uses_no_nonce_up() {
    let rig = Rig::new();
    let (key, mut forged) = (rig.key(Role::Reader), rig.key(Role::Reader));
    forged.id.clone_from(&key.id);
    let request = Rpc::new(&rig);
    assert_eq!(
        rig.send(request.signed(&forged)).await.code(),
        "SignatureDoesNotMatch"
    );
    assert_eq!(rig.send(request.signed(&key)).await.code(), "OK");
}

#[tokio::test]
async fn dates_that_are_off_are_refused() {
    let rig = Rig::new();
    let key = rig.key(Role::Reader);
    for (date, code) in [
        ("2026-11-22T04:45:00Z", "OK"),
        ("2026-11-22T05:15:00Z", "OK"),
        ("2026-11-22T04:44:59Z", "InvalidTimeStamp.Expired"),
        ("2026-11-22T05:15:01Z", "InvalidTimeStamp.Expired"),
        ("2025-11-22T05:00:00Z", "InvalidTimeStamp.Expired"),
        ("2026-11-22 05:00:00", "InvalidTimeStamp.Format"),
        ("", "InvalidTimeStamp.Format"),
    ] {
        let request = Rpc {
            date: date.into(),
            ..Rpc::new(&rig)
        };
        assert_eq!(rig.send(request.signed(&key)).await.code(), code, "{date}");
    }
    for nonce in [String::new(), "n".repeat(129)] {
        let request = Rpc {
            nonce,
            ..Rpc::new(&rig)
        };
        assert_eq!(
            rig.send(request.signed(&key)).await.code(),
            "IncompleteSignature"
        );
    }
}

/// A form that takes its time, by the service's clock.
struct Slow {
    form: Option<Bytes>,
    takes_ms: i64,
    now: Arc<AtomicI64>,
}

impl HttpBody for Slow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let form = self.form.take();
        if form.is_some() {
            self.now.fetch_add(self.takes_ms, Ordering::SeqCst);
        }
        Poll::Ready(form.map(|form| Ok(Frame::data(form))))
    }
}

/// Otherwise its nonce could be forgotten already, though its date was good when it came.
#[tokio::test]
async fn the_date_must_be_good_when_the_body_is_there() {
    for (takes_ms, code) in [
        (15 * 60 * 1000, "OK"),
        (15 * 60 * 1000 + 1, "InvalidTimeStamp.Expired"),
    ] {
        let rig = Rig::new();
        let key = rig.key(Role::Reader);
        let request = Rpc {
            form: Some("A=b".into()),
            ..Rpc::new(&rig)
        };
        let request = request.signed(&key).map(|_| {
            Body::new(Slow {
                form: Some(Bytes::from("A=b")),
                takes_ms,
                now: Arc::clone(&rig.now),
            })
        });
        assert_eq!(rig.send(request).await.code(), code, "{takes_ms} ms");
    }
}

#[tokio::test]
async fn a_key_makes_so_many_requests_and_no_more() {
    let rig = Rig::with(Config {
        requests_per_second: 1,
        requests_at_once: 2,
        ..Config::default()
    });
    let (key, other) = (rig.key(Role::Reader), rig.key(Role::Reader));
    for code in ["OK", "OK", "Throttling.User"] {
        let answer = rig.send(Rpc::new(&rig).signed(&key)).await;
        assert_eq!(answer.code(), code);
    }
    assert_eq!(rig.send(Rpc::new(&rig).signed(&other)).await.code(), "OK");
    let later = Rpc::new(&rig);
    let answer = rig.send(later.signed(&key)).await;
    assert_eq!(answer.code(), "Throttling.User");
    rig.advance(1000);
    // The same request: its nonce is not used up.
    assert_eq!(rig.send(later.signed(&key)).await.code(), "OK");
    assert_eq!(rig.send(Rpc::new(&rig).signed(&key)).await.status, 429);
}
