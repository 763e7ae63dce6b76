//! The few bpf(2) commands that aya has no function for, each as a typed function.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::c_long;
use serde::Serialize;

/// A place where Ambit's kernel programs are attached. The numbers are those of the kernel's
/// `enum bpf_attach_type`.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum AttachPoint {
    /// `sock_ops` of a cgroup.
    SockOps = 3,
    /// `connect()` on an IPv4 socket.
    Connect4 = 10,
    /// `connect()` on an IPv6 socket.
    Connect6 = 11,
    /// `getpeername()` and `accept()` on an IPv4 socket.
    Getpeername4 = 29,
    /// `getpeername()` and `accept()` on an IPv6 socket.
    Getpeername6 = 30,
    /// `getsockname()` on an IPv4 socket.
    Getsockname4 = 31,
    /// `getsockname()` on an IPv6 socket.
    Getsockname6 = 32,
    /// Look-up of a listener in a network namespace.
    SkLookup = 36,
}

impl AttachPoint {
    /// The hooks of a cgroup.
    pub const CGROUP: [Self; 7] = [
        Self::Connect4,
        Self::Connect6,
        Self::Getpeername4,
        Self::Getpeername6,
        Self::Getsockname4,
        Self::Getsockname6,
        Self::SockOps,
    ];

    /// The name, as in the section of an object file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SockOps => "sockops",
            Self::Connect4 => "cgroup/connect4",
            Self::Connect6 => "cgroup/connect6",
            Self::Getpeername4 => "cgroup/getpeername4",
            Self::Getpeername6 => "cgroup/getpeername6",
            Self::Getsockname4 => "cgroup/getsockname4",
            Self::Getsockname6 => "cgroup/getsockname6",
            Self::SkLookup => "sk_lookup",
        }
    }

    /// The kernel's `enum bpf_prog_type` of the programs that may be attached here.
    const fn program_type(self) -> u32 {
        match self {
            Self::SockOps => 13,
            Self::Connect4
            | Self::Connect6
            | Self::Getpeername4
            | Self::Getpeername6
            | Self::Getsockname4
            | Self::Getsockname6 => 18,
            Self::SkLookup => 30,
        }
    }
}

/// The kernel's `enum bpf_cmd`.
#[repr(u32)]
#[derive(Clone, Copy)]
enum Command {
    MapCreate = 0,
    MapUpdateElem = 2,
    ProgLoad = 5,
    #[cfg(test)]
    ObjPin = 6,
    ObjGet = 7,
    ObjGetInfoByFd = 15,
    ProgQuery = 16,
    LinkCreate = 28,
    LinkUpdate = 29,
}

/// Calls bpf(2).
///
/// # Safety
/// `attributes` is the argument that `command` expects, at most as long as the kernel's own, and
/// every pointer in it is valid for what the command reads or writes.
unsafe fn bpf<T>(command: Command, attributes: &mut T) -> io::Result<c_long> {
    // SAFETY: as this function demands; the size is that of the argument.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as u32,
            attributes,
            size_of::<T>() as u32,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Calls bpf(2) for a command that answers with a new file descriptor.
///
/// # Safety
/// As [`bpf`], and the command answers with a file descriptor.
unsafe fn bpf_fd<T>(command: Command, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: as this function demands.
    let fd = unsafe { bpf(command, attributes)? };
    // SAFETY: the kernel made this descriptor for us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

/// Loads a program for `hook` that only returns 1, which every hook takes for "go on".
///
/// # Errors
/// EINVAL where the kernel does not have this program type or attach type; EPERM without
/// CAP_BPF and CAP_NET_ADMIN.
pub(crate) fn load_trivial_program(hook: AttachPoint) -> io::Result<OwnedFd> {
    const MOVE_IMMEDIATE: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    let instruction = |code, immediate| Instruction {
        code,
        registers: 0,
        offset: 0,
        immediate,
    };
    let instructions = [instruction(MOVE_IMMEDIATE, 1), instruction(EXIT, 0)];
    let mut attributes = ProgLoad {
        program_type: hook.program_type(),
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        name: *b"ambit_trivial\0\0\0",
        expected_attach_type: hook as u32,
        ..ProgLoad::default()
    };
    // SAFETY: the start of the kernel's argument; both pointers outlive the call.
    unsafe { bpf_fd(Command::ProgLoad, &mut attributes) }
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program as a bpf_link; `target` is a cgroup directory or an nsfs file.
///
/// # Errors
/// EBADF where a descriptor is none; EINVAL where the kernel does not have links for this hook.
pub(crate) fn create_link(program: RawFd, target: RawFd, hook: AttachPoint) -> io::Result<OwnedFd> {
    let mut attributes = LinkCreate {
        program: program as u32,
        target: target as u32,
        attach_type: hook as u32,
        flags: 0,
    };
    // SAFETY: the start of the kernel's argument; it holds no pointers.
    unsafe { bpf_fd(Command::LinkCreate, &mut attributes) }
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    new_program: u32,
    flags: u32,
    old_program: u32,
}

/// Replaces the program of a link.
///
/// # Errors
/// ENOLINK where what the link was attached to is gone; EINVAL where the program is of another
/// type.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = LinkUpdate {
        link: link.as_raw_fd() as u32,
        new_program: program.as_raw_fd() as u32,
        flags: 0,
        old_program: 0,
    };
    // SAFETY: the start of the kernel's argument; it holds no pointers.
    unsafe { bpf(Command::LinkUpdate, &mut attributes)? };
    Ok(())
}

#[repr(C)]
struct PinnedObject {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens what is pinned at `path`.
///
/// # Errors
/// ENOENT where nothing is pinned there; EINVAL for a path with a NUL byte.
pub(crate) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = PinnedObject {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    // SAFETY: the start of the kernel's argument; the path outlives the call.
    unsafe { bpf_fd(Command::ObjGet, &mut attributes) }
}

/// The kernel's `struct bpf_link_info`.
#[repr(C, align(8))]
#[derive(Default)]
pub(crate) struct RawLinkInfo {
    pub(crate) link_type: u32,
    pub(crate) id: u32,
    pub(crate) program: u32,
    padding: u32,
    /// A union by `link_type`.
    pub(crate) detail: [u8; 32],
}

#[repr(C)]
struct InfoByFd {
    fd: u32,
    info_length: u32,
    info: u64,
}

/// What the kernel says of a link.
///
/// # Errors
/// EBADF or EINVAL where `link` is no bpf object.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<RawLinkInfo> {
    let mut info = RawLinkInfo::default();
    let mut attributes = InfoByFd {
        fd: link.as_raw_fd() as u32,
        info_length: size_of::<RawLinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the start of the kernel's argument; the kernel writes at most `info_length` bytes to
    // `info`, which is made of integers.
    unsafe { bpf(Command::ObjGetInfoByFd, &mut attributes)? };
    Ok(info)
}

#[repr(C)]
struct ProgQuery {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    program_count: u32,
    padding: u32,
}

/// Room for the answer: eight levels of cgroups, each as full as it can be
/// (`BPF_CGROUP_MAX_PROGS`). A network namespace has fewer.
const MAX_PROGRAMS: usize = 8 * 64;

/// Ids of the programs that run at a hook of `target`, inherited ones of a cgroup included.
///
/// # Errors
/// EINVAL where the kernel does not have the hook or `target` is of another kind; ENOSPC where
/// there are more than [`MAX_PROGRAMS`].
pub(crate) fn query_programs(target: BorrowedFd<'_>, hook: AttachPoint) -> io::Result<Vec<u32>> {
    const QUERY_EFFECTIVE: u32 = 1;
    let mut ids = vec![0_u32; MAX_PROGRAMS];
    let mut attributes = ProgQuery {
        target: target.as_raw_fd() as u32,
        attach_type: hook as u32,
        query_flags: if hook == AttachPoint::SkLookup {
            0
        } else {
            QUERY_EFFECTIVE
        },
        attach_flags: 0,
        program_ids: ids.as_mut_ptr() as u64,
        program_count: ids.len() as u32,
        padding: 0,
    };
    // SAFETY: the start of the kernel's argument; the kernel writes at most `program_count` ids to
    // `ids`.
    unsafe { bpf(Command::ProgQuery, &mut attributes)? };
    ids.truncate(attributes.program_count as usize);
    Ok(ids)
}

/// The start of the kernel's argument of `BPF_MAP_CREATE`.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
}

impl MapCreate {
    /// An array with one element, or one that holds a map.
    const fn array(map_type: u32, inner_map: u32) -> Self {
        Self {
            map_type,
            key_size: size_of::<u32>() as u32,
            value_size: size_of::<u32>() as u32,
            max_entries: 1,
            flags: 0,
            inner_map,
        }
    }
}

/// Makes an array with one element.
///
/// # Errors
/// EPERM without CAP_BPF; ENOMEM.
pub(crate) fn create_array() -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    let mut attributes = MapCreate::array(ARRAY, 0);
    // SAFETY: the start of the kernel's argument; it holds no pointers.
    unsafe { bpf_fd(Command::MapCreate, &mut attributes) }
}

/// Makes an array with room for one map that is like `inner`.
///
/// # Errors
/// EPERM without CAP_BPF; ENOMEM.
pub(crate) fn create_array_of_maps(inner: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const ARRAY_OF_MAPS: u32 = 12;
    let mut attributes = MapCreate::array(ARRAY_OF_MAPS, inner.as_raw_fd() as u32);
    // SAFETY: as in `create_array`.
    unsafe { bpf_fd(Command::MapCreate, &mut attributes) }
}

#[repr(C)]
struct MapUpdateElem {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Puts a map into an array of maps, and returns when no program can use what was there before.
///
/// # Errors
/// EBADF where a descriptor is no map; ENOMEM.
pub(crate) fn set_inner_map(outer: BorrowedFd<'_>, inner: BorrowedFd<'_>) -> io::Result<()> {
    let (key, value) = (0_u32, inner.as_raw_fd());
    let mut attributes = MapUpdateElem {
        map: outer.as_raw_fd() as u32,
        padding: 0,
        key: (&raw const key) as u64,
        value: (&raw const value) as u64,
        flags: 0,
    };
    // SAFETY: the start of the kernel's argument; key and value are of the sizes of the map, and
    // outlive the call.
    unsafe { bpf(Command::MapUpdateElem, &mut attributes)? };
    Ok(())
}

/// Pins an object, for tests: aya does it for the programs that it attaches.
#[cfg(test)]
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = PinnedObject {
        path: path.as_ptr() as u64,
        fd: object.as_raw_fd() as u32,
        flags: 0,
    };
    // SAFETY: the start of the kernel's argument; the path outlives the call.
    unsafe { bpf(Command::ObjPin, &mut attributes)? };
    Ok(())
}
