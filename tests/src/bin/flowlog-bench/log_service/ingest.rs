//! From records in an agent's memory to the service's disk: written, compressed, signed and sent as the agent does it, to a service that is
//! a process of its own, over the loopback.
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use flowlog_client::Client;
use flowlog_model::{
    field::DEFAULT_FIELDS,
    format::Format,
    log_group::{BATCH_ID_TAG, DOCUMENTED_LOGS, GroupWriter, compress},
};
use tokio::task::JoinSet;

use super::{
    served::{LOGSTORE, Service, call},
    traffic::{Traffic, WINDOW_SECONDS},
};

/// Puts that an agent has on their way at once.
const AT_ONCE: usize = 2;

/// What it took.
pub(crate) struct Ingested {
    pub(crate) records: usize,
    pub(crate) seconds: f64,
    /// Of the service, in MiB.
    pub(crate) peak_mib: f64,
}

/// Puts about so many records into an empty service in the folder.
pub(crate) async fn measure(folder: &Path, records: usize) -> Result<Ingested> {
    let service = Service::start(folder).await?;
    let client = Arc::new(service.client()?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let windows = records.div_ceil(140_000);
    let mut traffic = Traffic::new();
    let (mut sent, mut spent) = (0, Duration::ZERO);
    for window in 0..windows {
        let start = now - (windows - window) as u64 * WINDOW_SECONDS;
        // Where the agent gets them from is measured with the agent.
        let flows = traffic.window(start, records / windows);
        let begun = Instant::now();
        let mut group = GroupWriter::new(Format::text(&DEFAULT_FIELDS));
        let mut puts = JoinSet::new();
        let mut send = async |group: &mut GroupWriter, number: usize| -> Result<()> {
            if puts.len() == AT_ONCE {
                puts.join_next().await.context("a put")???;
            }
            let identity = format!("fl-bench-{window}-{number}");
            let body = group.finish("host-1", &[(BATCH_ID_TAG, &identity)]);
            let client = Arc::clone(&client);
            puts.spawn(async move { put(&client, &body).await });
            Ok(())
        };
        let mut number = 0;
        for record in flows.records() {
            group.write(&record);
            if group.count() == DOCUMENTED_LOGS {
                send(&mut group, number).await?;
                number += 1;
            }
        }
        if group.count() > 0 {
            send(&mut group, number).await?;
        }
        while let Some(done) = puts.join_next().await {
            done??;
        }
        spent += begun.elapsed();
        sent += flows.len();
    }
    Ok(Ingested {
        records: sent,
        seconds: spent.as_secs_f64(),
        peak_mib: service.peak_mib()?,
    })
}

async fn put(client: &Client, group: &[u8]) -> Result<()> {
    let raw_bytes = group.len().to_string();
    let path = format!("/logstores/{LOGSTORE}/shards/lb");
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-log-bodyrawsize", raw_bytes.as_str()),
        ("x-log-compresstype", "lz4"),
    ];
    call(client, &path, &headers, &compress(group)).await?;
    Ok(())
}
