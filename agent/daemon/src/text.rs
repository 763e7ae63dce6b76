//! The program's own code in memory.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;

use libc::c_void;

/// Takes the program's code out of the process's memory. What is executed again comes back from the kernel's
/// cache, page by page; what only a start needs, more than half, does not.
pub(crate) fn forget() {
    let maps = fs::read_to_string("/proc/self/maps");
    let program = fs::metadata("/proc/self/exe");
    let (Ok(maps), Ok(program)) = (maps, program) else {
        return;
    };
    for code in maps.lines().filter_map(|line| code(line, program.ino())) {
        // SAFETY: the range is a private mapping of a file that cannot be written to: the kernel's page tables
        // forget pages that are as in the file, and read the same bytes again. An executable that runs cannot
        // be changed (ETXTBSY).
        let _ =
            unsafe { libc::madvise(code.start as *mut c_void, code.len(), libc::MADV_DONTNEED) };
    }
}

/// Returns the addresses of a mapping, if it is executable, never written to, and of the file with this inode
/// (`proc_pid_maps(5)`).
fn code(line: &str, inode: u64) -> Option<Range<usize>> {
    let mut fields = line.split_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    let of: u64 = fields.nth(2)?.parse().ok()?;
    if permissions != "r-xp" || of != inode {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_executable_mappings_of_the_program_count() {
        let line = |permissions, inode| {
            format!("1000-3000 {permissions} 00000000 fe:00 {inode} /usr/bin/ambit")
        };
        assert_eq!(code(&line("r-xp", 7), 7), Some(0x1000..0x3000));
        for (permissions, inode) in [
            ("r-xp", 8),
            ("r--p", 7),
            ("rw-p", 7),
            ("rwxp", 7),
            ("r-xs", 7),
        ] {
            assert_eq!(code(&line(permissions, inode), 7), None);
        }
        assert_eq!(code("7ffc-7ffd r-xp 00000000 00:00 0 [vdso]", 7), None);
        assert_eq!(code("", 7), None);
    }

    #[test]
    fn a_program_that_has_forgotten_its_code_goes_on() {
        forget();
        let maps = fs::read_to_string("/proc/self/maps").expect("readable");
        let program = fs::metadata("/proc/self/exe").expect("readable");
        assert!(maps.lines().any(|line| code(line, program.ino()).is_some()));
    }
}
