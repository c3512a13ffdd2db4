//! The demo: makes the lab, lets it talk, runs the agent on it, and takes all of it down again, whatever happens.
use std::{
    io::{self, Write as _},
    process::{ExitCode, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use tokio::time::{sleep_until, timeout};

use crate::{
    DemoArguments, Output,
    agent::{Agent, Files},
    ask::{self, FirstAnswer},
    map,
    service::Service,
    signals::{Event, Signals, shielded},
    traffic::Traffic,
    vpc::Vpc,
};

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
    let lab = shielded(|| -> Result<_> { Ok((Vpc::create()?, Files::create()?)) })?;
    let result = furnished(arguments, &lab, &mut signals).await;
    shielded(|| drop(lab));
    say("everything is taken down again");
    result
}

/// Starts the service, and the agent that delivers to it. When they end, it is the service's turn last.
async fn furnished(
    arguments: &DemoArguments,
    (vpc, files): &(Vpc, Files),
    signals: &mut Signals,
) -> Result<ExitCode> {
    if signals.end_came().await {
        return Ok(ExitCode::SUCCESS);
    }
    // Not shielded: it would not hear when it is to end.
    let service = Service::start(&arguments.flowlog, files)?;
    if signals.end_came().await {
        return Ok(ExitCode::SUCCESS);
    }
    files.configure(vpc, &service)?;
    introduce(arguments, files, &service);
    follow(arguments, vpc, files, &service, signals).await
}

/// Runs agent and traffic until the agent ends, by itself or because we are told to end.
async fn follow(
    arguments: &DemoArguments,
    vpc: &Vpc,
    files: &Files,
    service: &Service,
    signals: &mut Signals,
) -> Result<ExitCode> {
    let mut agent = Agent::start(arguments, files)?;
    let traffic = shielded(|| Traffic::start(vpc))?;
    let mut first_answer = FirstAnswer::new(Instant::now(), arguments.output);
    let mut told_to_end = false;
    let status = loop {
        if let Some(status) = agent.ended() {
            break status;
        }
        tokio::select! {
            () = until(first_answer.next_look()) => first_answer.look(service, Instant::now()),
            event = signals.next() => if event == Event::End {
                told_to_end = true;
                agent.ask_to_end();
                match timeout(END_LIMIT, agent_end(&mut agent, signals)).await {
                    Ok(status) => break status,
                    Err(_) => say("the agent takes long to end: waiting for it"),
                }
            },
        }
    };
    shielded(|| drop(traffic));
    // An agent that ends in good order has delivered all.
    if status.success() && arguments.output == Output::Table {
        ask::show(service, ask::TALKERS);
    }
    Ok(exit_code(status, told_to_end))
}

/// Waits until then; for ever, if there is no such moment.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
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

fn introduce(arguments: &DemoArguments, files: &Files, service: &Service) {
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
        "{}{}{legend}{}    {} status --config {}\n\n  \
         Records come every {} of the clock. {end} Nothing is left behind.\n",
        map::MAP,
        map::TRAFFIC,
        ask::hints(service),
        arguments.agent.display(),
        files.configuration_path().display(),
        arguments.window,
    );
}
