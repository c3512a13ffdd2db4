//! What the measurements share: pins of their own, a veth pair, packets.
use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use anyhow::Result;
use flowlog_agent::bpf::{self, MapSizes, pins};
use flowlog_tests::lab::{Namespace, VethPair, VethPlan};
use nix::net::if_::if_nametoindex;

/// A folder for pins, removed when dropped.
pub(crate) struct PinFolder(PathBuf);

impl PinFolder {
    pub(crate) fn new() -> Result<Self> {
        let folder = bpf::pin_folder(&PathBuf::from(format!(
            "/sys/fs/bpf/flowlog-bench-{}",
            std::process::id()
        )));
        pins::prepare(&folder)?;
        Ok(Self(folder))
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.0
    }
}

impl Drop for PinFolder {
    fn drop(&mut self) {
        pins::remove(&self.0);
    }
}

/// Two namespaces and a veth pair between them.
pub(crate) struct Link {
    pub(crate) sender: Namespace,
    pub(crate) receiver: Namespace,
    pub(crate) pair: VethPair,
}

impl Link {
    pub(crate) fn new() -> Result<Self> {
        let (sender, receiver) = (Namespace::create("send")?, Namespace::create("recv")?);
        let pair = VethPair::create(VethPlan::between(&sender, &receiver))?;
        Ok(Self {
            sender,
            receiver,
            pair,
        })
    }
}

impl Link {
    /// Inode of the receiver's network namespace, and the index of its device.
    pub(crate) fn receiver_device(&self) -> Result<(u64, u32)> {
        let name = self.pair.right().name.as_str();
        self.receiver.enter(|| {
            let inode = fs::metadata("/proc/thread-self/ns/net")?.ino();
            Ok((inode, if_nametoindex(name)?))
        })?
    }
}

/// Size of a flow map for so many flows, as the agent would choose it.
pub(crate) fn entries_for(flows: u32) -> u32 {
    (flows * 2).next_power_of_two().max(65_536)
}

/// Sizes of the agent's maps for so many flows.
pub(crate) fn sizes_for(flows: u32) -> MapSizes {
    MapSizes {
        v4: entries_for(flows),
        v6: entries_for(flows),
    }
}
