//! What counting does to the throughput of a veth pair: of raw frames, sent as quickly as can be, and of ordinary sockets.
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result};
use flowlog_agent::bpf::{
    DeviceDirection,
    floor::{Floor, FloorProgram},
};
use flowlog_tests::lab::{Distribution, Family};

use crate::{
    live::{Attached, PACKETS, flood},
    report::{Budget, Report, median},
    setting::{Link, entries_for},
};

/// Octets of payload in a small packet.
const PAYLOAD: [u8; 18] = [0; 18];

/// Packets a second with nothing attached, with the least counting program, and with the agent's.
#[derive(Default)]
struct Rates {
    off: Vec<f64>,
    least: Vec<f64>,
    ours: Vec<f64>,
}

impl Rates {
    /// The three in turn, so that a drift of the machine's speed meets all of them.
    fn measure(
        &mut self,
        object: &[u8],
        link: &Link,
        flows: u32,
        rate: impl Fn() -> Result<f64>,
    ) -> Result<()> {
        self.off.push(rate()?);
        let mut floor = Floor::load(object, FloorProgram::Least, entries_for(flows))?;
        link.receiver
            .enter(|| floor.attach(&link.pair.right().name, DeviceDirection::Ingress))??;
        self.least.push(rate()?);
        drop(floor);
        let attached = Attached::new(link, flows)?;
        self.ours.push(rate()?);
        drop(attached);
        Ok(())
    }

    fn report(self, what: &str, report: &mut Report) {
        let ratio = |with: &[f64]| {
            median(
                with.iter()
                    .zip(&self.off)
                    .map(|(with, off)| with / off)
                    .collect(),
            )
        };
        let (least, ours) = (ratio(&self.least), ratio(&self.ours));
        let off = median(self.off);
        let budget = Some(Budget::AtLeast(0.95));
        report.beside(
            format!("{what}: on against off"),
            "packets/s",
            median(self.ours),
            off,
            ours,
            budget,
        );
        report.beside(
            format!("{what}: the least counting program against off"),
            "packets/s",
            median(self.least),
            off,
            least,
            None,
        );
    }
}

pub(crate) fn measure(object: &[u8], rounds: usize, report: &mut Report) -> Result<()> {
    let link = Link::new()?;
    let mut rates = Rates::default();
    for _ in 0..rounds {
        rates.measure(object, &link, 2, || socket_rate(&link))?;
    }
    rates.report("veth throughput, UDP sockets, 18 octets of payload", report);
    for flows in [1, 1_000, 100_000] {
        let mut rates = Rates::default();
        let frames = || {
            let began = Instant::now();
            flood(&link, Family::V4, (flows, Distribution::Even), PACKETS, 3)?;
            Ok(PACKETS as f64 / began.elapsed().as_secs_f64())
        };
        for _ in 0..rounds {
            rates.measure(object, &link, flows, frames)?;
        }
        rates.report(
            &format!("veth throughput, raw frames of {flows} flows"),
            report,
        );
    }
    Ok(())
}

/// Packets a second from two sockets to one that nobody reads.
fn socket_rate(link: &Link) -> Result<f64> {
    let v4 = |addresses: &[(IpAddr, u8)]| {
        addresses
            .iter()
            .map(|(address, _)| *address)
            .find(IpAddr::is_ipv4)
    };
    let to = v4(&link.pair.right().addresses).context("the receiver has no IPv4 address")?;
    let from = v4(&link.pair.left().addresses).context("the sender has no IPv4 address")?;
    let receiver = link
        .receiver
        .enter(|| UdpSocket::bind(SocketAddr::new(to, 0)))??;
    let to = receiver.local_addr()?;
    let sockets = link.sender.enter(|| {
        [(); 2].map(|()| {
            let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
            socket.connect(to)?;
            std::io::Result::Ok(socket)
        })
    })?;
    let began = Instant::now();
    thread::scope(|scope| {
        let senders = sockets.map(|socket| {
            scope.spawn(move || -> std::io::Result<()> {
                let socket = socket?;
                for _ in 0..PACKETS / 2 {
                    socket.send(&PAYLOAD)?;
                }
                Ok(())
            })
        });
        senders.into_iter().try_for_each(|sender| {
            sender
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    Ok(PACKETS as f64 / began.elapsed().as_secs_f64())
}
