//! What the environment asks for. What it asks for in vain ends the agent: a test would wait for nothing.
use std::{
    borrow::Cow,
    env, fs, process,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::signal::{Signal, raise};

use super::STEPS;

struct Point {
    step: &'static str,
    /// None for every pass.
    pass: Option<u64>,
    action: Action,
    passes: AtomicU64,
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Sleep(Duration),
    Say,
}

/// The code has come to this step.
pub fn reached(step: &str) {
    static POINTS: OnceLock<Vec<Point>> = OnceLock::new();
    let points = POINTS.get_or_init(|| {
        let text = env::var("FLOWLOG_FAILPOINT").unwrap_or_default();
        let points = text.split(',').filter(|part| !part.is_empty());
        points
            .map(|part| read(part).unwrap_or_else(|| refuse("FLOWLOG_FAILPOINT", part)))
            .collect()
    });
    if !STEPS.contains(&step) {
        refuse("the code", step);
    }
    for point in points.iter().filter(|point| point.step == step) {
        let pass = point.passes.fetch_add(1, Ordering::Relaxed) + 1;
        if point.pass.is_none_or(|only| only == pass) {
            act(step, pass, &point.action);
        }
    }
}

fn act(step: &str, pass: u64, action: &Action) {
    match action {
        // It does not return.
        Action::Kill => drop(raise(Signal::SIGKILL)),
        Action::Sleep(time) => thread::sleep(*time),
        Action::Say => tracing::info!(pass, "reached {step}"),
    }
}

fn read(part: &str) -> Option<Point> {
    let (place, action) = part.split_once('=')?;
    let (step, pass) = match place.split_once(':') {
        Some((step, pass)) => (step, Some(pass.parse().ok()?)),
        None => (place, None),
    };
    let action = match action {
        "kill" => Action::Kill,
        "say" => Action::Say,
        _ => Action::Sleep(Duration::from_millis(
            action
                .strip_prefix("sleep-")?
                .strip_suffix("ms")?
                .parse()
                .ok()?,
        )),
    };
    let step = STEPS.into_iter().find(|known| *known == step)?;
    Some(Point {
        step,
        pass,
        action,
        passes: AtomicU64::new(0),
    })
}

/// The wall clock, as the agent is to take it.
#[must_use]
pub fn wall(wall: Duration) -> Duration {
    let Some(file) = env::var_os("FLOWLOG_WALL_OFFSET_FILE") else {
        return wall;
    };
    let text = fs::read_to_string(&file).unwrap_or_default();
    let offset: i64 = text
        .trim()
        .parse()
        .unwrap_or_else(|_| refuse("FLOWLOG_WALL_OFFSET_FILE", &text));
    let seconds = Duration::from_secs(offset.unsigned_abs());
    if offset < 0 {
        wall.saturating_sub(seconds)
    } else {
        wall + seconds
    }
}

/// The id of the boot, as the agent is to take it.
#[must_use]
pub fn boot_id(boot_id: String) -> String {
    env::var("FLOWLOG_BOOT_ID").unwrap_or(boot_id)
}

/// The BPF object to be loaded.
#[must_use]
pub fn object(built_in: &'static [u8]) -> Cow<'static, [u8]> {
    match env::var_os("FLOWLOG_BPF_OBJECT") {
        None => Cow::Borrowed(built_in),
        Some(file) => Cow::Owned(
            fs::read(&file)
                .unwrap_or_else(|error| refuse("FLOWLOG_BPF_OBJECT", &error.to_string())),
        ),
    }
}

/// Rules that can have a number at a time.
#[must_use]
pub fn max_rules(built_in: u32) -> u32 {
    let Some(text) = env::var_os("FLOWLOG_MAX_RULES") else {
        return built_in;
    };
    let text = text.to_string_lossy();
    text.parse()
        .unwrap_or_else(|_| refuse("FLOWLOG_MAX_RULES", &text))
}

fn refuse(whose: &str, what: &str) -> ! {
    tracing::error!("failpoints: {what:?} of {whose} is not understood");
    process::exit(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_and_slips_are_not() {
        let told = |part| {
            let point = read(part)?;
            Some((point.step, point.pass, point.action))
        };
        assert_eq!(
            told("drain-committed:3=kill"),
            Some(("drain-committed", Some(3), Action::Kill))
        );
        let sleep = Action::Sleep(Duration::from_millis(200));
        assert_eq!(
            told("drain-flipped=sleep-200ms"),
            Some(("drain-flipped", None, sleep))
        );
        assert_eq!(
            told("window-removed=say"),
            Some(("window-removed", None, Action::Say))
        );
        for slip in [
            "drain-comitted=kill",
            "drain-committed",
            "drain-committed=die",
            "drain-committed:x=kill",
            "drain-committed=sleep-5s",
        ] {
            assert_eq!(told(slip), None, "{slip}");
        }
    }
}
