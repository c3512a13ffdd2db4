//! Orderly restarts, upgrades, a second agent, and a reboot.

use flowlog_tests::agent::{AgentPlan, AgentProcess, Direction, LogStatus, OnExit, volume};
use flowlog_tests::lab::{FloodPlan, Sent, skip};

use crate::scene::{AGENT, LEFT, RIGHT, Scene, skipped, wait_until};
use crate::variant;

const BOTH: [&str; 2] = [LEFT, RIGHT];

fn staying(plan: AgentPlan) -> AgentPlan {
    AgentPlan {
        on_exit: OnExit::Stay,
        ..plan
    }
}

#[test]
fn restarts_under_load_lose_nothing() {
    if skipped("restarts_under_load_lose_nothing") {
        return;
    }
    let mut scene = Scene::start(staying);
    scene.beside(|agent| {
        for _ in 0..5 {
            let outcome = agent.stop().expect("its end");
            assert!(outcome.status.success(), "{}", outcome.stderr);
            agent.restart().expect("restarted");
            agent.wait_until_captured(&BOTH).expect("captured");
        }
    });
    assert_eq!(scene.finish().skipped(), 0);
}

#[test]
fn an_upgrade_to_other_programs_and_back_loses_nothing() {
    if skipped("an_upgrade_to_other_programs_and_back_loses_nothing") {
        return;
    }
    let mut scene = Scene::start(staying);
    let object = scene.beside_file("variant.o");
    variant::write(&object);
    let other = object.display().to_string();
    let first = scene.agent.program_tags().expect("it runs");
    // Ended in good order, and killed.
    let ends: [fn(&mut AgentProcess) -> _; 2] = [AgentProcess::stop, AgentProcess::kill];
    scene.beside(|agent| {
        for end in ends {
            for object in [Some(other.clone()), None] {
                let own = object.is_none();
                end(agent).expect("its end");
                agent.set_environment("FLOWLOG_BPF_OBJECT", object);
                agent.restart().expect("restarted");
                agent.wait_until_captured(&BOTH).expect("captured");
                let tags = agent.program_tags().expect("it runs");
                assert!(!tags.is_empty());
                assert_eq!(tags == first, own, "{tags:?} after {first:?}");
                // The program at the tracepoint of drops stays, and goes on with another; those on the devices are others.
                let others = tags.difference(&first).count();
                assert!(own || others == tags.len() - 1, "{tags:?} after {first:?}");
            }
        }
    });
    assert_eq!(scene.finish().skipped(), 0);
}

/// An agent of ABI version 2, whose binary the environment names: what it has left in the kernel is taken over, to the packet.
#[test]
fn an_upgrade_from_abi_version_2_loses_nothing() {
    const BINARY: &str = "FLOWLOG_AGENT_ABI_2";
    let test = "an_upgrade_from_abi_version_2_loses_nothing";
    if skipped(test) {
        return;
    }
    let Some(old) = std::env::var_os(BINARY) else {
        return skip(test, &format!("{BINARY} names no agent of that version"));
    };
    // Ended in good order, and killed.
    let ends: [fn(&mut AgentProcess) -> _; 2] = [AgentProcess::stop, AgentProcess::kill];
    for end in ends {
        let mut scene = Scene::start(staying);
        let agent = &mut scene.agent;
        agent.kill().expect("killed");
        agent.lose_pins().expect("its end");
        std::fs::remove_dir_all(agent.spool_path()).expect("nothing is spooled");
        agent.run_as(&old);
        agent.restart().expect("restarted");
        agent.wait_until_captured(&BOTH).expect("captured");
        scene.beside(|agent| {
            end(agent).expect("its end");
            agent.run_as(AGENT);
            agent.restart().expect("restarted");
            agent.wait_until_captured(&BOTH).expect("captured");
        });
        let finished = scene.finish();
        assert_eq!(finished.skipped(), 0);
        let log = &finished.outcome.stderr;
        assert!(log.contains("another version has left version=2"), "{log}");
    }
}

#[test]
fn of_two_agents_that_start_at_once_one_runs_and_the_other_says_why_not() {
    if skipped("of_two_agents_that_start_at_once_one_runs_and_the_other_says_why_not") {
        return;
    }
    for _ in 0..3 {
        let mut scene = Scene::start(staying);
        scene.beside(|agent| {
            agent.kill().expect("killed");
            let mut second = agent.start_second().expect("started");
            agent.restart().expect("started");
            // Each either captures or ends.
            let (a, b) = std::thread::scope(|scope| {
                let a = scope.spawn(|| agent.wait_until_captured(&BOTH).is_ok());
                let b = second.wait_until_captured(&BOTH).is_ok();
                (a.join().expect("no panic"), b)
            });
            assert!(a != b, "they run: {a}, {b}");
            if b {
                // The scene goes on with the one that runs.
                std::mem::swap(agent, &mut second);
            }
            let refused = second.wait().expect("its end");
            assert_eq!(refused.code(), Some(1), "{}", refused.stderr);
            let why = "flowlog-agent: another flowlog-agent";
            assert!(refused.stderr.starts_with(why), "{}", refused.stderr);
            assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
        });
        assert_eq!(scene.finish().skipped(), 0);
    }
}

/// Much of the open window is committed, something is in the kernel, and something more comes while no agent runs; and then the kernel's
/// counters are lost. Gives what was sent.
fn lose_counters(scene: &mut Scene) -> Sent {
    let plan = FloodPlan {
        packets: 10_000,
        flows: 10_000,
        ..FloodPlan::default()
    };
    // It answers when it has read what the devices had counted as their capture began. What crosses while they are read, nobody can tell.
    scene.agent.status().expect("a status");
    let mut sent = scene.flood(&plan);
    let drained = || scene.metrics.value("early_drains_total") > 0.0;
    wait_until("an early drain", drained);
    scene.agent.kill().expect("killed");
    sent += scene.flood(&plan);
    scene.agent.lose_pins().expect("its end");
    sent
}

fn with_small_maps_and_a_long_window(plan: AgentPlan) -> AgentPlan {
    AgentPlan {
        flow_map_entries: Some((64, 64)),
        window_seconds: Some(3600),
        ..plan
    }
}

/// Somebody has removed the pins: what was counted meanwhile the interfaces know.
#[test]
fn what_the_interfaces_counted_while_the_counters_were_lost_is_told_as_skipped() {
    if skipped("what_the_interfaces_counted_while_the_counters_were_lost_is_told_as_skipped") {
        return;
    }
    let mut scene = Scene::start(with_small_maps_and_a_long_window);
    lose_counters(&mut scene);
    scene.restart();
    // What is known of the loss by now is in no drain yet, and must outlive the agent that knows it.
    scene.agent.kill().expect("killed");
    scene.restart();
    let crossed = scene.crossed();
    let outcome = scene.agent.stop().expect("its end");
    assert!(outcome.status.success(), "{}", outcome.stderr);
    let records = scene.records();
    for (eni, direction) in [(LEFT, Direction::Out), (RIGHT, Direction::In)] {
        let told = volume(&records, eni, direction).packets;
        assert_eq!(told, crossed.volume(eni, direction).packets, "{eni}");
    }
}

/// A reboot as far as an agent can tell: the kernel has forgotten everything, and the disk nothing.
#[test]
fn after_a_reboot_what_was_committed_is_told_and_that_something_is_missing() {
    if skipped("after_a_reboot_what_was_committed_is_told_and_that_something_is_missing") {
        return;
    }
    let mut scene = Scene::start(with_small_maps_and_a_long_window);
    let sent = lose_counters(&mut scene);
    scene
        .agent
        .set_environment("FLOWLOG_BOOT_ID", Some("another".to_owned()));
    scene.restart();
    let outcome = scene.agent.stop().expect("its end");
    assert!(outcome.status.success(), "{}", outcome.stderr);
    let records = scene.records();
    for eni in BOTH {
        let of_eni = || records.iter().filter(|record| record.eni_id == eni);
        let told: u64 = of_eni().filter_map(|record| record.packets).sum();
        assert!(
            (1..=sent.packets).contains(&told),
            "{told} packets of {eni} are told"
        );
        let unknown = |status| status == LogStatus::SkipData;
        assert!(
            of_eni().any(|record| unknown(record.log_status) && record.packets.is_none()),
            "{eni} does not say that something is missing: {:?}",
            of_eni().next_back()
        );
    }
}
