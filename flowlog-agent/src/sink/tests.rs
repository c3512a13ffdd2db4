//! Which sinks there are.
use std::{path::Path, sync::Mutex, time::Instant};

use flowlog_model::record::Record;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{cursor::Cursor, delivery::WindowIdentity, *};
use crate::{
    config::Config,
    output::{OutputOptions, outputs},
    window::Window,
};

/// How long a thread may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A window without records.
struct Nothing(WindowIdentity);

impl Delivery for Nothing {
    fn identity(&self) -> &WindowIdentity {
        &self.0
    }

    fn label(&self) -> Window {
        Window { start: 0, end: 60 }
    }

    fn render(&self, _: &FlowLog, _: &mut dyn FnMut(&Record<'_>)) -> io::Result<u64> {
        Ok(0)
    }
}

/// Cursors in memory; how often each was read.
#[derive(Default)]
struct Cursors {
    stored: Mutex<BTreeMap<String, Cursor>>,
    loads: Mutex<BTreeMap<String, u64>>,
}

impl CursorStore for Cursors {
    fn load(&self, flow_log: &str) -> io::Result<Option<Cursor>> {
        *self
            .loads
            .lock()
            .unwrap()
            .entry(flow_log.to_owned())
            .or_default() += 1;
        Ok(self.stored.lock().unwrap().get(flow_log).cloned())
    }

    fn store(&self, flow_log: &str, cursor: &Cursor) -> io::Result<()> {
        let mut stored = self.stored.lock().unwrap();
        stored.insert(flow_log.to_owned(), cursor.clone());
        Ok(())
    }
}

/// Flow logs with files, or to standard output.
fn outputs_to(destinations: &[(&str, Option<&Path>)]) -> Vec<Arc<Output>> {
    let flow_log = |(name, path): &(&str, Option<&Path>)| {
        let destination = path.map_or("type = \"stdout\"".to_owned(), |path| {
            format!("type = \"file\", path = {path:?}")
        });
        format!(
            "[[flow-log]]\nname = {name:?}\nresource-type = \"VPC\"\nresource-id = \"vpc\"\n\
             destination = {{ {destination} }}\n"
        )
    };
    let flow_logs: String = destinations.iter().map(flow_log).collect();
    let text = format!("inventory = \"inventory.toml\"\n{flow_logs}");
    let config = Config::parse(&text, "agent.toml").unwrap();
    outputs(&config.flow_logs, &OutputOptions::default())
}

struct Lab {
    sinks: Sinks,
    cursors: Arc<Cursors>,
    events: UnboundedReceiver<SinkEvent>,
}

impl Lab {
    fn new() -> Self {
        let (sender, events) = unbounded_channel();
        let cursors: Arc<Cursors> = Arc::default();
        let store = Arc::clone(&cursors);
        Self {
            sinks: Sinks::new(sender, store, Clock::new().unwrap()),
            cursors,
            events,
        }
    }

    /// Delivers a window, and waits until it is.
    fn deliver(&mut self, output: &Arc<Output>, window: u64) {
        let identity = WindowIdentity {
            spool: "s".to_owned(),
            window,
            length_seconds: 60,
        };
        self.sinks
            .deliver(output, Arc::new(Nothing(identity)))
            .unwrap();
        let delivered = SinkEvent::Delivered {
            flow_log: output.flow_log.name.to_string(),
            window,
            written: Written::default(),
        };
        assert_eq!(self.events.blocking_recv(), Some(delivered));
    }

    /// Threads that have not ended: each has the cursors.
    fn threads(&self) -> usize {
        // Ours, and that of the sinks.
        Arc::strong_count(&self.cursors) - 2
    }

    fn wait_for_threads(&self, threads: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.threads() != threads {
            assert!(Instant::now() < deadline, "{} threads", self.threads());
            thread::yield_now();
        }
    }
}

#[test]
fn a_sink_ends_with_the_last_flow_log_that_writes_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    let first = outputs_to(&[("aa", Some(&one)), ("bb", Some(&other))]);
    let mut lab = Lab::new();
    for output in &first {
        lab.deliver(output, 1);
    }
    assert_eq!(lab.threads(), 2);
    // What was another's file is free once that has all that it is to have.
    let next = outputs_to(&[("cc", Some(&one)), ("bb", Some(&other))]);
    assert!(!lab.sinks.suit(&next));
    lab.sinks.forget("aa");
    assert!(lab.sinks.suit(&next));
    lab.wait_for_threads(1);
    lab.deliver(&next[0], 2);
    lab.deliver(&next[1], 2);
    assert_eq!(lab.threads(), 2);
    lab.sinks.forget("nobody");
    assert_eq!(lab.sinks.close(PATIENCE), BTreeMap::new());
}

#[test]
fn a_sink_that_others_write_to_goes_on_and_forgets_where_the_flow_log_was() {
    let shared = outputs_to(&[("aa", None), ("bb", None)]);
    let mut lab = Lab::new();
    lab.deliver(&shared[0], 1);
    lab.deliver(&shared[1], 1);
    assert_eq!(lab.threads(), 1);
    lab.sinks.forget("aa");
    lab.deliver(&shared[1], 2);
    assert_eq!(lab.threads(), 1);
    lab.deliver(&shared[0], 3);
    let loads = lab.cursors.loads.lock().unwrap().clone();
    assert_eq!(
        loads,
        BTreeMap::from([("aa".to_owned(), 2), ("bb".to_owned(), 1)])
    );
    lab.sinks.close(PATIENCE);
}
