//! Frames of which only the start is in the linear part: the rest is in page fragments, where direct access does not reach.
use flowlog_agent::bpf::trial::{SkbMetadata, TrialProgram};
use flowlog_tests::{
    lab::{skip, skip_unless_root},
    packets::{self, build, build::Extension},
};

use crate::rig::{MIN_FRAME, ROOMY, Rig, eni};

/// No header of the corpus that matters ends later, in octets.
const LAST_CUT: usize = 200;

#[test]
fn xdp_reads_what_lies_outside_the_linear_part() {
    split_everywhere(
        "xdp_reads_what_lies_outside_the_linear_part",
        TrialProgram::Xdp,
    );
}

#[test]
fn tc_ingress_reads_what_lies_outside_the_linear_part() {
    split_everywhere(
        "tc_ingress_reads_what_lies_outside_the_linear_part",
        TrialProgram::Ingress,
    );
}

#[test]
fn tc_egress_reads_what_lies_outside_the_linear_part() {
    split_everywhere(
        "tc_egress_reads_what_lies_outside_the_linear_part",
        TrialProgram::Egress,
    );
}

/// Each packet of the corpus with its linear part ending at each octet, within headers and between them.
fn split_everywhere(test: &str, program: TrialProgram) {
    if skip_unless_root(test) {
        return;
    }
    if !Rig::can_split(program) {
        let reason = "this kernel's BPF_PROG_TEST_RUN cannot leave a part of a frame outside the linear part (6.18 can for XDP)";
        return skip(test, reason);
    }
    let mut rig = Rig::new(ROOMY, &[(eni(0, false), &[program])]);
    for packet in packets::corpus() {
        for cut in MIN_FRAME..packet.frame.len().min(LAST_CUT) {
            rig.send_as(&packet.frame, linear(cut));
        }
    }
    // A chain of headers that alone is longer than a page.
    let chain = [Extension::Plain(build::DESTINATION, 255); 12];
    let datagram = build::ipv6(&chain, 6, &build::tcp(0x12, b"far"));
    let frame = build::ethernet(build::IPV6, &datagram);
    for cut in [MIN_FRAME, 54, 55, 56, 2102, 2103, 2104] {
        rig.send_as(&frame, linear(cut));
    }
    rig.send(&frame);
    if let Err(differences) = rig.check() {
        panic!("{differences}");
    }
}

fn linear(octets: usize) -> SkbMetadata {
    SkbMetadata {
        linear_octets: octets as u32,
        ..SkbMetadata::default()
    }
}
