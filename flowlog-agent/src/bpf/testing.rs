//! What the tests of this module share. They need root, and the kernel's BPF.
use std::{
    cell::Cell,
    io,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};

use super::pins;

/// A folder for pins of a test's own, gone with all that is in it when dropped.
pub(crate) struct TestPins(PathBuf);

impl TestPins {
    /// `None`, with a word about it, where the test cannot run.
    pub(crate) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            println!("skipped: BPF needs root");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!(
            "/sys/fs/bpf/flowlog-unit-{}-{number}",
            process::id()
        ));
        pins::prepare(&path).unwrap();
        Some(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A folder in it, which is made.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        pins::prepare(&path).unwrap();
        path
    }
}

impl Drop for TestPins {
    fn drop(&mut self) {
        for entry in self.0.read_dir().into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                pins::remove(&entry.path());
            }
        }
        pins::remove(&self.0);
    }
}

thread_local! {
    static CALLS_LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Does what no further `bpf` call than so many of this thread reaches the kernel of: as if it was killed then.
pub(crate) fn killed_after<T>(calls: u32, f: impl FnOnce() -> T) -> T {
    CALLS_LEFT.set(Some(calls));
    let result = f();
    CALLS_LEFT.set(None);
    result
}

/// A `bpf` call is about to be made.
pub(super) fn call() -> io::Result<()> {
    match CALLS_LEFT.get() {
        None => Ok(()),
        Some(0) => Err(io::ErrorKind::Interrupted.into()),
        Some(left) => {
            CALLS_LEFT.set(Some(left - 1));
            Ok(())
        }
    }
}

/// Does what has a network namespace of its own, in which the device `lo` is up.
pub(crate) fn on_a_host_of_its_own(test: impl FnOnce() + Send) {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.unwrap().success());
        test();
    };
    thread::scope(|scope| {
        scope
            .spawn(run)
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// A UDP datagram over IPv4 of 42 octets, of which 28 count, from a source port of its own.
pub(super) fn udp_v4(port: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0]);
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 53, 0, 8, 0, 0]);
    frame
}

/// Likewise, over IPv6, of 62 octets, of which 48 count.
pub(super) fn udp_v6(port: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x86, 0xdd]);
    frame.extend([0x60, 0, 0, 0, 0, 8, 17, 64]);
    frame.extend([0x20; 32]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 53, 0, 8, 0, 0]);
    frame
}
