//! ENIs in network namespaces that come and go while the agent runs.
use std::{
    process::{self, Command},
    thread,
    time::{Duration, Instant},
};

use flowlog_tests::{
    agent::{AgentPlan, AttachMode, Direction, EniPlan, MatchPlan, PATIENCE, Volume, conserved},
    lab::{Family, Namespace, Process, device_stats, skip_unless_root},
};

use crate::{
    ending::chains,
    wire::{Wire, flood, long_window, start, stop},
};

/// A second name of a namespace: under this name it comes and goes without touching what is inside.
struct SecondName {
    name: String,
    /// `ip netns attach` knows a namespace by a process in it.
    inside: Process,
    named: bool,
}

impl SecondName {
    /// The name is free to begin with.
    fn new(namespace: &Namespace, number: u32) -> Self {
        let mut command = Command::new("sleep");
        Self {
            // Of the lab's form, so that it is swept if this process dies.
            name: format!("fl{}-{number}-later", process::id()),
            inside: namespace.spawn(command.arg("600")).expect("a process"),
            named: false,
        }
    }

    fn appear(&mut self) {
        let pid = self.inside.child().id().to_string();
        ip(&["netns", "attach", &self.name, &pid]);
        self.named = true;
    }

    fn go(&mut self) {
        self.named = false;
        ip(&["netns", "delete", &self.name]);
    }

    fn eni(&self, eni_id: &str, device: &str) -> EniPlan {
        EniPlan::new(
            eni_id,
            MatchPlan {
                namespace: Some(self.name.clone()),
                name: Some(device.to_owned()),
                ..MatchPlan::default()
            },
        )
    }
}

impl Drop for SecondName {
    fn drop(&mut self) {
        if self.named {
            self.go();
        }
    }
}

fn ip(arguments: &[&str]) {
    let here = Namespace::current().expect("the current namespace");
    here.ip(arguments).expect("ip");
}

#[test]
fn an_eni_in_a_namespace_that_appears_later_is_captured_until_the_namespace_goes() {
    if skip_unless_root(
        "an_eni_in_a_namespace_that_appears_later_is_captured_until_the_namespace_goes",
    ) {
        return;
    }
    for (attach, number) in [(AttachMode::Tcx, 9001), (AttachMode::Clsact, 9002)] {
        let wire = Wire::new();
        let mut name = SecondName::new(&wire.right, number);
        let [left, _] = wire.enis();
        let plan = AgentPlan {
            attach,
            ..long_window([left, name.eni("eni-later", "right0")])
        };
        let mut agent = start(&plan, &["eni-left"]);
        let mut out = wire.flood(10, 1);
        name.appear();
        agent.wait_until_captured(&["eni-later"]).expect("captured");
        let both = wire.flood(300, 30);
        name.go();
        agent.wait_until_released(&["eni-later"]).expect("released");
        out += both;
        out += wire.flood(20, 1);
        // The namespace has another name yet, and so lives on: nothing of the agent may be left in it.
        let left_behind = chains(&wire.right, "right0");
        assert!(left_behind.is_empty(), "{attach:?}: {left_behind:?}");
        let records = stop(&mut agent).records;
        conserved(
            &records,
            &[
                ("eni-left", Direction::Out, out),
                ("eni-later", Direction::In, both),
            ],
        );
    }
}

/// A namespace that nothing but its name keeps.
struct Doomed {
    name: String,
    there: bool,
}

impl Doomed {
    fn new() -> Self {
        let name = format!("fl{}-9003-doomed", process::id());
        ip(&["netns", "add", &name]);
        Self { name, there: true }
    }

    fn delete(&mut self) {
        self.there = false;
        ip(&["netns", "delete", &self.name]);
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        if self.there {
            self.delete();
        }
    }
}

/// Adds a quiet pair, `near0` in `near` and `far0` in the other namespace, and waits for its carrier.
fn add_pair(near: &Namespace, far: &Doomed) {
    let peer = ["peer", "name", "far0", "netns", &far.name];
    near.ip(&[&["link", "add", "near0", "type", "veth"], &peer[..]].concat())
        .expect("a pair");
    // Without addresses of its own, and without the one that IPv6 would give it.
    near.set_sysctl("ipv6/conf/near0/disable_ipv6", "1")
        .expect("no IPv6");
    let far_side = |arguments: &[&str]| ip(&[&["-n", &far.name], arguments].concat());
    far_side(&["link", "set", "far0", "addrgenmode", "none", "up"]);
    near.ip(&["link", "set", "near0", "up"]).expect("up");
    let deadline = Instant::now() + PATIENCE;
    while !near
        .ip(&["-oneline", "link", "show", "near0"])
        .expect("near0")
        .contains("state UP")
    {
        assert!(Instant::now() < deadline, "no carrier");
        // There is no event to await without a netlink library.
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn an_eni_whose_namespace_is_deleted_has_its_counts_reported_exactly() {
    if skip_unless_root("an_eni_whose_namespace_is_deleted_has_its_counts_reported_exactly") {
        return;
    }
    let near = Namespace::create("near").expect("a namespace");
    let mut far = Doomed::new();
    add_pair(&near, &far);
    let far_eni = MatchPlan {
        namespace: Some(far.name.clone()),
        name: Some("far0".to_owned()),
        ..MatchPlan::default()
    };
    let plan = long_window([
        EniPlan::device("eni-near", &near, "near0"),
        EniPlan::new("eni-far", far_eni),
    ]);
    let mut agent = start(&plan, &["eni-near", "eni-far"]);
    let before = device_stats(&near, "near0").expect("statistics");
    flood(&near, "near0", 500, 50, Family::V4);
    let crossed = device_stats(&near, "near0")
        .expect("statistics")
        .since(&before);
    far.delete();
    // The other end goes with the namespace, once nobody holds it: the agent neither.
    agent
        .wait_until_released(&["eni-near", "eni-far"])
        .expect("released");
    let records = stop(&mut agent).records;
    let sent = Volume::sent(&crossed);
    conserved(
        &records,
        &[
            ("eni-near", Direction::Out, sent),
            ("eni-far", Direction::In, sent),
        ],
    );
}
