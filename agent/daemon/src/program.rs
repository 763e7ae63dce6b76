//! Gives pages of the program file back to the system that only the start needed.
//!
//! They are clean and stay in the page cache, but as long as they are mapped they count as the process's memory,
//! and the kernel takes them for used. What is needed after all is mapped again when it is touched.
//!
//! This is done once: a breakpoint that a tracer sets in the program (a uprobe) would be lost.

use std::ffi::{c_int, c_void};
use std::io;
use std::time::Duration;

use tokio::time::sleep;

/// When the start is over, even of a slow one. What is in use is mapped again by some hundred page faults without
/// input or output: less than a millisecond.
const STARTED: Duration = Duration::from_secs(5);

/// Part of the program file that is mapped and never written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Segment {
    begin: usize,
    length: usize,
}

/// Gives back what is mapped, once the start is over.
pub async fn give_back() {
    sleep(STARTED).await;
    for segment in segments() {
        if let Err(error) = segment.give_back() {
            tracing::debug!(%error, "the program's pages stay mapped");
        }
    }
}

impl Segment {
    /// Whole pages of a segment as the program's head describes it, if it is never written.
    fn of(base: usize, head: &libc::Elf64_Phdr) -> Option<Self> {
        // What the loader writes to, it makes read-only afterwards, but its segment is a writable one.
        if head.p_type != libc::PT_LOAD || head.p_flags & libc::PF_W != 0 {
            return None;
        }
        let begin = base.checked_add(usize::try_from(head.p_vaddr).ok()?)?;
        let end = begin.checked_add(usize::try_from(head.p_filesz).ok()?)?;
        let page = page_size();
        let (begin, end) = (begin.next_multiple_of(page), end / page * page);
        let length = end.checked_sub(begin).filter(|length| *length > 0)?;
        Some(Self { begin, length })
    }

    fn give_back(self) -> io::Result<()> {
        let begin = std::ptr::without_provenance_mut::<c_void>(self.begin);
        // SAFETY: the range belongs to a private mapping of a file. It was never written, so what is
        // read from it later, from the file, is what it has now.
        match unsafe { libc::madvise(begin, self.length, libc::MADV_DONTNEED) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The program's own segments that are never written.
fn segments() -> Vec<Segment> {
    /// Is called for the program itself first, and ends the iteration.
    ///
    /// # Safety
    ///
    /// `info` is what `dl_iterate_phdr` gives, and `segments` points to a vector.
    unsafe extern "C" fn collect(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        segments: *mut c_void,
    ) -> c_int {
        // SAFETY: the caller passes on the pointer to the vector below, which no one else uses meanwhile.
        let segments = unsafe { &mut *segments.cast::<Vec<Segment>>() };
        // SAFETY: the loader keeps the description valid during the call.
        let info = unsafe { &*info };
        let (Ok(base), false) = (usize::try_from(info.dlpi_addr), info.dlpi_phdr.is_null()) else {
            return 1;
        };
        // SAFETY: the loader gives an array of so many heads, which lasts as long as the program.
        let heads =
            unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        segments.extend(heads.iter().filter_map(|head| Segment::of(base, head)));
        1
    }
    let mut segments = Vec::new();
    let found: *mut Vec<Segment> = &raw mut segments;
    // SAFETY: `collect` treats its arguments as this function gives them.
    unsafe { libc::dl_iterate_phdr(Some(collect), found.cast()) };
    segments
}

fn page_size() -> usize {
    // SAFETY: sysconf reads a constant.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The resident bytes of the program's mappings that are not writable.
    fn resident() -> usize {
        let program = std::env::current_exe().unwrap();
        let program = program.to_str().unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut is_ours, mut sum) = (false, 0);
        for line in smaps.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields[..] {
                [_, rights, _, _, _, path] if rights.ends_with('p') => {
                    is_ours = path == program && !rights.contains('w');
                }
                [_, rights, ..] if rights.len() == 4 && rights.ends_with('p') => is_ours = false,
                ["Rss:", kib, "kB"] if is_ours => sum += kib.parse::<usize>().unwrap() << 10,
                _ => {}
            }
        }
        sum
    }

    #[test]
    fn what_is_given_back_is_not_resident_and_can_be_read_again() {
        let segments = segments();
        assert!(segments.len() >= 2, "constants and code: {segments:?}");
        let read = || {
            let pages = segments.iter().flat_map(|segment| {
                (segment.begin..segment.begin + segment.length).step_by(page_size())
            });
            pages.fold(0_u64, |sum, page| {
                let page = std::ptr::with_exposed_provenance::<u8>(page);
                // SAFETY: it is mapped as long as the program.
                sum.wrapping_mul(31) + u64::from(unsafe { page.read_volatile() })
            })
        };
        let first = read();
        let before = resident();
        assert!(before > 1 << 20, "all of it has been read: {before}");
        for segment in &segments {
            segment.give_back().unwrap();
        }
        let after = resident();
        assert!(after < before / 2, "{before} became {after}");
        assert_eq!(read(), first);
    }
}
