//! A logstore of a Log Service, ours or the product's, by its API.
//!
//! A put has at most 4,096 records and 3 MB, which is what the product documents. It carries the identity of its batch as a tag, which
//! is the same each time that the window is delivered. Our Log Service stores a batch once; the product's stores it again after a put
//! whose answer was lost, with the tag to tell it by.
//!
//! While a put is on its way, the next one is made. A window is delivered when the last of its puts is answered.
use std::{io, time::Duration};

use flowlog_client::{AccessKey, Client, ClientError, LogCall};
use flowlog_model::{
    flow_log::FlowLog,
    format::Format,
    log_group::{BATCH_ID_TAG, DOCUMENTED_LOGS, DOCUMENTED_RAW_BYTES, GroupWriter, compress},
    record::Record,
};
use tokio::{runtime::Runtime, task::JoinSet};

use super::{
    Written,
    attempts::Attempts,
    delivery::{Batches, Delivery},
};
use crate::{clock::Clock, config::LogstoreDestination, management::host};

/// How long a put may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Puts that are on their way at once. Each is 3 MB at most, with as much again for what it was made of.
const AT_ONCE: usize = 2;

/// Most bytes of an answer: nothing, or an error.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// When the records of a put have as many bytes, it is full. There is room left for another record, which has 22 fields at most with
/// identifiers of 64 characters at most, and for topic, source and tags.
const MAX_GROUP_BYTES: usize = DOCUMENTED_RAW_BYTES - 8192;

/// A logstore.
pub(super) struct LogServiceSink {
    destination: LogstoreDestination,
    path: String,
    /// What `__source__` is.
    source: String,
    /// A thread for what is on its way.
    runtime: Runtime,
    clock: Clock,
    /// None before the first put, and after one that was refused: then the access key is read anew.
    client: Option<Client>,
    on_their_way: JoinSet<Result<(), ClientError>>,
}

impl LogServiceSink {
    /// Nothing is read or sent yet.
    pub(super) fn open(destination: LogstoreDestination, clock: Clock) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("sink-puts")
            .enable_all()
            .build()?;
        Ok(Self {
            path: format!("/logstores/{}/shards/lb", destination.logstore),
            destination,
            source: host::name(),
            runtime,
            clock,
            client: None,
            on_their_way: JoinSet::new(),
        })
    }

    /// Puts the records of a window. All of them are stored when it returns; after an error it begins with the first.
    pub(super) fn deliver(
        &mut self,
        delivery: &dyn Delivery,
        flow_log: &FlowLog,
        format: &Format,
        attempts: &Attempts<'_>,
    ) -> io::Result<Written> {
        let source = self.source.clone();
        let mut puts = Puts {
            batches: Batches::new(flow_log, delivery.identity()),
            group: GroupWriter::new(format.clone()),
            batch: String::new(),
            part: 0,
            written: Written::default(),
            result: Ok(()),
            put: |group: Vec<u8>| {
                attempts.check_not_over()?;
                self.put(group)
            },
            source,
        };
        let rendered = delivery.render(flow_log, &mut |record| puts.add(record));
        let delivered = puts
            .finish(rendered)
            .and_then(|written| self.wait_for(0).map(|()| written));
        if delivered.is_err() {
            // What is still on its way is given up: it is sent again.
            self.on_their_way = JoinSet::new();
            self.client = None;
        }
        delivered
    }

    /// Sends a put, when there is room for it.
    fn put(&mut self, group: Vec<u8>) -> io::Result<()> {
        self.wait_for(AT_ONCE - 1)?;
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(self.connect()?).clone(),
        };
        let project = self.destination.project.to_string();
        let path = self.path.clone();
        let wall = self.clock.now().wall;
        let put = async move { put(&client, &project, &path, &group, wall).await };
        self.on_their_way.spawn_on(put, self.runtime.handle());
        Ok(())
    }

    /// Waits until no more than so many puts are on their way.
    fn wait_for(&mut self, left: usize) -> io::Result<()> {
        while self.on_their_way.len() > left {
            match self.runtime.block_on(self.on_their_way.join_next()) {
                Some(put) => put.map_err(io::Error::other)?.map_err(io::Error::other)?,
                None => break,
            }
        }
        Ok(())
    }

    fn connect(&self) -> io::Result<Client> {
        let LogstoreDestination {
            endpoint,
            access_key_file,
            ca_file,
            ..
        } = &self.destination;
        let key = AccessKey::load(access_key_file).map_err(io::Error::other)?;
        Client::new(endpoint.clone(), key, ca_file.as_deref()).map_err(io::Error::other)
    }
}

async fn put(
    client: &Client,
    project: &str,
    path: &str,
    group: &[u8],
    wall: Duration,
) -> Result<(), ClientError> {
    let raw_bytes = group.len().to_string();
    let body = compress(group);
    let call = LogCall {
        method: "POST",
        project: Some(project),
        path,
        query: &[],
        headers: &[
            ("content-type", "application/x-protobuf"),
            ("x-log-bodyrawsize", &raw_bytes),
            ("x-log-compresstype", "lz4"),
        ],
        body: &body,
        patience: PATIENCE,
        max_answer_bytes: MAX_ANSWER_BYTES,
    };
    client.send_log(&call, wall).await?;
    Ok(())
}

/// Cuts a window's records into puts.
struct Puts<P> {
    batches: Batches,
    group: GroupWriter,
    /// Identity of the batch of what is in the group.
    batch: String,
    /// How many puts of that batch were made already, because its records are long.
    part: u32,
    written: Written,
    result: io::Result<()>,
    put: P,
    source: String,
}

impl<P: FnMut(Vec<u8>) -> io::Result<()>> Puts<P> {
    /// Adds a record. After an error, the others are let go.
    fn add(&mut self, record: &Record<'_>) {
        if self.result.is_err() {
            return;
        }
        let batch = self.batches.of_next();
        if batch != self.batch {
            let batch = batch.to_owned();
            self.put();
            self.batch = batch;
            self.part = 0;
        }
        self.group.write(record);
        self.written.records += 1;
        let is_full =
            self.group.count() >= DOCUMENTED_LOGS || self.group.bytes() >= MAX_GROUP_BYTES;
        if is_full {
            self.put();
            self.part += 1;
        }
    }

    fn put(&mut self) {
        if self.result.is_err() || self.group.count() == 0 {
            return;
        }
        let identity = match self.part {
            0 => self.batch.clone(),
            part => format!("{}.{part}", self.batch),
        };
        let group = self
            .group
            .finish(&self.source, &[(BATCH_ID_TAG, &identity)]);
        self.written.bytes += group.len() as u64;
        self.result = (self.put)(group);
    }

    /// Puts what is left, if all was rendered.
    fn finish(mut self, rendered: io::Result<u64>) -> io::Result<Written> {
        if rendered.is_ok() {
            self.put();
        }
        self.written.dropped_late = self.result.and(rendered)?;
        Ok(self.written)
    }
}

#[cfg(test)]
mod tests;
