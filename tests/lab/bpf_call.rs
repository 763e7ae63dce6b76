//! Commands of bpf(2): those that change many entries of a map at once (Linux 5.6), and those that
//! walk through all objects.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{c_long, c_void};

/// `BPF_OBJ_GET`.
const GET_PINNED: c_long = 7;

/// `BPF_MAP_UPDATE_BATCH`.
const UPDATE: c_long = 26;

/// `BPF_MAP_DELETE_BATCH`.
const DELETE: c_long = 27;

/// `BPF_PROG_GET_NEXT_ID`, `BPF_MAP_GET_NEXT_ID` and `BPF_LINK_GET_NEXT_ID`.
const NEXT_ID: [c_long; 3] = [11, 12, 31];

/// The attributes of [`NEXT_ID`].
#[repr(C)]
struct Walk {
    from: u32,
    next: u32,
    flags: u32,
}

/// The attributes of `BPF_OBJ_GET`.
#[repr(C)]
struct Pinned {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The attributes of the commands for many entries.
#[repr(C)]
struct Batch {
    first: u64,
    last: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: i32,
    entry_flags: u64,
    flags: u64,
}

/// The result of a command: how many entries it processed, and the error at the next one.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) done: usize,
    pub(crate) obstacle: Option<io::Error>,
}

/// Opens a pinned map.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Pinned {
        path: path.as_ptr().addr() as u64,
        fd: 0,
        flags: 0,
    };
    let fd = call(GET_PINNED, &mut attributes)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The highest id that a program, a map or a link of this machine has.
pub(crate) fn last_id() -> io::Result<u32> {
    let mut last = 0;
    for command in NEXT_ID {
        let mut walk = Walk {
            from: 0,
            next: 0,
            flags: 0,
        };
        loop {
            match call(command, &mut walk) {
                Ok(_) => walk.from = walk.next,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error),
            }
        }
        last = last.max(walk.from);
    }
    Ok(last)
}

/// Writes entries, until one cannot be written.
pub(crate) fn update(map: &OwnedFd, keys: &[Vec<u8>], value: &[u8]) -> Progress {
    let values = value.repeat(keys.len());
    batch(UPDATE, map, keys, Some(&values))
}

/// Removes entries, until one is not there.
pub(crate) fn delete(map: &OwnedFd, keys: &[Vec<u8>]) -> Progress {
    batch(DELETE, map, keys, None)
}

fn batch(command: c_long, map: &OwnedFd, keys: &[Vec<u8>], values: Option<&[u8]>) -> Progress {
    let all = keys.concat();
    let address = |bytes: &[u8]| bytes.as_ptr().addr() as u64;
    let mut attributes = Batch {
        first: 0,
        last: 0,
        keys: address(&all),
        values: values.map_or(0, address),
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map: map.as_raw_fd(),
        entry_flags: 0,
        flags: 0,
    };
    let obstacle = call(command, &mut attributes).err();
    Progress {
        done: attributes.count as usize,
        obstacle,
    }
}

/// `T` is what the command takes, and every address in it points to as many bytes as it says.
fn call<T>(command: c_long, attributes: &mut T) -> io::Result<c_long> {
    let pointer: *mut c_void = std::ptr::from_mut(attributes).cast();
    // SAFETY: the attributes live until the call returns and have the given size; the callers of this
    // function keep what they point to alive until it returns.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(done)
}
