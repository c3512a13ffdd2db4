//! The program's life: taken over, detached, and beside it a stream that is dropped midway.
use std::{
    io::{self, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use flowlog_tests::lab::{FrameSender, TellAtTheEnd, skip_unless_root};
use nix::sys::socket::{setsockopt, sockopt::Linger};

use crate::{
    frames::{address, frame, udp},
    rig::{Bench, PATIENCE, chain},
};

/// How many packets are sent while one agent takes over from another, again and again.
const PACKETS: u64 = 20_000;
const TAKE_OVERS: usize = 3;

#[test]
fn nothing_is_missed_and_nothing_counted_twice_while_an_agent_takes_over() {
    if skip_unless_root("nothing_is_missed_and_nothing_counted_twice_while_an_agent_takes_over") {
        return;
    }
    let mut bench = Bench::new();
    chain(
        bench.right(),
        "inet",
        "input priority 0",
        "udp dport 9 drop",
    );
    let to = address("10.77.0.2");
    let left = bench.pair().left().clone();
    let ended = AtomicBool::new(false);
    let mut sent = 0;
    thread::scope(|scope| {
        let told_at_the_end = TellAtTheEnd(&ended);
        let flood = scope.spawn(|| {
            let mut sender = FrameSender::open(&left.namespace, &left.name).expect("a sender");
            let frame = frame(to, &udp(to, (4000, 9), 100));
            let mut sent = 0;
            while sent < PACKETS || !ended.load(Ordering::Relaxed) {
                sender.send(&frame).expect("sent");
                sent += 1;
            }
            sent
        });
        for _ in 0..TAKE_OVERS {
            bench.host().take_over();
        }
        drop(told_at_the_end);
        sent = flood.join().expect("a flood");
    });
    let missed = bench.host().drops().missed().expect("statistics");
    assert_eq!(missed, 0, "the kernel ran the program for every drop");
    bench.assert_flows(
        "an agent takes over",
        &[
            (
                "7 in 17 10.77.0.1 4000 > 10.77.0.2 9 accept",
                sent,
                sent * 128,
            ),
            (
                "7 in 17 10.77.0.1 4000 > 10.77.0.2 9 dropped after",
                sent,
                sent * 128,
            ),
        ],
    );
}

/// Flips while packets are dropped, and the packets that a CPU may have counted but not dropped yet: those of a batch of the receive path.
const FLIPS: usize = 30;
const IN_HAND: u64 = 64;

#[test]
fn at_a_flip_only_what_a_cpu_has_in_hand_is_in_the_other_window() {
    if skip_unless_root("at_a_flip_only_what_a_cpu_has_in_hand_is_in_the_other_window") {
        return;
    }
    let mut bench = Bench::new();
    chain(
        bench.right(),
        "inet",
        "input priority 0",
        "udp dport 9 drop",
    );
    let to = address("10.77.0.2");
    let left = bench.pair().left().clone();
    let ended = AtomicBool::new(false);
    let flow = |verdict: &str| format!("7 in 17 10.77.0.1 4000 > 10.77.0.2 9 {verdict}");
    let (mut accepted, mut dropped, mut furthest) = (0, 0, 0);
    let mut count = |bench: &mut Bench| {
        bench.host().forget();
        let counted = bench.host().drain();
        accepted += counted.of(&flow("accept")).0;
        dropped += counted.of(&flow("dropped after")).0;
        furthest = accepted.abs_diff(dropped).max(furthest);
        (accepted, accepted == dropped)
    };
    let sent = thread::scope(|scope| {
        let told_at_the_end = TellAtTheEnd(&ended);
        let flood = scope.spawn(|| {
            let mut sender = FrameSender::open(&left.namespace, &left.name).expect("a sender");
            let frame = frame(to, &udp(to, (4000, 9), 100));
            let mut sent = 0;
            while !ended.load(Ordering::Relaxed) {
                sender.send(&frame).expect("sent");
                sent += 1;
            }
            sent
        });
        for _ in 0..FLIPS {
            count(&mut bench);
        }
        drop(told_at_the_end);
        flood.join().expect("a flood")
    });
    let deadline = Instant::now() + PATIENCE;
    while count(&mut bench) != (sent, true) {
        assert!(
            Instant::now() < deadline,
            "not all of {sent} packets were counted and dropped"
        );
    }
    let cpus = thread::available_parallelism().map_or(1, usize::from) as u64;
    eprintln!(
        "{sent} packets, {FLIPS} flips: at most {furthest} were counted in one window and dropped in another"
    );
    assert!(furthest <= cpus * IN_HAND, "{furthest} packets");
}

#[test]
fn what_is_detached_counts_nothing_and_leaves_nothing() {
    if skip_unless_root("what_is_detached_counts_nothing_and_leaves_nothing") {
        return;
    }
    let mut bench = Bench::new();
    chain(
        bench.right(),
        "inet",
        "input priority 0",
        "udp dport 9 drop",
    );
    let to = address("10.77.0.2");
    bench.send(1, &frame(to, &udp(to, (4000, 9), 100)));
    let dropped = "7 in 17 10.77.0.1 4000 > 10.77.0.2 9 dropped after";
    let counted = bench
        .host()
        .drain_until(|counted| counted.of(dropped).0 == 1);
    assert_eq!(counted.of(dropped), (1, 128));
    bench.host().detach();
    bench.send(2, &frame(to, &udp(to, (4000, 9), 100)));
    let accepted = "7 in 17 10.77.0.1 4000 > 10.77.0.2 9 accept";
    let counted = bench
        .host()
        .drain_until(|counted| counted.of(accepted).0 == 3);
    assert_eq!(counted.of(accepted), (3, 384));
    assert_eq!(counted.of(dropped), (1, 128), "it is detached");
    assert_eq!(bench.host().pins_of_drops(), Vec::<String>::new());
}

/// How long the sender of a stream waits for room.
const PAUSE: Duration = Duration::from_millis(500);
/// Octets of a stream that pass before the rest is dropped.
const QUOTA: u64 = 1 << 20;

#[test]
fn a_stream_that_is_dropped_midway_is_exact_in_octets_and_segments() {
    if skip_unless_root("a_stream_that_is_dropped_midway_is_exact_in_octets_and_segments") {
        return;
    }
    let mut bench = Bench::new();
    let rules = format!(
        "table inet t {{
                chain c {{
                    type filter hook input priority 0
                    tcp dport 9 quota over {QUOTA} bytes counter drop
                }}
            }}"
    );
    bench.right().nft(&rules).expect("rules");
    let right = bench.pair().right().namespace.clone();
    let left = bench.pair().left().namespace.clone();
    let listener = right.enter(|| TcpListener::bind("10.77.0.2:9"));
    let listener = listener.expect("the namespace").expect("a listener");
    let stream = left.enter(|| TcpStream::connect("10.77.0.2:9"));
    let mut stream = stream.expect("the namespace").expect("a connection");
    let from = stream.local_addr().expect("an address").port();
    let (received, _) = listener.accept().expect("accepted");
    let mut read = received.try_clone().expect("the same end");
    let reader = thread::spawn(move || io::copy(&mut read, &mut io::sink()));
    stream.set_write_timeout(Some(PAUSE)).expect("a timeout");
    // Until nothing is acknowledged any more, and so the sender has no room.
    while stream.write_all(&[0x5a; 64 << 10]).is_ok() {}
    // It forgets at once what was not acknowledged, and sends none of it again.
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, Linger, &linger).expect("an option");
    drop(stream);
    // This end is not closed before all is counted: to each farewell the other one would answer with one more packet to drop.
    received.shutdown(Shutdown::Read).expect("an open end");
    let _ = reader.join();

    let flow = |verdict: &str| format!("7 in 6 10.77.0.1 {from} > 10.77.0.2 9 {verdict}");
    // Headers of 20 and of 32 octets, with a time stamp: netfilter counts those of a super-packet once, and each of its segments has them.
    let payload = |(packets, octets): (u64, u64)| octets.wrapping_sub(packets * 52);
    let of_netfilter = || counter(&right.run("nft list ruleset", "").expect("a listing"));
    // Nobody sends any more, but what was sent last may still be on its way.
    let (mut dropped, mut by_netfilter) = ((0, 0), (0, 0));
    let counted = bench.host().drain_until(|counted| {
        dropped = counted.of(&flow("dropped after"));
        by_netfilter = of_netfilter();
        dropped.0 > 0 && payload(dropped) == payload(by_netfilter)
    });
    assert_eq!(
        payload(dropped),
        payload(by_netfilter),
        "{dropped:?} and {by_netfilter:?}"
    );
    assert!(
        dropped.0 > by_netfilter.0,
        "no super-packet: {dropped:?} and {by_netfilter:?}"
    );
    let accepted = counted.of(&flow("accept"));
    assert!(
        dropped.0 < accepted.0 && dropped.1 + QUOTA / 2 < accepted.1,
        "{dropped:?} of {accepted:?}"
    );
}

/// Packets and octets of the one counter of a listing of nftables.
fn counter(listing: &str) -> (u64, u64) {
    let mut words = listing
        .split_whitespace()
        .skip_while(|word| *word != "counter");
    // `counter packets 1 bytes 2`.
    let mut number = |skipped| words.nth(skipped)?.parse().ok();
    let packets = number(2);
    packets.zip(number(1)).expect("a counter")
}
