//! Talking with the service: two tasks, one that waits for the desired state and one that reports.
//!
//! The first report goes before the first question: the service knows by the ENIs of a host which flow logs concern it, and would
//! otherwise answer that there are none.
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use flowlog_client::{Answer, Call, Client, ClientError};
use flowlog_model::protocol::{
    DESIRED_STATE_PATH, DesiredState, REPORT_PATH, RefusedEni, Report, ReportAnswer, Version,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{ReadClock, client};
use crate::config::ServiceConfig;

/// How long the service may wait for another desired state before it answers.
const WAIT: Duration = Duration::from_secs(30);

/// How long an answer may take beyond what was asked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two questions, so that a service that does not wait is not asked all the time.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(100);

/// Least time between two desired states that are handed over. Each closes the open windows of the flow logs that it changes, and the
/// labels of windows are whole seconds. What comes in between is left out: a newer state has it.
pub(super) const BETWEEN_STATES: Duration = Duration::from_secs(1);

/// Without news a report is made again after this time, lest the service has lost the last one.
pub(super) const REPORT_AGAIN: Duration = Duration::from_secs(60);

/// After a report of which ENIs were refused, it is made again after this time: they may be on their way from another agent, which has yet
/// to report without them.
pub(super) const REPORT_REFUSED_AGAIN: Duration = Duration::from_secs(5);

/// Most bytes of a desired state: some 4,096 flow logs with templates of 4 KiB.
const MAX_STATE_BYTES: usize = 32 << 20;

/// Most bytes of the answer to a report: a sentence for each of 4,096 ENIs.
const MAX_REPORT_ANSWER_BYTES: usize = 2 << 20;

/// Pauses after failures: from a tenth of a second doubled up to 5 s, each made longer by a random part of itself, so that not all agents
/// come at once when the service is there again.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_factor(2.0)
    .with_max_delay(Duration::from_secs(5))
    .without_max_times()
    .with_jitter();

/// How the connection to the service stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether the service answers, and since when, as a boot time; none before the first answer or failure.
    since: Option<(bool, Duration)>,
    /// Why a question fails, if the last one has.
    question_error: Option<String>,
    /// Why a report fails, if the last one has.
    report_error: Option<String>,
    /// Requests that have failed since the agent was started.
    pub(crate) failures: u64,
    /// The ENIs that the service does not take from this agent.
    pub(crate) refused_enis: Vec<RefusedEni>,
}

impl Standing {
    /// Whether the last question and the last report were answered.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.since, Some((true, _)))
    }

    /// Since when it is so, as a boot time; none before the first answer or failure.
    pub(crate) fn since(&self) -> Option<Duration> {
        self.since.map(|(_, since)| since)
    }

    /// Why the service does not answer.
    pub(crate) fn error(&self) -> Option<&str> {
        let error = self.report_error.as_ref().or(self.question_error.as_ref());
        error.map(String::as_str)
    }

    /// Takes note of an outcome; tells whether it is other news than the last one.
    fn note(&mut self, of: Request, outcome: Result<(), String>, now: Duration) -> bool {
        self.failures += u64::from(outcome.is_err());
        let error = match of {
            Request::Question => &mut self.question_error,
            Request::Report => &mut self.report_error,
        };
        let is_news = *error != outcome.clone().err();
        *error = outcome.err();
        let connected = self.question_error.is_none() && self.report_error.is_none();
        if self.since.is_none_or(|(was, _)| was != connected) {
            self.since = Some((connected, now));
        }
        is_news
    }
}

/// Why a request has failed: the same for the same reason, and so without the number of the request.
fn reason(error: &ClientError) -> String {
    match error {
        ClientError::Refused { code, message, .. } => format!("{message} ({code})"),
        other => other.to_string(),
    }
}

#[derive(Clone, Copy)]
enum Request {
    Question,
    Report,
}

/// What both tasks have.
pub(super) struct Shared {
    config: ServiceConfig,
    client: Mutex<Client>,
    now: ReadClock,
    standing: Mutex<Standing>,
    /// Whether a report was taken. Until then nothing is asked.
    reported: Notify,
    /// The service answers again: it may be another one, or know less than it did.
    answers_again: Notify,
}

impl Shared {
    pub(super) fn new(config: ServiceConfig, client: Client, now: ReadClock) -> Arc<Self> {
        Arc::new(Self {
            config,
            client: Mutex::new(client),
            now,
            standing: Mutex::default(),
            reported: Notify::new(),
            answers_again: Notify::new(),
        })
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, of: Request, call: &Call<'_>) -> Result<Answer, ClientError> {
        let client = self
            .client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let wall = (self.now)().wall;
        let answered = client.send(call, wall).await;
        self.note(of, answered.as_ref().err());
        if let Err(ClientError::Refused { .. }) = &answered {
            self.read_key_again();
        }
        answered
    }

    /// Takes note of how a request has gone, and says so if the last one has gone otherwise.
    fn note(&self, of: Request, error: Option<&ClientError>) {
        let outcome = error.map_or(Ok(()), |error| Err(reason(error)));
        let now = (self.now)().boot;
        let is_news = self.standing().note(of, outcome, now);
        match error {
            Some(error) if is_news => tracing::warn!(
                "{error}; trying again, and the flow logs of the service stay as they are"
            ),
            None if is_news => {
                tracing::info!("{} answers again", self.config.url);
                self.answers_again.notify_one();
            }
            _ => {}
        }
    }

    /// A key that is refused may have been replaced by another in its file.
    fn read_key_again(&self) {
        match client(&self.config) {
            Ok(new) => *self.client.lock().unwrap_or_else(PoisonError::into_inner) = new,
            Err(error) => tracing::warn!("{error}; going on with the access key as it was"),
        }
    }

    async fn ask(&self, after: Version, wait: Duration) -> Result<DesiredState, ClientError> {
        let query = [
            ("after".to_owned(), after.to_string()),
            ("wait".to_owned(), wait.as_secs().to_string()),
        ];
        let call = Call {
            method: "GET",
            path: DESIRED_STATE_PATH,
            query: &query,
            body: b"",
            patience: wait + PATIENCE,
            max_answer_bytes: MAX_STATE_BYTES,
        };
        let answer = self.send(Request::Question, &call).await?;
        answer.json().inspect_err(|error| {
            self.note(Request::Question, Some(error));
        })
    }

    /// Reports; gives after what time that is to be done again.
    async fn tell(&self, report: &Report) -> Result<Duration, ClientError> {
        // Text and numbers with text keys always can be.
        let body = serde_json::to_vec(report).unwrap_or_default();
        let call = Call {
            method: "POST",
            path: REPORT_PATH,
            query: &[],
            body: &body,
            patience: PATIENCE,
            max_answer_bytes: MAX_REPORT_ANSWER_BYTES,
        };
        let answer = self.send(Request::Report, &call).await?;
        let ReportAnswer { refused_enis, .. } = answer.json().inspect_err(|error| {
            self.note(Request::Report, Some(error));
        })?;
        let again = if refused_enis.is_empty() {
            REPORT_AGAIN
        } else {
            REPORT_REFUSED_AGAIN
        };
        let mut standing = self.standing();
        if standing.refused_enis != refused_enis {
            for RefusedEni { eni_id, reason } in &refused_enis {
                tracing::warn!(eni = eni_id, "the service does not take it: {reason}");
            }
            standing.refused_enis = refused_enis;
        }
        Ok(again)
    }
}

/// The loop's end of the tasks, which end with it.
pub(super) struct Link {
    shared: Arc<Shared>,
    desired: watch::Receiver<Option<DesiredState>>,
    /// Before then no other state is handed over; none before the first.
    next_state: Option<Instant>,
    report: watch::Sender<Option<Report>>,
    tasks: [JoinHandle<()>; 2],
}

impl Link {
    /// Starts the tasks. To be called within a tokio runtime.
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let (desired_sender, desired) = watch::channel(None);
        let (report, reports) = watch::channel(None);
        let tasks = [
            tokio::spawn(ask_always(Arc::clone(&shared), desired_sender)),
            tokio::spawn(tell_always(Arc::clone(&shared), reports)),
        ];
        Self {
            shared,
            desired,
            next_state: None,
            report,
            tasks,
        }
    }

    /// The newest state, once there is one that was not given yet; one a second at most. Cancel-safe.
    pub(super) async fn desired(&mut self) -> DesiredState {
        loop {
            // Before one is taken: so none is lost where nobody waits any more.
            if let Some(next_state) = self.next_state {
                sleep_until(next_state).await;
            }
            if self.desired.changed().await.is_err() {
                // The task has panicked, and that was told.
                return std::future::pending().await;
            }
            if let Some(state) = self.desired.borrow_and_update().clone() {
                self.next_state = Some(Instant::now() + BETWEEN_STATES);
                return state;
            }
        }
    }

    /// Has a report sent, in place of one that was not sent yet, unless it is the one that was sent last.
    pub(super) fn report(&self, report: Report) {
        self.report.send_if_modified(|last| {
            let is_new = last.as_ref() != Some(&report);
            *last = Some(report);
            is_new
        });
    }

    pub(super) fn standing(&self) -> Standing {
        self.shared.standing().clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn ask_always(shared: Arc<Shared>, desired: watch::Sender<Option<DesiredState>>) {
    shared.reported.notified().await;
    // The first question is after none: the service may be another one than that which gave the last state, with the same number.
    let mut after = 0;
    let mut has_any = false;
    let mut pauses = PAUSES.build();
    let mut wait = WAIT;
    loop {
        match shared.ask(after, wait).await {
            Ok(state) => {
                (wait, pauses) = (WAIT, PAUSES.build());
                // Also a first one with the version 0: then it is known that there are no flow logs.
                if state.version != after || !has_any {
                    (after, has_any) = (state.version, true);
                    desired.send_replace(Some(state));
                }
                sleep(BETWEEN_QUESTIONS).await;
            }
            Err(_) => {
                // That it answers again is to be known at once.
                wait = Duration::ZERO;
                sleep(pauses.next().unwrap_or_default()).await;
            }
        }
    }
}

async fn tell_always(shared: Arc<Shared>, mut reports: watch::Receiver<Option<Report>>) {
    let mut pauses = PAUSES.build();
    let mut again = REPORT_AGAIN;
    loop {
        let report = reports.borrow_and_update().clone();
        match &report {
            None => {}
            Some(report) => match shared.tell(report).await {
                Ok(after) => {
                    (again, pauses) = (after, PAUSES.build());
                    shared.reported.notify_one();
                }
                Err(_) => {
                    sleep(pauses.next().unwrap_or_default()).await;
                    continue;
                }
            },
        }
        let news = async {
            tokio::select! {
                changed = reports.changed() => changed.is_ok(),
                () = shared.answers_again.notified() => true,
            }
        };
        if timeout(again, news).await == Ok(false) {
            return;
        }
    }
}
