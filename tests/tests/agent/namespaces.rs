//! ENIs in network namespaces that come and go while the agent runs.
use std::process::{self, Command};

use flowlog_tests::{
    agent::{AgentPlan, AttachMode, Direction, EniPlan, MatchPlan, conserved},
    lab::{Namespace, Process, skip_unless_root},
};

use crate::{
    ending::chains,
    wire::{Wire, long_window, start, stop},
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
    if skip_unless_root("an_eni_in_a_namespace_that_appears_later_is_captured_until_the_namespace_goes") {
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

#[test]
fn an_eni_whose_namespace_is_deleted_has_its_counts_reported_exactly() {
    if skip_unless_root("an_eni_whose_namespace_is_deleted_has_its_counts_reported_exactly") {
        return;
    }
    let wire = Wire::new();
    let mut agent = start(&long_window(wire.enis()), &["eni-left", "eni-right"]);
    let sent = wire.flood(500, 50);
    let Wire { pair, left, right } = wire;
    let name = right.name().expect("a name").to_owned();
    drop(right);
    // The pair holds the namespace by its handle; the name goes here and now.
    ip(&["netns", "delete", &name]);
    agent.wait_until_released(&["eni-right"]).expect("released");
    drop(pair);
    agent.wait_until_released(&["eni-left"]).expect("released");
    drop(left);
    let records = stop(&mut agent).records;
    conserved(
        &records,
        &[
            ("eni-left", Direction::Out, sent),
            ("eni-right", Direction::In, sent),
        ],
    );
}
