//! What the demo asks of the service, and tells the user to ask.
use std::time::{Duration, Instant};

use crate::{Output, demo::say, service::Service};

/// What was rejected: the first thing that is asked, as soon as there is such a record.
pub(crate) const REJECTED: &str = "action:REJECT | SELECT srcaddr, dstaddr, dstport, sum(packets) AS packets \
                                   GROUP BY srcaddr, dstaddr, dstport";

/// Who sent most: the last thing that is asked.
pub(crate) const TALKERS: &str = "direction:out | SELECT srcaddr, dstaddr, sum(bytes) AS bytes GROUP BY srcaddr, dstaddr ORDER BY bytes DESC LIMIT 5";

/// How far back the demo looks.
const LAST: &str = "1h";

/// Between two looks whether there is something to show.
const LOOK: Duration = Duration::from_secs(2);

/// What can be tried in another terminal. A script tells `flowlog` there of the service.
pub(crate) fn hints(service: &Service) -> String {
    format!(
        "\n  The service at {} keeps the records. Meanwhile, in another terminal:\n\n    \
         . {}\n    \
         flowlog query --last {LAST} '{REJECTED}'\n    \
         flowlog query 'srcaddr:10.0.1.0/24 and dstport:8080'\n    \
         flowlog tail 'action:REJECT'\n    \
         flowlog top\n",
        service.url(),
        service.environment().display(),
    )
}

/// Asks what was rejected until there is an answer, which is shown.
pub(crate) struct FirstAnswer {
    /// None when it has come, or cannot.
    next_look: Option<Instant>,
}

impl FirstAnswer {
    /// Not before there can be a record, and only where people look.
    pub(crate) fn new(now: Instant, output: Output) -> Self {
        Self {
            next_look: (output == Output::Table).then_some(now + LOOK),
        }
    }

    /// When to look next.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// Looks.
    pub(crate) fn look(&mut self, service: &Service, now: Instant) {
        let answer = service.ask(&["query", "--output", "csv", "--last", LAST, REJECTED]);
        match answer {
            // A header, and a line at least.
            Ok(csv) if csv.lines().count() > 1 => {
                self.next_look = None;
                show(service, REJECTED);
            }
            Ok(_) => self.next_look = Some(now + LOOK),
            Err(error) => {
                self.next_look = None;
                say(&format!("{error:#}"));
            }
        }
    }
}

/// Asks, and shows question and answer on standard error: standard output is for records.
pub(crate) fn show(service: &Service, query: &str) {
    match service.ask(&["query", "--last", LAST, query]) {
        Ok(table) => eprint!("\n$ flowlog query --last {LAST} '{query}'\n{table}\n"),
        Err(error) => say(&format!("{error:#}")),
    }
}
