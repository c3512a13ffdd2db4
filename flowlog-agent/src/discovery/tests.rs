//! Discovery on real devices, in namespaces the tests make themselves.

use std::path::Path;
use std::thread;

use nix::unistd::gettid;

use super::lab::{
    Follower, NamedNamespace, OwnFolder, in_time, ip, ip_batch, mount_new_namespace,
    on_a_host_of_its_own, send_datagrams, settings, silent_pair, unique_name,
};
use super::{
    Device, DeviceCounters, DeviceEvent, DeviceKey, NamespaceId, NamespaceRef, Settings,
    in_namespace, list_devices,
};

#[test]
fn every_change_of_a_device_is_told() {
    on_a_host_of_its_own(async || {
        ip("link add before type veth peer name peer");
        let mut follower = Follower::start(settings([])).await;
        let before = follower.appeared(None, "before").await;
        assert_eq!(
            (before.kind.as_deref(), before.link_type, before.up),
            (Some("veth"), 1, false)
        );
        assert_eq!(before.key.namespace, NamespaceId::of_this_thread().unwrap());

        ip("link add eni0 address 02:00:00:00:00:0a mtu 1400 type veth peer name eni0peer");
        let key = {
            let made = follower.appeared(None, "eni0").await;
            assert_eq!(
                (made.mac, made.mtu, &made.alias),
                (Some([2, 0, 0, 0, 0, 10]), 1400, &None)
            );
            made.key
        };
        ip("link set eni0 name eni1");
        let renamed = follower
            .changed("renamed", key, |device| device.name == "eni1")
            .await;
        assert_eq!(renamed.mac, Some([2, 0, 0, 0, 0, 10]));
        // The kernel does not announce the alias of a device that is down; it comes with the next change.
        ip("link set eni1 alias set-while-down");
        ip("link set eni1 up");
        let is_up = |device: &Device| device.up;
        let up = follower.changed("up", key, is_up).await;
        assert_eq!(up.alias.as_deref(), Some("set-while-down"));
        ip("link set eni1 alias set-while-up");
        let has_alias = |device: &Device| device.alias.as_deref() == Some("set-while-up");
        follower.changed("alias set", key, has_alias).await;
        ip("link set eni1 mtu 9000");
        follower
            .changed("mtu", key, |device| device.mtu == 9000)
            .await;
        ip("link set eni1 address 02:00:00:00:00:0b");
        follower
            .changed("address", key, |device| {
                device.mac == Some([2, 0, 0, 0, 0, 11])
            })
            .await;
        ip("link del eni1");
        follower.vanished(key).await;
        follower.until_equal_to_a_fresh_listing(settings([])).await;
    });
}

#[test]
fn a_device_made_again_is_another_even_with_the_same_name_and_index() {
    on_a_host_of_its_own(async || {
        let mut follower = Follower::start(settings([])).await;
        ip("link add eni0 index 100 type veth peer name peer");
        let first = follower.appeared(None, "eni0").await;
        ip_batch("link del eni0\nlink add eni0 index 100 type veth peer name peer");
        ip_batch("link del eni0\nlink add eni0 type veth peer name peer");
        follower.vanished(first.key).await;
        let second = follower.appeared(None, "eni0").await;
        assert_eq!(second.key, first.key);
        follower.vanished(second.key).await;
        let third = follower.appeared(None, "eni0").await;
        assert_ne!(third.key, first.key);
    });
}

#[test]
fn leaving_a_bridge_is_not_vanishing() {
    on_a_host_of_its_own(async || {
        let mut follower = Follower::start(settings([])).await;
        ip_batch(
            "link add port type veth peer name peer\nlink add bridge0 type bridge\nlink set port master bridge0 up",
        );
        let port = follower.appeared(None, "port").await;
        ip_batch("link set port nomaster\nlink add fence type bridge");
        follower.appeared(None, "fence").await;
        assert!(!follower.told_vanished(port.key), "{:#?}", follower.told);
    });
}

#[test]
fn a_device_moves_between_namespaces() {
    on_a_host_of_its_own(async || {
        let there = NamedNamespace::new();
        let mut follower = Follower::start(settings([there.name.as_str()])).await;
        ip("link add eni0 type veth peer name peer");
        let here = follower.appeared(None, "eni0").await;

        ip(&format!("link set eni0 netns {}", there.name));
        let moved = follower.appeared(Some(&there.name), "eni0").await;
        assert_ne!(moved.key.namespace, here.key.namespace);
        if follower.devices.contains_key(&here.key) {
            follower.vanished(here.key).await;
        }

        let this_thread = format!("/proc/{}/task/{}/ns/net", std::process::id(), gettid());
        ip(&format!(
            "-n {} link set eni0 netns {this_thread}",
            there.name
        ));
        let back = follower.appeared(None, "eni0").await;
        assert_eq!(back.key.namespace, here.key.namespace);
        if follower.devices.contains_key(&moved.key) {
            follower.vanished(moved.key).await;
        }
        follower
            .until_equal_to_a_fresh_listing(settings([there.name.as_str()]))
            .await;
    });
}

#[test]
fn a_namespace_made_and_deleted_later() {
    on_a_host_of_its_own(async || {
        let name = unique_name();
        let mut follower = Follower::start(settings([name.as_str()])).await;
        let is_absent =
            |event: &DeviceEvent| matches!(event, DeviceEvent::NamespaceUnavailable { .. });
        if !follower.told.iter().any(is_absent) {
            follower
                .until("the namespace is not there yet", is_absent)
                .await;
        }
        let namespace = NamedNamespace::with_name(name.clone());
        let loopback = follower.appeared(Some(&name), "lo").await;
        ip(&format!(
            "link add host0 type veth peer name guest0 netns {name}"
        ));
        let host_end = follower.appeared_or_known(None, "host0").await;
        let guest_end = follower.appeared_or_known(Some(&name), "guest0").await;

        drop(namespace);
        follower.vanished(loopback.key).await;
        follower
            .until("the namespace is gone", |event| {
                *event == DeviceEvent::NamespaceGone { name: name.clone() }
            })
            .await;
        assert!(follower.told_vanished(guest_end.key));
        // The host's end lives as long as the namespace: that it vanishes shows that nothing of ours holds the namespace.
        if !follower.told_vanished(host_end.key) {
            follower.vanished(host_end.key).await;
        }
    });
}

#[test]
fn a_namespace_made_again_under_the_same_name_is_another() {
    on_a_host_of_its_own(async || {
        let first = NamedNamespace::new();
        let name = first.name.clone();
        let mut follower = Follower::start(settings([name.as_str()])).await;
        let before = follower.appeared_or_known(Some(&name), "lo").await;
        let stale = before.namespace_ref(Path::new("/run/netns"));
        drop(first);
        let _second = NamedNamespace::with_name(name.clone());
        follower.vanished(before.key).await;
        let after = follower.appeared(Some(&name), "lo").await;
        assert_ne!(after.key, before.key);
        let refused = in_namespace(&stale, || ()).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::NotFound, "{refused}");
    });
}

#[test]
fn a_folder_and_a_file_that_come_before_the_namespace_are_waited_for() {
    on_a_host_of_its_own(async || {
        let own = OwnFolder::new();
        let wanted = Settings {
            namespace_folder: own.folder.clone(),
            ..settings(["late"])
        };
        let mut follower = Follower::start(wanted).await;
        let file = own.make_file("late");
        let not_mounted = |event: &DeviceEvent| {
            matches!(event, DeviceEvent::NamespaceUnavailable { name, reason }
                if name == "late" && reason.contains("no namespace is mounted"))
        };
        follower
            .until("the file is seen, and no namespace on it", not_mounted)
            .await;
        mount_new_namespace(&file);
        let loopback = follower.appeared(Some("late"), "lo").await;
        drop(own);
        follower.vanished(loopback.key).await;
    });
}

#[test]
fn a_burst_larger_than_the_socket_buffer_is_made_good() {
    on_a_host_of_its_own(async || {
        let small = Settings {
            receive_buffer_bytes: 8 * 1024,
            ..settings([])
        };
        let mut follower = Follower::start(small).await;
        follower.until_equal_to_a_fresh_listing(settings([])).await;
        ip_batch(&pairs(100, "add"));
        follower.until_equal_to_a_fresh_listing(settings([])).await;
        assert_eq!(follower.devices.len(), 201, "200 devices and the loopback");
        let recoveries = follower.discovery.recoveries();
        assert!(recoveries > 0, "the buffer was meant to overrun");

        ip_batch(&pairs(70, "del"));
        follower.until_equal_to_a_fresh_listing(settings([])).await;
        assert_eq!(follower.devices.len(), 61);
        assert!(follower.discovery.recoveries() > recoveries);
        // The socket is of use again: a single change is told.
        ip("link set v99 name last");
        let last = |event: &DeviceEvent| matches!(event, DeviceEvent::Changed(device, _) if device.name == "last");
        follower.until("the change after the burst", last).await;
    });
}

#[test]
fn a_burst_read_while_it_happens_by_cancelled_calls_is_complete() {
    on_a_host_of_its_own(async || {
        let mut follower = Follower::start(settings([])).await;
        let lines = pairs(100, "add")
            + &pairs(100, "del")
            + &pairs(3, "add")
            + "link add fence type bridge\n";
        // The thread inherits this one's namespace.
        let making = thread::spawn(move || ip_batch(&lines));
        let is_fence = |event: &DeviceEvent| matches!(event, DeviceEvent::Appeared(device, _) if device.name == "fence");
        let burst = async {
            loop {
                let event = tokio::select! {
                    biased;
                    event = follower.discovery.next() => event,
                    () = tokio::task::yield_now() => continue,
                };
                if is_fence(&follower.take(event)) {
                    break;
                }
            }
        };
        in_time("the end of the burst", burst).await;
        making.join().unwrap();
        follower.until_equal_to_a_fresh_listing(settings([])).await;
        assert_eq!(
            follower.devices.len(),
            1 + 6 + 1,
            "the loopback, three pairs and the fence"
        );
    });
}

/// Commands for pairs of devices `v0`–`w0`, `v1`–`w1`, …
fn pairs(count: u32, what: &str) -> String {
    let line = |n| match what {
        "add" => format!("link add v{n} type veth peer name w{n}\n"),
        _ => format!("link del v{n}\n"),
    };
    (0..count).map(line).collect()
}

#[test]
fn the_wanted_namespaces_may_change() {
    on_a_host_of_its_own(async || {
        let (one, two) = (NamedNamespace::new(), NamedNamespace::new());
        let mut follower = Follower::start(settings([one.name.as_str()])).await;
        let first = follower.appeared_or_known(Some(&one.name), "lo").await;
        follower
            .discovery
            .set_namespaces(settings([two.name.as_str(), "../run", "."]).namespaces);
        follower.vanished(first.key).await;
        follower.appeared(Some(&two.name), "lo").await;
        for bad in ["../run", "."] {
            let refused = |event: &DeviceEvent| {
                matches!(event, DeviceEvent::NamespaceUnavailable { name, reason }
                    if name == bad && reason.contains("single file name"))
            };
            assert!(
                follower.told.iter().any(refused),
                "{bad}: {:#?}",
                follower.told
            );
        }
        follower
            .discovery
            .set_namespaces(settings([one.name.as_str(), two.name.as_str()]).namespaces);
        let again = follower.appeared(Some(&one.name), "lo").await;
        assert_eq!(again.key, first.key);
        let gone = |event: &DeviceEvent| matches!(event, DeviceEvent::NamespaceGone { .. });
        assert!(
            !follower.told.iter().any(gone),
            "unwanted is not gone: {:#?}",
            follower.told
        );
    });
}

#[test]
fn one_namespace_under_two_names_is_told_once() {
    on_a_host_of_its_own(async || {
        let own = OwnFolder::new();
        let (first, second) = (own.make_file("a"), own.make_file("b"));
        mount_new_namespace(&first);
        let nothing = None::<&Path>;
        nix::mount::mount(
            Some(&first),
            &second,
            nothing,
            nix::mount::MsFlags::MS_BIND,
            nothing,
        )
        .unwrap();
        let wanted = Settings {
            namespace_folder: own.folder.clone(),
            ..settings(["a", "b"])
        };
        let listing = in_time("a listing", list_devices(wanted)).await.unwrap();
        let names: Vec<_> = listing
            .devices
            .iter()
            .map(|device| (device.namespace_name.as_deref(), device.name.as_str()))
            .collect();
        assert_eq!(names, [(None, "lo"), (Some("a"), "lo")]);
        assert!(
            listing.unavailable["b"].contains("same network namespace as \"a\""),
            "{:?}",
            listing.unavailable
        );
    });
}

#[test]
fn a_listing_names_what_it_cannot_list() {
    on_a_host_of_its_own(async || {
        let there = NamedNamespace::new();
        let absent = unique_name();
        ip(&format!(
            "-n {} link add eni0 type veth peer name peer",
            there.name
        ));
        let wanted = settings([there.name.as_str(), absent.as_str()]);
        let listing = in_time("a listing", list_devices(wanted)).await.unwrap();
        assert!(
            listing.devices.iter().any(|device| device.name == "eni0"
                && device.namespace_name.as_ref() == Some(&there.name))
        );
        assert_eq!(listing.unavailable.keys().collect::<Vec<_>>(), [&absent]);
    });
}

#[test]
fn code_runs_inside_the_namespace_of_a_device() {
    on_a_host_of_its_own(async || {
        let there = NamedNamespace::new();
        let listing = in_time("a listing", list_devices(settings([there.name.as_str()])))
            .await
            .unwrap();
        assert_eq!(listing.devices.len(), 2);
        let here = NamespaceId::of_this_thread().unwrap();
        for device in listing.devices {
            let place = device.namespace_ref(Path::new("/run/netns"));
            let inside = in_namespace(&place, || NamespaceId::of_this_thread().unwrap()).unwrap();
            assert_eq!(inside, device.key.namespace);
        }
        assert_eq!(
            NamespaceId::of_this_thread().unwrap(),
            here,
            "the calling thread stays where it was"
        );
        let nowhere = NamespaceRef::Named {
            path: "/proc/self/comm".into(),
            id: here,
        };
        assert!(in_namespace(&nowhere, || ()).is_err());
    });
}

/// What the sending end of a pair has counted after so many packets of so many octets, and what the other has.
fn counted(packets: u64, packet_bytes: u64) -> [Option<DeviceCounters>; 2] {
    let bytes = packets * packet_bytes;
    let sent = DeviceCounters {
        tx_packets: packets,
        tx_bytes: bytes,
        ..DeviceCounters::default()
    };
    let received = DeviceCounters {
        rx_packets: packets,
        rx_bytes: bytes,
        ..DeviceCounters::default()
    };
    [Some(sent), Some(received)]
}

#[test]
fn what_devices_count_is_known_to_the_packet_until_their_end() {
    on_a_host_of_its_own(async || {
        let mut follower = Follower::start(settings([])).await;
        silent_pair();
        let keys = [
            follower.appeared_or_known(None, "eni0").await.key,
            follower.appeared_or_known(None, "peer").await.key,
        ];
        let nobody = DeviceKey {
            index: u32::MAX >> 1,
            ..keys[0]
        };
        let asked = |follower: &mut Follower| {
            let counters = follower.discovery.counters([keys[0], nobody, keys[1]]);
            assert!(!counters.contains_key(&nobody));
            keys.map(|key| counters.get(&key).copied())
        };
        assert_eq!(asked(&mut follower), counted(0, 0));
        let octets = send_datagrams(100);
        assert_eq!(asked(&mut follower), counted(100, octets));

        // With a change, and to a discovery that starts now.
        ip("link set eni0 name renamed");
        let renamed = follower.until(
            "renamed",
            |event| matches!(event, DeviceEvent::Changed(device, _) if device.name == "renamed"),
        );
        let DeviceEvent::Changed(_, told) = renamed.await else {
            panic!("not a change");
        };
        assert_eq!(told, counted(100, octets)[0]);
        let mut late = Follower::start(settings([])).await;
        late.appeared_or_known(None, "peer").await;
        let told = late.told.iter().find_map(|event| match event {
            DeviceEvent::Appeared(device, counters) if device.key == keys[1] => Some(*counters),
            _ => None,
        });
        assert_eq!(told, Some(counted(100, octets)[1]));

        // What one end has received is not known after the end, unless it was asked for.
        send_datagrams(23);
        assert_eq!(asked(&mut follower), counted(123, octets));
        ip("link del renamed");
        for (key, last) in keys.into_iter().zip(counted(123, octets)) {
            assert_eq!(follower.vanished_or_told(key).await, last);
        }
        assert_eq!(
            late.vanished_or_told(keys[0]).await,
            counted(123, octets)[0]
        );
        let received = late.vanished_or_told(keys[1]).await.unwrap().rx_packets;
        assert!((100..=123).contains(&received), "{received}");
        assert_eq!(asked(&mut follower), [None, None]);
    });
}

#[test]
fn counters_stay_with_a_device_that_moves_and_are_told_when_its_namespace_goes() {
    on_a_host_of_its_own(async || {
        let there = NamedNamespace::new();
        let mut follower = Follower::start(settings([there.name.as_str()])).await;
        silent_pair();
        let here = follower.appeared_or_known(None, "eni0").await.key;
        let octets = send_datagrams(7);
        ip(&format!("link set eni0 netns {}", there.name));
        assert_eq!(follower.vanished_or_told(here).await, counted(7, octets)[0]);
        let moved = follower
            .appeared_or_known(Some(&there.name), "eni0")
            .await
            .key;
        let counters = follower.discovery.counters([here, moved]);
        assert_eq!(counters.get(&here), None);
        assert_eq!(counters.get(&moved).copied(), counted(7, octets)[0]);
        drop(there);
        assert_eq!(
            follower.vanished_or_told(moved).await,
            counted(7, octets)[0]
        );
        assert_eq!(follower.discovery.counters([moved]).len(), 0);
    });
}
