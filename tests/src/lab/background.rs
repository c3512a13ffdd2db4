//! Traffic that goes on beside something else.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use super::traffic::tcp_transfer;
use super::{EndPlan, FloodPlan, Sent, VethPair, udp_flood};
use crate::{Error, Result};

/// Between two floods of a sender, and between two transfers.
const PAUSE: Duration = Duration::from_millis(10);
/// Payload of a transfer, in octets.
const TRANSFER: u64 = 100_000;

/// Runs `body` while each of `senders` sends its flood again and again, and gives what `body` gave and what each has sent. Over
/// `pair`, if there is one, go TCP transfers from left to right besides, by IPv4 and IPv6 in turns.
///
/// # Errors
/// If something cannot be sent. `body` has come to its end then.
pub fn beside<T>(
    senders: &[(EndPlan, FloodPlan)],
    pair: Option<&VethPair>,
    body: impl FnOnce() -> T,
) -> Result<(T, Vec<Sent>)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let told_at_the_end = TellAtTheEnd(&stop);
        let floods: Vec<_> = senders
            .iter()
            .map(|sender| scope.spawn(|| flood_until(sender, &stop)))
            .collect();
        let transfers = pair.map(|pair| scope.spawn(|| transfer_until(pair, &stop)));
        let result = body();
        drop(told_at_the_end);
        transfers.map_or(Ok(()), joined)?;
        let sent: Result<Vec<Sent>> = floods.into_iter().map(joined).collect();
        Ok((result, sent?))
    })
}

/// Says to the threads of a scope that they are to stop, when it is dropped: also when what they run beside panics, for a scope waits for its
/// threads, and the test would hang where it has failed.
#[derive(Debug)]
pub struct TellAtTheEnd<'s>(pub &'s AtomicBool);

impl Drop for TellAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}

fn flood_until((end, plan): &(EndPlan, FloodPlan), stop: &AtomicBool) -> Result<Sent> {
    let flood = || udp_flood(&end.namespace, &end.name, plan);
    let mut sent = flood()?;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(PAUSE);
        sent += flood()?;
    }
    Ok(sent)
}

fn transfer_until(pair: &VethPair, stop: &AtomicBool) -> Result<()> {
    let servers = pair.right().addresses.iter();
    for (address, _) in servers.cycle() {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let server = (&pair.right().namespace, SocketAddr::new(*address, 0));
        tcp_transfer(&pair.left().namespace, server, TRANSFER)?;
        thread::sleep(PAUSE);
    }
    Err(Error::Invalid("the pair has no addresses".to_owned()))
}
