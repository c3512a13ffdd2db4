//! Builds the BPF programs, which the agent carries in itself.
//!
//! `FLOWLOG_BPF_OBJECT` names a ready-made object to use instead.
#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::{env, error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for path in [
        "flowlog-ebpf/src",
        "flowlog-ebpf/Cargo.toml",
        "flowlog-ebpf/Cargo.lock",
        "flowlog-common/src",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo:rerun-if-changed=../xtask/src/toolchain.rs");
    for variable in [
        "FLOWLOG_BPF_OBJECT",
        toolchain::RUSTC_VARIABLE,
        toolchain::LINKER_VARIABLE,
    ] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let out_dir = env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?;
    let object = match env::var_os("FLOWLOG_BPF_OBJECT") {
        Some(object) => object.into(),
        None => toolchain::Toolchain::find(&root)?.build(
            &root,
            &root.join("target/ebpf"),
            "flowlog-ebpf",
        )?,
    };
    fs::copy(&object, Path::new(&out_dir).join("flowlog-ebpf.o"))?;
    Ok(())
}
