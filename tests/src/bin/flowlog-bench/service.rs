//! The service with 10,000 ENIs of 100 agents and 1,000 flow logs: describing, creating, changing, and how long it takes until the agents
//! have followed.
//!
//! The agents are this program's: they wait for their desired state as agents do, and have applied it at once. An agent follows at
//! most once a second, which is not in these figures.
//!
//! The floor of a request is a signed request that reads one row, over a connection of its own like all of them; that of a change has one
//! synced write of a page to a file besides.
mod client;

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use flowlog::api::{CreateFlowLog, FlowLog, FlowLogPage, ModifyFlowLog, Service};
use tokio::{runtime::Builder, time::sleep};

use crate::report::{Budget, Report, median};
use client::{Agents, Asker, Running};

const HOSTS: usize = 100;
const ENIS_OF_HOST: usize = 100;
const FLOW_LOGS: usize = 1_000;
/// The most on a page.
const PAGE: usize = 50;
/// Of so many flow logs one is of the VPC, and concerns every agent; the others are of a VSwitch, and concern one.
const OF_VPC_EVERY: usize = 100;
/// Bytes of a synced write: a page of the state.
const SYNCED_BYTES: usize = 4096;
/// A flow log that is still on its way after this never arrives.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn measure(_object: &[u8], rounds: usize, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let running = Running::start(folder.path())?;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let admin = running.administrator()?;
        let begun = Instant::now();
        let agents = Agents::report(&running, &admin, HOSTS, ENIS_OF_HOST).await?;
        report.figure(
            format!(
                "service: {HOSTS} agents report {} ENIs",
                HOSTS * ENIS_OF_HOST
            ),
            "s",
            begun.elapsed().as_secs_f64(),
            None,
        );
        let agents = agents.follow();
        let measured = figures(&admin, folder.path(), rounds, report).await;
        agents.end();
        measured
    })
}

async fn figures(admin: &Asker, folder: &Path, rounds: usize, report: &mut Report) -> Result<()> {
    let mut created = Vec::new();
    for number in 0..FLOW_LOGS {
        created.push(timed(create(admin, number)).await?.0);
    }
    let flow_logs = arrived(admin).await?;
    ensure!(
        flow_logs.len() == FLOW_LOGS,
        "{} flow logs",
        flow_logs.len()
    );
    let of_vpc: Vec<&FlowLog> = flow_logs
        .iter()
        .filter(|log| log.resource_type == "VPC")
        .collect();
    let of_vswitch = flow_logs
        .iter()
        .filter(|log| log.resource_type == "VSwitch");

    let (mut reads, mut syncs) = (Vec::new(), Vec::new());
    let (mut described, mut changed, mut one, mut all) = (vec![], vec![], vec![], vec![]);
    let mut file = File::create(folder.join("synced"))?;
    let mut changing = of_vswitch.cycle();
    for round in 0..rounds {
        for page in 0..FLOW_LOGS / PAGE {
            reads.push(timed(read_one(admin)).await?.0);
            described.push(timed(describe(admin, page + 1)).await?.0);
            let begun = Instant::now();
            file.write_all(&[0; SYNCED_BYTES])?;
            file.sync_data()?;
            syncs.push(begun.elapsed());
            let flow_log = changing.next().context("there are such")?;
            let description = ModifyFlowLog {
                description: Some(format!("round {round}")),
                ..ModifyFlowLog::default()
            };
            changed.push(timed(modify(admin, flow_log, &description)).await?.0);
            one.push(timed(converge(admin, flow_log, round)).await?.0);
        }
        for flow_log in &of_vpc {
            all.push(timed(converge(admin, flow_log, round)).await?.0);
        }
    }
    let (read, sync) = (middle(&reads), middle(&syncs));
    let mut beside = |what: &str, measured: &[Duration], floor: f64| {
        let measured = middle(measured);
        report.beside(
            format!("service: {what}"),
            "ms",
            measured,
            floor,
            measured / floor,
            None,
        );
    };
    beside(
        "describe 50 of 1,000 flow logs, beside a read of one row",
        &described,
        read,
    );
    beside(
        "create a flow log, beside such a read and a synced write",
        &created,
        read + sync,
    );
    beside(
        "modify a flow log, beside such a read and a synced write",
        &changed,
        read + sync,
    );
    for (what, took) in [
        ("one agent concerned has followed, at the latest", &one),
        ("100 agents concerned have followed, at the latest", &all),
    ] {
        let latest = took.iter().max().map_or(0.0, Duration::as_secs_f64);
        report.figure(
            format!("service: {what}"),
            "s",
            latest,
            Some(Budget::AtMost(2.0)),
        );
    }
    Ok(())
}

async fn create(admin: &Asker, number: usize) -> Result<FlowLog> {
    let (resource_type, resource_id) = match number % OF_VPC_EVERY {
        0 => ("VPC", client::VPC.to_owned()),
        _ => ("VSwitch", client::vswitch(number % HOSTS)),
    };
    let asked = CreateFlowLog {
        resource_type: resource_type.to_owned(),
        resource_id,
        traffic_type: "All".to_owned(),
        name: Some(format!("flow-log-{number}")),
        ..CreateFlowLog::default()
    };
    admin.change("POST", "/api/v1/flow-logs", &asked).await
}

async fn modify(admin: &Asker, flow_log: &FlowLog, asked: &ModifyFlowLog) -> Result<FlowLog> {
    let path = format!("/api/v1/flow-logs/{}", flow_log.id);
    admin.change("PATCH", &path, asked).await
}

/// Changes what agents have to apply, and waits until those concerned have.
async fn converge(admin: &Asker, flow_log: &FlowLog, round: usize) -> Result<()> {
    let interval = ModifyFlowLog {
        // Another one than in the round before.
        aggregation_interval: Some([1, 5][round % 2]),
        ..ModifyFlowLog::default()
    };
    modify(admin, flow_log, &interval).await?;
    let path = format!("/api/v1/flow-logs/{}", flow_log.id);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now: FlowLog = admin.get(&path, &[]).await?;
        if now.status == "Active" {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{} is {}", now.id, now.status);
        sleep(Duration::from_millis(10)).await;
    }
}

async fn read_one(admin: &Asker) -> Result<Service> {
    admin.get("/api/v1/service", &[]).await
}

async fn describe(admin: &Asker, page: usize) -> Result<FlowLogPage> {
    let (number, size) = (page.to_string(), PAGE.to_string());
    let query = [
        ("page_number", number.as_str()),
        ("page_size", size.as_str()),
    ];
    let page: FlowLogPage = admin.get("/api/v1/flow-logs", &query).await?;
    ensure!(
        page.flow_logs.len() == PAGE,
        "{} on a page",
        page.flow_logs.len()
    );
    Ok(page)
}

/// Every flow log, once all are Active.
async fn arrived(admin: &Asker) -> Result<Vec<FlowLog>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let on_the_way: FlowLogPage = admin
            .get("/api/v1/flow-logs", &[("status", "Activating")])
            .await?;
        if on_the_way.total_count == 0 {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "{} on their way",
            on_the_way.total_count
        );
        sleep(Duration::from_millis(50)).await;
    }
    let mut flow_logs = Vec::new();
    for page in 0..FLOW_LOGS / PAGE {
        flow_logs.extend(describe(admin, page + 1).await?.flow_logs);
    }
    Ok(flow_logs)
}

async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<(Duration, T)> {
    let begun = Instant::now();
    let done = work.await?;
    Ok((begun.elapsed(), done))
}

/// The median, in milliseconds.
fn middle(took: &[Duration]) -> f64 {
    median(
        took.iter()
            .map(|took| took.as_secs_f64() * 1000.0)
            .collect(),
    )
}
