//! What this machine can do at best, measured: reading memory and multiplying. For reports of speed only; nothing is chosen by it.

use crate::artifact::target::has_feature;
use crate::kernels::peak::{self, ReadArgs};
use crate::memory::Region;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// Bytes to read where nobody should wait for it: more than most caches hold, and soon read.
pub const READ_BYTES: usize = 256 << 20;
/// Bytes to read at most.
const MOST_READ: usize = 1 << 30;

/// Ways to read, of which each is the fastest of some CPU: streams of a thread, bytes that lines are fetched ahead.
const WAYS: [(u64, u64); 4] = [(1, 0), (4, 0), (1, 2048), (4, 1024)];
/// Most streams of a way.
const STREAMS: u64 = 4;

/// In which arithmetic products are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32 multiply-add.
    F32,
    /// Products of bf16 summed in f32, by the instruction for it where there is one, else by widening to f32.
    Bf16,
    /// Weights of 4 bits by activations of 8, summed as wide as a group of 32 needs.
    Int4,
    /// 8 bits by 8 bits, summed in 32.
    Int8,
}

impl Arithmetic {
    /// That of the matrix products of a weight format.
    pub fn of_format(name: &str) -> Arithmetic {
        match name {
            _ if name.starts_with("q4") => Arithmetic::Int4,
            _ if name.starts_with("q8") => Arithmetic::Int8,
            "bf16" => Arithmetic::Bf16,
            _ => Arithmetic::F32,
        }
    }
    /// That of attention over a cache of that format: eight bits are multiplied as whole numbers.
    pub fn of_cache(name: &str) -> Arithmetic {
        match name {
            "i8" => Arithmetic::Int8,
            "bf16" => Arithmetic::Bf16,
            _ => Arithmetic::F32,
        }
    }
    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Arithmetic::F32 => "f32",
            Arithmetic::Bf16 => "bf16",
            Arithmetic::Int4 => "int4",
            Arithmetic::Int8 => "int8",
        }
    }
}

/// Bytes that are to be read if memory is to be measured and not a cache: four times the last cache of this machine, within bounds.
pub fn read_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let size = |level: usize| std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{level}/size")).ok();
        let largest = (0..8).filter_map(size).filter_map(|text| parse_kib(&text)).max().unwrap_or(0);
        largest.saturating_mul(4).clamp(READ_BYTES, MOST_READ)
    })
}

/// `2048K`, as the system writes sizes of caches, in bytes.
fn parse_kib(text: &str) -> Option<usize> {
    text.trim().strip_suffix('K')?.parse::<usize>().ok()?.checked_mul(1024)
}

/// Memory that was written once, kept for the next measurement: taking fresh memory costs more than reading it.
static BUFFER: Mutex<Option<Region>> = Mutex::new(None);

/// GB (1e9 bytes) per second that `threads` threads read from memory together: `bytes` in huge pages, each thread its own part from end to
/// end, in one stream or in four, with lines fetched ahead or without, whichever is fastest; the median of three passes of each. 0 if the system refuses the memory.
pub fn read_gbs(threads: usize, bytes: usize) -> f64 {
    let mut buffer = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
    if buffer.as_ref().is_none_or(|b| b.len() < bytes) {
        *buffer = None;
        let Ok(fresh) = Region::anonymous(bytes) else { return 0.0 };
        fill(&fresh, threads);
        *buffer = Some(fresh);
    }
    let Some(region) = buffer.as_ref() else { return 0.0 };
    let group = STREAMS as usize * peak::STREAM_BLOCK;
    let part = bytes / threads.max(1) / group * group;
    let peak = peak::best(true, has_feature);
    let pass = |(streams, ahead)| {
        together(threads, |t| {
            let args = ReadArgs { at: region.as_ptr().wrapping_add(t * part), bytes: part as u64, streams, ahead };
            // SAFETY: `best` gave a function for features that the CPU has. The parts lie in the region, which was written as a whole, and
            // which nobody writes to while the lock is held.
            unsafe { (peak.read)((&raw const args).cast()) }
        })
    };
    // In turn, so that all have the same share of a neighbour's noise.
    let mut seconds = [const { Vec::new() }; WAYS.len()];
    for _ in 0..3 {
        WAYS.iter().zip(&mut seconds).for_each(|(way, seconds)| seconds.push(pass(*way)));
    }
    let medians = seconds.map(|mut s| {
        s.sort_by(f64::total_cmp);
        s[s.len() / 2]
    });
    let seconds = medians.into_iter().fold(f64::INFINITY, f64::min);
    (part * threads.max(1)) as f64 / seconds / 1e9
}

/// Writes to a whole region, so that every page is its own memory: numbers that are small and finite as f32 and as bf16.
pub(crate) fn fill(region: &Region, threads: usize) {
    let words = region.len() / 4;
    together(threads, |t| {
        let (low, high) = (words * t / threads.max(1), words * (t + 1) / threads.max(1));
        // SAFETY: the parts of the threads are in the region and do not overlap; nobody else has the region yet.
        unsafe { std::slice::from_raw_parts_mut(region.as_ptr().cast::<u32>().add(low), high - low) }.fill(0x3c01_3c02);
    });
}

/// Multiply-accumulates per second of `threads` threads together, by the widest instructions of this CPU, from registers (integers:
/// activations from the L1 cache). Where there is no such loop for integers, the figure of f32.
pub fn macs(arithmetic: Arithmetic, threads: usize) -> f64 {
    let float = peak::best(arithmetic == Arithmetic::Bf16, has_feature);
    let ints = match arithmetic {
        Arithmetic::Int4 => peak::best_int(4, has_feature),
        Arithmetic::Int8 => peak::best_int(8, has_feature),
        _ => None,
    };
    let (run, macs_per_round) = ints.map_or((float.run, float.macs_per_round), |p| (p.run, p.macs_per_round));
    // About a millisecond each.
    let rounds = 1u64 << 18;
    let seconds = best(5, || {
        together(threads, |_| {
            // SAFETY: `best` gave a function for features that the CPU has; the argument is a number of rounds.
            unsafe { run((&raw const rounds).cast()) }
        })
    });
    (threads.max(1) as u64 * rounds * macs_per_round) as f64 / seconds
}

/// The least of the seconds that `measure` gives.
pub(crate) fn best(times: usize, mut measure: impl FnMut() -> f64) -> f64 {
    (0..times).map(|_| measure()).fold(f64::INFINITY, f64::min)
}

/// Seconds until all of `threads` threads have done `work`, which is given the number of its thread; they begin together.
pub(crate) fn together(threads: usize, work: impl Fn(usize) + Sync) -> f64 {
    let waiting = AtomicUsize::new(threads.max(1));
    let timed = &|t: usize| {
        waiting.fetch_sub(1, Ordering::AcqRel);
        while waiting.load(Ordering::Acquire) > 0 {
            std::thread::yield_now();
        }
        let start = Instant::now();
        work(t);
        start.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|t| scope.spawn(move || timed(t))).collect();
        let own = timed(0);
        others.into_iter().map(|other| other.join().unwrap_or(own)).fold(own, f64::max)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roofs_are_plausible() {
        for threads in [1, 2] {
            let read = read_gbs(threads, 16 << 20);
            assert!((0.1..10_000.0).contains(&read), "{read} GB/s");
            for arithmetic in [Arithmetic::F32, Arithmetic::Bf16, Arithmetic::Int4, Arithmetic::Int8] {
                let macs = macs(arithmetic, threads);
                assert!((1e8..1e13).contains(&macs), "{arithmetic:?} {macs}");
            }
        }
    }

    #[test]
    fn sizes_of_caches_are_read_and_bounded() {
        assert_eq!(parse_kib("307200K\n"), Some(300 << 20));
        assert_eq!((parse_kib("12M"), parse_kib("K"), parse_kib("99999999999999999999K")), (None, None, None));
        assert!((READ_BYTES..=MOST_READ).contains(&read_bytes()));
    }

    #[test]
    fn every_thread_works_once_and_the_slowest_counts() {
        let done = AtomicUsize::new(0);
        let seconds = together(3, |t| {
            done.fetch_add(t + 1, Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(t as u64));
        });
        assert_eq!(done.into_inner(), 6);
        assert!(seconds >= 2e-3);
    }
}
