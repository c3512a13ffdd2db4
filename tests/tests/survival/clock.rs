//! A wall clock that is set while the agent runs.

use std::fs;

use crate::scene::{Scene, skipped};

/// The seconds by which the wall clock is wrong, one after the other: an hour ahead, right again, an hour behind, right again.
const OFFSETS: [i64; 4] = [3600, 0, -3600, 0];

#[test]
fn a_wall_clock_that_is_set_makes_no_gap_no_overlap_and_no_loss() {
    if skipped("a_wall_clock_that_is_set_makes_no_gap_no_overlap_and_no_loss") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("offset");
    let set = |offset: i64| {
        // In one step, for the agent reads it at any moment.
        let new = folder.path().join("new");
        fs::write(&new, offset.to_string()).expect("written");
        fs::rename(&new, &file).expect("in place");
    };
    set(0);
    for killed in [false, true] {
        let mut scene = Scene::start(|mut plan| {
            let variable = "FLOWLOG_WALL_OFFSET_FILE".to_owned();
            plan.environment
                .insert(variable, file.display().to_string());
            plan
        });
        let metrics = scene.metrics.clone();
        scene.beside(|agent| {
            for offset in OFFSETS {
                metrics.wait_for_windows(2);
                if killed {
                    // The clock is set while no agent looks.
                    agent.kill().expect("killed");
                }
                set(offset);
                if killed {
                    agent.restart().expect("restarted");
                    agent
                        .wait_until_captured(&["eni-left", "eni-right"])
                        .expect("captured");
                }
            }
            metrics.wait_for_windows(2);
        });
        assert_eq!(scene.finish().skipped(), 0, "killed: {killed}");
    }
}
