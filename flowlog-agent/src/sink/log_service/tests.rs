//! Puts, against a listener that keeps what it is sent.
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread::{self, JoinHandle},
};

use flowlog_model::{
    field::DEFAULT_FIELDS,
    log_group::{LogGroup, decompress},
    record::{Eni, LogStatus},
};
use tokio::sync::mpsc::unbounded_channel;

use super::*;
use crate::{
    sink::{
        attempts::{Closing, PAUSES},
        delivery::WindowIdentity,
    },
    window::Window,
};

const FLOW_LOG: &str = "name = 'fl-1'\nresource-type = 'VPC'\nresource-id = 'vpc-1'\ntraffic-type = 'All'\nwindow = '1m'\n\
                        status = 'Active'\n";

/// A window of NODATA records, numbered by their start.
struct Numbered {
    identity: WindowIdentity,
    records: u64,
    eni: Eni,
}

impl Delivery for Numbered {
    fn identity(&self) -> &WindowIdentity {
        &self.identity
    }

    fn label(&self) -> Window {
        Window { start: 0, end: 60 }
    }

    fn render(&self, _: &FlowLog, each: &mut dyn FnMut(&Record<'_>)) -> io::Result<u64> {
        for start in 0..self.records {
            each(&Record {
                eni: &self.eni,
                flow: None,
                direction: None,
                packets: None,
                bytes: None,
                start,
                end: 1_795_323_060,
                log_status: LogStatus::NoData,
                action: None,
                tcp_flags: None,
                reject_reason: None,
                security_group_rule_id: None,
                batch_id: None,
            });
        }
        Ok(0)
    }
}

fn window(records: u64, id_chars: usize) -> Numbered {
    let id = |prefix: &str| format!("{prefix}{}", "x".repeat(id_chars));
    Numbered {
        identity: WindowIdentity {
            spool: "5f".into(),
            window: 7,
            length_seconds: 60,
        },
        records,
        eni: Eni {
            eni_id: id("eni-"),
            vswitch_id: id("vsw-"),
            vm_id: Some(id("i-")),
            vpc_id: id("vpc-"),
            account_id: "1".into(),
            region: None,
        },
    }
}

/// A put as it came: its head, the identity of its batch, how many records, and the first one's start.
type Put = (String, String, usize, String);

/// Answers as many requests as there are statuses.
fn listen(statuses: &'static [u16]) -> (String, JoinHandle<Vec<Put>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answered = thread::spawn(move || {
        let mut puts = Vec::new();
        for status in statuses {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let (head, body) = loop {
                let mut chunk = [0; 65_536];
                let length = stream.read(&mut chunk).unwrap();
                assert_ne!(length, 0, "the request ended early");
                request.extend_from_slice(&chunk[..length]);
                let Some(end) = request.windows(4).position(|part| part == b"\r\n\r\n") else {
                    continue;
                };
                let head = String::from_utf8(request[..end].to_vec()).unwrap();
                let body = &request[end + 4..];
                if body.len() == header(&head, "content-length").parse::<usize>().unwrap() {
                    break (head, body.to_vec());
                }
            };
            let raw_bytes = header(&head, "x-log-bodyrawsize").parse().unwrap();
            let group = LogGroup::read(&decompress(&body, raw_bytes).unwrap()).unwrap();
            assert!(raw_bytes <= DOCUMENTED_RAW_BYTES && group.logs.len() <= DOCUMENTED_LOGS);
            assert_eq!(group.log_tags[0].key, BATCH_ID_TAG);
            let first = &group.logs[0].contents;
            let start = first.iter().find(|content| content.key == "start").unwrap();
            puts.push((
                head,
                group.log_tags[0].value.clone(),
                group.logs.len(),
                String::from_utf8(start.value.clone()).unwrap(),
            ));
            let body = r#"{"errorCode": "ServerBusy", "errorMessage": "Too much."}"#;
            let answer = format!(
                "HTTP/1.1 {status} Answer\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
        puts
    });
    (url, answered)
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut found = lines.filter(|(other, _)| other.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value).unwrap()
}

fn sink(url: &str, key_file: &Path) -> LogServiceSink {
    let destination = LogstoreDestination {
        endpoint: url.parse().unwrap(),
        project: "p-1".parse().unwrap(),
        logstore: "l_1".parse().unwrap(),
        access_key_file: key_file.to_owned(),
        ca_file: None,
    };
    LogServiceSink::open(destination, Clock::new().unwrap()).unwrap()
}

fn deliver(sink: &mut LogServiceSink, window: &Numbered) -> Result<Written, String> {
    let flow_log: FlowLog = toml::from_str(FLOW_LOG).unwrap();
    let (events, _keep) = unbounded_channel();
    let closing = Closing::default();
    let attempts = Attempts::new("fl-1", PAUSES, &closing, &events);
    sink.deliver(window, &flow_log, &Format::text(&DEFAULT_FIELDS), &attempts)
        .map_err(|error| error.to_string())
}

#[test]
fn a_window_is_put_in_batches_that_keep_their_identity() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key.json");
    let (url, answered) = listen(&[200, 503, 200, 200]);
    let mut sink = sink(&url, &key_file);
    let window = window(5000, 0);
    let error = deliver(&mut sink, &window).unwrap_err();
    assert!(error.contains("key.json cannot be read"), "{error}");
    fs::write(&key_file, r#"{"id": "id", "secret": "secret"}"#).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(
        deliver(&mut sink, &window),
        Err("Too much (ServerBusy)".to_owned())
    );
    let written = deliver(&mut sink, &window).unwrap();
    assert_eq!(written.records, 5000);
    let puts = answered.join().unwrap();
    let told: Vec<(&str, usize, &str)> = puts
        .iter()
        .map(|(_, batch, records, start)| (batch.as_str(), *records, start.as_str()))
        .collect();
    let (first, second) = (
        ("fl-1-5f-60-7-0", 4096, "0"),
        ("fl-1-5f-60-7-1", 904, "4096"),
    );
    assert_eq!(told, [first, second, first, second]);
    let head = &puts[0].0;
    assert!(
        head.starts_with("POST /logstores/l_1/shards/lb HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(header(head, "host").starts_with("p-1.127.0.0.1:"), "{head}");
    assert!(
        header(head, "authorization").starts_with("LOG id:"),
        "{head}"
    );
}

#[test]
fn long_records_make_more_puts_of_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key.json");
    fs::write(&key_file, r#"{"id": "id", "secret": "secret"}"#).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let (url, answered) = listen(&[200, 200]);
    // Longer than identifiers can be, so that 3 MB are full before 4,096 records are.
    let written = deliver(&mut sink(&url, &key_file), &window(4096, 200)).unwrap();
    assert_eq!(written.records, 4096);
    let puts = answered.join().unwrap();
    assert_eq!(
        (puts[0].1.as_str(), puts[1].1.as_str()),
        ("fl-1-5f-60-7-0", "fl-1-5f-60-7-0.1")
    );
    assert_eq!(puts[0].2 + puts[1].2, 4096);
    assert_eq!(puts[1].3, puts[0].2.to_string());
}

/// Also what is refused for good, as it seems, is kept and tried again: a project may be made, a key be given the right.
#[test]
fn a_window_that_is_refused_is_put_again_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key.json");
    fs::write(&key_file, r#"{"id": "id", "secret": "secret"}"#).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let (url, answered) = listen(&[404, 400, 401, 403, 500, 200]);
    let mut sink = sink(&url, &key_file);
    let window = window(3, 0);
    for _ in 0..5 {
        assert_eq!(
            deliver(&mut sink, &window),
            Err("Too much (ServerBusy)".to_owned())
        );
    }
    assert_eq!(deliver(&mut sink, &window).unwrap().records, 3);
    let puts = answered.join().unwrap();
    assert_eq!(puts.len(), 6);
    for (_, batch, records, start) in &puts {
        assert_eq!(
            (batch.as_str(), *records, start.as_str()),
            ("fl-1-5f-60-7-0", 3, "0")
        );
    }
}
