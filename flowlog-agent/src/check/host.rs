//! What the configuration names on this host: another agent, the spool, destinations, the metrics' address, the status socket, devices.
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::TcpListener,
    path::Path,
    thread,
};

use caps::CapSet;
use flowlog_client::AccessKey;
use flowlog_common::MAX_ENIS;
use flowlog_model::inventory::Inventory;
use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    unistd::{AccessFlags, faccessat},
};

use super::{Finding, counted, service, spool};
use crate::{
    capture::match_device,
    config::{Config, Destination, LogstoreDestination},
    discovery::{Device, Listing, Settings},
    lock, privileges, report, status,
};

/// Findings of one kind that are shown one by one.
const MAX_SHOWN: usize = 10;

/// All of it.
pub(super) fn findings(config: &Config, inventory: Option<&Inventory>) -> Vec<Finding> {
    let running = lock::holder(&config.lock_file);
    let mut findings = vec![match running {
        Some(pid) => Finding::warn("other agents", format!("one is running (process {pid})"))
            .so("a second one does not start while it runs"),
        None => Finding::ok("other agents", "none is running"),
    }];
    let named_namespaces = inventory.is_some_and(|inventory| !inventory.namespaces().is_empty());
    findings.extend(writable(config, named_namespaces, running));
    findings.extend(metrics(config, running.is_some()));
    findings.extend(status_socket(config, running));
    if let Some(inventory) = inventory {
        findings.extend(devices(inventory));
    }
    findings
}

/// Whether the agent, once it has given up the privileges that it does not need, can write where it must.
fn writable(config: &Config, named_namespaces: bool, running: Option<u32>) -> Vec<Finding> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let needed = privileges::needed(named_namespaces);
            let have = caps::read(None, CapSet::Effective).unwrap_or_default();
            let kept = needed.intersection(&have).copied().collect();
            // Of this thread alone.
            let _ = caps::set(None, CapSet::Effective, &kept);
            let mut findings = vec![spool::finding(&config.spool, running)];
            findings.extend(destinations(config));
            findings.extend(config.service.iter().flat_map(service::findings));
            findings
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn destinations(config: &Config) -> Vec<Finding> {
    config
        .flow_logs
        .iter()
        .map(|flow_log| {
            let check = format!("flow log {}", flow_log.flow_log.name.as_str());
            let (path, reason) = match &flow_log.destination {
                Destination::Stdout => return Finding::ok(check, "to standard output"),
                Destination::File { path, .. } => (path, refusal(path)),
                Destination::Folder { path, .. } => (path, refusal(&path.join("window.log"))),
                Destination::LogService(logstore) => return log_service(check, logstore),
            };
            match reason {
                None => Finding::ok(check, format!("to {}", path.display())),
                Some(reason) => Finding::fail(check, reason)
                    .so("its records are lost; the agent, without its other privileges, must be able to write there"),
            }
        })
        .collect()
}

/// Whether there is an access key for a logstore. Whether it may put there, the Log Service says.
pub(super) fn log_service(check: impl Into<String>, logstore: &LogstoreDestination) -> Finding {
    let to = Destination::LogService(logstore.clone());
    match AccessKey::load(&logstore.access_key_file) {
        Ok(_) => Finding::ok(check, format!("to {to}")),
        Err(error) => Finding::fail(check, error.to_string()).so("its records wait in the spool"),
    }
}

/// Why a file cannot be written to, rotated and, with its folders, made.
pub(super) fn refusal(path: &Path) -> Option<String> {
    let may = |path: &Path, flags| faccessat(AT_FDCWD, path, flags, AtFlags::AT_EACCESS);
    let refused =
        |path: &Path, error| Some(format!("{} cannot be written to: {error}", path.display()));
    if path.is_dir() {
        return Some(format!("{} is a folder", path.display()));
    }
    if path.exists()
        && let Err(error) = may(path, AccessFlags::W_OK)
    {
        return refused(path, error);
    }
    let folder = path.ancestors().skip(1).find(|folder| folder.exists())?;
    if !folder.is_dir() {
        return Some(format!("{} is not a folder", folder.display()));
    }
    match may(folder, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => None,
        Err(error) => refused(folder, error),
    }
}

fn metrics(config: &Config, running: bool) -> Option<Finding> {
    let listen = config.metrics.listen?;
    Some(match TcpListener::bind(listen) {
        Ok(_) => Finding::ok("metrics", format!("on http://{listen}/metrics")),
        Err(error) if running => Finding::warn("metrics", format!("{listen}: {error}"))
            .so("probably it is the running agent that has the address"),
        Err(error) => Finding::fail("metrics", format!("{listen}: {error}"))
            .so("the agent does not start; change metrics.listen"),
    })
}

fn status_socket(config: &Config, running: Option<u32>) -> Option<Finding> {
    let path = config.status_socket.as_deref()?;
    let shown = path.display();
    // It is not asked whether it answers: that would have the running agent drain.
    Some(match (socket_refusal(path, running.is_some()), running) {
        (Some(reason), _) => Finding::fail("status socket", reason)
            .so("the agent does not start; change status-socket"),
        (None, Some(pid)) if path.exists() => {
            Finding::ok("status socket", format!("{shown}, of process {pid}"))
        }
        (None, _) => Finding::ok("status socket", shown.to_string()),
    })
}

/// Why the socket cannot be made; its folder is not made. One that is there is the running agent's, if there is such.
fn socket_refusal(path: &Path, running: bool) -> Option<String> {
    let folder = path.parent()?;
    if let Err(error) = faccessat(
        AT_FDCWD,
        folder,
        AccessFlags::W_OK | AccessFlags::X_OK,
        AtFlags::AT_EACCESS,
    ) {
        return Some(format!(
            "{} cannot be written to: {error}",
            folder.display()
        ));
    }
    let checked = if running {
        status::check_is_socket(path)
    } else {
        status::check_replaceable(path)
    };
    match checked {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Some(format!("{}: {error}", path.display()))
        }
        _ => None,
    }
}

fn devices(inventory: &Inventory) -> Vec<Finding> {
    let settings = Settings {
        namespaces: inventory
            .namespaces()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        ..Settings::default()
    };
    match report::devices(settings) {
        Ok(listing) => matches(inventory, &listing),
        Err(error) => vec![Finding::fail("devices", error.to_string()).so("no ENI can be found")],
    }
}

/// Whether every entry has one device, and every device one entry at most.
fn matches(inventory: &Inventory, listing: &Listing) -> Vec<Finding> {
    let mut of_entry: BTreeMap<String, Vec<&Device>> = BTreeMap::new();
    let mut troubles = Vec::new();
    for device in &listing.devices {
        match match_device(inventory, device) {
            Ok(Some(entry)) => of_entry.entry(entry.eni.eni_id).or_default().push(device),
            Ok(None) => {}
            Err(reason) => troubles.push(
                Finding::warn("ENIs", format!("{}: {reason}", place(device)))
                    .so("it is captured as neither; make their `match` stricter"),
            ),
        }
    }
    for (name, reason) in &listing.unavailable {
        troubles.push(
            Finding::warn("ENIs", format!("network namespace {name}: {reason}"))
                .so("its ENIs are captured as soon as it appears"),
        );
    }
    for (eni, devices) in of_entry.iter().filter(|(_, devices)| devices.len() > 1) {
        let places: BTreeSet<String> = devices.iter().map(|device| place(device)).collect();
        let places: Vec<String> = places.into_iter().take(MAX_SHOWN).collect();
        let found = format!(
            "{eni} has {}: {}",
            counted(devices.len(), "device"),
            places.join(", ")
        );
        troubles.push(Finding::warn("ENIs", found).so("only one of them is captured"));
    }
    let without: Vec<&str> = inventory
        .entries()
        .iter()
        .map(|entry| entry.eni.eni_id.as_str())
        .filter(|eni| !of_entry.contains_key(*eni))
        .collect();
    if !without.is_empty() {
        let shown: Vec<&str> = without.iter().copied().take(MAX_SHOWN).collect();
        let more = match without.len().saturating_sub(MAX_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let found = format!("without a device: {}{more}", shown.join(", "));
        troubles.push(
            Finding::warn("ENIs", found).so("each is captured as soon as its device appears"),
        );
    }
    if of_entry.len() > MAX_ENIS as usize {
        let found = format!("{} have a device", of_entry.len());
        troubles
            .push(Finding::warn("ENIs", found).so(format!("only {MAX_ENIS} of them are captured")));
    }
    let hidden = troubles.len().saturating_sub(MAX_SHOWN);
    troubles.truncate(MAX_SHOWN);
    if hidden > 0 {
        troubles.push(Finding::warn("ENIs", format!("and {hidden} more such")));
    }
    if troubles.is_empty() && !inventory.entries().is_empty() {
        troubles.push(Finding::ok("ENIs", "each has its device"));
    }
    troubles
}

fn place(device: &Device) -> String {
    match &device.namespace_name {
        Some(namespace) => format!("{} in {namespace}", device.name),
        None => device.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener};

    use super::*;
    use crate::{
        check::Status,
        discovery::{DeviceKey, NamespaceId},
    };

    fn inventory(names: &[(&str, &str)]) -> Inventory {
        let text: String = names
            .iter()
            .map(|(eni, name)| {
                format!(
                    "[[eni]]\neni-id = '{eni}'\nvswitch-id = 'v'\nvpc-id = 'p'\naccount-id = '1'\n\
                     match = {{ name = '{name}' }}\n"
                )
            })
            .collect();
        Inventory::parse(&text, "inventory.toml").unwrap()
    }

    fn listing(names: &[&str]) -> Listing {
        let namespace = NamespaceId {
            device: 1,
            inode: 1,
        };
        let device = |(index, name): (u32, &&str)| Device {
            key: DeviceKey { namespace, index },
            namespace_name: None,
            name: (*name).to_owned(),
            mac: None,
            alias: None,
            kind: None,
            link_type: 1,
            up: true,
            mtu: 1500,
            xdp_attached: None,
        };
        Listing {
            devices: (1..).zip(names).map(device).collect(),
            ..Listing::default()
        }
    }

    fn found(inventory_names: &[(&str, &str)], device_names: &[&str]) -> Vec<(Status, String)> {
        matches(&inventory(inventory_names), &listing(device_names))
            .into_iter()
            .map(|finding| (finding.status, finding.found))
            .collect()
    }

    #[test]
    fn every_entry_with_one_device_is_well() {
        assert_eq!(
            found(&[("a", "eth0"), ("b", "eth1")], &["lo", "eth0", "eth1"]),
            [(Status::Ok, "each has its device".to_owned())]
        );
    }

    #[test]
    fn entries_without_or_with_several_devices_and_ambiguous_devices_are_told() {
        let expected = [
            "tap9: the inventory says that it is each of c, d",
            "a has 2 devices: eth0, eth1",
            "without a device: b, c, d",
        ];
        let entries = [("a", "eth*"), ("b", "none"), ("c", "tap?"), ("d", "tap9")];
        assert_eq!(
            found(&entries, &["eth0", "eth1", "tap9"]),
            expected.map(|text| (Status::Warn, text.to_owned()))
        );
    }

    #[test]
    fn a_long_list_of_troubles_is_cut() {
        let names: Vec<String> = (0..100).map(|n| format!("d{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let told = found(&[("a", "d*"), ("b", "d*")], &names);
        assert_eq!(told.len(), MAX_SHOWN + 1);
    }

    #[test]
    fn a_file_can_be_written_where_its_nearest_folder_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "").unwrap();
        assert_eq!(refusal(&path("new")), None);
        assert_eq!(refusal(&path("file")), None);
        assert_eq!(refusal(&path("a/b/new")), None);
        assert!(refusal(folder.path()).unwrap().ends_with("is a folder"));
        assert!(
            refusal(&path("file/new"))
                .unwrap()
                .ends_with("is not a folder")
        );
    }

    #[test]
    fn a_socket_can_be_made_where_nobody_listens_and_its_folder_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let refused = |name: &str, running| socket_refusal(&path(name), running);
        fs::write(path("file"), "").unwrap();
        let listener = UnixListener::bind(path("socket")).unwrap();
        for running in [false, true] {
            assert_eq!(refused("new", running), None);
            assert!(
                refused("file", running)
                    .unwrap()
                    .ends_with("is not a socket")
            );
            assert!(
                refused("none/new", running)
                    .unwrap()
                    .contains("none cannot be written to")
            );
        }
        assert!(refused("socket", false).unwrap().ends_with("listens on it"));
        assert_eq!(refused("socket", true), None, "the agent's own");
        drop(listener);
        assert_eq!(refused("socket", false), None, "left by a dead agent");
        assert!(path("socket").exists(), "looked at only");
    }
}
