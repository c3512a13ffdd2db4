//! Discovery on machines of the tests' own making, and the environment that the inner cargo is given.

use tempfile::TempDir;

use super::*;

/// A machine that holds nothing but what a test puts there.
struct Machine {
    folder: TempDir,
    places: Places,
}

impl Machine {
    fn bare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let places = Places {
            rustc_override: None,
            linker_override: None,
            system_rustc: at("usr/bin/rustc"),
            rustup_toolchains: Some(at("rustup/toolchains")),
            path: vec![at("usr/bin"), at("cargo/bin")],
            own_linker: at("project/.tools/bin/bpf-linker"),
        };
        Self { folder, places }
    }

    /// A program, written by another process: while this one had it open for writing, a process that another test starts
    /// could inherit it so, and then it could not be run ("text file busy").
    fn script(&self, path: &str, body: &str) -> PathBuf {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let status = Command::new("sh")
            .args(["-c", write, "sh"])
            .arg(&path)
            .arg(body)
            .status();
        assert!(status.unwrap().success());
        path
    }

    fn file(&self, path: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A compiler at `<sysroot>/bin/rustc`.
    fn rustc(&self, sysroot: &str, llvm: &str) -> PathBuf {
        let absolute = self.folder.path().join(sysroot);
        let body = format!(
            "case $1 in -vV) printf 'rustc 1.96.0\\nrelease: 1.96.0\\nLLVM version: {llvm}\\n';; --print=sysroot) echo {};; esac",
            absolute.display()
        );
        self.script(&format!("{sysroot}/bin/rustc"), &body)
    }

    fn prebuilt_core(&self, sysroot: &str) {
        self.file(
            &format!("{sysroot}/lib/rustlib/{TARGET}/lib/libcore-123.rlib"),
            "",
        );
    }

    fn core_sources(&self, sysroot: &str) {
        self.file(
            &format!("{sysroot}/lib/rustlib/src/rust/library/core/Cargo.toml"),
            "",
        );
    }

    fn linker(&self, path: &str, version: &str) -> PathBuf {
        self.script(path, &format!("echo bpf-linker {version}"))
    }
}

fn nightly(name: &str) -> String {
    format!(
        "rustup/toolchains/{name}-{}-unknown-linux-gnu",
        env::consts::ARCH
    )
}

#[test]
fn nothing_found_says_to_run_setup() {
    let machine = Machine::bare();
    assert!(
        Compiler::find(&machine.places)
            .unwrap_err()
            .ends_with("run `cargo xtask setup`")
    );
    assert!(
        find_linker(&machine.places)
            .unwrap_err()
            .ends_with("run `cargo xtask setup`")
    );
}

#[test]
fn system_compiler_comes_before_rustups() {
    let machine = Machine::bare();
    let rustup = machine.rustc(&nightly("nightly"), "22.1.4");
    machine.core_sources(&nightly("nightly"));
    let system = machine.rustc("usr", "22.1.8");

    // Without `core` for BPF the system's will not do.
    let found = Compiler::find(&machine.places).unwrap();
    assert_eq!((found.rustc, found.core), (rustup, Core::Sources));

    machine.prebuilt_core("usr");
    let found = Compiler::find(&machine.places).unwrap();
    assert_eq!((found.rustc, found.core), (system, Core::Prebuilt));
}

#[test]
fn nightly_with_another_llvm_gives_way_to_the_pinned_one() {
    let machine = Machine::bare();
    machine.rustc(&nightly("nightly"), "23.0.1");
    machine.core_sources(&nightly("nightly"));
    let pinned = machine.rustc(&nightly(PINNED_NIGHTLY), "22.1.4");
    machine.core_sources(&nightly(PINNED_NIGHTLY));
    assert_eq!(Compiler::find(&machine.places).unwrap().rustc, pinned);
}

#[test]
fn compiler_named_in_the_environment_is_the_only_one_considered() {
    let mut machine = Machine::bare();
    machine.rustc("usr", "22.1.8");
    machine.prebuilt_core("usr");
    let named = machine.rustc("opt/rust", "22.1.2");
    machine.places.rustc_override = Some(named.clone());
    let error = Compiler::find(&machine.places).unwrap_err();
    assert!(
        error.contains(RUSTC_VARIABLE) && error.contains("neither a prebuilt `core`"),
        "{error}"
    );

    machine.core_sources("opt/rust");
    assert_eq!(Compiler::find(&machine.places).unwrap().rustc, named);

    machine.rustc("opt/rust", "21.1.0");
    let error = Compiler::find(&machine.places).unwrap_err();
    assert!(error.contains("has LLVM 21.1.0"), "{error}");
}

#[test]
fn linker_of_another_series_is_passed_over() {
    let mut machine = Machine::bare();
    let own = machine.linker("project/.tools/bin/bpf-linker", "0.10.3");
    machine.linker("usr/bin/bpf-linker", "0.13.0");
    assert_eq!(find_linker(&machine.places), Ok(own));

    let on_path = machine.linker("cargo/bin/bpf-linker", "0.10.1");
    assert_eq!(find_linker(&machine.places), Ok(on_path));

    let named = machine.linker("opt/bpf-linker", "0.10.2");
    machine.places.linker_override = Some(named.clone());
    assert_eq!(find_linker(&machine.places), Ok(named));

    machine.linker("opt/bpf-linker", "0.1.0");
    assert!(
        find_linker(&machine.places)
            .unwrap_err()
            .contains("is not bpf-linker 0.10.")
    );
}

#[test]
fn linker_is_given_the_compilers_llvm_alone() {
    let machine = Machine::bare();
    let multiarch = format!("usr/lib/{}-linux-gnu", env::consts::ARCH);
    machine.file(&format!("{multiarch}/libLLVM-14.so.1"), "");
    let right = machine.file(&format!("{multiarch}/libLLVM.so.22.1"), "");
    let sysroot = machine.folder.path().join("usr");
    let llvm = llvm_library(&sysroot, "22.1.8").unwrap();
    assert_eq!(llvm, right);
    assert_eq!(llvm_library(&sysroot, "23.1.0"), None);

    let folder = PathBuf::from(isolated(&llvm, &machine.folder.path().join("out/llvm")).unwrap());
    assert_eq!(fs::read_link(folder.join("libLLVM.so")).unwrap(), right);
    // Another compiler takes the link's place.
    let other = machine.file("other/libLLVM.so.22.1-rust", "");
    isolated(&other, &folder).unwrap();
    assert_eq!(fs::read_link(folder.join("libLLVM.so")).unwrap(), other);
}

#[test]
fn variables_of_an_outer_cargo_do_not_reach_the_inner_one() {
    for name in [
        "CARGO",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_CFG_TARGET_ARCH",
        "CARGO_MAKEFLAGS",
        "CARGO_TARGET_DIR",
        "CARGO_PROFILE_RELEASE_LTO",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "MAKEFLAGS",
        "LD_LIBRARY_PATH",
    ] {
        assert!(leaks(OsStr::new(name)), "{name}");
    }
    for name in [
        "PATH",
        "HOME",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "CARGO_NET_OFFLINE",
        "CARGO_TERM_COLOR",
        "HTTPS_PROXY",
    ] {
        assert!(!leaks(OsStr::new(name)), "{name}");
    }
}

#[test]
fn flags_carry_btf_and_the_hosts_architecture() {
    let flags = rustflags("aarch64");
    let flags: Vec<&str> = flags.split('\u{1f}').collect();
    assert_eq!(
        flags,
        [
            "-Cdebuginfo=2",
            "-Clink-arg=--btf",
            "-Ctarget-cpu=v3",
            "-Ctarget-feature=+allows-misaligned-mem-access",
            "--cfg=bpf_target_arch=\"aarch64\""
        ]
    );
}
