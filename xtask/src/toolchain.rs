//! How the crate `flowlog-ebpf` is compiled: which compiler, which linker, with which flags.
//!
//! The build script of `flowlog-agent` includes this very file, so that both agree; it therefore uses the standard library alone.
//!
//! A compiler will do when it can give `core` to the target [`TARGET`], in one of two ways:
//! - its sysroot holds a prebuilt `core` for it (Debian's `rustc-web` with `libstd-rust-web-dev-bpf`), or
//! - its sysroot holds the sources of `core` (rustup's component `rust-src`), and cargo builds it with `-Z build-std=core`.
//!
//! Either way `RUSTC_BOOTSTRAP=1` opens the unstable features that BPF needs, and the compiler's LLVM must be the linker's.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The target triple of the BPF programs: little-endian BPF, as every host that Flowlog supports is little-endian.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// The series of `bpf-linker` that reads the bitcode of [`LLVM_MAJOR`].
pub(crate) const LINKER_SERIES: &str = "0.10.";
/// The major version of LLVM in Rust 1.95 to 1.97 and in `bpf-linker` 0.10.
pub(crate) const LLVM_MAJOR: u32 = 22;
/// A nightly of rustup that has LLVM [`LLVM_MAJOR`]; later ones move on to an LLVM that the linker cannot read.
pub(crate) const PINNED_NIGHTLY: &str = "nightly-2026-05-20";
/// Names the compiler to use instead of those that are looked for.
pub(crate) const RUSTC_VARIABLE: &str = "FLOWLOG_BPF_RUSTC";
/// Names the linker to use instead of those that are looked for.
pub(crate) const LINKER_VARIABLE: &str = "FLOWLOG_BPF_LINKER";

const CRATE: &str = "flowlog-ebpf";

/// Where a compiler and a linker are looked for.
#[derive(Debug)]
pub(crate) struct Places {
    rustc_override: Option<PathBuf>,
    linker_override: Option<PathBuf>,
    /// The compiler of the distribution.
    system_rustc: PathBuf,
    /// The folder of rustup's toolchains.
    rustup_toolchains: Option<PathBuf>,
    /// The folders of `PATH`.
    path: Vec<PathBuf>,
    /// Where `cargo xtask setup` puts the linker.
    own_linker: PathBuf,
}

impl Places {
    /// The places of this machine, for the project whose top folder is `root`.
    pub(crate) fn here(root: &Path) -> Self {
        let non_empty = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let rustup_home =
            non_empty("RUSTUP_HOME").or_else(|| non_empty("HOME").map(|home| home.join(".rustup")));
        Self {
            rustc_override: non_empty(RUSTC_VARIABLE),
            linker_override: non_empty(LINKER_VARIABLE),
            system_rustc: PathBuf::from("/usr/bin/rustc"),
            rustup_toolchains: rustup_home.map(|home| home.join("toolchains")),
            path: env::var_os("PATH")
                .map(|path| env::split_paths(&path).collect())
                .unwrap_or_default(),
            own_linker: root.join(".tools/bin/bpf-linker"),
        }
    }
}

/// Where the compiler takes `core` for BPF from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Core {
    /// From its sysroot, ready.
    Prebuilt,
    /// From its sysroot, as sources that cargo compiles.
    Sources,
}

/// A Rust compiler that can compile for BPF.
#[derive(Debug)]
pub(crate) struct Compiler {
    rustc: PathBuf,
    /// Such as `1.96.0`.
    release: String,
    sysroot: PathBuf,
    core: Core,
    /// The shared library of the compiler's LLVM, for the linker to use; absent when LLVM is linked into the compiler.
    llvm: Option<PathBuf>,
}

impl Compiler {
    /// Looks for a compiler: the one named by [`RUSTC_VARIABLE`], the distribution's, then rustup's nightly toolchains.
    ///
    /// # Errors
    ///
    /// One sentence: why the named one will not do, or that none was found.
    pub(crate) fn find(places: &Places) -> Result<Self, String> {
        if let Some(rustc) = &places.rustc_override {
            return Self::probe(rustc).map_err(|why| {
                format!("the compiler that {RUSTC_VARIABLE} names will not do: {why}")
            });
        }
        let nightlies = places.rustup_toolchains.iter().flat_map(|folder| {
            ["nightly", PINNED_NIGHTLY].map(|name| {
                folder.join(format!(
                    "{name}-{}-unknown-linux-gnu/bin/rustc",
                    env::consts::ARCH
                ))
            })
        });
        std::iter::once(places.system_rustc.clone())
            .chain(nightlies)
            .filter(|rustc| rustc.exists())
            .find_map(|rustc| Self::probe(&rustc).ok())
            .ok_or_else(|| {
                format!(
                    "no Rust compiler with `core` for {TARGET} and LLVM {LLVM_MAJOR} was found: \
                     run `cargo xtask setup`"
                )
            })
    }

    /// Asks the compiler `rustc` what it is and looks for `core` in its sysroot.
    fn probe(rustc: &Path) -> Result<Self, String> {
        let version = output_of(rustc, "-vV")?;
        let field = |name: &str| {
            let line = version
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.ok_or_else(|| format!("{} -vV does not say its {name}", rustc.display()))
        };
        let (release, llvm_version) = (field("release")?, field("LLVM version")?);
        if llvm_version.split('.').next() != Some(LLVM_MAJOR.to_string().as_str()) {
            return Err(format!(
                "{} has LLVM {llvm_version}, and bpf-linker {LINKER_SERIES}x needs {LLVM_MAJOR}",
                rustc.display()
            ));
        }
        let sysroot = PathBuf::from(output_of(rustc, "--print=sysroot")?.trim_end());
        let prebuilt = sysroot.join("lib/rustlib").join(TARGET).join("lib");
        let core = if has_file(&prebuilt, "libcore-") {
            Core::Prebuilt
        } else if sysroot
            .join("lib/rustlib/src/rust/library/core/Cargo.toml")
            .exists()
        {
            Core::Sources
        } else {
            return Err(format!(
                "{} has neither a prebuilt `core` for {TARGET} nor the component rust-src",
                rustc.display()
            ));
        };
        let llvm = llvm_library(&sysroot, llvm_version);
        Ok(Self {
            rustc: rustc.to_owned(),
            release: release.to_owned(),
            sysroot,
            core,
            llvm,
        })
    }

    /// The cargo to run: `-Z build-std` wants the one that belongs to the sources, otherwise the one at hand will do.
    fn cargo(&self) -> PathBuf {
        let own = self.sysroot.join("bin/cargo");
        if self.core == Core::Sources && own.exists() {
            return own;
        }
        // Cargo names itself here. Rustup's proxy would put its toolchain's LLVM before the one chosen for the linker.
        env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = match self.core {
            Core::Prebuilt => "prebuilt core",
            Core::Sources => "core from its sources",
        };
        write!(f, "{} ({}, {core})", self.rustc.display(), self.release)
    }
}

/// Looks for `bpf-linker`: the one named by [`LINKER_VARIABLE`], one of [`LINKER_SERIES`] on `PATH`, then the project's own.
///
/// # Errors
///
/// One sentence: why the named one will not do, or that none was found.
pub(crate) fn find_linker(places: &Places) -> Result<PathBuf, String> {
    if let Some(linker) = &places.linker_override {
        return if is_right_linker(linker) {
            Ok(linker.clone())
        } else {
            Err(format!(
                "{LINKER_VARIABLE} names {}, which is not bpf-linker {LINKER_SERIES}x",
                linker.display()
            ))
        };
    }
    let on_path = places.path.iter().map(|folder| folder.join("bpf-linker"));
    on_path
        .chain([places.own_linker.clone()])
        .find(|linker| linker.exists() && is_right_linker(linker))
        .ok_or_else(|| {
            format!("bpf-linker {LINKER_SERIES}x was not found: run `cargo xtask setup`")
        })
}

/// A compiler and a linker that can build the BPF programs.
#[derive(Debug)]
pub(crate) struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
    /// Whether a warning in `flowlog-ebpf` fails the build.
    pub(crate) deny_warnings: bool,
}

impl Toolchain {
    /// Looks for a compiler and a linker on this machine, for the project whose top folder is `root`.
    ///
    /// # Errors
    ///
    /// One sentence: what is missing or will not do, and that `cargo xtask setup` installs it.
    pub(crate) fn find(root: &Path) -> Result<Self, String> {
        let places = Places::here(root);
        Ok(Self {
            compiler: Compiler::find(&places)?,
            linker: find_linker(&places)?,
            deny_warnings: false,
        })
    }

    /// Builds `flowlog-ebpf` of the project in `root`, optimised and with BTF, and returns the path of the object file.
    ///
    /// `out_dir` is cargo's target folder for it: another than the workspace's, whose lock the caller's cargo may hold.
    /// Cargo's messages go to standard error.
    ///
    /// # Errors
    ///
    /// One sentence: that cargo could not be started, or that it failed; why it failed is in its messages.
    pub(crate) fn build(
        &self,
        root: &Path,
        out_dir: &Path,
        binary: &str,
    ) -> Result<PathBuf, String> {
        let mut cargo = self.command(root, out_dir, binary)?;
        let status = cargo
            .status()
            .map_err(|error| format!("cannot run {}: {error}", cargo.get_program().display()))?;
        let object = out_dir.join(TARGET).join("release").join(binary);
        if !status.success() {
            return Err(format!("{binary} did not compile with {self} ({status})"));
        }
        if !object.exists() {
            return Err(format!(
                "cargo compiled {binary} but left no {}",
                object.display()
            ));
        }
        Ok(object)
    }

    fn command(&self, root: &Path, out_dir: &Path, binary: &str) -> Result<Command, String> {
        let mut cargo = Command::new(self.compiler.cargo());
        for (name, _) in env::vars_os().filter(|(name, _)| leaks(name)) {
            cargo.env_remove(name);
        }
        let crate_folder = root.join(CRATE);
        // The folder chooses the `.cargo/config.toml` that holds.
        cargo
            .current_dir(&crate_folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        cargo.args(["rustc", "--release", "--target", TARGET, "--bin", binary]);
        cargo
            .arg("--manifest-path")
            .arg(crate_folder.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(out_dir);
        if self.compiler.core == Core::Sources {
            cargo.arg("-Zbuild-std=core");
        }
        if self.deny_warnings {
            cargo.args(["--", "-Dwarnings"]);
        }
        cargo
            .env("RUSTC", &self.compiler.rustc)
            .env("RUSTC_BOOTSTRAP", "1");
        cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", rustflags(&target_arch()));
        if let Some(llvm) = &self.compiler.llvm {
            cargo.env("LD_LIBRARY_PATH", isolated(llvm, &out_dir.join("llvm"))?);
        }
        Ok(cargo)
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {}", self.compiler, self.linker.display())
    }
}

/// The architecture of the host that will run the programs: a build script's target, or else the machine at hand.
fn target_arch() -> String {
    env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned())
}

/// The compiler's flags in the form of `CARGO_ENCODED_RUSTFLAGS`, separated by 0x1f.
fn rustflags(arch: &str) -> String {
    let bpf_target_arch = format!("--cfg=bpf_target_arch=\"{arch}\"");
    // `v3` is the third BPF instruction set, with 32-bit jumps (Linux 5.1).
    [
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        "-Ctarget-cpu=v3",
        // Headers lie at any address. The kernel lets programs read whole words there on the architectures where that is
        // efficient; without this, each word is read octet by octet.
        "-Ctarget-feature=+allows-misaligned-mem-access",
        &bpf_target_arch,
    ]
    .join("\u{1f}")
}

/// Whether an environment variable is one that an outer cargo, rustup or clippy sets for the crate it builds.
///
/// What the user says about the network, the registries and the looks of the output is kept.
fn leaks(name: &OsStr) -> bool {
    const KEPT: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    const PREFIXES: [&str; 8] = [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "DEP_",
        "CLIPPY_",
        "__CARGO",
    ];
    const NAMES: [&str; 10] = [
        "MAKEFLAGS",
        "MFLAGS",
        "NUM_JOBS",
        "TARGET",
        "HOST",
        "OUT_DIR",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "LD_LIBRARY_PATH",
    ];
    let Some(name) = name.to_str() else {
        return false;
    };
    let starts_with = |prefix: &&str| name.starts_with(prefix);
    !KEPT.iter().any(starts_with) && (NAMES.contains(&name) || PREFIXES.iter().any(starts_with))
}

/// A folder `folder` that holds a link to the library `llvm` and nothing else.
///
/// `bpf-linker` loads the first libLLVM in the folders of `LD_LIBRARY_PATH`, of any version; so it is given one with one.
fn isolated(llvm: &Path, folder: &Path) -> Result<OsString, String> {
    let link = folder.join("libLLVM.so");
    if fs::read_link(&link).is_ok_and(|target| target == llvm) {
        return Ok(folder.into());
    }
    let cannot = |error| {
        format!(
            "cannot link {} to {}: {error}",
            link.display(),
            llvm.display()
        )
    };
    fs::create_dir_all(folder).map_err(cannot)?;
    // A link to another compiler's LLVM.
    if link.is_symlink() {
        fs::remove_file(&link).map_err(cannot)?;
    }
    std::os::unix::fs::symlink(llvm, &link).map_err(cannot)?;
    Ok(folder.into())
}

/// The shared library of LLVM `version` (such as `22.1.8`) of the compiler with this sysroot.
fn llvm_library(sysroot: &Path, version: &str) -> Option<PathBuf> {
    let mut numbers = version.split('.');
    let soname = format!("libLLVM.so.{}.{}", numbers.next()?, numbers.next()?);
    let multiarch = format!("lib/{}-linux-gnu", env::consts::ARCH);
    ["lib", &multiarch, "lib64"]
        .iter()
        .find_map(|folder| first_file(&sysroot.join(folder), &soname))
}

/// Whether `linker` can be run and says that it is of [`LINKER_SERIES`].
fn is_right_linker(linker: &Path) -> bool {
    output_of(linker, "--version")
        .is_ok_and(|said| said.starts_with(&format!("bpf-linker {LINKER_SERIES}")))
}

/// What `program argument` writes to standard output.
fn output_of(program: &Path, argument: &str) -> Result<String, String> {
    let cannot =
        |why: &dyn fmt::Display| format!("cannot run {} {argument}: {why}", program.display());
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| cannot(&error))?;
    if !output.status.success() {
        return Err(cannot(&output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| cannot(&"its output is not UTF-8"))
}

/// The first file of `folder`, by name, whose name starts with `prefix`.
fn first_file(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.starts_with(prefix))
        })
        .map(|entry| entry.path())
        .min()
}

fn has_file(folder: &Path, prefix: &str) -> bool {
    first_file(folder, prefix).is_some()
}

#[cfg(test)]
#[path = "toolchain/tests.rs"]
mod tests;
