//! The link against a service that answers what it is told to.
use std::{sync::Mutex, time::Instant};

use flowlog_model::protocol::{RefusedEni, ReportAnswer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::management::link::{BETWEEN_STATES, REPORT_AGAIN, REPORT_REFUSED_AGAIN};

/// A service that answers what it is told to, a connection at a time.
struct Service {
    listener: TcpListener,
    url: String,
    /// The first lines and the bodies of all requests.
    requests: Mutex<Vec<(String, String)>>,
}

impl Service {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            listener,
            requests: Mutex::default(),
        }
    }

    /// Takes the next request.
    async fn request(&self) -> (TcpStream, String) {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut text = String::new();
        let (head, body) = loop {
            let mut part = [0; 4096];
            let length = stream.read(&mut part).await.unwrap();
            text.push_str(std::str::from_utf8(&part[..length]).unwrap());
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |length| length.parse().unwrap());
                if body.len() >= length {
                    break (head.to_owned(), body.to_owned());
                }
            }
        };
        let line = head.lines().next().unwrap().to_owned();
        self.requests.lock().unwrap().push((line.clone(), body));
        (stream, line)
    }

    async fn answer(&self, status: &str, body: &impl Serialize) -> String {
        let (mut stream, line) = self.request().await;
        let body = serde_json::to_string(body).unwrap();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        line
    }

    fn bodies(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|(_, body)| body.clone()).collect()
    }
}

fn taken() -> ReportAnswer {
    ReportAnswer {
        accepted_enis: 1,
        refused_enis: Vec::new(),
        version: 1,
    }
}

#[tokio::test]
async fn the_first_report_goes_before_the_first_question_and_a_state_is_given_once() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::new().await;
    let config = config(folder.path(), &service.url, "").service.unwrap();
    let mut management = Management::start(config, None, clock()).unwrap();
    assert_eq!(management.standing(), Standing::default());
    management.report([(eni("eni-1"), true)].into_iter(), &BTreeMap::new());
    let line = service.answer("200 OK", &taken()).await;
    assert_eq!(line, "POST /agent/v1/report HTTP/1.1");
    let line = service.answer("200 OK", &state(7, &IDS[..1])).await;
    assert_eq!(line, "GET /agent/v1/desired-state?after=0&wait=30 HTTP/1.1");
    management.changed().await;
    assert_eq!(management.wanted(), Some(&state(7, &IDS[..1])));
    let kept = management.kept(&state(7, &IDS[..1]), &BTreeSet::new());
    management.has_followed(kept, Duration::ZERO);
    // The same state again is no news.
    let line = service.answer("200 OK", &state(7, &IDS[..1])).await;
    assert_eq!(line, "GET /agent/v1/desired-state?after=7&wait=30 HTTP/1.1");
    let line = service.answer("200 OK", &state(3, &IDS[..2])).await;
    assert!(line.contains("after=7"), "{line}");
    management.changed().await;
    assert_eq!(
        management.wanted().unwrap().version,
        3,
        "also a smaller one, after a restore"
    );
    assert!(management.standing().is_connected());
}

#[tokio::test]
async fn a_second_lies_between_two_states_and_the_newest_is_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::new().await;
    let config = config(folder.path(), &service.url, "").service.unwrap();
    let mut management = Management::start(config, None, clock()).unwrap();
    management.report(std::iter::empty(), &BTreeMap::new());
    service.answer("200 OK", &taken()).await;
    service.answer("200 OK", &state(1, &IDS[..1])).await;
    let before = Instant::now();
    management.changed().await;
    service.answer("200 OK", &state(2, &IDS)).await;
    // The loop does something else meanwhile: no state is lost with what waited for it.
    let other = std::future::ready(());
    tokio::select! {
        biased;
        () = management.changed() => {}
        () = other => {}
    }
    service.answer("200 OK", &state(3, &IDS)).await;
    service.answer("200 OK", &state(4, &IDS)).await;
    // The last of them has come when the next question does.
    let (_stream, line) = service.request().await;
    assert!(line.contains("after=4"), "{line}");
    management.changed().await;
    assert_eq!(management.wanted().unwrap().version, 4);
    assert!(before.elapsed() >= BETWEEN_STATES);
}

#[tokio::test]
async fn a_report_says_which_flow_logs_fail_and_is_made_again_after_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::new().await;
    let config = config(folder.path(), &service.url, "").service.unwrap();
    let kept = Kept {
        version: 4,
        flow_logs: state(4, &IDS).flow_logs,
        gone: Vec::new(),
    };
    let mut management = Management::start(config, Some(kept), clock()).unwrap();
    management.set_managed(Managed {
        flow_logs: Vec::new(),
        refused: BTreeMap::from([(IDS[1].to_owned(), "no".to_owned())]),
    });
    let failures = BTreeMap::from([(IDS[0], "disk full"), ("local", "not told")]);
    management.report(std::iter::empty(), &failures);
    let refusal =
        serde_json::json!({"Code": "SystemBusy", "Message": "Not now.", "RequestId": "r-1"});
    service.answer("503 Busy", &refusal).await;
    service.answer("200 OK", &taken()).await;
    let bodies = service.bodies();
    assert_eq!(bodies[0], bodies[1]);
    let report: Report = serde_json::from_str(&bodies[0]).unwrap();
    assert_eq!((report.host_id.as_str(), report.applied_version), ("h", 4));
    let told: Vec<(&str, DeliverStatus, &str)> = report
        .flow_logs
        .iter()
        .map(|of| {
            let message = of.deliver_error_message.as_str();
            (of.flow_log_id.as_str(), of.deliver_status, message)
        })
        .collect();
    let expected = [
        (IDS[0], DeliverStatus::Failed, "disk full"),
        (IDS[1], DeliverStatus::Failed, "no"),
        (IDS[2], DeliverStatus::Success, ""),
    ];
    assert_eq!(told, expected);
    // What it said is told until it answers again.
    service.request().await;
    let standing = management.standing();
    assert_eq!((standing.failures, standing.error()), (1, None));
}

#[tokio::test]
async fn after_a_failure_the_next_question_is_answered_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::new().await;
    let config = config(folder.path(), &service.url, "").service.unwrap();
    let mut management = Management::start(config, None, clock()).unwrap();
    management.report(std::iter::empty(), &BTreeMap::new());
    service.answer("200 OK", &taken()).await;
    service.answer("200 OK", &state(7, &[])).await;
    management.changed().await;
    let refusal =
        |id: &str| serde_json::json!({"Code": "Forbidden", "Message": "No.", "RequestId": id});
    let line = service.answer("403 No", &refusal("r-1")).await;
    assert!(line.contains("after=7&wait=30"), "{line}");
    let line = service.answer("403 No", &refusal("r-2")).await;
    assert!(line.contains("after=7&wait=0"), "{line}");
    // The same reason, whatever the number of the request.
    assert_eq!(management.standing().error(), Some("No (Forbidden)"));
    let line = service.answer("200 OK", &state(7, &[])).await;
    assert!(line.contains("after=7&wait=0"), "{line}");
    let mut lines = Vec::new();
    // It reports again, for the service may know less than it did.
    lines.push(service.answer("200 OK", &taken()).await);
    lines.push(service.request().await.1);
    lines.sort_unstable();
    assert!(lines[0].contains("after=7&wait=30"), "{lines:?}");
    assert!(lines[1].starts_with("POST "), "{lines:?}");
    assert!(management.standing().is_connected());
}

#[tokio::test]
async fn a_service_that_is_away_is_told_with_the_time_since_when() {
    let (management, _, _folder) = management("");
    management.link.report(Report {
        host_id: "h".to_owned(),
        agent_version: "1".to_owned(),
        enis: Vec::new(),
        applied_version: 0,
        flow_logs: Vec::new(),
    });
    while management.standing().failures == 0 {
        tokio::task::yield_now().await;
    }
    let standing = management.standing();
    assert!(!standing.is_connected());
    assert_eq!(standing.since(), Some(Duration::from_secs(1000)));
    let error = standing.error().unwrap();
    assert!(error.contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn what_the_service_wants_is_known_with_the_first_state_also_if_it_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::new().await;
    let config = config(folder.path(), &service.url, "").service.unwrap();
    let mut management = Management::start(config, None, clock()).unwrap();
    assert!(!management.is_known());
    management.report(std::iter::empty(), &BTreeMap::new());
    service.answer("200 OK", &taken()).await;
    service.answer("200 OK", &state(0, &[])).await;
    management.changed().await;
    let wanted = management.wanted().unwrap().clone();
    assert_eq!(wanted, state(0, &[]));
    let kept = management.kept(&wanted, &BTreeSet::new());
    management.has_followed(kept.clone(), Duration::ZERO);
    assert!(management.is_known());
    let config = self::config(folder.path(), &service.url, "")
        .service
        .unwrap();
    let management = Management::start(config, Some(kept), clock()).unwrap();
    assert!(management.is_known());
}

#[tokio::test]
async fn a_report_of_which_enis_were_refused_is_soon_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::new().await;
    let config = config(folder.path(), &service.url, "").service.unwrap();
    let mut management = Management::start(config, None, clock()).unwrap();
    management.report([(eni("eni-1"), true)].into_iter(), &BTreeMap::new());
    let refused = ReportAnswer {
        accepted_enis: 0,
        refused_enis: vec![RefusedEni {
            eni_id: "eni-1".to_owned(),
            reason: "another agent's".to_owned(),
        }],
        ..taken()
    };
    service.answer("200 OK", &refused).await;
    let before = Instant::now();
    // It goes on with its questions meanwhile.
    let again = async {
        while !service
            .answer("200 OK", &state(1, &[]))
            .await
            .starts_with("POST ")
        {}
    };
    // Much later a report would be made anyway.
    tokio::time::timeout(REPORT_AGAIN / 2, again).await.unwrap();
    assert!(before.elapsed() >= REPORT_REFUSED_AGAIN);
    let bodies = service.bodies();
    assert_eq!(bodies[0], *bodies.last().unwrap());
}
