//! A section of fixed size that several threads write piece by piece: pieces are joined into large aligned blocks, which the system keeps
//! in huge pages, and hashed in order just before they are written. The rest of a file is written by `writer`.

use super::pace::{BLOCK, Pace};
use super::writer::WriteError;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Bytes that are held for a piece that comes late. Beyond, pieces go to the file at once and are read back to be hashed.
const HELD: usize = 64 << 20;

/// Blocks that may wait for a stage; then the threads that bring more wait too.
const QUEUED: usize = 8;

/// Bytes of buffers that are kept to be used again. Memory that is asked for anew is cleared by the system, page by page.
const KEPT: usize = 32 << 20;

/// A shorter piece is copied behind its neighbour, so that blocks have few parts.
const SHORT: usize = 16 << 10;

/// Where a section lies in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'f> {
    pub(super) file: &'f File,
    /// First byte in the file.
    pub(super) offset: u64,
    /// Length of the section.
    pub(super) bytes: u64,
    /// Name of the section, for messages.
    pub(super) name: &'static str,
}

/// Takes pieces in any order; hashes them in order and writes them.
#[derive(Debug)]
pub(super) struct Joiner {
    state: Mutex<Frontier>,
    /// In the order of the section.
    hash: Stage<blake3::Hasher>,
    /// What is hashed.
    write: Stage<Pace>,
    /// Buffers that were written.
    free: Mutex<Vec<Vec<u8>>>,
}

/// Work that one thread does at a time: the hash is a chain, and the system lets only one write to a file and makes others spin. Other threads
/// had better do the other stage, or make the next pieces.
#[derive(Debug, Default)]
struct Stage<T> {
    queue: Mutex<VecDeque<Task>>,
    /// Held by the thread that works on the queue.
    turn: Mutex<T>,
}

impl<T> Stage<T> {
    fn add(&self, tasks: impl IntoIterator<Item = Task>) {
        held(&self.queue).extend(tasks);
    }

    /// Works until nothing waits. Leaves it to the thread that does so already, unless too much waits or `all` has to be done.
    fn work(&self, all: bool, mut each: impl FnMut(&mut T, Task) -> io::Result<()>) -> Result<(), Failed> {
        let wait = all || held(&self.queue).len() > QUEUED;
        let mut turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) if wait => held(&self.turn),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        loop {
            let Some(task) = held(&self.queue).pop_front() else { return Ok(()) };
            each(&mut turn, task).map_err(Failed::Io)?;
        }
    }
}

/// What waits.
#[derive(Debug)]
enum Task {
    /// Where in the section, and parts, one after the other, to hash and to write.
    Write(u64, Vec<Vec<u8>>),
    /// First byte and length of what is in the file and not hashed.
    Hash(u64, u64),
}

/// Everything before `next` was taken.
#[derive(Debug, Default)]
struct Frontier {
    next: u64,
    /// The last bytes before `next`, not yet in the queue: they are less than a block.
    block: Vec<Vec<u8>>,
    /// Bytes in `block`.
    length: usize,
    /// Pieces behind a gap, by offset.
    waiting: BTreeMap<u64, Ahead>,
    /// Bytes in `waiting`.
    held: usize,
}

#[derive(Debug)]
enum Ahead {
    Held(Vec<u8>),
    /// In the file already; its length.
    Written(u64),
}

/// Work that has come up.
type Full = Vec<Task>;

impl Joiner {
    pub(super) fn new() -> Joiner {
        Joiner { state: Mutex::default(), hash: Stage::default(), write: Stage::default(), free: Mutex::default() }
    }

    /// A buffer for a piece, with whatever was in it.
    pub(super) fn buffer(&self) -> Vec<u8> {
        held(&self.free).pop().unwrap_or_default()
    }

    /// Takes a piece.
    pub(super) fn take(&self, place: Place<'_>, offset: u64, bytes: Vec<u8>) -> Result<(), Failed> {
        let length = bytes.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > place.bytes) {
            return Err(misuse(format!("{length} bytes at {offset} leave section {} of {}", place.name, place.bytes)));
        }
        let mut state = self.lock();
        if offset < state.next || state.waiting.contains_key(&offset) {
            return Err(misuse(format!("{length} bytes at {offset} overwrite section {}", place.name)));
        }
        if offset > state.next {
            return state.keep(place, offset, bytes);
        }
        let mut full = Full::new();
        state.append(place, bytes, &mut full);
        state.drain(place, &mut full)?;
        // Before the frontier is free for others, so that the queue is in its order.
        self.hash.add(full);
        drop(state);
        self.work(place, false)
    }

    /// Says that nobody writes before `offset` any more: what is missing there is zero.
    pub(super) fn fill_to(&self, place: Place<'_>, offset: u64) -> Result<(), Failed> {
        let (mut state, mut full) = (self.lock(), Full::new());
        state.fill_to(place, offset.min(place.bytes), &mut full)?;
        // Before the frontier is free for others, so that the queue is in its order.
        self.hash.add(full);
        drop(state);
        self.work(place, false)
    }

    /// The hash of the section, all of which is in the file then. What nobody wrote is zero.
    pub(super) fn finish(&self, place: Place<'_>) -> Result<blake3::Hash, Failed> {
        let mut state = self.lock();
        let mut full = Full::new();
        state.fill_to(place, place.bytes, &mut full)?;
        state.flush(&mut full);
        self.hash.add(full);
        drop(state);
        self.work(place, true)?;
        Ok(held(&self.hash.turn).finalize())
    }

    fn lock(&self) -> MutexGuard<'_, Frontier> {
        held(&self.state)
    }

    /// Does what waits, as far as no other thread does it; all of it if that is wanted.
    fn work(&self, place: Place<'_>, all: bool) -> Result<(), Failed> {
        self.hash.work(all, |hasher, task| {
            match &task {
                Task::Write(_, parts) => parts.iter().for_each(|part| _ = hasher.update(part)),
                Task::Hash(at, length) => return hash_file(place.file, place.offset + at, *length, hasher),
            }
            self.write.add([task]);
            Ok(())
        })?;
        self.write.work(all, |pace, task| {
            if let Task::Write(at, parts) = task {
                pace.write(place.file, place.offset + at, &parts)?;
                self.keep(parts);
            }
            Ok(())
        })
    }

    fn keep(&self, parts: Vec<Vec<u8>>) {
        let mut free = held(&self.free);
        let kept: usize = free.iter().map(Vec::capacity).sum();
        if kept < KEPT {
            free.extend(parts.into_iter().filter(|part| part.capacity() > SHORT));
        }
    }
}

/// A lock whose holder left nothing half done, whatever became of it.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Frontier {
    /// Puts a piece aside that lies behind a gap.
    fn keep(&mut self, place: Place<'_>, offset: u64, bytes: Vec<u8>) -> Result<(), Failed> {
        if self.held + bytes.len() <= HELD {
            self.held += bytes.len();
            self.waiting.insert(offset, Ahead::Held(bytes));
            return Ok(());
        }
        place.file.write_all_at(&bytes, place.offset + offset).map_err(Failed::Io)?;
        self.waiting.insert(offset, Ahead::Written(bytes.len() as u64));
        Ok(())
    }

    /// Adds bytes at the frontier; `full` gets the blocks that this completes.
    fn append(&mut self, place: Place<'_>, mut bytes: Vec<u8>, full: &mut Full) {
        while !bytes.is_empty() {
            let room = BLOCK - ((place.offset + self.next) % BLOCK as u64) as usize;
            let later = bytes.split_off(room.min(bytes.len()));
            let complete = bytes.len() == room;
            self.next += bytes.len() as u64;
            self.length += bytes.len();
            match self.block.last_mut() {
                Some(last) if bytes.len() <= SHORT => last.extend_from_slice(&bytes),
                _ => self.block.push(bytes),
            }
            if complete {
                self.flush(full);
            }
            bytes = later;
        }
    }

    /// Takes the pieces that the frontier has reached.
    fn drain(&mut self, place: Place<'_>, full: &mut Full) -> Result<(), Failed> {
        while let Some(first) = self.waiting.first_entry() {
            if *first.key() > self.next {
                break;
            }
            if *first.key() < self.next {
                return Err(misuse(format!("the bytes at {} of section {} are written twice", first.key(), place.name)));
            }
            match first.remove() {
                Ahead::Held(bytes) => {
                    self.held -= bytes.len();
                    self.append(place, bytes, full);
                }
                Ahead::Written(length) => {
                    self.flush(full);
                    full.push(Task::Hash(self.next, length));
                    self.next += length;
                }
            }
        }
        Ok(())
    }

    fn fill_to(&mut self, place: Place<'_>, offset: u64, full: &mut Full) -> Result<(), Failed> {
        while self.next < offset {
            let gap = self.waiting.first_key_value().map_or(offset, |(at, _)| (*at).min(offset)) - self.next;
            self.append(place, vec![0; gap.min(BLOCK as u64) as usize], full);
            self.drain(place, full)?;
        }
        Ok(())
    }

    /// Hands out what is in the block, complete or not.
    fn flush(&mut self, full: &mut Full) {
        if !self.block.is_empty() {
            let length = std::mem::take(&mut self.length) as u64;
            full.push(Task::Write(self.next - length, std::mem::take(&mut self.block)));
        }
    }
}

/// Why a piece was not taken.
#[derive(Debug)]
pub(super) enum Failed {
    /// The system refuses.
    Io(io::Error),
    /// A bug of the caller.
    Misuse(WriteError),
}

fn misuse(what: String) -> Failed {
    Failed::Misuse(WriteError::Misuse(what))
}

fn hash_file(file: &File, mut offset: u64, mut length: u64, hasher: &mut blake3::Hasher) -> io::Result<()> {
    let mut buffer = vec![0; length.min(1 << 20) as usize];
    while length > 0 {
        let n = length.min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..n], offset)?;
        hasher.update(&buffer[..n]);
        offset += n as u64;
        length -= n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn file(name: &str) -> File {
        let path = std::env::temp_dir().join(format!("llamac-sized-{name}-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("open");
        std::fs::remove_file(path).expect("remove");
        file
    }

    /// Data with gaps of zeros, and its pieces `(offset, length)` in order.
    fn data(bytes: usize, rng: &mut Rng) -> (Vec<u8>, Vec<(usize, usize)>) {
        let (mut data, mut pieces, mut at) = (vec![0; bytes], Vec::new(), 0);
        while at < bytes {
            let length = (rng.next_u64() as usize % 300_000 + 1).min(bytes - at);
            data[at..at + length].iter_mut().for_each(|b| *b = rng.next_u64() as u8);
            pieces.push((at, length));
            at += length + if rng.next_u64().is_multiple_of(4) { 64 } else { 0 };
        }
        (data, pieces)
    }

    #[test]
    fn pieces_in_any_order_give_the_bytes_and_the_hash_of_the_section() {
        let mut rng = Rng::new(1);
        for (offset, shuffle) in [(0, 1), (65536, 3), (BLOCK as u64, 1000)] {
            let (data, mut pieces) = data(7_000_001, &mut rng);
            for i in 0..pieces.len() {
                let j = (i + rng.next_u64() as usize % shuffle).min(pieces.len() - 1);
                pieces.swap(i, j);
            }
            let file = file("order");
            file.set_len(offset + data.len() as u64).expect("length");
            let place = Place { file: &file, offset, bytes: data.len() as u64, name: "weights" };
            let joiner = Joiner::new();
            for (at, length) in pieces {
                joiner.take(place, at as u64, data[at..at + length].to_vec()).expect("taken");
            }
            assert_eq!(joiner.finish(place).expect("finished"), blake3::hash(&data));
            let mut found = vec![0; data.len()];
            file.read_exact_at(&mut found, offset).expect("read");
            assert!(found == data, "section at {offset}");
        }
    }

    #[test]
    fn threads_that_write_side_by_side_give_the_bytes_and_the_hash() {
        let mut rng = Rng::new(2);
        let (data, pieces) = data(60_000_000, &mut rng);
        let file = file("threads");
        let place = Place { file: &file, offset: 65536, bytes: data.len() as u64, name: "weights" };
        let (joiner, next) = (Joiner::new(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some((at, length)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                        joiner.take(place, *at as u64, data[*at..at + length].to_vec()).expect("taken");
                    }
                });
            }
        });
        assert_eq!(joiner.finish(place).expect("finished"), blake3::hash(&data));
        let mut found = vec![0; data.len()];
        file.read_exact_at(&mut found, 65536).expect("read");
        assert!(found == data);
    }

    #[test]
    fn what_is_too_much_to_hold_is_written_and_read_back() {
        let data: Vec<u8> = (0..HELD + 3 * BLOCK).map(|i| (i % 251) as u8).collect();
        let file = file("held");
        let place = Place { file: &file, offset: 65536, bytes: data.len() as u64, name: "weights" };
        let joiner = Joiner::new();
        let half = BLOCK / 2;
        for at in (half..data.len()).step_by(half) {
            joiner.take(place, at as u64, data[at..at + half].to_vec()).expect("taken");
        }
        assert!(joiner.lock().waiting.values().any(|w| matches!(w, Ahead::Written(_))));
        assert!(joiner.lock().held <= HELD);
        joiner.take(place, 0, data[..half].to_vec()).expect("taken");
        assert_eq!(joiner.finish(place).expect("finished"), blake3::hash(&data));
        let mut found = vec![0; data.len()];
        file.read_exact_at(&mut found, 65536).expect("read");
        assert!(found == data);
    }

    #[test]
    fn a_gap_that_is_declared_is_zero_and_what_comes_too_late_is_refused() {
        let file = file("gap");
        let place = Place { file: &file, offset: 0, bytes: 100, name: "weights" };
        let joiner = Joiner::new();
        joiner.take(place, 0, vec![1; 10]).expect("taken");
        joiner.fill_to(place, 64).expect("filled");
        assert!(matches!(joiner.take(place, 32, vec![2; 4]), Err(Failed::Misuse(_))));
        assert!(matches!(joiner.take(place, 90, vec![2; 11]), Err(Failed::Misuse(_))));
        joiner.take(place, 64, vec![3; 4]).expect("taken");
        let mut expected = [0; 100];
        expected[..10].fill(1);
        expected[64..68].fill(3);
        assert_eq!(joiner.finish(place).expect("finished"), blake3::hash(&expected));
        let mut found = [9; 100];
        file.read_exact_at(&mut found, 0).expect("read");
        assert_eq!(found, expected);
    }
}
