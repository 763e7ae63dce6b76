//! Finds the kernel objects that the agent embeds.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=AMBIT_EBPF_DIR");
    let directory =
        std::env::var_os("AMBIT_EBPF_DIR").map_or_else(default_directory, PathBuf::from);
    for object in ["node.o", "pod.o"] {
        let path = directory.join(object);
        println!("cargo::rerun-if-changed={}", path.display());
        if !path.exists() {
            println!(
                "cargo::error={} is missing: run `cargo xtask build`, which builds the kernel \
                 programs first",
                path.display()
            );
        }
    }
    println!("cargo::rustc-env=AMBIT_EBPF_DIR={}", directory.display());
}

fn default_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/ebpf")
}
