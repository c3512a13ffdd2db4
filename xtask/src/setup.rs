//! `cargo xtask setup`: finds what a developer's machine lacks, says what it installs and why, and installs it.

use std::{
    cell::Cell,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    process::{is_root, on_path, run, say},
    toolchain::{
        Compiler, LINKER_SERIES, LLVM_MAJOR, PINNED_NIGHTLY, Places, RUSTC_VARIABLE, TARGET,
        find_linker,
    },
};

/// The version of `bpf-linker` that setup installs.
const LINKER_VERSION: &str = "0.10.3";
/// Debian's compiler and its prebuilt `core` for BPF.
const DEBIAN_COMPILER: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// The packages for Python that tests need, by their versions…
const SDKS_LIST: &str = "flowlog/tests/sdk/requirements.txt";
/// … and the environment that has them.
const SDKS_FOLDER: &str = "target/python";

/// What the machine must be ready for; each is ready for those before it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Compiling.
    Build,
    /// Making network namespaces with traffic in them.
    Run,
    /// Running the official SDKs against the service.
    Test,
}

/// A program that comes in a Debian package.
struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
    /// What needs it.
    purpose: Purpose,
}

const TOOLS: [Tool; 5] = [
    Tool {
        program: "cc",
        package: "build-essential",
        why: "links what cargo builds",
        purpose: Purpose::Build,
    },
    Tool {
        program: "ip",
        package: "iproute2",
        why: "makes the lab's network namespaces and interfaces",
        purpose: Purpose::Run,
    },
    Tool {
        program: "python3",
        package: "python3",
        why: "runs the official SDKs in tests",
        purpose: Purpose::Test,
    },
    Tool {
        program: "nft",
        package: "nftables",
        why: "makes rules of netfilter in the lab's namespaces",
        purpose: Purpose::Test,
    },
    Tool {
        program: "iptables",
        package: "iptables",
        why: "likewise, the older way",
        purpose: Purpose::Test,
    },
];

/// Installs what is missing on this machine for the project in `root`, or, with `dry_run`, only says what is missing.
///
/// # Errors
///
/// When something is missing and cannot be installed: one sentence that says how to do it by hand.
pub(crate) fn setup(root: &Path, purpose: Purpose, dry_run: bool) -> Result<()> {
    let installer = Installer {
        root: root.to_owned(),
        dry_run,
        lists_are_fresh: Cell::new(false),
    };
    let missing = TOOLS
        .iter()
        .filter(|tool| tool.purpose <= purpose && on_path(tool.program).is_none());
    let missing: Vec<&Tool> = missing.collect();
    for tool in &missing {
        installer.announce(
            &format!("{} (Debian package {})", tool.program, tool.package),
            tool.why,
        );
    }
    if !missing.is_empty() {
        installer.apt(&missing.iter().map(|tool| tool.package).collect::<Vec<_>>())?;
    }
    let compiler = installer.compiler()?;
    let linker = installer.linker()?;
    if let (Some(compiler), Some(linker)) = (compiler, linker) {
        say(&format!(
            "BPF programs are compiled by {compiler} and linked by {}",
            linker.display()
        ));
    }
    if purpose >= Purpose::Test {
        installer.sdks()?;
    }
    Ok(())
}

struct Installer {
    root: PathBuf,
    dry_run: bool,
    /// Whether `apt-get update` has been run.
    lists_are_fresh: Cell<bool>,
}

impl Installer {
    fn announce(&self, what: &str, why: &str) {
        let verb = if self.dry_run {
            "would install"
        } else {
            "installing"
        };
        say(&format!("{verb} {what}: {why}"));
    }

    /// The compiler for BPF, installed if there is none; `None` if it would have to be installed in a dry run.
    fn compiler(&self) -> Result<Option<Compiler>> {
        let find = || Compiler::find(&Places::here(&self.root));
        let why_not = match find() {
            Ok(compiler) => return Ok(Some(compiler)),
            Err(why) => why,
        };
        if env::var_os(RUSTC_VARIABLE).is_some_and(|value| !value.is_empty()) {
            bail!(why_not);
        }
        let why = format!(
            "compiles the BPF programs, which needs `core` for {TARGET} and LLVM {LLVM_MAJOR}"
        );
        // Debian's is a package like any other and needs no second rustup toolchain; where it is missing or of another LLVM,
        // rustup's will do.
        let has_apt = on_path("apt-get").is_some();
        if has_apt {
            self.announce(
                &format!("Debian packages {}", DEBIAN_COMPILER.join(" and ")),
                &why,
            );
            if self.dry_run {
                return Ok(None);
            }
            match self
                .apt(&DEBIAN_COMPILER)
                .and_then(|()| find().map_err(|error| anyhow!(error)))
            {
                Ok(compiler) => return Ok(Some(compiler)),
                Err(error) => say(&format!(
                    "Debian's compiler is not to be had here: {error:#}"
                )),
            }
        }
        if on_path("rustup").is_some() {
            self.announce(
                &format!("Rust toolchain {PINNED_NIGHTLY} with rust-src (by rustup)"),
                &why,
            );
            if self.dry_run {
                return Ok(None);
            }
            let arguments = [
                "toolchain",
                "install",
                PINNED_NIGHTLY,
                "--profile",
                "minimal",
                "--component",
                "rust-src",
            ];
            run(Command::new("rustup").args(arguments)).context(by_hand())?;
            return find().map(Some).map_err(|error| anyhow!(error));
        }
        bail!(by_hand())
    }

    /// The linker for BPF, installed if there is none; `None` if it would have to be installed in a dry run.
    fn linker(&self) -> Result<Option<PathBuf>> {
        let find = || find_linker(&Places::here(&self.root));
        match find() {
            Ok(linker) => return Ok(Some(linker)),
            // The one that the environment names will not do: another must not take its place silently.
            Err(why) if !why.contains("cargo xtask setup") => bail!(why),
            Err(_) => {}
        }
        let why = format!(
            "links the BPF programs; it is compiled into .tools, in about a minute (series {LINKER_SERIES}x)"
        );
        self.announce(&format!("bpf-linker {LINKER_VERSION}"), &why);
        if self.dry_run {
            return Ok(None);
        }
        let mut cargo = Command::new("cargo");
        cargo
            .args([
                "install",
                "bpf-linker",
                "--version",
                LINKER_VERSION,
                "--locked",
                "--root",
            ])
            .arg(self.root.join(".tools"))
            // It links by the compiler's LLVM, which is optimised; of itself, it is sooner there unoptimised, and the programs are linked as fast.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "none");
        run(&mut cargo)
            .with_context(|| format!("bpf-linker {LINKER_VERSION} could not be installed"))?;
        find().map(Some).map_err(|error| anyhow!(error))
    }

    /// The Python environment with the official SDKs, made anew whenever its list has changed.
    fn sdks(&self) -> Result<()> {
        let list = self.root.join(SDKS_LIST);
        let folder = self.root.join(SDKS_FOLDER);
        // Written when all else is there.
        let installed = folder.join("requirements.txt");
        let wanted = fs::read(&list).with_context(|| format!("cannot read {}", list.display()))?;
        if fs::read(&installed).is_ok_and(|found| found == wanted) {
            return Ok(());
        }
        self.announce(
            &format!("the packages of {SDKS_LIST} into {SDKS_FOLDER}"),
            "the official SDKs, which tests run against the service",
        );
        if self.dry_run {
            return Ok(());
        }
        // Debian has what makes environments in a package of its own.
        let can_make = Command::new("python3")
            .args(["-c", "import ensurepip, venv"])
            .stderr(Stdio::null())
            .status();
        if !can_make.is_ok_and(|status| status.success()) {
            self.announce(
                "Debian package python3-venv",
                "makes environments for Python",
            );
            self.apt(&["python3-venv"])?;
        }
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&folder))?;
        run(Command::new(folder.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(&list))
        .with_context(|| format!("pip could not install what {SDKS_LIST} names"))?;
        fs::write(&installed, wanted)
            .with_context(|| format!("cannot write {}", installed.display()))
    }

    /// Installs Debian packages.
    fn apt(&self, packages: &[&str]) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        let names = packages.join(" ");
        if on_path("apt-get").is_none() {
            bail!(
                "this is not a Debian system: install by hand what Debian calls {names}, then run this command again"
            );
        }
        if !is_root() {
            bail!(
                "installing packages needs root: run `apt-get install {names}` as root, then this command again"
            );
        }
        if !self.lists_are_fresh.get() {
            run(apt_get().arg("update"))?;
            self.lists_are_fresh.set(true);
        }
        run(apt_get()
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(packages))
        .with_context(|| format!("apt-get could not install {names}"))
    }
}

/// What a person can do who has neither apt nor rustup, or whose rustup fails.
fn by_hand() -> String {
    format!(
        "no compiler for {TARGET} could be installed: install by hand rustup's toolchain {PINNED_NIGHTLY} with the component \
         rust-src, or name in {RUSTC_VARIABLE} a compiler with LLVM {LLVM_MAJOR} that has `core` for that target"
    )
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // A program may be holding the lock, such as the daily upgrade of a machine that has just been started.
    command
        .args(["-q", "-o", "DPkg::Lock::Timeout=120"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}
