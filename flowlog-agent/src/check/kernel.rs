//! What the kernel says of itself, and what this process may do.
use std::{fs, path::Path};

use caps::Capability;

use super::{Finding, Wishes};
use crate::privileges;

/// Version, JIT, BTF and run statistics: none is a reason not to work.
pub(super) fn findings() -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(release) = read("/proc/sys/kernel/osrelease") {
        findings.push(Finding::ok("kernel", release));
    }
    findings.push(jit(read("/proc/sys/net/core/bpf_jit_enable").as_deref()));
    findings.push(if Path::new("/sys/kernel/btf/vmlinux").exists() {
        Finding::ok("kernel's BTF", "there")
    } else {
        Finding::ok("kernel's BTF", "not there")
            .so("what netfilter drops is not told: see below; the programs on interfaces use no kernel types")
    });
    findings.push(run_statistics(
        read("/proc/sys/kernel/bpf_stats_enabled").as_deref(),
    ));
    findings
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn jit(enabled: Option<&str>) -> Finding {
    match enabled {
        Some("0") => Finding::warn("BPF JIT", "off").so(
            "the programs are interpreted, which costs several times the time per packet: \
             sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(_) => Finding::ok("BPF JIT", "on"),
        None => Finding::ok("BPF JIT", "not told in this network namespace"),
    }
}

fn run_statistics(enabled: Option<&str>) -> Finding {
    match enabled {
        Some("0") => Finding::ok("run statistics", "off").so(
            "the metrics do not tell what the programs cost; sysctl -w kernel.bpf_stats_enabled=1 \
             turns them on, at two clock reads a run of every BPF program",
        ),
        Some(_) => Finding::ok("run statistics", "on")
            .so("the metrics tell what the programs cost; the kernel reads its clock twice a run for it"),
        None => Finding::ok("run statistics", "not in this kernel")
            .so("the metrics do not tell what the programs cost"),
    }
}

/// The capabilities that the agent needs.
pub(super) fn capabilities(wishes: &Wishes<'_>) -> Vec<Finding> {
    let needed = privileges::needed(wishes.named_namespaces);
    let missing = match privileges::missing(&needed) {
        Ok(missing) => missing,
        Err(error) => return vec![Finding::warn("capabilities", error.to_string())],
    };
    if missing.is_empty() {
        let mut names: Vec<String> = needed.iter().map(ToString::to_string).collect();
        names.sort();
        return vec![Finding::ok("capabilities", names.join(", "))];
    }
    missing
        .into_iter()
        .map(|capability| {
            Finding::fail("capabilities", format!("{capability} is missing")).so(format!(
                "it takes it to {}; run as root",
                purpose(capability)
            ))
        })
        .collect()
}

fn purpose(capability: Capability) -> &'static str {
    match capability {
        Capability::CAP_BPF => "create maps and load programs",
        Capability::CAP_NET_ADMIN => "load programs for interfaces, and attach them",
        Capability::CAP_PERFMON => {
            "get the programs past the verifier: they compute with packet pointers"
        }
        Capability::CAP_SYS_ADMIN => "enter the network namespaces that the inventory names",
        _ => "do its work",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Status;

    #[test]
    fn only_a_jit_that_is_off_is_warned_of() {
        assert_eq!(jit(Some("0")).status, Status::Warn);
        assert_eq!(jit(Some("1")).status, Status::Ok);
        assert_eq!(jit(None).status, Status::Ok);
    }

    #[test]
    fn run_statistics_are_never_a_fault() {
        for enabled in [None, Some("0"), Some("1")] {
            assert_eq!(run_statistics(enabled).status, Status::Ok);
        }
    }

    #[test]
    fn every_capability_that_is_needed_has_a_purpose() {
        for capability in privileges::needed(true) {
            assert_ne!(purpose(capability), "do its work", "{capability}");
        }
    }
}
