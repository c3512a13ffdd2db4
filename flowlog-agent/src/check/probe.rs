//! Tries what the agent does with the kernel's BPF: maps, programs, counting a packet, draining, hooks.
use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::{Finding, Wishes, attach};
use crate::bpf::{
    self, BpfError, EniConstants, MapSizes, NetfilterDrops, NoVerdicts, Wake, pins,
    trial::{SkbMetadata, Trial, TrialProgram},
};

/// Where pins are unless the configuration says otherwise.
pub(super) const DEFAULT_PIN_PATH: &str = "/sys/fs/bpf/flowlog";

/// Where the BPF file system usually is.
const BPFFS: &str = "/sys/fs/bpf";

/// An Ethernet frame with a UDP datagram from 192.0.2.1:1 to 192.0.2.2:2 (addresses for documentation, RFC 5737).
const FRAME: [u8; 42] = [
    2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0xf6, 0xcd, 192,
    0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2, 0, 8, 0, 0,
];

/// Tries all of it.
pub(super) fn findings(wishes: &Wishes<'_>) -> Vec<Finding> {
    // In a thread of its own, for it may enter a mount namespace and does enter a network namespace of its own.
    thread::scope(|scope| {
        scope
            .spawn(|| in_own_thread(wishes))
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn in_own_thread(wishes: &Wishes<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    match file_system(wishes.pin_path) {
        Ok(finding) => findings.push(finding),
        Err(error) => {
            let found = format!("{BPFFS} is not mounted, and cannot be: {error}");
            findings.push(Finding::fail("BPF file system", found).so("run as root"));
            return findings;
        }
    }
    let folder = wishes
        .pin_path
        .join(format!("check-{}", std::process::id()));
    if let Err(error) = pins::prepare(&folder) {
        let consequence = "pinned maps have no place; run as root, or change pin-path";
        findings.push(Finding::fail("BPF file system", error.to_string()).so(consequence));
        return findings;
    }
    // Also if something here panics.
    let folder = PinFolder(folder);
    findings.extend(programs(&folder.0, wishes));
    findings
}

struct PinFolder(PathBuf);

impl Drop for PinFolder {
    fn drop(&mut self) {
        pins::remove(&self.0);
    }
}

/// Whether there is a BPF file system. If the agent would have to mount it, it is mounted for this thread alone.
fn file_system(pin_path: &Path) -> io::Result<Finding> {
    let check = "BPF file system";
    let is_mounted = |path: &Path| {
        statfs(path).is_ok_and(|file_system| file_system.filesystem_type() == BPF_FS_MAGIC)
    };
    if !pin_path.starts_with(BPFFS) || is_mounted(Path::new(BPFFS)) {
        let place = pin_path.ancestors().filter(|path| is_mounted(path)).last();
        let place = place.unwrap_or(pin_path).display();
        return Ok(Finding::ok(check, format!("mounted at {place}")));
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )?;
    Ok(Finding::ok(
        check,
        format!("not mounted; the agent mounts it at {BPFFS}"),
    ))
}

fn programs(folder: &Path, wishes: &Wishes<'_>) -> Vec<Finding> {
    let sizes = MapSizes {
        v4: wishes.capture.flow_map_min_entries,
        v6: wishes.capture.flow_map_min_entries,
    };
    let constants = EniConstants {
        ethernet: true,
        ..EniConstants::default()
    };
    let mut trial = match Trial::new(folder, constants, sizes) {
        Ok(trial) => trial,
        Err(error) => return vec![refused(&error)],
    };
    let instructions = trial
        .verified_instructions(TrialProgram::Ingress)
        .ok()
        .flatten()
        .map_or_else(String::new, |number| {
            format!(" (ingress: {number} instructions verified)")
        });
    let mut findings = vec![
        Finding::ok("BPF maps", "made, with maps of maps"),
        Finding::ok(
            "BPF programs",
            format!("loaded, for TC and XDP{instructions}"),
        ),
        match count_a_packet(&mut trial) {
            Ok(()) => Finding::ok(
                "count and drain",
                "a packet was counted, and read in a batch",
            ),
            Err(error) => Finding::fail("count and drain", error)
                .so("nothing can be recorded; reading in batches takes Linux 5.6"),
        },
        wake(folder),
        security_groups(folder),
        host_firewall(folder),
    ];
    findings.extend(attach::findings(folder, constants, wishes));
    findings
}

fn refused(error: &BpfError) -> Finding {
    let check = match error {
        BpfError::Program { .. } | BpfError::NoProgram(_) => "BPF programs",
        _ => "BPF maps",
    };
    let memlock = fs::read_to_string("/proc/self/limits")
        .unwrap_or_default()
        .lines()
        .any(|line| line.starts_with("Max locked memory") && !line.contains("unlimited"));
    let help = if memlock {
        "nothing can be counted; it takes root, Linux 5.10 or later, and before 5.11 an unlimited RLIMIT_MEMLOCK (ulimit -l)"
    } else {
        "nothing can be counted; it takes root, and Linux 5.10 or later"
    };
    Finding::fail(check, with_causes(error)).so(help)
}

/// An error and what caused it, each said once.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

/// Counts one packet, flips, and reads it, as the agent does.
fn count_a_packet(trial: &mut Trial) -> Result<(), String> {
    let told = |error: BpfError| error.to_string();
    trial
        .run(TrialProgram::Ingress, &FRAME, SkbMetadata::default(), 1)
        .map_err(told)?;
    let still = trial.counters.flip().map_err(told)?;
    let mut counted = Vec::new();
    trial
        .counters
        .read_v4(&still, |_, counters| counted.extend_from_slice(counters))
        .map_err(told)?;
    match counted.as_slice() {
        [one] if one.packets == 1 && one.bytes == 28 => Ok(()),
        other => Err(format!(
            "one packet of 28 octets was counted as {} flows: {other:?}",
            other.len()
        )),
    }
}

fn wake(folder: &Path) -> Finding {
    let check = "ring buffer";
    let opened = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| {
            runtime.block_on(async { Wake::open(folder).map(drop).map_err(|e| e.to_string()) })
        });
    match opened {
        Ok(()) => Finding::ok(check, "opened"),
        Err(error) => Finding::fail(check, error)
            .so("the agent would not know when a flow map fills; it takes Linux 5.8"),
    }
}

/// What policies and sessions take that older kernels do another way.
fn security_groups(folder: &Path) -> Finding {
    let check = "security groups";
    match bpf::lacks(folder) {
        Ok(lacking) if lacking.is_empty() => {
            Finding::ok(check, "policies and sessions are changed in one step")
        }
        Ok(lacking) => Finding::ok(check, "policies and sessions are changed in several steps")
            .so(lacking.join("; ")),
        Err(error) => Finding::warn(check, with_causes(&error))
            .so("ENIs whose security-mode is observe or enforce may not be captured"),
    }
}

/// Attaches the program that sees what netfilter drops, for no device, and detaches it.
fn host_firewall(folder: &Path) -> Finding {
    let check = "host firewall";
    let attached = NetfilterDrops::attach(folder)
        .and_then(|drops| drops.detach().map_err(NoVerdicts::Refused));
    match attached {
        Ok(()) => Finding::ok(check, "the kernel tells what netfilter drops"),
        Err(error) => Finding::warn(check, with_causes(&error)).so(
            "what netfilter drops on its way in is recorded as ACCEPT, and on its way out not at all; the rest works",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::FRAME;

    #[test]
    fn the_frame_is_a_whole_datagram_with_a_good_checksum() {
        let ip = &FRAME[14..34];
        let sum: u32 = ip
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(usize::from(ip[3]), FRAME.len() - 14);
    }
}
