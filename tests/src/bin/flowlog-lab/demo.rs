//! The demo: makes the lab, lets it talk, runs the agent on it, and takes all of it down again, whatever happens.
use std::{
    io::{self, Write as _},
    process::{ExitCode, ExitStatus},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use nix::sys::signal::{SigSet, Signal};
use tokio::{
    signal::unix::{self, SignalKind},
    time::timeout,
};

use crate::{DemoArguments, Output, agent::Agent, agent::Files, map, traffic::Traffic, vpc::Vpc};

/// How long the agent may take to write its last window.
const END_LIMIT: Duration = Duration::from_secs(15);

/// Runs the demo.
pub(crate) fn run(arguments: &DemoArguments) -> ExitCode {
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(demo(arguments)));
    match result {
        Ok(code) => code,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells the user. Standard error may be closed; there is then nobody to tell.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "flowlog-lab: {line}");
}

async fn demo(arguments: &DemoArguments) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        return Err(anyhow!(
            "the lab makes network namespaces, for which it must run as root"
        ));
    }
    // Before anything is made that would have to be taken down.
    let mut signals = Signals::new().context("cannot handle signals")?;
    let lab = shielded(|| -> Result<_> {
        let vpc = Vpc::create()?;
        let files = Files::write(&vpc)?;
        Ok((vpc, files))
    })?;
    let result = if signals.end_came().await {
        Ok(ExitCode::SUCCESS)
    } else {
        follow(arguments, &lab.0, &lab.1, &mut signals).await
    };
    shielded(|| drop(lab));
    say("everything is taken down again");
    result
}

/// Runs agent and traffic until the agent ends, by itself or because we are told to end.
async fn follow(
    arguments: &DemoArguments,
    vpc: &Vpc,
    files: &Files,
    signals: &mut Signals,
) -> Result<ExitCode> {
    introduce(arguments, files);
    let mut agent = Agent::start(arguments, files)?;
    let traffic = shielded(|| Traffic::start(vpc))?;
    let mut told_to_end = false;
    let status = loop {
        if let Some(status) = agent.ended() {
            break status;
        }
        if signals.next().await == Event::End {
            told_to_end = true;
            agent.ask_to_end();
            match timeout(END_LIMIT, agent_end(&mut agent, signals)).await {
                Ok(status) => break status,
                Err(_) => say("the agent takes long to end: waiting for it"),
            }
        }
    };
    shielded(|| drop(traffic));
    Ok(exit_code(status, told_to_end))
}

async fn agent_end(agent: &mut Agent, signals: &mut Signals) -> ExitStatus {
    loop {
        if let Some(status) = agent.ended() {
            return status;
        }
        signals.next().await;
    }
}

/// The agent's own, if it ended by itself: it has said why.
fn exit_code(status: ExitStatus, told_to_end: bool) -> ExitCode {
    match status.code() {
        Some(0) => ExitCode::SUCCESS,
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None if told_to_end => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

fn introduce(arguments: &DemoArguments, files: &Files) {
    let legend = match arguments.output {
        Output::Table => map::LEGEND,
        Output::Json | Output::Text => "",
    };
    let end = match arguments.windows {
        Some(windows) => format!("It ends after {windows} windows, or by Ctrl-C."),
        None => "Ctrl-C ends it.".to_owned(),
    };
    let _ = write!(
        io::stderr().lock(),
        "{}{}{legend}\n  Records come every {} of the clock. {end} Nothing is left behind.\n  \
         Meanwhile, in another terminal: {} interfaces --config {}\n",
        map::MAP,
        map::TRAFFIC,
        arguments.window,
        arguments.agent.display(),
        files.configuration_path().display(),
    );
}

#[derive(PartialEq, Eq)]
enum Event {
    /// A child has ended: the agent, or an `ip`.
    Child,
    /// We are told to end.
    End,
}

struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
    child: unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
            child: unix::signal(SignalKind::child())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.interrupt.recv() => Event::End,
            _ = self.terminate.recv() => Event::End,
            _ = self.hangup.recv() => Event::End,
            _ = self.child.recv() => Event::Child,
        }
    }

    /// Whether we have been told to end already.
    async fn end_came(&mut self) -> bool {
        loop {
            match timeout(Duration::ZERO, self.next()).await {
                Ok(Event::End) => return true,
                Ok(Event::Child) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Does work that starts programs which Ctrl-C must not reach, for it reaches all programs of the terminal: the lab is made and
/// taken down by `ip`. The programs inherit the thread's mask.
fn shielded<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let shield = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // It fails for no valid set.
            let _ = shield.thread_block();
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
