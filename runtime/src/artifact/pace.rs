//! Writing one block of a file: in one call, so that the page cache keeps it in a huge page, or in small parts for a while where the system is
//! slow to give huge pages. What blocks are made of and in which order they come is `sized`'s matter.

use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// What is written at a time, at multiples of it in the file: a huge page. The page cache makes its pages as large as the writes are, and a
/// file in huge pages is read faster when it is mapped.
pub(super) const BLOCK: usize = 2 << 20;

/// What is written at a time where huge pages come slowly.
const SMALL: usize = 64 << 10;

/// Processor time that a block may take. Copying takes 0.8 ms on a slow machine, 3 ms where a host must first find the memory for it. Huge pages are
/// worth that: they are read in every run. Where the host has taken free memory back and gives it page by page, large free blocks are the first
/// that it took, so small parts find memory that is still there.
const PATIENCE: Duration = Duration::from_millis(6);

/// Slow blocks one after the other that are not taken for chance.
const SLOW: u32 = 2;

/// Blocks that are written in small parts after the first slow ones; each time twice as many.
const FIRST_PAUSE: u32 = 32;

/// How blocks are written now.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Slow blocks since the last fast one.
    slow: u32,
    /// Blocks still to be written in small parts.
    pause: u32,
    /// The last pause.
    last: u32,
}

impl Pace {
    /// Writes the parts of a block, one after the other, at a place of the file. Moves the file's cursor.
    pub(super) fn write(&mut self, file: &File, at: u64, parts: &[Vec<u8>]) -> io::Result<()> {
        if self.pause > 0 {
            self.pause -= 1;
            return in_parts(file, at, parts, SMALL);
        }
        let before = processor_time();
        at_once(file, at, parts)?;
        if parts.iter().map(Vec::len).sum::<usize>() == BLOCK {
            self.took(processor_time().saturating_sub(before));
        }
        Ok(())
    }

    fn took(&mut self, time: Duration) {
        if time <= PATIENCE {
            *self = Pace::default();
            return;
        }
        self.slow += 1;
        if self.slow >= SLOW {
            self.last = (self.last * 2).max(FIRST_PAUSE);
            (self.pause, self.slow) = (self.last, 0);
        }
    }
}

/// Of this thread. Not the time that it waits: a slow disk is slow for small parts too.
fn processor_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable. Where the clock is unknown, no time passes.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

fn at_once(mut file: &File, at: u64, parts: &[Vec<u8>]) -> io::Result<()> {
    let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    file.seek(SeekFrom::Start(at))?;
    let written = match file.write_vectored(&slices) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
        written => written?,
    };
    // Seldom: the call took less than all of it.
    let (mut at, mut skip) = (at + written as u64, written);
    for part in parts {
        let rest = &part[skip.min(part.len())..];
        skip = skip.saturating_sub(part.len());
        file.write_all_at(rest, at)?;
        at += rest.len() as u64;
    }
    Ok(())
}

fn in_parts(file: &File, mut at: u64, parts: &[Vec<u8>], bytes: usize) -> io::Result<()> {
    for part in parts.iter().flat_map(|part| part.chunks(bytes)) {
        file.write_all_at(part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_reach_the_file_one_after_the_other_at_once_or_small() {
        let path = std::env::temp_dir().join(format!("llamac-pace-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("open");
        std::fs::remove_file(path).expect("remove");
        let parts: Vec<Vec<u8>> = [SMALL + 1, 0, 7, 3 * SMALL].iter().zip(1..).map(|(n, byte)| vec![byte; *n]).collect();
        let all = parts.concat();
        for (at, pause) in [(5, 0), (1 << 20, 1)] {
            Pace { pause, ..Pace::default() }.write(&file, at, &parts).expect("written");
            let mut found = vec![0; all.len()];
            file.read_exact_at(&mut found, at).expect("read");
            assert!(found == all, "at {at}");
        }
    }

    #[test]
    fn slow_blocks_are_followed_by_pauses_that_grow_until_one_is_fast() {
        let mut pace = Pace::default();
        let mut pauses = Vec::new();
        for time in [9, 1, 9, 9, 9, 9, 9, 9, 1, 9, 9] {
            pace.took(Duration::from_millis(time));
            pauses.push(std::mem::take(&mut pace.pause));
        }
        assert_eq!(pauses, [0, 0, 0, 32, 0, 64, 0, 128, 0, 0, 32]);
    }
}
