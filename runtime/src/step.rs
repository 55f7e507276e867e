//! The engine: runs compiled steps over ragged batches. It owns what a step needs (code, weights, arena, cache, threads) and knows no
//! text and no sampling.

mod cache;
mod error;

pub use cache::{KvLayer, KvRows};
pub use error::EngineError;

use crate::abi::{ABI_SKIPS, Barrier, Kernel, PARTS_BYTES, SCRATCH_BYTES, SKIPPED, ScheduleEntry, StepContext, StepFn, Work};
use crate::artifact::Artifact;
use crate::batch::{SeqInput, StepRows, chunks};
use crate::kv::KvCache;
use crate::memory::{LoadMode, Region};
use crate::threads::{Team, default_threads};
use std::io;
use std::ops::Range;
use std::time::Instant;

/// How to run an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineOptions {
    /// Threads, the caller's included; `None`: one per physical core that the process may use.
    pub threads: Option<usize>,
    /// Keep every worker on its CPU.
    pub pin: bool,
    /// Tokens that a sequence may have; `None`: what the artifact was compiled for, which is also the most.
    pub max_context: Option<usize>,
    /// Sequences at a time; `None`: what the artifact was compiled for, which is also the most.
    pub max_batch: Option<usize>,
    /// How weights come into memory.
    pub load: LoadMode,
    /// Run only these entries of the schedule, in the schedule's order; empty: all. For check vectors.
    pub schedule: Vec<usize>,
}

/// Runs steps. One per session; sequences live in its slots.
#[derive(Debug)]
pub struct Engine {
    // Dropped first: no thread may outlive what follows.
    team: Team,
    step: StepFn,
    kernels: Vec<Kernel>,
    schedule: Vec<ScheduleEntry>,
    barrier: Box<Barrier>,
    work: Vec<Work>,
    arena: Region,
    scratch: Region,
    parts: Region,
    kv: KvCache,
    taken: Vec<bool>,
    rows: StepRows,
    /// Logits of all chunks, when there are more than one.
    collected: Vec<f32>,
    first_step: Option<Instant>,
    weights: Region,
    artifact: Artifact,
    /// Owns what `step` points to.
    _code: Region,
}

/// Logits of the rows that a batch wanted: inputs in order, rows of an input by position.
#[derive(Debug)]
pub struct LogitsView<'a> {
    data: &'a [f32],
    stride: usize,
    vocab: usize,
    /// Rows of each input.
    inputs: Vec<Range<usize>>,
}

impl<'a> LogitsView<'a> {
    /// Number of rows of all inputs.
    pub fn rows(&self) -> usize {
        self.inputs.last().map_or(0, |r| r.end)
    }

    /// Row `i` of all rows, `f32[vocab]`.
    ///
    /// # Panics
    /// There is no such row.
    pub fn row(&self, i: usize) -> &'a [f32] {
        assert!(i < self.rows(), "row {i} of {}", self.rows());
        &self.data[i * self.stride..][..self.vocab]
    }

    /// Rows of an input of the batch.
    ///
    /// # Panics
    /// There is no such input.
    pub fn of(&self, input: usize) -> impl Iterator<Item = &'a [f32]> + '_ {
        self.inputs[input].clone().map(|i| self.row(i))
    }

    /// The last row of the last input, if any row was wanted.
    pub fn last(&self) -> Option<&'a [f32]> {
        self.rows().checked_sub(1).map(|i| self.row(i))
    }
}

impl Engine {
    /// Maps code and weights, takes memory, starts threads. No weight is read.
    ///
    /// # Errors
    /// An artifact that was opened without checks and does not fit this machine, or the system refuses memory or threads.
    pub fn new(artifact: &Artifact, options: &EngineOptions) -> Result<Engine, EngineError> {
        crate::artifact::target::check_target(&artifact.meta().target)?;
        let code = artifact.map_code()?;
        let entry = code.as_ptr().wrapping_add(artifact.meta().entry as usize);
        // SAFETY: `entry` lies in the code (checked when the artifact was opened), which is for this CPU (checked above) and was written
        // by the compiler as a function of this signature: its hash was compared. `code` lives as long as the engine.
        let step = unsafe { std::mem::transmute::<*mut u8, StepFn>(entry) };
        Engine::with_step(artifact, options, step, code)
    }

    /// An engine around a given step function; tests bring their own.
    pub(crate) fn with_step(artifact: &Artifact, options: &EngineOptions, step: StepFn, code: Region) -> Result<Engine, EngineError> {
        let meta = artifact.meta();
        let limit = |what, asked: Option<usize>, most| match asked {
            Some(found) if !(1..=most).contains(&found) => Err(EngineError::BadOption { what, found, most }),
            asked => Ok(asked.unwrap_or(most)),
        };
        let max_context = limit("max_context", options.max_context, meta.model.max_context)?;
        let slots = limit("max_batch", options.max_batch, meta.plan.max_batch)?;
        let threads = match options.threads {
            Some(n) => limit("threads", Some(n), 1024)?,
            None => default_threads(),
        };
        let entry = |&found: &usize| {
            let most = meta.schedule.len().saturating_sub(1);
            meta.schedule.get(found).copied().ok_or(EngineError::BadOption { what: "schedule entry", found, most })
        };
        let schedule = match options.schedule.as_slice() {
            [] => meta.schedule.clone(),
            _ if meta.target.abi < ABI_SKIPS => return Err(EngineError::TooOld { abi: meta.target.abi, needs: ABI_SKIPS }),
            some => {
                let mut kept = meta.schedule.iter().map(|call| ScheduleEntry { function: SKIPPED, ..*call }).collect::<Vec<_>>();
                for at in some {
                    let call = entry(at)?;
                    kept[*at] = call;
                }
                kept
            }
        };
        let memory = |what, bytes: u64| {
            let region = usize::try_from(bytes).map_err(io::Error::other).and_then(Region::anonymous);
            region.map_err(|error| EngineError::OutOfMemory { what, bytes, error })
        };
        let arena = memory("activations", meta.plan.arena_bytes)?;
        let scratch = memory("thread scratch", (threads * SCRATCH_BYTES) as u64)?;
        let parts = memory("parts of attention", (threads * PARTS_BYTES) as u64)?;
        let kv = KvCache::new(&meta.plan.kv, slots, max_context).map_err(|error| {
            let tokens = (slots * max_context) as u64;
            let per_token = meta.plan.kv.iter().map(|k| k.page_bytes / crate::abi::PAGE_TOKENS as u64).sum::<u64>();
            EngineError::OutOfMemory { what: "KV cache", bytes: tokens.saturating_mul(per_token), error }
        })?;
        let weights = artifact.load_weights(options.load)?;
        let kernels = artifact.kernels()?;
        let team = Team::new(threads, options.pin).map_err(|error| EngineError::Threads { threads, error })?;
        Ok(Engine {
            team,
            step,
            kernels,
            schedule,
            barrier: Box::default(),
            work: std::iter::repeat_with(Work::default).take(threads).collect(),
            arena,
            scratch,
            parts,
            taken: vec![false; kv.slots()],
            kv,
            rows: StepRows::new(meta.target.abi),
            collected: Vec::new(),
            first_step: None,
            weights,
            artifact: artifact.clone(),
            _code: code,
        })
    }

    /// The artifact that runs here.
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    /// Threads that run every step.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// The cache: lengths of the sequences, memory in use.
    pub fn kv(&self) -> &KvCache {
        &self.kv
    }

    /// When the first step began.
    pub fn first_step(&self) -> Option<Instant> {
        self.first_step
    }

    /// Claims a free slot for a new sequence. Slots may also be used without; then the caller keeps the books.
    ///
    /// # Errors
    /// [`EngineError::NoFreeSlot`].
    pub fn acquire_slot(&mut self) -> Result<usize, EngineError> {
        let slots = self.taken.len();
        let slot = self.taken.iter().position(|t| !t).ok_or(EngineError::NoFreeSlot { slots })?;
        self.taken[slot] = true;
        Ok(slot)
    }

    /// Ends a sequence: its pages and its slot are free again.
    pub fn release_slot(&mut self, slot: usize) {
        self.truncate(slot, 0);
        if let Some(taken) = self.taken.get_mut(slot) {
            *taken = false;
        }
    }

    /// Forgets the tokens of a sequence from position `length` on; returns how many are left, see [`KvCache::truncate`].
    pub fn truncate(&mut self, slot: usize, length: usize) -> usize {
        self.kv.truncate(slot, length)
    }

    /// Appends tokens that are not computed: their keys and values are a constant. For measuring a step at a depth.
    ///
    /// # Errors
    /// [`EngineError::BadSlot`], [`EngineError::ContextFull`].
    pub fn append_constant(&mut self, slot: usize, tokens: usize) -> Result<(), EngineError> {
        let (slots, max, length) = (self.kv.slots(), self.kv.max_context(), self.kv.len(slot));
        if slot >= slots {
            return Err(EngineError::BadSlot { slot, slots });
        }
        if tokens > max - length {
            return Err(EngineError::ContextFull { slot, length, new: tokens, max });
        }
        self.kv.extend_constant(slot, tokens);
        Ok(())
    }

    /// Appends new tokens to sequences and computes the logits that are wanted. A batch of any size: it is run in as many compiled
    /// steps as the buffers ask for. The result of a row depends on nothing but the tokens of its sequence: neither on the other inputs,
    /// nor on how a sequence was cut into calls, nor on the number of threads.
    ///
    /// # Errors
    /// The batch is refused as a whole, before anything is run.
    pub fn step(&mut self, batch: &[SeqInput<'_>]) -> Result<LogitsView<'_>, EngineError> {
        let wanted: usize = batch.iter().map(SeqInput::wanted).sum();
        let vocab = self.artifact.meta().model.vocab;
        let plan = &self.artifact.meta().plan;
        let single = chunks(batch, plan.max_step, plan.max_rows, &self.kv).len() <= 1;
        let mut collected = std::mem::take(&mut self.collected);
        collected.clear();
        if !single {
            collected.reserve(wanted * vocab);
        }
        let done = self.run(batch, |_, rows| {
            if !single {
                rows.for_each(|row| collected.extend_from_slice(row));
            }
        });
        self.collected = collected;
        done?;
        let mut end = 0;
        let mut rows_of = |input: &SeqInput<'_>| {
            let start = end;
            end += input.wanted();
            start..end
        };
        let inputs = batch.iter().map(&mut rows_of).collect();
        let (data, stride) = if single { self.arena_logits(wanted) } else { (self.collected.as_slice(), vocab) };
        Ok(LogitsView { data, stride, vocab, inputs })
    }

    /// As [`Engine::step`], but hands every wanted row to `sink` as soon as it is there: (input, row of that input, logits). For long
    /// texts whose logits are not to be kept.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub fn step_each(&mut self, batch: &[SeqInput<'_>], mut sink: impl FnMut(usize, usize, &[f32])) -> Result<(), EngineError> {
        let mut next = batch.iter().enumerate().flat_map(|(i, input)| (0..input.wanted()).map(move |row| (i, row)));
        self.run(batch, |_, rows| {
            for (logits, (input, row)) in rows.zip(&mut next) {
                sink(input, row, logits);
            }
        })
    }

    /// Runs a batch chunk by chunk; `sink` gets the number of the chunk and its wanted rows.
    fn run(&mut self, batch: &[SeqInput<'_>], mut sink: impl FnMut(usize, &mut dyn Iterator<Item = &[f32]>)) -> Result<(), EngineError> {
        self.check(batch)?;
        let plan = &self.artifact.meta().plan;
        let (max_step, max_rows, vocab) = (plan.max_step, plan.max_rows, self.artifact.meta().model.vocab);
        for (i, chunk) in chunks(batch, max_step, max_rows, &self.kv).iter().enumerate() {
            self.rows.fill(batch, chunk, &mut self.kv);
            self.run_chunk();
            let wanted = self.rows.wanted();
            let (data, stride) = self.arena_logits(wanted);
            sink(i, &mut (0..wanted).map(|row| &data[row * stride..][..vocab]));
        }
        Ok(())
    }

    fn run_chunk(&mut self) {
        let ctx = StepContext {
            kernels: self.kernels.as_ptr(),
            weights: self.weights.as_ptr(),
            arena: self.arena.as_ptr(),
            scratch: self.scratch.as_ptr(),
            threads: self.team.threads() as u64,
            barrier: &mut *self.barrier,
            schedule: self.schedule.as_ptr(),
            schedule_len: self.schedule.len() as u64,
            tokens: self.rows.tokens.as_ptr(),
            rows: self.rows.row_sets(),
            kv: self.kv.step_groups(),
            work: self.work.as_ptr(),
            parts: self.parts.as_ptr().cast(),
            shared_parts: self.rows.shared_parts(&self.artifact.meta().plan.kv, self.team.threads()),
        };
        self.first_step.get_or_insert_with(Instant::now);
        // SAFETY: the step was compiled for this context: every pointer is valid for what the artifact's plan says (checked when it was
        // opened), rows and positions lie within the plan's limits (checked in `check`, cut by `chunks`), and all of it lives until
        // `run` has returned. Nothing else touches it meanwhile (`&mut self`). Compiled code does not unwind.
        unsafe { self.team.run(self.step, &ctx) };
    }

    fn check(&self, batch: &[SeqInput<'_>]) -> Result<(), EngineError> {
        let (slots, max, vocab) = (self.kv.slots(), self.kv.max_context(), self.artifact.meta().model.vocab);
        let mut seen = vec![false; slots];
        for input in batch {
            let slot = input.slot;
            if seen.get(slot).is_none_or(|s| *s) {
                return Err(EngineError::BadSlot { slot, slots });
            }
            seen[slot] = true;
            if input.tokens.is_empty() {
                return Err(EngineError::NoTokens { slot });
            }
            let (length, new) = (self.kv.len(slot), input.tokens.len());
            if new > max - length {
                return Err(EngineError::ContextFull { slot, length, new, max });
            }
            if let Some(&token) = input.tokens.iter().find(|t| **t as usize >= vocab) {
                return Err(EngineError::BadToken { token, vocab });
            }
        }
        Ok(())
    }

    /// The first `rows` rows of the logits in the arena, and their stride in elements.
    fn arena_logits(&self, rows: usize) -> (&[f32], usize) {
        let meta = self.artifact.meta();
        let stride = (meta.plan.logits_stride / 4) as usize;
        let length = rows.checked_sub(1).map_or(0, |n| n * stride + meta.model.vocab);
        // SAFETY: `max_rows` rows lie inside the arena, aligned (checked when the artifact was opened), and `rows` is at most that; the
        // arena is initialised memory; no step runs while the borrow lives.
        let data = unsafe {
            let start = self.arena.as_ptr().add(meta.plan.logits_offset as usize).cast::<f32>();
            std::slice::from_raw_parts(start, length)
        };
        (data, stride)
    }
}
