//! What the tests of discovery stand on: namespaces of their own, and a follower that checks every event.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::net::UdpSocket;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use super::{Device, DeviceCounters, DeviceEvent, DeviceKey, Discovery, Settings, list_devices};

/// How long a test waits for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs a test in a thread that has a network namespace of its own, which to the code under test is the host's. Whatever
/// devices the test makes in it end with the thread.
pub(super) fn on_a_host_of_its_own(test: impl AsyncFnOnce() + Send) {
    if !geteuid().is_root() {
        println!("skipped: making network namespaces needs root");
        return;
    }
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace for the test");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(test());
    };
    thread::scope(|scope| {
        scope
            .spawn(run)
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// Awaits something that must happen before the deadline.
pub(super) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Runs `ip` with these words in the thread's namespace.
pub(super) fn ip(words: &str) {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .expect("the program ip");
    assert!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs `ip` with many commands, one a line.
pub(super) fn ip_batch(lines: &str) {
    let file = std::env::temp_dir().join(unique_name());
    fs::write(&file, lines).expect("a file of commands");
    let result = Command::new("ip").arg("-batch").arg(&file).output();
    fs::remove_file(&file).expect("the file of commands");
    let output = result.expect("the program ip");
    assert!(
        output.status.success(),
        "ip -batch: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A name that no other test of this machine uses.
pub(super) fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "fld{}n{}",
        process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A named namespace, made by `ip netns` and removed when dropped.
pub(super) struct NamedNamespace {
    pub(super) name: String,
}

impl NamedNamespace {
    pub(super) fn new() -> Self {
        Self::with_name(unique_name())
    }

    pub(super) fn with_name(name: String) -> Self {
        ip(&format!("netns add {name}"));
        Self { name }
    }
}

impl Drop for NamedNamespace {
    fn drop(&mut self) {
        // The test may have removed it itself.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

/// A folder for namespaces that does not exist yet; removed when dropped, with what is mounted in it.
pub(super) struct OwnFolder {
    above: PathBuf,
    pub(super) folder: PathBuf,
}

impl OwnFolder {
    pub(super) fn new() -> Self {
        let above = std::env::temp_dir().join(unique_name());
        fs::create_dir(&above).expect("a folder for the test");
        Self {
            folder: above.join("run/netns"),
            above,
        }
    }

    /// Makes the file of a namespace, without mounting a namespace on it.
    pub(super) fn make_file(&self, name: &str) -> PathBuf {
        fs::create_dir_all(&self.folder).expect("the folder of namespaces");
        let file = self.folder.join(name);
        fs::write(&file, "").expect("the file of a namespace");
        file
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        for file in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let _ = umount2(&file.path(), MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(&self.above);
    }
}

/// Mounts a new network namespace on a file.
pub(super) fn mount_new_namespace(file: &Path) {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let nothing = None::<&Path>;
        mount(
            Some("/proc/thread-self/ns/net"),
            file,
            nothing,
            MsFlags::MS_BIND,
            nothing,
        )
        .expect("the mounted namespace");
    };
    thread::scope(|scope| {
        scope
            .spawn(make)
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// Settings with these namespaces of `ip netns` wanted.
pub(super) fn settings<'a>(namespaces: impl IntoIterator<Item = &'a str>) -> Settings {
    Settings {
        namespaces: namespaces.into_iter().map(str::to_owned).collect(),
        ..Settings::default()
    }
}

/// Follows a [`Discovery`], and checks that each event makes sense after those before it.
pub(super) struct Follower {
    pub(super) discovery: Discovery,
    pub(super) devices: BTreeMap<DeviceKey, Device>,
    /// Every event so far.
    pub(super) told: Vec<DeviceEvent>,
}

impl Follower {
    /// Starts, and awaits the host's loopback device.
    pub(super) async fn start(settings: Settings) -> Self {
        let discovery = Discovery::start(settings).expect("discovery");
        let mut follower = Self {
            discovery,
            devices: BTreeMap::new(),
            told: Vec::new(),
        };
        follower
            .until("the loopback", |event| is_appeared(event, None, "lo"))
            .await;
        follower
    }

    /// Takes one event, checking it.
    pub(super) fn take(&mut self, event: DeviceEvent) -> DeviceEvent {
        match &event {
            DeviceEvent::Appeared(device, _) => {
                let before = self.devices.insert(device.key, device.clone());
                assert_eq!(
                    before, None,
                    "appeared twice; told before: {:#?}",
                    self.told
                );
            }
            DeviceEvent::Changed(device, _) => {
                let before = self.devices.insert(device.key, device.clone());
                assert!(
                    before.as_ref().is_some_and(|before| before != device),
                    "no change from {before:?} to {device:?}"
                );
            }
            DeviceEvent::Vanished(key, _) => {
                assert!(
                    self.devices.remove(key).is_some(),
                    "{key:?} vanished unknown; told before: {:#?}",
                    self.told
                );
            }
            DeviceEvent::NamespaceGone { name } => {
                let left = self
                    .devices
                    .values()
                    .find(|device| device.namespace_name.as_ref() == Some(name));
                assert_eq!(left, None, "its namespace is gone");
            }
            DeviceEvent::NamespaceUnavailable { .. } => {}
        }
        self.told.push(event.clone());
        event
    }

    /// The next event.
    pub(super) async fn next(&mut self, what: &str) -> DeviceEvent {
        let event = in_time(what, self.discovery.next()).await;
        self.take(event)
    }

    /// Takes events up to the first that fits.
    pub(super) async fn until(
        &mut self,
        what: &str,
        fits: impl Fn(&DeviceEvent) -> bool,
    ) -> DeviceEvent {
        loop {
            let event = self.next(what).await;
            if fits(&event) {
                return event;
            }
        }
    }

    /// Takes events until a device appears in a namespace.
    pub(super) async fn appeared(&mut self, namespace: Option<&str>, name: &str) -> Device {
        match self
            .until(&format!("{name} appears"), |event| {
                is_appeared(event, namespace, name)
            })
            .await
        {
            DeviceEvent::Appeared(device, _) => device,
            other => panic!("{other:?}"),
        }
    }

    /// The device, whether it has appeared before or appears now.
    pub(super) async fn appeared_or_known(
        &mut self,
        namespace: Option<&str>,
        name: &str,
    ) -> Device {
        let fits =
            |device: &&Device| device.name == name && device.namespace_name.as_deref() == namespace;
        match self.devices.values().find(fits) {
            Some(device) => device.clone(),
            None => self.appeared(namespace, name).await,
        }
    }

    /// Takes events until the device is changed so that it fits.
    pub(super) async fn changed(
        &mut self,
        what: &str,
        key: DeviceKey,
        fits: impl Fn(&Device) -> bool,
    ) -> Device {
        let wanted = |event: &DeviceEvent| matches!(event, DeviceEvent::Changed(device, _) if device.key == key && fits(device));
        match self.until(what, wanted).await {
            DeviceEvent::Changed(device, _) => device,
            other => panic!("{other:?}"),
        }
    }

    /// Takes events until the device vanishes; gives its last counters.
    pub(super) async fn vanished(&mut self, key: DeviceKey) -> Option<DeviceCounters> {
        let what = format!("{key:?} vanishes");
        let event = self.until(&what, |event| last_counters(event, key).is_some());
        last_counters(&event.await, key).flatten()
    }

    /// The last counters of the device, whether it has vanished before or vanishes now.
    pub(super) async fn vanished_or_told(&mut self, key: DeviceKey) -> Option<DeviceCounters> {
        let told = self.told.iter().find_map(|event| last_counters(event, key));
        match told {
            Some(counters) => counters,
            None => self.vanished(key).await,
        }
    }

    /// Whether it has been told that the device has vanished.
    pub(super) fn told_vanished(&self, key: DeviceKey) -> bool {
        self.told
            .iter()
            .any(|event| last_counters(event, key).is_some())
    }

    /// Takes events until what was told is what a fresh listing finds.
    pub(super) async fn until_equal_to_a_fresh_listing(&mut self, settings: Settings) {
        let listing = in_time("a listing", list_devices(settings))
            .await
            .expect("a listing");
        let fresh: BTreeMap<_, _> = listing
            .devices
            .into_iter()
            .map(|device| (device.key, device))
            .collect();
        while self.devices != fresh {
            self.next("what was told agrees with a fresh listing").await;
        }
    }
}

/// What is told with the end of a device, if this event is that.
fn last_counters(event: &DeviceEvent, key: DeviceKey) -> Option<Option<DeviceCounters>> {
    match event {
        DeviceEvent::Vanished(gone, counters) if *gone == key => Some(*counters),
        _ => None,
    }
}

fn is_appeared(event: &DeviceEvent, namespace: Option<&str>, name: &str) -> bool {
    matches!(event, DeviceEvent::Appeared(device, _)
        if device.name == name && device.namespace_name.as_deref() == namespace)
}

/// A veth pair `eni0` and `peer`, up and without IPv6, in the thread's namespace: nothing crosses it but what a test sends.
pub(super) fn silent_pair() {
    for which in ["all", "default"] {
        // Where the kernel has no IPv6, there is nothing to be switched off.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
    }
    // The sending end comes up last: one that comes up without a carrier drops what it is to send until the kernel gets round to it.
    ip_batch(
        "link add eni0 type veth peer name peer\naddress add 192.0.2.1/24 dev eni0\n\
         link set peer up arp off\nlink set eni0 up arp off\n\
         neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev eni0 nud permanent\n",
    );
}

/// Sends datagrams over a [`silent_pair`], each of 1,000 octets of data; gives the octets that each has as a frame.
pub(super) fn send_datagrams(count: u32) -> u64 {
    let socket = UdpSocket::bind("192.0.2.1:0").expect("a socket");
    for _ in 0..count {
        socket
            .send_to(&[0; 1000], "192.0.2.2:9")
            .expect("a datagram sent");
    }
    // Ethernet, IPv4 and UDP.
    14 + 20 + 8 + 1000
}
