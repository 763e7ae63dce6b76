//! The few bpf(2) commands that aya has no function for, each as a typed function. The kernel's structures
//! and numbers are those that aya generates from `linux/bpf.h`.

use std::ffi::{CString, c_char};
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{
    BPF_ALU64, BPF_EXIT, BPF_F_QUERY_EFFECTIVE, BPF_JMP, BPF_K, BPF_MOV, bpf_attach_type, bpf_attr,
    bpf_cmd, bpf_insn, bpf_link_info, bpf_map_type, bpf_prog_type,
};
use libc::c_long;
use serde::Serialize;

/// A place where Ambit's kernel programs are attached, numbered as the kernel does.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum AttachPoint {
    /// `sock_ops` of a cgroup.
    SockOps = bpf_attach_type::BPF_CGROUP_SOCK_OPS as u32,
    /// `connect()` on an IPv4 socket.
    Connect4 = bpf_attach_type::BPF_CGROUP_INET4_CONNECT as u32,
    /// `connect()` on an IPv6 socket.
    Connect6 = bpf_attach_type::BPF_CGROUP_INET6_CONNECT as u32,
    /// `getpeername()` and `accept()` on an IPv4 socket.
    Getpeername4 = bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME as u32,
    /// `getpeername()` and `accept()` on an IPv6 socket.
    Getpeername6 = bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME as u32,
    /// `getsockname()` on an IPv4 socket.
    Getsockname4 = bpf_attach_type::BPF_CGROUP_INET4_GETSOCKNAME as u32,
    /// `getsockname()` on an IPv6 socket.
    Getsockname6 = bpf_attach_type::BPF_CGROUP_INET6_GETSOCKNAME as u32,
    /// The look-up of a listener in a network namespace.
    SkLookup = bpf_attach_type::BPF_SK_LOOKUP as u32,
}

impl AttachPoint {
    /// The attach points of a cgroup.
    pub const CGROUP: [Self; 7] = [
        Self::Connect4,
        Self::Connect6,
        Self::Getpeername4,
        Self::Getpeername6,
        Self::Getsockname4,
        Self::Getsockname6,
        Self::SockOps,
    ];

    /// The name that the section of an object file has.
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

    /// The type of the programs that may be attached here.
    const fn program_type(self) -> bpf_prog_type {
        match self {
            Self::SockOps => bpf_prog_type::BPF_PROG_TYPE_SOCK_OPS,
            Self::Connect4
            | Self::Connect6
            | Self::Getpeername4
            | Self::Getpeername6
            | Self::Getsockname4
            | Self::Getsockname6 => bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
            Self::SkLookup => bpf_prog_type::BPF_PROG_TYPE_SK_LOOKUP,
        }
    }
}

/// The argument of bpf(2), all zero. The kernel takes zero for what a command does not need, and for fields
/// that it does not know.
fn attributes() -> bpf_attr {
    // SAFETY: a union of structures that are made of integers.
    unsafe { zeroed() }
}

/// Calls bpf(2).
///
/// # Safety
/// The fields that `command` reads are set, and every pointer in them is valid for what the command
/// reads or writes.
unsafe fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<c_long> {
    // SAFETY: as this function demands; the size is that of the argument.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as u32,
            core::ptr::from_mut(attributes),
            size_of::<bpf_attr>() as u32,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Calls bpf(2) for a command that returns a new file descriptor.
///
/// # Safety
/// As [`bpf`], and the command returns a file descriptor.
unsafe fn bpf_fd(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: as this function demands.
    let fd = unsafe { bpf(command, attributes)? };
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Loads a program for `hook` that only returns 1, which every hook takes for "go on".
///
/// # Errors
/// EINVAL if the kernel does not have this program type or attach type; EPERM without CAP_BPF and
/// CAP_NET_ADMIN.
pub(crate) fn load_trivial_program(hook: AttachPoint) -> io::Result<OwnedFd> {
    let instruction = |code: u32, imm| {
        // SAFETY: made of integers. Register 0 and offset 0 are right for both instructions.
        let zero: bpf_insn = unsafe { zeroed() };
        let code = code as u8;
        bpf_insn { code, imm, ..zero }
    };
    let instructions = [
        instruction(BPF_ALU64 | BPF_MOV | BPF_K, 1),
        instruction(BPF_JMP | BPF_EXIT, 0),
    ];
    let mut attributes = attributes();
    attributes.__bindgen_anon_3.prog_type = hook.program_type() as u32;
    attributes.__bindgen_anon_3.insn_cnt = instructions.len() as u32;
    attributes.__bindgen_anon_3.insns = instructions.as_ptr() as u64;
    attributes.__bindgen_anon_3.license = c"Dual MIT/GPL".as_ptr() as u64;
    attributes.__bindgen_anon_3.prog_name = b"ambit_trivial\0\0\0".map(|byte| byte as c_char);
    attributes.__bindgen_anon_3.expected_attach_type = hook as u32;
    // SAFETY: both pointers outlive the call.
    unsafe { bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attributes) }
}

/// Attaches a program as a bpf_link; `target` is a cgroup directory or an nsfs file.
///
/// # Errors
/// EBADF if one of them is not an open descriptor; EINVAL if the kernel does not have links for this hook.
pub(crate) fn create_link(program: RawFd, target: RawFd, hook: AttachPoint) -> io::Result<OwnedFd> {
    let mut attributes = attributes();
    attributes.link_create.__bindgen_anon_1.prog_fd = program as u32;
    attributes.link_create.__bindgen_anon_2.target_fd = target as u32;
    attributes.link_create.attach_type = hook as u32;
    // SAFETY: the argument has no pointers.
    unsafe { bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attributes) }
}

/// Replaces the program of a link.
///
/// # Errors
/// ENOLINK if what the link was attached to is gone; EINVAL if the program is of another type.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = attributes();
    attributes.link_update.link_fd = link.as_raw_fd() as u32;
    attributes.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd() as u32;
    // SAFETY: the argument has no pointers.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attributes)? };
    Ok(())
}

/// Opens what is pinned at `path`.
///
/// # Errors
/// ENOENT if nothing is pinned there; EINVAL for a path with a NUL byte.
pub(crate) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = attributes();
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    // SAFETY: the path outlives the call.
    unsafe { bpf_fd(bpf_cmd::BPF_OBJ_GET, &mut attributes) }
}

/// Returns what the kernel says about a link.
///
/// # Errors
/// EBADF or EINVAL if `link` is not a bpf object.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<bpf_link_info> {
    // SAFETY: made of integers. The kernel demands zero in the fields that it does not know.
    let mut info: bpf_link_info = unsafe { zeroed() };
    let mut attributes = attributes();
    attributes.info.bpf_fd = link.as_raw_fd() as u32;
    attributes.info.info_len = size_of::<bpf_link_info>() as u32;
    attributes.info.info = (&raw mut info) as u64;
    // SAFETY: the kernel writes at most `info_len` bytes to `info`, which is made of integers.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)? };
    Ok(info)
}

/// Room for the ids of programs: eight levels of cgroups, each as full as it can be
/// (`BPF_CGROUP_MAX_PROGS`). A network namespace has fewer.
const MAX_PROGRAMS: usize = 8 * 64;

/// Returns the ids of the programs that run at a hook of `target`, inherited ones of a cgroup included.
///
/// # Errors
/// EINVAL if the kernel does not have the hook or `target` is of another kind; ENOSPC if there are more
/// than [`MAX_PROGRAMS`].
pub(crate) fn query_programs(target: BorrowedFd<'_>, hook: AttachPoint) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; MAX_PROGRAMS];
    let mut attributes = attributes();
    attributes.query.__bindgen_anon_1.target_fd = target.as_raw_fd() as u32;
    attributes.query.attach_type = hook as u32;
    attributes.query.query_flags = if hook == AttachPoint::SkLookup {
        0
    } else {
        BPF_F_QUERY_EFFECTIVE
    };
    attributes.query.prog_ids = ids.as_mut_ptr() as u64;
    attributes.query.__bindgen_anon_2.prog_cnt = ids.len() as u32;
    // SAFETY: the kernel writes at most `prog_cnt` ids to `ids`.
    unsafe { bpf(bpf_cmd::BPF_PROG_QUERY, &mut attributes)? };
    // SAFETY: the kernel has set the count of this command's argument.
    let count = unsafe { attributes.query.__bindgen_anon_2.prog_cnt };
    ids.truncate(count as usize);
    Ok(ids)
}

/// Makes an array with one element of four bytes. `inner` is the map that an element holds is like, if it
/// holds one.
fn create_map(kind: bpf_map_type, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let mut attributes = attributes();
    attributes.__bindgen_anon_1.map_type = kind as u32;
    attributes.__bindgen_anon_1.key_size = size_of::<u32>() as u32;
    attributes.__bindgen_anon_1.value_size = size_of::<u32>() as u32;
    attributes.__bindgen_anon_1.max_entries = 1;
    attributes.__bindgen_anon_1.inner_map_fd = inner.map_or(0, |inner| inner.as_raw_fd() as u32);
    // SAFETY: the argument has no pointers.
    unsafe { bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attributes) }
}

/// Makes an array with one element.
///
/// # Errors
/// EPERM without CAP_BPF; ENOMEM.
pub(crate) fn create_array() -> io::Result<OwnedFd> {
    create_map(bpf_map_type::BPF_MAP_TYPE_ARRAY, None)
}

/// Makes an array with room for one map that is like `inner`.
///
/// # Errors
/// EPERM without CAP_BPF; ENOMEM.
pub(crate) fn create_array_of_maps(inner: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    create_map(bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS, Some(inner))
}

/// Puts a map into an array of maps, and returns when no program can use what was there before.
///
/// # Errors
/// EBADF if one of them is not a map; ENOMEM.
pub(crate) fn set_inner_map(outer: BorrowedFd<'_>, inner: BorrowedFd<'_>) -> io::Result<()> {
    let (key, value) = (0_u32, inner.as_raw_fd());
    let mut attributes = attributes();
    attributes.__bindgen_anon_2.map_fd = outer.as_raw_fd() as u32;
    attributes.__bindgen_anon_2.key = (&raw const key) as u64;
    attributes.__bindgen_anon_2.__bindgen_anon_1.value = (&raw const value) as u64;
    // SAFETY: key and value have the sizes that the map has, and outlive the call.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes)? };
    Ok(())
}

/// Takes the entry of a key out of a hash map, and returns its value.
///
/// # Safety
/// The map's keys have the size of `K`, and its values that of `V`, of which every pattern of bytes is valid.
///
/// # Errors
/// ENOENT if the map does not have the key.
pub(crate) unsafe fn take_entry<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    key: &K,
) -> io::Result<V> {
    let mut value = MaybeUninit::<V>::uninit();
    let mut attributes = attributes();
    attributes.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attributes.__bindgen_anon_2.key = (&raw const *key) as u64;
    attributes.__bindgen_anon_2.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    // SAFETY: key and value have the sizes that the map has, as the caller promises, and outlive the call.
    unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attributes)? };
    // SAFETY: the kernel has written the value.
    Ok(unsafe { value.assume_init() })
}

/// Pins an object, for tests: aya does it for the programs that it attaches.
#[cfg(test)]
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = attributes();
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attributes.__bindgen_anon_4.bpf_fd = object.as_raw_fd() as u32;
    // SAFETY: the path outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes)? };
    Ok(())
}
