//! What must be on this machine, and the Debian package that brings it.

use std::fmt;
use std::path::Path;
use std::process::Command;

/// A program or file, and the Debian package that has it.
#[derive(Clone, Copy)]
pub(crate) struct Requirement {
    sign: Sign,
    /// The Debian 12 package.
    pub(crate) package: &'static str,
}

/// How its presence is seen.
#[derive(Clone, Copy)]
enum Sign {
    Program(&'static str),
    File(&'static str),
    /// Debian has parts of Python's own library in packages of their own.
    PythonModule(&'static str),
}

const fn program(name: &'static str, package: &'static str) -> Requirement {
    Requirement {
        sign: Sign::Program(name),
        package,
    }
}

const fn file(path: &'static str, package: &'static str) -> Requirement {
    Requirement {
        sign: Sign::File(path),
        package,
    }
}

/// Makes virtual environments for the programs from PyPI.
const PYTHON_VENV: Requirement = Requirement {
    sign: Sign::PythonModule("ensurepip"),
    package: "python3-venv",
};

/// For the agent: a C compiler builds aws-lc.
pub(crate) const BUILD: [Requirement; 2] = [program("cc", "gcc"), program("cmake", "cmake")];

/// For the kernel programs, with Debian's compiler: `core` for BPF ready-made, and the LLVM that
/// bpf-linker is linked with, which must be the compiler's.
pub(crate) const DEBIAN_KERNEL_COMPILER: [Requirement; 7] = [
    program("c++", "g++"),
    file("/usr/bin/rustc", "rustc-web"),
    file(
        "/usr/lib/rustlib/bpfel-unknown-none/lib",
        "libstd-rust-web-dev-bpf",
    ),
    file("/usr/lib/llvm-22/bin/llvm-config", "llvm-22-dev"),
    file("/usr/lib/llvm-22/lib/libPolly.a", "libpolly-22-dev"),
    file("/usr/include/zstd.h", "libzstd-dev"),
    file("/usr/include/zlib.h", "zlib1g-dev"),
];

/// For a mesh on this machine.
pub(crate) const MESH: [Requirement; 5] = [
    program("ip", "iproute2"),
    program("curl", "curl"),
    program("nft", "nftables"),
    program("nginx", "nginx-light"),
    program("tcpdump", "tcpdump"),
];

/// For the tests: the runtimes of the clients in tests/clients, servers, what looks into an agent from
/// outside, and what Envoy, from PyPI, is installed with.
pub(crate) const TESTS: [Requirement; 12] = [
    program("bpftool", "bpftool"),
    program("faketime", "faketime"),
    program("openssl", "openssl"),
    program("pg_ctlcluster", "postgresql"),
    program("redis-cli", "redis-tools"),
    program("setpriv", "util-linux"),
    program("strace", "strace"),
    program("unshare", "util-linux"),
    PYTHON_VENV,
    program("node", "nodejs"),
    program("java", "openjdk-17-jdk-headless"),
    program("go", "golang-go"),
];

/// For a cluster's control plane: keys, and what Go, from PyPI, is installed with.
pub(crate) const CLUSTER: [Requirement; 2] = [program("openssl", "openssl"), PYTHON_VENV];

/// For measuring.
pub(crate) const BENCH: [Requirement; 3] = [
    program("iperf3", "iperf3"),
    program("wrk", "wrk"),
    program("sockperf", "sockperf"),
];

/// For fuzzing: libFuzzer is C++.
pub(crate) const FUZZ: [Requirement; 1] = [program("c++", "g++")];

/// For booting other kernels: virtme-ng, from PyPI, and what it calls.
pub(crate) const KERNELS: [Requirement; 4] = [
    PYTHON_VENV,
    program("qemu-system-x86_64", "qemu-system-x86"),
    program("busybox", "busybox-static"),
    program("depmod", "kmod"),
];

impl Requirement {
    /// Whether it is there.
    pub(crate) fn is_met(&self) -> bool {
        match self.sign {
            Sign::Program(name) => program_exists(name),
            Sign::File(path) => Path::new(path).exists(),
            Sign::PythonModule(name) => has_python_module(name),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sign {
            Sign::Program(name) => write!(f, "the program `{name}`"),
            Sign::File(path) => f.write_str(path),
            Sign::PythonModule(name) => write!(f, "Python's module `{name}`"),
        }
    }
}

fn has_python_module(name: &str) -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", &format!("import {name}")]);
    python.output().is_ok_and(|output| output.status.success())
}

/// Whether a program is on the path, or in Debian's folders for root.
pub(crate) fn program_exists(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(name).is_file())
}
