//! The first start and later ones; what is refused; backup.
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::service::{Service, refused};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_first_start_makes_all_that_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("deep/data");
    let service = Service::start(&data);
    assert!(service.get("/health").starts_with("HTTP/1.1 200"));
    assert!(service.get("/ready").ends_with("ready\n"));
    let file = data.join("administrator.json");
    let key: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for part in ["id", "secret"] {
        let part = key[part].as_str().unwrap();
        assert_eq!(
            service.printed.matches(part).count(),
            1,
            "{}",
            service.printed
        );
    }
    assert_eq!(
        (mode(&data), mode(&file), mode(&data.join("secret.key"))),
        (0o700, 0o600, 0o600)
    );
    let secret = key["secret"].as_str().unwrap().as_bytes();
    for file in ["flowlog.sqlite", "flowlog.sqlite-wal"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
        let state = fs::read(data.join(file)).unwrap();
        assert!(
            !state.windows(secret.len()).any(|part| part == secret),
            "{file}"
        );
    }
    // Only one at a time.
    let (code, said) = refused(&data, &["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("another service is running"), "{said}");
    assert_eq!(service.end(), Some(0));
    // Later starts tell no secret.
    let again = Service::start(&data);
    assert_eq!(again.printed, "");
    assert_eq!(again.end(), Some(0));
}

#[test]
fn what_is_to_be_mended_is_said_with_exit_code_64() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let any = ["--listen", "0.0.0.0:0"];
    let (code, said) = refused(&data, &any);
    assert_eq!(code, Some(64));
    assert!(said.contains("--allow-plain-http"), "{said}");
    assert!(
        !data.exists(),
        "nothing is made before the options are good"
    );
    let config = folder.path().join("flowlog.toml");
    fs::write(&config, "flow-logs-per-region = -1\n").unwrap();
    let path = config.to_str().unwrap();
    let (code, said) = refused(&data, &["--config", path]);
    assert_eq!(code, Some(64));
    assert!(
        said.contains("flowlog.toml:1: `flow-logs-per-region` is -1"),
        "{said}"
    );
    let (code, said) = refused(&data, &["--tls-cert", path, "--tls-key", path]);
    assert_eq!(code, Some(64));
    assert!(
        said.contains("TLS: ") && said.contains("flowlog.toml"),
        "{said}"
    );
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, said) = refused(&data, &[]);
    assert_eq!(code, Some(64));
    assert!(said.contains("mode 0700"), "{said}");
}

#[test]
fn plain_http_is_spoken_elsewhere_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let options = ["--listen", "0.0.0.0:0", "--allow-plain-http"];
    let service = Service::start_with(&data, &options);
    assert!(service.get("/health").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_backup_is_made_while_the_service_runs_and_can_be_started_from() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    let service = Service::start(&data);
    let backup = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowlog"));
        command
            .arg("backup")
            .arg("--data-dir")
            .arg(&data)
            .arg(&copy);
        command.output().unwrap()
    };
    let made = backup();
    assert!(made.status.success(), "{made:?}");
    let said = String::from_utf8_lossy(&made.stdout);
    assert!(said.contains("copy is a copy of the state"), "{said}");
    assert!(said.contains("data/secret.key"), "{said}");
    assert_eq!(mode(&copy), 0o600);
    assert_eq!(backup().status.code(), Some(1), "it overwrites nothing");
    assert_eq!(service.end(), Some(0));
    let restored = folder.path().join("restored");
    fs::create_dir(&restored).unwrap();
    fs::set_permissions(&restored, fs::Permissions::from_mode(0o700)).unwrap();
    fs::copy(&copy, restored.join("flowlog.sqlite")).unwrap();
    // Another key would open no secret.
    let (code, said) = refused(&restored, &["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("restored/secret.key: it is missing"),
        "{said}"
    );
    assert!(!restored.join("secret.key").exists());
    fs::copy(data.join("secret.key"), restored.join("secret.key")).unwrap();
    let service = Service::start(&restored);
    assert_eq!(service.printed, "", "it has its access key already");
}
