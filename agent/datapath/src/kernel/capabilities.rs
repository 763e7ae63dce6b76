//! The capabilities of this process.

use std::io;

/// A capability that the agent needs, numbered as in `linux/capability.h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Capability {
    NetAdmin = 12,
    SysPtrace = 19,
    SysAdmin = 21,
    Bpf = 39,
}

/// The calling thread's effective capabilities, as a set of bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capabilities(u64);

impl Capabilities {
    /// Reads the set from /proc (`proc_pid_status(5)`).
    pub(crate) fn effective() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/thread-self/status")?;
        Self::of_status(&status).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn of_status(status: &str) -> Option<Self> {
        let digits = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(digits.trim(), 16).ok().map(Self)
    }

    /// Whether `capability` is in the set.
    pub(crate) fn has(self, capability: Capability) -> bool {
        self.0 & 1 << capability as u32 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_counts() {
        let status = "Name:\tambit\nCapPrm:\tffffffffffffffff\nCapEff:\t0000008000201000\n";
        let capabilities = Capabilities::of_status(status).expect("well-formed");
        assert!(capabilities.has(Capability::NetAdmin));
        assert!(capabilities.has(Capability::SysAdmin));
        assert!(capabilities.has(Capability::Bpf));
        assert!(!capabilities.has(Capability::SysPtrace));
        assert!(Capabilities::of_status("CapPrm:\t1\n").is_none());
    }
}
