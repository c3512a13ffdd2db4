//! What the store costs: octets a record on the disk, and records a second until they are durable.
//!
//! ```console
//! cargo run --release -p flowlog --example store_bench -- FOLDER RECORDS
//! ```
//!
//! The mix: 40 ENIs of one host, capture windows of 10 minutes over an hour, all 18 default fields. Of the sessions at an ENI, 45 % are with
//! clients on the internet (50,000 of them, some far more often than others), 35 % with 400 addresses of the same VPC, 10 % are DNS, and
//! 10 % are rejected packets from anywhere to any port. A session is two records, `in` and `out`, with an ephemeral port; a rejected packet is
//! one. Records come as the agent sends them: 4,096 a put, ordered by ENI and then by flow.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on panics")]
use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use flowlog::log_service::{
    store::{Store, StoreConfig},
    types::{Log, LogBatch, LogstoreKey},
};
use futures_util::{StreamExt as _, stream};
use object_store::ObjectStoreExt as _;
use parquet::file::reader::{FileReader as _, SerializedFileReader};

/// 2026-11-22 00:00 UTC.
const MIDNIGHT: u32 = 1_795_305_600;
const ENIS: usize = 40;
const WINDOWS: usize = 6;
const PUT: usize = 4096;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    /// Small numbers far more often than large ones: about as 1/n.
    fn skewed(&mut self, limit: f64) -> u64 {
        let uniform = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (limit.powf(uniform) - 1.0) as u64
    }
}

type Flow = (String, u16, String, u16, u8, &'static str, &'static str);

fn public(number: u64) -> String {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    format!(
        "{}.{}.{}.{}",
        11 + mixed % 160,
        mixed >> 8 & 255,
        mixed >> 16 & 255,
        mixed >> 24 & 255
    )
}

/// The flows of an ENI in a window, by key, with packets and bytes.
fn flows(random: &mut Random, eni: usize, count: usize) -> BTreeMap<Flow, (u64, u64)> {
    let own = format!("10.0.{}.{}", eni / 20, eni % 20 + 10);
    let service = [443, 80, 8080, 22][eni % 4];
    let mut flows = BTreeMap::new();
    while flows.len() < count {
        let ephemeral = 32_768 + random.below(28_232) as u16;
        let kind = random.below(100);
        let (peer, peer_port, own_port, protocol) = match kind {
            0..45 => (public(random.skewed(50_000.0)), ephemeral, service, 6),
            45..80 => {
                let peer = random.skewed(400.0);
                let peer = format!("10.0.{}.{}", peer / 200, peer % 200 + 10);
                let port = [3306, 6379, 5432, 9092, 443][random.skewed(5.0) as usize];
                if random.below(2) == 0 {
                    (peer, port, ephemeral, 6)
                } else {
                    (peer, ephemeral, service, 6)
                }
            }
            80..90 => ("10.0.0.2".to_owned(), 53, ephemeral, 17),
            _ => {
                let from = public(1_000_000 + random.below(1 << 30));
                let flow = (
                    from,
                    ephemeral,
                    own.clone(),
                    random.skewed(65_535.0) as u16,
                    6,
                    "in",
                    "REJECT",
                );
                flows.insert(flow, (1, 40 + 4 * random.below(6)));
                continue;
            }
        };
        let packets = if protocol == 17 {
            1
        } else {
            4 + random.skewed(2_000.0)
        };
        let size = if protocol == 17 {
            60 + random.below(60)
        } else {
            52 + random.skewed(1_400.0)
        };
        let back = if protocol == 17 {
            1
        } else {
            packets - packets / 3
        };
        let incoming = (
            peer.clone(),
            peer_port,
            own.clone(),
            own_port,
            protocol,
            "in",
            "ACCEPT",
        );
        flows.insert(incoming, (packets, packets * size + random.below(40)));
        let outgoing = (
            own.clone(),
            own_port,
            peer,
            peer_port,
            protocol,
            "out",
            "ACCEPT",
        );
        flows.insert(
            outgoing,
            (
                back,
                back * (52 + random.skewed(1_400.0)) + random.below(40),
            ),
        );
    }
    flows
}

fn log(eni: usize, start: u32, flow: &Flow, (packets, bytes): (u64, u64)) -> Log {
    let (srcaddr, srcport, dstaddr, dstport, protocol, direction, action) = flow;
    let contents = [
        ("version", "1".to_owned()),
        ("vswitch-id", format!("vsw-bp1s5grzef87{:05}", eni / 20)),
        ("vm-id", format!("i-bp1hcrbbq2f5a93{:05}", eni)),
        ("vpc-id", "vpc-bp1m7v25emi1h5mt".to_owned()),
        ("account-id", "1234567890123456".to_owned()),
        ("eni-id", format!("eni-bp1ivqvl9vx8c{:07}", eni * 7919)),
        ("srcaddr", srcaddr.clone()),
        ("srcport", srcport.to_string()),
        ("dstaddr", dstaddr.clone()),
        ("dstport", dstport.to_string()),
        ("protocol", protocol.to_string()),
        ("direction", (*direction).to_owned()),
        ("packets", packets.to_string()),
        ("bytes", bytes.to_string()),
        ("start", start.to_string()),
        ("end", (start + 600).to_string()),
        ("log-status", "OK".to_owned()),
        ("action", (*action).to_owned()),
    ];
    Log {
        time: start,
        time_ns: None,
        contents: contents
            .map(|(key, value)| (key.to_owned(), value))
            .to_vec(),
    }
}

fn window(random: &mut Random, window: usize, records: usize) -> Vec<Vec<LogBatch>> {
    let start = MIDNIGHT + window as u32 * 600;
    let logs: Vec<Log> = (0..ENIS)
        .flat_map(|eni| {
            let flows = flows(random, eni, records / ENIS);
            flows
                .iter()
                .map(|(flow, &counts)| log(eni, start, flow, counts))
                .collect::<Vec<_>>()
        })
        .collect();
    logs.chunks(PUT)
        .map(|logs| {
            vec![LogBatch {
                topic: "flow_log".into(),
                source: "10.1.0.7".into(),
                logs: logs.to_vec(),
                ..LogBatch::default()
            }]
        })
        .collect()
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or_default()
        / 1024
}

async fn run(folder: PathBuf, records: usize) {
    let key = LogstoreKey {
        project: "bench".parse().unwrap(),
        logstore: "records".parse().unwrap(),
    };
    let store = Store::open(StoreConfig::new(folder)).await.unwrap();
    let mut random = Random(0x5eed);
    let (mut stored, mut putting) = (0, Duration::ZERO);
    for number in 0..WINDOWS {
        let puts = window(&mut random, number, records / WINDOWS);
        let now: SystemTime =
            UNIX_EPOCH + Duration::from_secs((MIDNIGHT + number as u32 * 600).into());
        stored += puts.iter().map(|put| put[0].logs.len()).sum::<usize>();
        let begun = Instant::now();
        let ingest = stream::iter(puts).for_each_concurrent(4, |batches| {
            let (store, key) = (&store, &key);
            async move { store.put(key, batches, None, now).await.unwrap() }
        });
        let flushing = async {
            loop {
                store.flush_wanted().await;
                store.maintain(now, |_| None).await.unwrap();
            }
        };
        tokio::select! { () = ingest => {}, () = flushing => {} }
        putting += begun.elapsed();
    }
    println!(
        "{stored} records durable in {:.2} s: {:.0} records a second; at most {} MiB resident, the generated records included",
        putting.as_secs_f64(),
        stored as f64 / putting.as_secs_f64(),
        resident_mib()
    );
    let begun = Instant::now();
    let hour_over: SystemTime = UNIX_EPOCH + Duration::from_secs((MIDNIGHT + 3 * 3600).into());
    store.flush(hour_over).await.unwrap();
    println!(
        "the rest flushed in {:.2} s: {:?}",
        begun.elapsed().as_secs_f64(),
        store.status()
    );
    let begun = Instant::now();
    store
        .maintain(hour_over + Duration::from_secs(3600), |_| None)
        .await
        .unwrap();
    let status = store.status();
    println!("merged in {:.2} s", begun.elapsed().as_secs_f64());
    println!(
        "{} octets in {} files: {:.2} a record",
        status.file_octets,
        status.files,
        status.file_octets as f64 / status.file_rows as f64
    );
    let snapshot = store.snapshot(&key, 0, u32::MAX);
    let mut columns: BTreeMap<String, i64> = BTreeMap::new();
    for file in &snapshot.files {
        let octets = snapshot
            .objects
            .get(&file.path)
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        let reader = SerializedFileReader::new(octets).unwrap();
        for group in reader.metadata().row_groups() {
            for column in group.columns() {
                *columns.entry(column.column_path().string()).or_default() +=
                    column.compressed_size();
            }
        }
    }
    for (column, octets) in columns {
        println!(
            "{column:>24} {:.3}",
            octets as f64 / status.file_rows as f64
        );
    }
}

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let records = |text: std::ffi::OsString| text.to_str()?.parse().ok();
    let (Some(folder), Some(records)) = (arguments.next(), arguments.next().and_then(records))
    else {
        eprintln!("usage: store_bench FOLDER RECORDS");
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(folder.into(), records));
}
