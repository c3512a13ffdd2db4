//! Windows that are closed for some of their flow logs, and go on for the others.
use super::*;

impl Lab {
    /// Closes the window of an open series for some of its flow logs, which are given the next one of their own.
    fn close_for(&mut self, series: usize, flow_logs: &[&str]) -> Arc<StoredWindow> {
        self.now += 5;
        let open = self.state.series[series].clone();
        let (label, closed) = (
            Window {
                start: open.start,
                end: self.now,
            },
            Duration::from_secs(self.now),
        );
        let next_drain = self.spool().next_drain();
        let window = self
            .spool()
            .close_window(&Closing {
                length_seconds: open.length_seconds,
                label,
                opened: Duration::from_nanos(open.opened_ns),
                closed,
                captured: &captured(),
                flow_logs: &owned(flow_logs),
                first_drain: open.first_drain,
                loss_unknown: false,
            })
            .unwrap();
        let expected = Expected {
            length_seconds: open.length_seconds,
            label,
            drains: open.first_drain..next_drain,
        };
        self.windows.insert(window.id(), expected);
        self.state.series[series]
            .flow_logs
            .retain(|name| !flow_logs.contains(&name.as_str()));
        self.state.series.push(OpenSeries {
            start: label.end,
            opened_ns: closed.as_nanos() as u64,
            first_drain: next_drain,
            flow_logs: owned(flow_logs),
            ..open
        });
        self.state
            .series
            .retain(|series| !series.flow_logs.is_empty());
        let key = |series: &OpenSeries| (series.length_seconds, series.first_drain);
        self.state.series.sort_by_key(key);
        window
    }
}

#[test]
fn a_window_that_is_closed_for_some_goes_on_for_the_others_also_after_a_crash() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    lab.drain(&some(1));
    lab.drain(&some(2));
    let of_minute = lab.close_for(0, &["minute"]);
    // Killed before the state is saved: what the manifest says overrules it, for that flow log alone.
    lab.reopen();
    let begins: Vec<_> = lab
        .state
        .series
        .iter()
        .map(|open| open.first_drain)
        .collect();
    assert_eq!(begins, [1, 3, 1]);
    // Delivered meanwhile, and killed again.
    lab.check(&of_minute);
    lab.spool().delivered("minute", of_minute.id());
    lab.reopen();
    lab.save();
    let manifest = format!("window-{}.json", of_minute.id());
    assert!(!folder.path().join(manifest).exists());
    lab.drain(&some(3));
    let of_too = lab.close_for(0, &["too"]);
    lab.reopen();
    lab.save();
    lab.check(&of_too);
    lab.check(&lab.spool.as_ref().unwrap().pending("too")[0]);
    assert_eq!(lab.windows[&of_too.id()].drains, 1..4);
    // They end together, and are one from then on.
    lab.drain(&some(4));
    lab.now += 5;
    for flow_log in ["minute", "too"] {
        let of_it = |open: &OpenSeries| open.flow_logs == [flow_log];
        let series = lab.state.series.iter().position(of_it).unwrap();
        lab.now -= 5;
        let window = lab.close_for(series, &[flow_log]);
        lab.check(&window);
    }
    lab.state.series.dedup_by(|later, kept| {
        let same =
            (later.length_seconds, later.first_drain) == (kept.length_seconds, kept.first_drain);
        if same {
            kept.flow_logs.append(&mut later.flow_logs);
        }
        same
    });
    lab.reopen();
    assert_eq!(lab.state.series[0].flow_logs, ["minute", "too"]);
}

#[test]
fn a_state_of_an_earlier_version_says_by_length_what_is_open() {
    let folder = temporary();
    let mut lab = Lab::new(folder.path());
    for series in &mut lab.state.series {
        series.flow_logs.clear();
    }
    lab.save();
    lab.drain(&some(1));
    let window = lab.close_unsaved(0);
    lab.spool().delivered("minute", window.id());
    lab.spool().delivered("too", window.id());
    drop(window);
    lab.reopen();
    let begins: Vec<_> = lab
        .state
        .series
        .iter()
        .map(|open| open.first_drain)
        .collect();
    assert_eq!(begins, [2, 1]);
}
