//! Interfaces that come, go and move, while an agent runs and while none does.

use flowlog_tests::agent::{Crossed, Direction, EniPlan, MatchPlan, Volume};
use flowlog_tests::lab::{FloodPlan, Namespace, Sent};

use crate::scene::{LEFT, RIGHT, Scene, skipped, wait_until};

fn plan(packets: u64) -> FloodPlan {
    FloodPlan {
        packets,
        flows: 100,
        threads: 1,
        ..FloodPlan::default()
    }
}

#[test]
fn devices_that_are_deleted_and_made_again_have_everything_told() {
    if skipped("devices_that_are_deleted_and_made_again_have_everything_told") {
        return;
    }
    for dead in [false, true] {
        let mut scene = Scene::start(|plan| plan);
        for round in 1..=3 {
            scene.flood(&plan(1000 * round));
            if dead {
                scene.agent.kill().expect("killed");
                scene.flood(&plan(500));
            }
            scene.replace_pair(|scene| {
                if !dead {
                    let released = scene.agent.wait_until_released(&[LEFT, RIGHT]);
                    released.expect("released");
                }
            });
            if dead {
                scene.agent.restart().expect("restarted");
            }
            scene.captured();
        }
        scene.flood(&plan(300));
        assert_eq!(scene.finish().skipped(), 0, "dead: {dead}");
    }
}

/// Sets a device up that has forgotten, in another namespace, that it is to send nothing by itself.
fn quiet_up(namespace: &Namespace, device: &str) {
    let disable = format!("ipv6/conf/{device}/disable_ipv6");
    namespace.set_sysctl(&disable, "1").expect("no IPv6");
    let up = ["link", "set", device, "arp", "off", "up"];
    namespace.ip(&up).expect("up");
}

/// Whether a device is up, with a carrier.
fn is_up(namespace: &Namespace, device: &str) -> bool {
    let line = namespace.ip(&["-oneline", "link", "show", "dev", device]);
    line.expect("the device").contains("state UP")
}

#[test]
fn a_device_that_moves_to_another_namespace_and_back_has_what_crossed_in_its_own_told() {
    if skipped("a_device_that_moves_to_another_namespace_and_back_has_what_crossed_in_its_own_told")
    {
        return;
    }
    let mut scene = Scene::start(|plan| plan);
    let (left, right) = (scene.left().clone(), scene.right().clone());
    let elsewhere = Namespace::create("elsewhere").expect("a namespace");
    let name = |namespace: &Namespace| namespace.name().expect("a name").to_owned();
    let move_right = |from: &Namespace, to: &Namespace| {
        from.ip(&["link", "set", &right.name, "netns", &name(to)])
            .expect("moved");
        quiet_up(to, &right.name);
        wait_until("a carrier", || is_up(&left.namespace, &left.name));
    };
    let here = scene.flood(&plan(1000));
    move_right(&right.namespace, &elsewhere);
    scene.agent.wait_until_released(&[RIGHT]).expect("released");
    let away = scene.flood(&plan(2000));
    move_right(&elsewhere, &right.namespace);
    scene.captured();
    let back = scene.flood(&plan(4000));
    let mut crossed = Crossed::default();
    for (sent, at_right) in [(&here, true), (&away, false), (&back, true)] {
        crossed.add(LEFT, Direction::Out, volume(sent));
        if at_right {
            crossed.add(RIGHT, Direction::In, volume(sent));
        }
    }
    scene.finish_with(&crossed);
}

fn volume(sent: &Sent) -> Volume {
    Volume {
        packets: sent.packets,
        bytes: sent.bytes,
    }
}

/// A namespace that nothing but its name keeps.
struct Doomed(String);

impl Doomed {
    fn new() -> Self {
        // Of the lab's form, so that it is swept if this process dies.
        let doomed = Self(format!("fl{}-9004-doomed", std::process::id()));
        doomed.ip(&["netns", "add", &doomed.0]);
        doomed
    }

    fn ip(&self, arguments: &[&str]) {
        let here = Namespace::current().expect("the current namespace");
        here.ip(arguments).expect("ip");
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        self.ip(&["netns", "delete", &self.0]);
    }
}

#[test]
fn a_namespace_that_is_deleted_with_an_eni_in_it_has_everything_told() {
    if skipped("a_namespace_that_is_deleted_with_an_eni_in_it_has_everything_told") {
        return;
    }
    for dead in [false, true] {
        let mut scene = Scene::start(|plan| plan);
        let doomed = Doomed::new();
        let (left, right) = (scene.left().clone(), scene.right().clone());
        let far = MatchPlan {
            namespace: Some(doomed.0.clone()),
            name: Some(right.name.clone()),
            ..MatchPlan::default()
        };
        let enis = [EniPlan::end(LEFT, &left), EniPlan::new(RIGHT, far)];
        scene.agent.replace_inventory(enis).expect("written");
        scene.agent.wait_until_released(&[RIGHT]).expect("released");
        let to = ["link", "set", &right.name, "netns", &doomed.0];
        right.namespace.ip(&to).expect("moved");
        // Without the address that IPv6 would give it, of which it would tell others.
        let up = [
            "-n",
            &doomed.0,
            "link",
            "set",
            &right.name,
            "addrgenmode",
            "none",
            "up",
        ];
        doomed.ip(&up);
        wait_until("a carrier", || is_up(&left.namespace, &left.name));
        scene.captured();

        let mut sent = scene.flood(&plan(1000));
        if dead {
            scene.agent.kill().expect("killed");
            sent += scene.flood(&plan(500));
        }
        drop(doomed);
        // The one device takes the other one with it, once nobody holds the namespace: the agent neither.
        let gone = || {
            let show = ["link", "show", "dev", &left.name];
            left.namespace.ip(&show).is_err()
        };
        wait_until("the end of both devices", gone);
        if dead {
            scene.agent.restart().expect("restarted");
        } else {
            let released = scene.agent.wait_until_released(&[LEFT, RIGHT]);
            released.expect("released");
        }
        let mut crossed = Crossed::default();
        crossed.add(LEFT, Direction::Out, volume(&sent));
        crossed.add(RIGHT, Direction::In, volume(&sent));
        scene.finish_with(&crossed);
    }
}
