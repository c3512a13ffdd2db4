//! A file system that is full, and has room again. The tests mount small ones, in mount namespaces of their own.
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::Uid,
};

use super::*;

/// A small file system that nobody else sees; it is gone with the thread. None where that takes a privilege that we have not.
fn small_disk(path: &Path, options: &str) -> Option<()> {
    if !Uid::effective().is_root() {
        println!("skipped: mounting takes root");
        return None;
    }
    let none = None::<&str>;
    let private = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .and_then(|()| {
            mount(
                Some("spool"),
                path,
                Some("tmpfs"),
                MsFlags::empty(),
                Some(options),
            )
        });
    if let Err(error) = private {
        println!("skipped: cannot mount a file system: {error}");
        return None;
    }
    Some(())
}

/// Takes what room there is left, but for `octets`.
fn fill(path: &Path, octets: u64) {
    use std::io::Write as _;
    let mut ballast = fs::File::create(path.join("ballast")).unwrap();
    let mut size = 0;
    while ballast.write_all(&[1; 4096]).is_ok() {
        size += 4096;
    }
    ballast.set_len(size - octets).unwrap();
}

impl Lab {
    /// What all windows tell, of the flow log that has taken nothing; and whether some of it is in flows.
    fn told_by_all(&mut self, flow_log: &str) -> (Volumes, bool) {
        let mut all = Volumes::new();
        let mut in_flows = false;
        for window in self.spool().pending(flow_log) {
            let reader = window.read().unwrap();
            assert!(!reader.loss_unknown());
            let flows = read(&reader).flows();
            in_flows |= !flows.is_empty();
            add_volumes(&mut all, &flows);
            add_volumes(&mut all, &told_skipped(&reader));
        }
        (all, in_flows)
    }

    /// Drains and closes windows as an agent does, which tries again what failed; tells how often that was so, and of sums.
    fn drain_and_close(&mut self, drains: std::ops::Range<u64>) -> (u64, u64) {
        let (mut failed, mut sums_only) = (0, 0);
        // What the kernel has, as long as it is not committed.
        let mut kernel = Counted::default();
        for seed in drains {
            kernel.add(&large(seed));
            let before = names(&self.path);
            match self.try_drain(&kernel.clone()) {
                Ok(committed) => {
                    sums_only += u64::from(committed.sums_only == Some(Full::Disk));
                    kernel = Counted::default();
                }
                Err(error) => {
                    assert!(error.to_string().ends_with("(os error 28)"), "{error}");
                    // Other files may have gone to make room; none has come.
                    let now = names(&self.path);
                    assert!(now.iter().all(|name| before.contains(name)), "{now:?}");
                    failed += 1;
                }
            }
        }
        if kernel != Counted::default() {
            fs::remove_file(self.path.join("../ballast")).unwrap();
            self.try_drain(&kernel).unwrap();
        }
        (failed, sums_only)
    }
}

#[test]
fn on_a_full_disk_closed_windows_go_first_then_flows_and_the_sums_are_right() {
    let folder = temporary();
    let Some(()) = small_disk(folder.path(), "size=4m") else {
        return;
    };
    let mut lab = Lab::new(&folder.path().join("spool"));
    let mut truth = Counted::default();
    for seed in 0..6 {
        lab.drain(&large(seed));
        lab.close(0);
        truth.add(&large(seed));
    }
    lab.close(1);
    fill(folder.path(), 300 << 10);
    let (failed, sums_only) = lab.drain_and_close(10..40);
    assert_eq!(failed, 0, "the reserve has room for the sums");
    assert!((1..25).contains(&sums_only), "{sums_only} of 30 drains");
    let given_up = lab.spool().sweep(0).disk;
    assert_eq!(given_up.windows, 7, "the closed windows had to go first");
    assert_eq!(
        given_up.packets,
        2 * truth
            .flows()
            .values()
            .map(|v| v.r#in.packets + v.out.packets)
            .sum::<u64>()
    );
    lab.spool = None;
    lab.spool = Some(Spool::open(lab.config.clone()).unwrap().0);
    fs::remove_file(folder.path().join("ballast")).unwrap();
    lab.spool().sweep(0);
    assert!(lab.path.join("reserve").exists(), "made again");
    assert_eq!(lab.drain(&large(40)).sums_only, None, "there is room again");
    for length in 0..2 {
        lab.close(length);
    }
    let all = lab.truth(&(0..u64::MAX)).total();
    for flow_log in ["too", "ten-minutes"] {
        assert_eq!(lab.told_by_all(flow_log), (all.clone(), true));
    }
}

#[test]
fn a_drain_that_cannot_even_be_summed_up_fails_as_a_whole_and_can_be_made_again() {
    let folder = temporary();
    let Some(()) = small_disk(folder.path(), "size=256k") else {
        return;
    };
    let mut lab = Lab::new(&folder.path().join("spool"));
    assert!(
        !lab.path.join("reserve").exists(),
        "there is no room for it"
    );
    lab.drain(&large(0));
    fill(folder.path(), 8 << 10);
    let (failed, sums_only) = lab.drain_and_close(1..10);
    assert!(
        failed > 0 && sums_only > 0,
        "{failed} failed, {sums_only} with sums only"
    );
    lab.reopen();
    for length in 0..2 {
        lab.close(length);
    }
    let all = lab.truth(&(0..u64::MAX)).total();
    for flow_log in ["too", "ten-minutes"] {
        assert_eq!(lab.told_by_all(flow_log), (all.clone(), true));
    }
}

#[test]
fn windows_and_state_that_cannot_be_written_stay_as_they_were() {
    let folder = temporary();
    let Some(()) = small_disk(folder.path(), "size=256k") else {
        return;
    };
    let mut lab = Lab::new(&folder.path().join("spool"));
    lab.drain(&some(1));
    fill(folder.path(), 0);
    let before = (lab.told(), names(&lab.path));
    let state = lab.state.clone();
    lab.spool().save_state(&state).unwrap_err();
    let closing = Closing {
        length_seconds: 60,
        label: Window { start: 0, end: 60 },
        opened: Duration::ZERO,
        closed: Duration::ZERO,
        captured: &captured(),
        flow_logs: &["minute".to_owned()],
        first_drain: 1,
        loss_unknown: false,
    };
    lab.spool().close_window(&closing).unwrap_err();
    assert_eq!((lab.told(), names(&lab.path)), before);
    fs::remove_file(folder.path().join("ballast")).unwrap();
    let window = lab.close(0);
    lab.check(&window);
    lab.reopen();
}

#[test]
fn a_disk_without_room_for_another_file_is_a_full_disk() {
    let folder = temporary();
    let Some(()) = small_disk(folder.path(), "size=64m,nr_inodes=24") else {
        return;
    };
    let mut lab = Lab::new(&folder.path().join("spool"));
    let mut kernel = Counted::default();
    for seed in 0..30 {
        kernel.add(&some(seed));
        if lab.try_drain(&kernel.clone()).is_ok() {
            kernel = Counted::default();
        }
    }
    assert_ne!(kernel, Counted::default());
    let (none, more) = (None::<&str>, Some("nr_inodes=80"));
    mount(none, folder.path(), none, MsFlags::MS_REMOUNT, more).unwrap();
    lab.drain(&kernel);
    for length in 0..2 {
        lab.close(length);
    }
    let all = lab.truth(&(0..u64::MAX)).total();
    assert_eq!(lab.told_by_all("too"), (all, true));
}

#[test]
fn a_folder_that_cannot_be_written_to_is_told_of_in_one_sentence() {
    let folder = temporary();
    let Some(()) = small_disk(folder.path(), "size=64k,ro") else {
        return;
    };
    let error = Spool::open(config(folder.path())).unwrap_err().to_string();
    let expected = format!(
        "the spool cannot use the folder {}: Read-only file system (os error 30)",
        folder.path().display()
    );
    assert_eq!(error, expected);
}
