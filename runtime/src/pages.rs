//! How much of a mapped file a process has touched, since it began or since it was last asked to forget, and how much of that the system maps
//! in huge pages: where it is little, reading is slower than memory is. Linux only; elsewhere nothing is known.

use crate::memory::HUGE_PAGE;
use std::io;
use std::path::Path;

/// What the page tables of this process say of its mappings of one file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// What the page tables have: a page gets there when it is first touched, with neighbours that are in memory anyway.
    pub resident: u64,
    /// Of these, the ones in huge pages (2 MiB).
    pub huge: u64,
    /// What was read since the pages came or since [`forget_accesses`], as the processor has marked it, in whole pages, small or huge.
    pub accessed: u64,
}

/// What the page tables have of a file; `None` if that is nothing or the system does not tell.
pub fn mapped(path: &Path) -> Option<Mapped> {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    count(&std::fs::read_to_string("/proc/self/smaps").ok()?, full.to_str()?)
}

/// Takes the processor's mark from every page of this process, so that [`Mapped::accessed`] counts from here. Pages stay mapped.
///
/// # Errors
/// Where the system has no `/proc/self/clear_refs`.
pub fn forget_accesses() -> io::Result<()> {
    std::fs::write("/proc/self/clear_refs", "1\n")?;
    // A processor marks a page when it walks the tables to it, not while its translation buffers know it. The system empties them for pages
    // that go away: wholly, if these are more than 33.
    let mut passing = vec![0_u8; 80 * HUGE_PAGE];
    passing.iter_mut().step_by(HUGE_PAGE).for_each(|byte| *byte = 1);
    std::hint::black_box(&passing);
    Ok(())
}

fn count(smaps: &str, path: &str) -> Option<Mapped> {
    let (mut inside, mut sum) = (false, Mapped { resident: 0, huge: 0, accessed: 0 });
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if !first.ends_with(':') {
            // `7f..-7f.. r--s offset device inode path`, perhaps `(deleted)`.
            inside = line.split_once('/').is_some_and(|(_, rest)| path.strip_prefix('/').is_some_and(|p| rest.starts_with(p)));
            continue;
        }
        let bytes = words.next().and_then(|n| n.parse::<u64>().ok()).map_or(0, |kib| kib * 1024);
        match first {
            "Rss:" if inside => sum.resident += bytes,
            "FilePmdMapped:" if inside => sum.huge += bytes,
            "Referenced:" if inside => sum.accessed += bytes,
            _ => {}
        }
    }
    (sum.resident > 0).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_file_alone_are_counted() {
        let smaps = "\
7f00-7f10 r--s 00000000 08:01 42 /models/a.llx (deleted)
Size:               4096 kB
Rss:                3000 kB
Referenced:           12 kB
FilePmdMapped:      2048 kB
7f10-7f20 r-xp 00000000 08:01 42 /models/b.so
Rss:                 100 kB
Referenced:          100 kB
FilePmdMapped:         8 kB
7f20-7f30 rw-p 00000000 00:00 0
Rss:                 100 kB
";
        let expected = Mapped { resident: 3000 * 1024, huge: 2048 * 1024, accessed: 12 * 1024 };
        assert_eq!(count(smaps, "/models/a.llx"), Some(expected));
        assert_eq!(count(smaps, "/models/c.llx"), None);
    }
}
