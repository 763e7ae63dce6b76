//! bpf(2), as a process without any right to it would call it.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::{Value, json};

// Commands and types of linux/bpf.h.
const OBJ_GET: libc::c_long = 7;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const MAP_GET_FD_BY_ID: libc::c_long = 14;
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const SK_LOOKUP: u32 = 36;

/// `union bpf_attr`, as much of it as these commands read.
type Attributes = [u32; 32];

/// Counts what is accessible: objects up to an id, and pins.
pub(crate) fn meddle(pins: &Path, last_id: u32) -> Value {
    let by_id = |command| (1..=last_id).filter(|&id| can_be_had(command, id)).count();
    json!({
        "programs": by_id(PROG_GET_FD_BY_ID),
        "maps": by_id(MAP_GET_FD_BY_ID),
        "links": by_id(LINK_GET_FD_BY_ID),
        "pins": pins_below(pins),
        "detached": detach_own_lookup(),
    })
}

fn can_be_had(command: libc::c_long, id: u32) -> bool {
    let mut attributes = Attributes::default();
    attributes[0] = id;
    get(command, &attributes)
}

/// A command that makes a descriptor, which is closed again.
fn get(command: libc::c_long, attributes: &Attributes) -> bool {
    let made = bpf(command, attributes);
    let Ok(descriptor @ 0..) = i32::try_from(made) else {
        return false;
    };
    // SAFETY: the descriptor is new, and nothing else owns it.
    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    true
}

fn bpf(command: libc::c_long, attributes: &Attributes) -> libc::c_long {
    // SAFETY: the attributes outlive the call, and the size is theirs.
    unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(attributes),
        )
    }
}

fn pins_below(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .map(|path| {
            if path.is_dir() {
                pins_below(&path)
            } else {
                usize::from(is_had(&path))
            }
        })
        .sum()
}

fn is_had(pin: &Path) -> bool {
    let Ok(path) = CString::new(pin.as_os_str().as_bytes()) else {
        return false;
    };
    let address = (path.as_ptr() as u64).to_ne_bytes();
    let [a, b, c, d, e, f, g, h] = address;
    let mut attributes = Attributes::default();
    attributes[0] = u32::from_ne_bytes([a, b, c, d]);
    attributes[1] = u32::from_ne_bytes([e, f, g, h]);
    get(OBJ_GET, &attributes)
}

/// Tries to detach the program from this process's own network namespace.
fn detach_own_lookup() -> bool {
    let Ok(netns) = File::open("/proc/self/ns/net") else {
        return false;
    };
    let mut attributes = Attributes::default();
    attributes[0] = netns.as_raw_fd().cast_unsigned();
    attributes[2] = SK_LOOKUP;
    bpf(PROG_DETACH, &attributes) == 0
}
