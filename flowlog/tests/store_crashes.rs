//! The store under SIGKILL: every acknowledged log is there once, and none that was never sent.
//!
//! The test starts itself again as a child, which puts, flushes, merges, lets go and removes as fast as it can and says on its standard
//! output what it does before and after; and kills it. Then it opens what is on the disk.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flowlog::log_service::{
    store::{Position, Store, StoreConfig},
    types::{Log, LogBatch, LogstoreKey},
};

/// 2026-11-22 00:00 UTC.
const MIDNIGHT: u32 = 1_795_305_600;
/// Between two calls of the maintenance, by the child's clock.
const STEP: u32 = 600;
/// Between the beginnings of two children, by their clocks: less than `STEPS` take, so that they overlap.
const APART: u32 = 3 * 3600;
const DAY: u32 = 86_400;
/// How often the child calls it at most.
const STEPS: u32 = 40;
/// How often it puts to each logstore in between.
const PUTS_A_STEP: u32 = 5;

const FOLDER: &str = "FLOWLOG_TEST_STORE";
const ROUND: &str = "FLOWLOG_TEST_ROUND";
const FAILPOINT: &str = "FLOWLOG_STORE_FAILPOINT";

fn key(logstore: &str) -> LogstoreKey {
    LogstoreKey {
        project: "tests".parse().unwrap(),
        logstore: logstore.parse().unwrap(),
    }
}

fn config(folder: &Path) -> StoreConfig {
    StoreConfig {
        free_octets: 0,
        generation_octets: 200_000,
        flush_seconds: 2 * STEP,
        ..StoreConfig::new(folder)
    }
}

fn at(seconds: u32) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.into())
}

/// The logs of a put, which follow from its name and its time alone.
fn logs(put: &str, time: u32) -> Vec<LogBatch> {
    let count = crc32fast::hash(put.as_bytes()) % 8 + 1;
    let log = |number: u32| {
        let name = format!("{put}-{number}");
        let contents = [
            ("eni-id", format!("eni-{}", number % 3)),
            ("bytes", (crc32fast::hash(name.as_bytes())).to_string()),
            ("name", name),
        ];
        Log {
            time: time - number,
            time_ns: None,
            contents: contents.map(|(key, value)| (key.to_owned(), value)).into(),
        }
    };
    vec![LogBatch {
        topic: "flow_log".into(),
        logs: (0..count).map(log).collect(),
        ..LogBatch::default()
    }]
}

fn name_of(log: &Log) -> &str {
    let value = |wanted: &str| {
        log.contents
            .iter()
            .find(|(key, _)| key == wanted)
            .map(|(_, value)| value.as_str())
    };
    let name = value("name").unwrap();
    assert_eq!(
        value("bytes").unwrap(),
        crc32fast::hash(name.as_bytes()).to_string(),
        "{name} is not as it was sent"
    );
    name
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn retention(key: &LogstoreKey) -> Option<u32> {
    (key.logstore.as_str() == "retained").then_some(1)
}

/// One line, at once: the parent may kill us any time.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{line}").unwrap();
    out.flush().unwrap();
}

/// Puts to one logstore, each twice now and then.
async fn put_many(store: &Store, now: &AtomicU32, logstore: &str, round: u32) {
    let key = key(logstore);
    let begun = MIDNIGHT + round * APART;
    for number in 0_u32.. {
        // A few between two calls of the maintenance: what there is to check must not grow too large.
        while now.load(Ordering::Relaxed) < begun + number / PUTS_A_STEP * STEP {
            tokio::task::yield_now().await;
        }
        if number >= STEPS * PUTS_A_STEP {
            return;
        }
        let time = now.load(Ordering::Relaxed) - number % 7 * 600;
        let put = format!("{logstore}-{round}-{number}");
        say(&format!("send {logstore} {put} {time}"));
        store
            .put(&key, logs(&put, time), Some(&put), at(time))
            .await
            .unwrap();
        say(&format!("stored {logstore} {put} {time}"));
        if number % 5 == 0 {
            store
                .put(&key, logs(&put, time), Some(&put), at(time))
                .await
                .unwrap();
        }
        if logstore == "removed" && number % 20 == 19 {
            say("remove");
            store.drop_logstore(&key).await.unwrap();
            say("gone");
        }
        tokio::task::yield_now().await;
    }
}

/// What the child does until it is killed.
fn child(folder: &Path, round: u32) {
    runtime().block_on(async {
        let store = Store::open(config(folder)).await.unwrap();
        let now = AtomicU32::new(MIDNIGHT + round * APART);
        say("ready");
        let maintain = async {
            for _ in 0..STEPS {
                let time = now.fetch_add(STEP, Ordering::Relaxed) + STEP;
                store.maintain(at(time), retention).await.unwrap();
                say("maintained");
            }
        };
        tokio::join!(
            maintain,
            put_many(&store, &now, "kept", round),
            put_many(&store, &now, "kept-too", round),
            put_many(&store, &now, "retained", round),
            put_many(&store, &now, "removed", round),
        );
        if env::var_os(FAILPOINT).is_none() {
            // The kill comes.
            std::future::pending::<()>().await;
        }
    });
}

/// What the parent knows of a logstore.
#[derive(Default)]
struct Known {
    /// Names of puts with their times.
    stored: BTreeMap<String, u32>,
    /// Of which it is not known.
    sent: BTreeMap<String, u32>,
    /// When the removal was not finished: what may be gone.
    perhaps_gone: BTreeMap<String, u32>,
}

#[derive(Default)]
struct Witness {
    logstores: HashMap<String, Known>,
}

impl Witness {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["send", logstore, put, time] => {
                let known = self.logstores.entry(logstore.into()).or_default();
                known.sent.insert(put.into(), time.parse().unwrap());
            }
            ["stored", logstore, put, time] => {
                let known = self.logstores.entry(logstore.into()).or_default();
                known.sent.remove(put);
                known.stored.insert(put.into(), time.parse().unwrap());
            }
            ["remove"] => {
                let known = self.logstores.entry("removed".into()).or_default();
                known.perhaps_gone = std::mem::take(&mut known.stored);
            }
            ["gone"] => self
                .logstores
                .entry("removed".into())
                .or_default()
                .perhaps_gone
                .clear(),
            ["ready" | "maintained"] => {}
            // The last line may be cut.
            _ => assert!(!line.contains('\n')),
        }
    }

    /// Holds the store against what is known; and sends again what was not answered, as a client does.
    async fn check(&mut self, store: &Store, latest: u32) {
        for (logstore, known) in &mut self.logstores {
            let key = key(logstore);
            let found = found(store, &key).await;
            let whole = |put: &str, time: u32| -> BTreeSet<String> {
                logs(put, time)
                    .iter()
                    .flat_map(|batch| &batch.logs)
                    .map(|log| name_of(log).to_owned())
                    .collect()
            };
            let mut allowed = BTreeSet::new();
            let mut needed = BTreeSet::new();
            for (put, &time) in &known.stored {
                let names = whole(put, time);
                // An hour is let go of when it is a day old.
                if logstore != "retained" || time - 10 >= latest - DAY {
                    needed.extend(names.iter().cloned());
                }
                allowed.extend(names);
            }
            for put in [&known.sent, &known.perhaps_gone] {
                for (put, &time) in put {
                    let names = whole(put, time);
                    let there = names.intersection(&found).count();
                    assert!(
                        there == 0 || there == names.len() || logstore == "retained",
                        "{put} is there in part"
                    );
                    allowed.extend(names);
                }
            }
            assert!(
                found.is_subset(&allowed),
                "{logstore} has what was never sent, or was removed: {:?}",
                found.difference(&allowed)
            );
            assert!(
                found.is_superset(&needed),
                "{logstore} has lost: {:?}",
                needed.difference(&found)
            );
            if !known.perhaps_gone.is_empty() {
                let is_gone = known
                    .perhaps_gone
                    .iter()
                    .all(|(put, &time)| whole(put, time).is_disjoint(&found));
                let gone = std::mem::take(&mut known.perhaps_gone);
                if !is_gone {
                    known.stored.extend(gone);
                }
            }
            let again = std::mem::take(&mut known.sent);
            if again.is_empty() {
                continue;
            }
            for (put, time) in again {
                store
                    .put(&key, logs(&put, time), Some(&put), at(time))
                    .await
                    .unwrap();
                known.stored.insert(put, time);
            }
            // Those that were there already are there once.
            self::found(store, &key).await;
        }
    }
}

/// The names of all logs; none is there twice.
async fn found(store: &Store, key: &LogstoreKey) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut cursor = store.cursor(key, Position::Begin);
    loop {
        let (batches, next) = store.pull(key, cursor, 100_000).await.unwrap();
        if batches.is_empty() {
            return names;
        }
        assert!(next > cursor, "{cursor:?}");
        for log in batches.iter().flat_map(|batch| &batch.logs) {
            assert!(
                names.insert(name_of(log).to_owned()),
                "{} is there twice",
                name_of(log)
            );
        }
        cursor = next;
    }
}

/// Runs a child, kills it when it has said `kill_after` lines if it does not die before, and checks; tells whether it was killed.
fn run(
    test: &str,
    folder: &Path,
    round: u32,
    failpoint: Option<&str>,
    kill_after: Option<u32>,
    witness: &mut Witness,
) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string());
    if let Some(failpoint) = failpoint {
        command.env(FAILPOINT, failpoint);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut read = |line: &mut String| {
        line.clear();
        lines.read_line(line).unwrap() > 0
    };
    let mut line = String::new();
    // Lines of the test harness have no mark.
    let said = |line: &str| {
        line.strip_suffix('\n')
            .and_then(|line| line.split_once('@'))
            .map(|(_, said)| said.to_owned())
    };
    let mut heard = 0;
    while read(&mut line) {
        let Some(said) = said(&line) else { continue };
        witness.hear(&said);
        heard += 1;
        if Some(heard) == kill_after {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(status.success() || status.signal() == Some(9), "{status}");
    let latest = MIDNIGHT + round * APART + STEPS * STEP;
    runtime().block_on(async {
        let store = Store::open(config(folder)).await.unwrap();
        witness.check(&store, latest).await;
        if round % 3 == 2 {
            // What the children leave must not grow without end, however slow they are.
            store.maintain(at(latest), retention).await.unwrap();
        }
    });
    status.signal() == Some(9)
}

fn child_if_asked() -> bool {
    let (Some(folder), Ok(round)) = (env::var_os(FOLDER), env::var(ROUND)) else {
        return false;
    };
    child(Path::new(&folder), round.parse().unwrap());
    true
}

#[test]
fn nothing_is_lost_or_doubled_by_fifty_kills_at_random_moments() {
    if child_if_asked() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut witness = Witness::default();
    let mut random = 0x2545_f491_u32;
    let mut killed = 0;
    for round in 0..50 {
        // xorshift
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let kill_after = Some(1 + random % 200);
        let name = "nothing_is_lost_or_doubled_by_fifty_kills_at_random_moments";
        killed += u32::from(run(
            name,
            folder.path(),
            round,
            None,
            kill_after,
            &mut witness,
        ));
    }
    assert_eq!(killed, 50);
}

#[test]
fn nothing_is_lost_or_doubled_by_a_kill_at_any_step() {
    if child_if_asked() {
        return;
    }
    const STEPS: [&str; 13] = [
        "put-written",
        "generation-frozen",
        "file-written",
        "manifest-written",
        "flushed",
        "identities-saved",
        "segments-removed",
        "merged",
        "compacted",
        "retained",
        "file-removed",
        "logstore-removed",
        "put-written",
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut witness = Witness::default();
    for (round, step) in (0..).zip(STEPS) {
        // Of retention, how often there is occasion depends on what the others have left.
        let passes = if step == "retained" { [1, 1] } else { [1, 3] };
        for (again, pass) in (0..).zip(passes) {
            let name = "nothing_is_lost_or_doubled_by_a_kill_at_any_step";
            let failpoint = format!("{step}:{pass}");
            let killed = run(
                name,
                folder.path(),
                round * 2 + again,
                Some(&failpoint),
                None,
                &mut witness,
            );
            assert!(killed, "the child never came to {failpoint}");
        }
    }
}
