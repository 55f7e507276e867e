//! How much of a mapped file a process has touched, and how much of that the system maps in huge pages: where it is little, reading is slower
//! than memory is. Linux only; elsewhere nothing is known.

use std::path::Path;

/// Bytes of this process's mappings of a file that its page tables have, and of these the ones in huge pages; `None` if the system does not tell.
/// A page gets there when it is first touched, with up to 15 neighbours that are in memory anyway.
pub fn mapped(path: &Path) -> Option<(u64, u64)> {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    count(&std::fs::read_to_string("/proc/self/smaps").ok()?, full.to_str()?)
}

fn count(smaps: &str, path: &str) -> Option<(u64, u64)> {
    let (mut inside, mut resident, mut huge) = (false, 0, 0);
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
            "Rss:" if inside => resident += bytes,
            "FilePmdMapped:" if inside => huge += bytes,
            _ => {}
        }
    }
    (resident > 0).then_some((resident, huge))
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
FilePmdMapped:      2048 kB
7f10-7f20 r-xp 00000000 08:01 42 /models/b.so
Rss:                 100 kB
FilePmdMapped:         8 kB
7f20-7f30 rw-p 00000000 00:00 0
Rss:                 100 kB
";
        assert_eq!(count(smaps, "/models/a.llx"), Some((3000 * 1024, 2048 * 1024)));
        assert_eq!(count(smaps, "/models/c.llx"), None);
    }
}
