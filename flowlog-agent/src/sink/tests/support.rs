//! Windows, cursors and writers that do as a test tells them.
use std::{
    collections::VecDeque,
    io::Write,
    path::Path,
    sync::{Mutex, atomic::AtomicU32},
};

use flowlog_model::record::{Eni, LogStatus, Record};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{
    config::Config,
    output::{OutputOptions, outputs},
    sink::{cursor::Cursor, stdout::Stdout, *},
    window::Window,
};

/// Longer than any test takes.
pub(super) const AGES: Duration = Duration::from_secs(100_000);

pub(super) const QUICK: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(1))
    .with_max_delay(Duration::from_millis(2))
    .without_max_times();

/// A window with records that are numbered in `bytes`.
pub(super) struct TestWindow {
    identity: WindowIdentity,
    records: u64,
    /// Attempts to read it that are still to fail, after half of the records.
    pub(super) fails: AtomicU32,
}

pub(super) fn window(number: u64, records: u64) -> Arc<TestWindow> {
    Arc::new(TestWindow {
        identity: WindowIdentity {
            spool: "9f86d081884c7d65".to_owned(),
            window: number,
            length_seconds: 60,
        },
        records,
        fails: AtomicU32::new(0),
    })
}

impl Delivery for TestWindow {
    fn identity(&self) -> &WindowIdentity {
        &self.identity
    }

    fn label(&self) -> Window {
        let start = self.identity.window * 60;
        Window {
            start,
            end: start + 60,
        }
    }

    fn render(&self, _: &FlowLog, each: &mut dyn FnMut(&Record<'_>)) -> io::Result<()> {
        let eni = Eni {
            eni_id: "eni-1".to_owned(),
            vswitch_id: "vsw-1".to_owned(),
            vm_id: None,
            vpc_id: "vpc-1".to_owned(),
            account_id: "1".to_owned(),
            region: None,
        };
        let fails = self.fails.load(Ordering::Relaxed);
        self.fails.store(fails.saturating_sub(1), Ordering::Relaxed);
        let fails = fails > 0;
        let records = if fails {
            self.records / 2
        } else {
            self.records
        };
        let Window { start, end } = self.label();
        for number in 0..records {
            each(&Record {
                eni: &eni,
                flow: None,
                direction: None,
                packets: None,
                bytes: Some(number),
                start,
                end,
                log_status: LogStatus::Ok,
                action: None,
                tcp_flags: None,
                batch_id: None,
            });
        }
        if fails {
            return Err(io::Error::other("the window cannot be read"));
        }
        Ok(())
    }
}

/// What a text destination is to have of windows.
pub(super) fn text_of(windows: impl IntoIterator<Item = u64>, records: u64) -> String {
    let of_window = |window| (0..records).map(move |number| format!("{} {number}\n", window * 60));
    windows.into_iter().flat_map(of_window).collect()
}

/// The outputs of flow logs by name and destination, whose lines are window and number.
pub(super) fn outputs_to(destinations: &[(&str, &str)]) -> Vec<Arc<Output>> {
    let flow_log = |(name, destination): &(&str, &str)| {
        format!(
            "[[flow-log]]\nname = '{name}'\nresource-type = 'VPC'\nresource-id = 'vpc-1'\n\
             template = '${{start}} ${{bytes}}'\ndestination = {{ {destination} }}\n"
        )
    };
    let text: String = destinations.iter().map(flow_log).collect();
    let config = Config::parse(&format!("inventory = 'i'\n{text}"), "agent.toml").unwrap();
    outputs(&config.flow_logs, &OutputOptions::default())
}

pub(super) fn output_to_file(path: &Path) -> Arc<Output> {
    let destination = format!("type = 'file', path = '{}'", path.display());
    outputs_to(&[("file", &destination)]).remove(0)
}

pub(super) fn output_to_stdout() -> Arc<Output> {
    outputs_to(&[("stdout", "type = 'stdout'")]).remove(0)
}

pub(super) fn sinks(
    cursors: &Arc<impl CursorStore + 'static>,
    pauses: ExponentialBuilder,
) -> (Sinks, UnboundedReceiver<SinkEvent>) {
    let (events, received) = unbounded_channel();
    let sinks = Sinks {
        pauses,
        ..Sinks::new(events, cursors.clone())
    };
    (sinks, received)
}

/// Waits for the delivery of so many windows, whatever fails in between; gives flow log, window and records of each.
pub(super) fn delivered(
    events: &mut UnboundedReceiver<SinkEvent>,
    count: usize,
) -> Vec<(String, u64, u64)> {
    let mut delivered = Vec::new();
    while delivered.len() < count {
        match events.blocking_recv().unwrap() {
            SinkEvent::Delivered {
                flow_log,
                window,
                written,
            } => delivered.push((flow_log, window, written.records)),
            SinkEvent::Failed { .. } => {}
            SinkEvent::StdoutClosed => panic!("nobody reads: {delivered:?}"),
        }
    }
    delivered
}

/// Waits for a failed attempt.
pub(super) fn failed(events: &mut UnboundedReceiver<SinkEvent>) -> (u32, Duration) {
    match events.blocking_recv().unwrap() {
        SinkEvent::Failed {
            attempts, pause, ..
        } => (attempts, pause),
        other => panic!("{other:?}"),
    }
}

pub(super) fn of(
    flow_log: &str,
    windows: impl IntoIterator<Item = u64>,
    records: u64,
) -> Vec<(String, u64, u64)> {
    let of_window = |window| (flow_log.to_owned(), window, records);
    windows.into_iter().map(of_window).collect()
}

/// A store that fails once it has stored so many cursors.
pub(super) struct FailingCursors {
    pub(super) cursors: HeldCursors,
    pub(super) left: Mutex<Option<u32>>,
}

impl CursorStore for FailingCursors {
    fn load(&self, flow_log: &str) -> io::Result<Option<Cursor>> {
        self.cursors.load(flow_log)
    }

    fn store(&self, flow_log: &str, cursor: &Cursor) -> io::Result<()> {
        let mut left = self.left.lock().unwrap();
        if let Some(left) = &mut *left {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| io::Error::other("the spool's disk is full"))?;
        }
        self.cursors.store(flow_log, cursor)
    }
}

/// A writer that does as it is told; when there is nothing more, it writes all.
#[derive(Clone, Default)]
pub(super) struct Told {
    answers: Arc<Mutex<VecDeque<Result<usize, io::ErrorKind>>>>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Told {
    pub(super) fn to(answers: impl IntoIterator<Item = Result<usize, io::ErrorKind>>) -> Self {
        Self {
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            ..Self::default()
        }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Told {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let answer = self.answers.lock().unwrap().pop_front();
        let length = answer.unwrap_or(Ok(octets.len()))?.min(octets.len());
        self.written.lock().unwrap().extend(&octets[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that waits at each write until it is let through, and says that it waits and that it is gone.
pub(super) struct Gate {
    let_through: mpsc::Receiver<()>,
    waits: mpsc::Sender<()>,
    told: Told,
}

impl Write for Gate {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.waits.send(()).unwrap();
        self.let_through.recv().unwrap();
        self.told.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The gate's device, what lets through, what tells of waiting, and what was written.
pub(super) fn gate() -> (Device, mpsc::Sender<()>, mpsc::Receiver<()>, Told) {
    let (key, let_through) = mpsc::channel();
    let (waits, waiting) = mpsc::channel();
    let told = Told::default();
    let gate = Gate {
        let_through,
        waits,
        told: told.clone(),
    };
    (Device::Stdout(Stdout::to(gate)), key, waiting, told)
}
