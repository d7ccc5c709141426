//! Compiles the init of shared pid namespaces, which the shim carries along as bytes.

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::Command;

const SOURCE: &str = "init/sys.rs";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    let program = Path::new(&env::var("OUT_DIR")?).join("init");
    let status = Command::new(env::var("RUSTC")?)
        .args(["--edition", "2024", "--crate-name", "init", "--crate-type", "bin"])
        .args(["--target", &env::var("TARGET")?, "-o"])
        .arg(&program)
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "strip=symbols"])
        .args(["-C", "relocation-model=static", "-C", "link-args=-nostdlib -static"])
        .args(["-C", "link-args=-nostartfiles -Wl,--build-id=none -Wl,-z,noseparate-code"])
        .arg(SOURCE)
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("{SOURCE}: {status}").into()) }
}
