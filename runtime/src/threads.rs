//! The team of threads that runs compiled steps: every thread runs the whole step, barriers inside are the generated code's. Workers
//! spin for a moment between steps and then sleep. No queue, no tasks.

use crate::abi::{StepContext, StepFn};
use std::cell::UnsafeCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a worker spins for the next step before it sleeps. Longer than what lies between two steps of one generation (sampling,
/// detokenizing), shorter than anybody notices on a battery. Waking a sleeper costs tens of microseconds.
const SPIN: Duration = Duration::from_micros(100);

/// Looks at the clock once in this many spins.
const SPINS_PER_LOOK: u32 = 64;

/// T-1 sleeping or spinning workers; the caller is thread 0.
#[derive(Debug)]
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// On its own cache lines, as what the workers poll must not move when somebody writes beside it.
#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

#[derive(Debug)]
struct Shared {
    /// Raised by one for every step; `job` is written before and read after.
    round: Line<AtomicU32>,
    /// Workers that have not finished the round.
    busy: Line<AtomicU32>,
    job: UnsafeCell<Job>,
    /// Per worker: it sleeps, or is about to.
    asleep: Vec<Line<AtomicBool>>,
}

#[derive(Debug, Clone, Copy)]
enum Job {
    Step(StepFn, *const StepContext),
    Stop,
}

// SAFETY: `job` is written by the team's owner only while no worker runs (`busy` is 0), and published by `round` (release, acquire). The
// pointers in it are used only during `Team::run`, whose caller promises that they may be shared.
unsafe impl Sync for Shared {}
// SAFETY: see `Sync`.
unsafe impl Send for Shared {}

impl Team {
    /// Starts `threads - 1` workers. With `pin`, worker `t` stays on the `t`-th CPU that the process may use.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn new(threads: usize, pin: bool) -> io::Result<Team> {
        let workers = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            round: Line(AtomicU32::new(0)),
            busy: Line(AtomicU32::new(0)),
            job: UnsafeCell::new(Job::Stop),
            asleep: (0..workers).map(|_| Line(AtomicBool::new(false))).collect(),
        });
        let mut team = Team { shared: Arc::clone(&shared), workers: Vec::with_capacity(workers) };
        let cpus = if pin { allowed_cpus() } else { Vec::new() };
        for i in 0..workers {
            let (shared, cpu) = (Arc::clone(&shared), cpus.get((i + 1) % cpus.len().max(1)).copied());
            let body = move || {
                if let Some(cpu) = cpu {
                    pin_to(cpu);
                }
                work(&shared, i);
            };
            team.workers.push(std::thread::Builder::new().name(format!("llamac-{}", i + 1)).stack_size(1 << 20).spawn(body)?);
        }
        Ok(team)
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs one step on all threads and waits for its end.
    ///
    /// # Safety
    /// `step` must be sound to call with `ctx` from `ctx.threads == self.threads()` threads at a time, and must not unwind.
    pub unsafe fn run(&mut self, step: StepFn, ctx: &StepContext) {
        self.start(Job::Step(step, ctx));
        // SAFETY: the caller's promise.
        unsafe { step(ctx, 0) };
        let mut spins = 0u32;
        while self.shared.busy.0.load(Ordering::Acquire) != 0 {
            spins += 1;
            // All threads leave a step together; who waits long shares its core with a worker.
            if spins > 1 << 12 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }

    fn start(&mut self, job: Job) {
        let shared = &*self.shared;
        // SAFETY: no worker is in a round: `busy` is 0 after `new` and after `run`.
        unsafe { *shared.job.get() = job };
        shared.busy.0.store(self.workers.len() as u32, Ordering::Relaxed);
        // Sequentially consistent here and in `work`: either the worker sees the round, or we see it asleep.
        shared.round.0.fetch_add(1, Ordering::SeqCst);
        for (asleep, worker) in shared.asleep.iter().zip(&self.workers) {
            if asleep.0.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.start(Job::Stop);
        for worker in self.workers.drain(..) {
            // A worker cannot panic: it runs generated code and the loop below.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        wait_for_round(shared, index, seen);
        seen = shared.round.0.load(Ordering::Acquire);
        // SAFETY: published by the round; not written again before `busy` is 0.
        match unsafe { *shared.job.get() } {
            Job::Stop => return,
            // SAFETY: the promise of `Team::run`'s caller, who waits for `busy`.
            Job::Step(step, ctx) => unsafe { step(ctx, index as u64 + 1) },
        }
        shared.busy.0.fetch_sub(1, Ordering::Release);
    }
}

fn wait_for_round(shared: &Shared, index: usize, seen: u32) {
    let due = |order| shared.round.0.load(order) != seen;
    let start = Instant::now();
    loop {
        for _ in 0..SPINS_PER_LOOK {
            if due(Ordering::Acquire) {
                return;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > SPIN {
            break;
        }
    }
    shared.asleep[index].0.store(true, Ordering::SeqCst);
    while !due(Ordering::SeqCst) {
        std::thread::park();
    }
    shared.asleep[index].0.store(false, Ordering::SeqCst);
}

/// Threads to run on when nobody says: one per physical core that this process may use, within its CPU quota.
pub fn default_threads() -> usize {
    let quota = std::thread::available_parallelism().map_or(1, |n| n.get());
    let cpus = allowed_cpus();
    let first_of_core = |cpu: &&usize| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        // `0,64` or `0-1`: siblings of one core, ascending. Counted where the first allowed one of them is.
        let Ok(list) = std::fs::read_to_string(path) else { return true };
        parse_cpu_list(&list).into_iter().find(|s| cpus.contains(s)).is_none_or(|first| first == **cpu)
    };
    let cores = if quota == 1 { 1 } else { cpus.iter().filter(first_of_core).count() };
    cores.clamp(1, quota)
}

/// `0-2,8` -> 0, 1, 2, 8. What is no number is skipped.
fn parse_cpu_list(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse::<usize>().ok()?..=to.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

/// CPUs of this thread's affinity mask, ascending.
fn allowed_cpus() -> Vec<usize> {
    // SAFETY: a plain bit set, for which zero is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is writable and of the size given.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } != 0 {
        return vec![0];
    }
    // SAFETY: the index is below the size of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Best effort: a thread that cannot be pinned runs anywhere.
fn pin_to(cpu: usize) {
    // SAFETY: as in `allowed_cpus`; the index came from there.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{Barrier, KvGroup, RowSet};
    use std::ptr::{null, null_mut};
    use std::sync::atomic::AtomicU64;

    fn context(threads: usize, barrier: &mut Barrier, counters: &[AtomicU64]) -> StepContext {
        let rows = || RowSet { n: 0, index: null(), pos: null(), page: [null(); 2], tiles: null(), n_tiles: 0 };
        let kv = || KvGroup { base: null_mut(), page_bytes: 0, tables: null(), table_stride: 0 };
        StepContext {
            kernels: null(),
            weights: counters.as_ptr().cast(),
            arena: null_mut(),
            scratch: null_mut(),
            threads: threads as u64,
            barrier,
            schedule: null(),
            schedule_len: 0,
            tokens: null(),
            rows: [rows(), rows()],
            kv: [kv(), kv()],
            work: null(),
            parts: null_mut(),
            shared_parts: [[0; 2]; 2],
        }
    }

    /// Counts calls per thread, with a barrier in the middle as generated code has it.
    unsafe extern "C" fn count(ctx: *const StepContext, thread: u64) {
        // SAFETY: the tests pass a context with counters and a barrier that live through the call.
        unsafe {
            let (ctx, barrier) = (&*ctx, &*(*ctx).barrier);
            let counters = std::slice::from_raw_parts(ctx.weights.cast::<AtomicU64>(), ctx.threads as usize);
            counters[thread as usize].fetch_add(1, Ordering::Relaxed);
            let generation = barrier.generation.load(Ordering::Acquire);
            if barrier.arrived.fetch_add(1, Ordering::AcqRel) + 1 == ctx.threads {
                barrier.arrived.store(0, Ordering::Relaxed);
                barrier.generation.fetch_add(1, Ordering::Release);
            }
            while barrier.generation.load(Ordering::Acquire) == generation {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn every_thread_runs_every_step_once_spinning_and_asleep() {
        for threads in [1, 2, 5] {
            let mut team = Team::new(threads, threads == 2).expect("threads");
            assert_eq!(team.threads(), threads);
            let counters: Vec<AtomicU64> = (0..threads).map(|_| AtomicU64::new(0)).collect();
            let mut barrier = Barrier::default();
            let ctx = context(threads, &mut barrier, &counters);
            for i in 0..300u64 {
                // SAFETY: `count` may run on all threads with this context.
                unsafe { team.run(count, &ctx) };
                assert!(counters.iter().all(|c| c.load(Ordering::Relaxed) == i + 1));
                if i % 100 == 99 {
                    std::thread::sleep(SPIN * 20);
                }
            }
        }
    }

    #[test]
    fn the_default_number_of_threads_is_at_least_one_and_lists_of_cpus_are_read() {
        assert!((1..=allowed_cpus().len()).contains(&default_threads()));
        assert_eq!(parse_cpu_list("0-2,8\n"), [0, 1, 2, 8]);
        assert_eq!(parse_cpu_list("x,3"), [3]);
    }
}
