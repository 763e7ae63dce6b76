//! The proxies' system calls, and the bytes that these copy, counted by the kernel programs in the object
//! `calls`. They run at every system call of the machine, so they are attached during runs of their own, whose
//! speed is not used.

use std::fs;
use std::os::linux::fs::MetadataExt;

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, PerCpuArray};
use aya::programs::RawTracePoint;
use aya::{Ebpf, EbpfLoader};

use crate::workspace;

/// The namespace in which this program knows the processes.
const NAMESPACE: &str = "/proc/self/ns/pid";

const PROGRAMS: [(&str, &str); 2] = [
    ("ambit_call_begins", "sys_enter"),
    ("ambit_call_ends", "sys_exit"),
];

/// The figures of the map `TALLY`.
const CALLS: u32 = 0;
const RECEIVED: u32 = 1;
const SENT: u32 = 2;

/// Calls whose result is the number of bytes that the kernel copied to the process.
const RECEIVING: [i64; 5] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_pread64,
];

/// Calls whose result is the number of bytes that it copied from the process.
const SENDING: [i64; 5] = [
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_pwrite64,
];

/// What was counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calls {
    pub(super) calls: f64,
    /// Bytes, in both directions.
    pub(super) copied: f64,
}

/// Counts while it exists.
pub(super) struct CallCounter(Ebpf);

impl CallCounter {
    pub(super) fn start(processes: &[u32]) -> Result<Self> {
        let object = workspace::kernel_objects().join("calls.o");
        let object =
            fs::read(&object).with_context(|| format!("{} cannot be read", object.display()))?;
        let namespace = fs::metadata(NAMESPACE)?;
        let namespace = [namespace.st_dev(), namespace.st_ino()];
        let mut ebpf = EbpfLoader::new()
            .override_global("PID_NAMESPACE", &namespace, true)
            .load(&object)?;
        let mut added_to = Array::<_, u32>::try_from(ebpf.map_mut("ADDED_TO").context("no map")?)?;
        for (calls, figure) in [(RECEIVING, RECEIVED), (SENDING, SENT)] {
            for call in calls {
                added_to.set(call.try_into()?, figure, 0)?;
            }
        }
        let mut counted =
            HashMap::<_, u32, u8>::try_from(ebpf.map_mut("COUNTED").context("no map")?)?;
        for process in processes {
            counted.insert(process, 0, 0)?;
        }
        for (name, place) in PROGRAMS {
            let program = ebpf.program_mut(name).context("no program")?;
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            program.attach(place)?;
        }
        Ok(Self(ebpf))
    }

    pub(super) fn read(&self) -> Result<Calls> {
        let tally = self.0.map("TALLY").context("no map")?;
        let tally = PerCpuArray::<_, u64>::try_from(tally)?;
        let figure = |figure| {
            let sum = tally.get(&figure, 0)?.iter().sum::<u64>();
            #[expect(clippy::cast_precision_loss, reason = "for a ratio")]
            anyhow::Ok(sum as f64)
        };
        Ok(Calls {
            calls: figure(CALLS)?,
            copied: figure(RECEIVED)? + figure(SENT)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn calls_and_bytes_of_one_process_are_counted() -> Result<()> {
        if !nix::unistd::geteuid().is_root()
            || !workspace::kernel_objects().join("calls.o").exists()
        {
            ambit_testing::skip("needs root, and the kernel programs of `cargo xtask build`");
            return Ok(());
        }
        let counter = CallCounter::start(&[std::process::id()])?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut near = TcpStream::connect(listener.local_addr()?)?;
        let (mut far, _) = listener.accept()?;
        let before = counter.read()?;
        for _ in 0..100 {
            near.write_all(&[0; 1000])?;
            far.read_exact(&mut [0; 1000])?;
        }
        let after = counter.read()?;
        // Other threads of this process make calls, too.
        assert!(after.calls - before.calls >= 200.0);
        assert!(after.copied - before.copied >= 200_000.0);
        let other = CallCounter::start(&[1])?;
        near.write_all(&[0; 100_000])?;
        assert!(other.read()?.copied < 100_000.0);
        Ok(())
    }
}
