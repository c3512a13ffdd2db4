//! What `flowlog-agent status` says of conservation.

use std::net::SocketAddr;

use flowlog_tests::agent::AgentPlan;
use flowlog_tests::lab::{FloodPlan, FrameSender, Offload, set_offload, traffic};
use serde_json::Value;

use crate::scene::{LEFT, RIGHT, Scene, skipped};

/// An ARP request from nobody to nobody: a frame that is no IP packet.
fn arp_frame() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([0x02, 0xf1, 0, 0, 0xff, 1, 0x08, 0x06]);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.resize(42, 0);
    frame
}

/// ENI, direction, and the difference between what its interface counted and what became of it.
fn differences(status: &Value) -> Vec<(String, String, i64)> {
    let entries = status["conservation"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let read = |entry: &Value| {
        let difference = entry["difference"].as_i64().expect("a difference");
        (
            text(&entry["eni-id"]),
            text(&entry["direction"]),
            difference,
        )
    };
    let mut differences: Vec<_> = entries.map(read).collect();
    differences.sort_unstable();
    differences
}

#[test]
fn status_has_no_difference_after_udp_tcp_with_offloads_and_arp() {
    if skipped("status_has_no_difference_after_udp_tcp_with_offloads_and_arp") {
        return;
    }
    for (offloads, restarted) in [(false, false), (true, false), (true, true)] {
        let mut scene = Scene::start(|plan| AgentPlan { ..plan });
        if offloads {
            for end in [scene.left(), scene.right()] {
                set_offload(&end.namespace, &end.name, &Offload::ALL, true).expect("offloads on");
            }
        }
        let (left, right) = (scene.left().clone(), scene.right().clone());
        scene.flood(&FloodPlan {
            packets: 5000,
            flows: 50,
            ..FloodPlan::default()
        });
        for (address, _) in &right.addresses {
            let server = (&right.namespace, SocketAddr::new(*address, 0));
            traffic::tcp_transfer(&left.namespace, server, 5_000_000).expect("a transfer");
        }
        let mut sender = FrameSender::open(&left.namespace, &left.name).expect("a sender");
        for _ in 0..7 {
            sender.send(&arp_frame()).expect("sent");
        }
        if restarted {
            scene.agent.kill().expect("killed");
            scene.restart();
        }
        // Then what was sent before is in a drain.
        scene.metrics.wait_for_windows(2);
        let status = scene.agent.status().expect("a status");
        let expected = [(LEFT, "in"), (LEFT, "out"), (RIGHT, "in"), (RIGHT, "out")];
        let expected = expected.map(|(eni, way)| (eni.to_owned(), way.to_owned(), 0));
        assert_eq!(differences(&status), expected, "{status:#}");
    }
}
