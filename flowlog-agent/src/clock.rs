//! The clocks, and an alarm that goes by them.
//!
//! Windows are timed by the *boot time* (`CLOCK_BOOTTIME`): the time since the kernel was started, with the time that the machine was
//! suspended. It never jumps back, nothing sets it, and a restarted agent reads the same clock as the one before it, so that times on
//! it can be kept in files for as long as [`boot_id`] stays the same.
use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    time::{Duration, SystemTime},
};

use nix::{
    errno::Errno,
    sys::{
        time::TimeSpec,
        timerfd::{ClockId as AlarmClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    time::{ClockId, clock_gettime},
};
use tokio::io::unix::AsyncFd;

use crate::{failpoint, readiness::register, window::Now};

/// The kernel's random id of this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The latest time that an alarm is set to, some 34,000 years after the start: what is later never comes.
const LATEST: Duration = Duration::from_secs(1 << 40);

/// Reads the clocks. Nothing else in the agent does.
#[derive(Clone, Copy, Debug)]
pub struct Clock(());

impl Clock {
    /// The clocks of this host.
    ///
    /// # Errors
    ///
    /// If the kernel has no boot time, which Linux has since 2.6.39.
    pub fn new() -> io::Result<Self> {
        clock_gettime(ClockId::CLOCK_BOOTTIME)?;
        Ok(Self(()))
    }

    /// The time since the kernel was started without the time that the machine was suspended (`CLOCK_MONOTONIC`), by which programs in the
    /// kernel time sessions.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        // No Linux is without it.
        clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
    }

    /// This moment. A wall clock that stands before 1970 is taken for 1970.
    #[must_use]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        // It cannot fail any more: `new` has read it.
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
        Now {
            wall: failpoint::wall(wall),
            boot,
        }
    }
}

/// The id of this boot of the kernel: 36 characters, as in `1b4e28ba-2fa1-11d2-883f-0016d3cca427`. Boot times of different boots are
/// not comparable.
///
/// # Errors
///
/// If `/proc` is not mounted, or says something else.
pub fn boot_id() -> io::Result<String> {
    let text = fs::read_to_string(BOOT_ID)?;
    let id = text.trim();
    let legal = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    if id.len() == 36 && id.bytes().all(legal) {
        Ok(id.to_owned())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{BOOT_ID} is {id:?}, which is no id of a boot"),
        ))
    }
}

#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// An alarm at a boot time. Unlike tokio's timers, which stand still while the machine is suspended, it goes off right after the
/// resume if its time has passed meanwhile. It does not wake the machine.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<Timer>,
    /// What it is set to, unless it has gone off.
    at: Option<Duration>,
}

impl Alarm {
    /// An alarm that is not set. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the process has too many files open.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(AlarmClock::CLOCK_BOOTTIME, flags)?;
        Ok(Self {
            timer: register(Timer(timer))?,
            at: None,
        })
    }

    /// Sets it to a boot time, instead of what it was set to; one that has passed lets it go off at once. To set it to what it is set
    /// to costs nothing.
    ///
    /// # Errors
    ///
    /// The kernel's; none is known.
    pub fn set(&mut self, at: Duration) -> io::Result<()> {
        if self.at == Some(at) {
            return Ok(());
        }
        // Zero would switch it off.
        let expiration = at.clamp(Duration::from_nanos(1), LATEST);
        self.timer.get_ref().0.set(
            Expiration::OneShot(TimeSpec::from(expiration)),
            TimerSetTimeFlags::TFD_TIMER_ABSTIME,
        )?;
        self.at = Some(at);
        Ok(())
    }

    /// Returns when it goes off, which it does once for each time that it is set; never if it is not set. Cancel-safe.
    pub async fn wait(&mut self) {
        loop {
            // An error here means that the runtime is shutting down.
            let Ok(mut guard) = self.timer.readable().await else {
                return std::future::pending().await;
            };
            match guard.get_inner().0.wait() {
                Ok(()) => {
                    self.at = None;
                    return;
                }
                // It was set anew after it had become readable.
                Err(Errno::EAGAIN) => guard.clear_ready(),
                Err(error) => {
                    tracing::error!(%error, "the alarm that closes windows has failed");
                    return std::future::pending().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    /// How long a test waits for an alarm.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn goes_off(alarm: &mut Alarm) {
        tokio::time::timeout(PATIENCE, alarm.wait()).await.unwrap();
    }

    fn soon() -> Duration {
        Clock::new().unwrap().now().boot + Duration::from_millis(1)
    }

    fn never() -> Duration {
        Clock::new().unwrap().now().boot + Duration::from_secs(3600)
    }

    #[test]
    fn the_boot_time_is_the_uptime_and_does_not_go_back() {
        let clock = Clock::new().unwrap();
        let before = clock.now();
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let after = clock.now();
        let (seconds, _) = uptime.split_once('.').unwrap();
        let seconds = seconds.parse().unwrap();
        assert!(
            (before.boot.as_secs()..=after.boot.as_secs()).contains(&seconds),
            "{before:?} {uptime} {after:?}"
        );
    }

    #[test]
    fn the_boot_has_an_id_that_stays() {
        let id = boot_id().unwrap();
        assert_eq!(id.len(), 36, "{id}");
        assert_eq!(boot_id().unwrap(), id);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_alarm_goes_off_once_for_each_time_it_is_set() {
        let mut alarm = Alarm::new().unwrap();
        assert_eq!(alarm.wait().now_or_never(), None, "it was never set");
        for at in [soon(), Duration::ZERO] {
            alarm.set(at).unwrap();
            goes_off(&mut alarm).await;
            assert_eq!(alarm.wait().now_or_never(), None, "it went off already");
            alarm.set(at).unwrap();
            goes_off(&mut alarm).await;
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_alarm_that_was_put_off_does_not_go_off() {
        let mut alarm = Alarm::new().unwrap();
        alarm.set(Duration::ZERO).unwrap();
        // Its readiness is known to the runtime, and must not be taken for that of the later time.
        alarm.timer.readable().await.unwrap().retain_ready();
        for later in [never(), Duration::MAX] {
            alarm.set(later).unwrap();
            assert_eq!(alarm.wait().now_or_never(), None);
        }
        alarm.set(soon()).unwrap();
        goes_off(&mut alarm).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_wait_that_was_given_up_loses_nothing() {
        let mut alarm = Alarm::new().unwrap();
        alarm.set(soon()).unwrap();
        while alarm.wait().now_or_never().is_none() {
            tokio::task::yield_now().await;
        }
        alarm.set(soon()).unwrap();
        alarm.timer.readable().await.unwrap().retain_ready();
        drop(alarm.wait());
        goes_off(&mut alarm).await;
    }

    /// What lets it go off after a resume cannot be tried here; that the kernel keeps it by the right clock can be seen.
    #[tokio::test(flavor = "current_thread")]
    async fn the_kernel_keeps_the_alarm_by_the_boot_time() {
        let mut alarm = Alarm::new().unwrap();
        alarm.set(never()).unwrap();
        let number = alarm.timer.get_ref().as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        // CLOCK_BOOTTIME of include/uapi/linux/time.h, and TFD_TIMER_ABSTIME.
        assert!(info.contains("clockid: 7\n"), "{info}");
        assert!(info.contains("settime flags: 01\n"), "{info}");
    }
}
