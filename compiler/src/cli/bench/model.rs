//! Timing whole steps of an artifact, with a raw read of memory between any two measurements.

use llamac_runtime::batch::{SeqInput, Want};
use llamac_runtime::rng::Rng;
use llamac_runtime::roof;
use llamac_runtime::session::step_bytes;
use llamac_runtime::step::{Engine, EngineError};
use std::time::Instant;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// A prompt in one call, behind nothing.
    Prefill { tokens: usize },
    /// Steps of one token for each of `batch` sequences that have `depth` tokens.
    Decode { depth: usize, batch: usize, steps: usize },
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figures {
    pub(super) name: String,
    /// Tokens per second.
    pub(super) rate: Spread,
    /// Median time of one step (of the whole prompt for a prefill).
    pub(super) step_seconds: f64,
    /// Of memory; for a prefill, which multiplies more than it reads, `None`.
    pub(super) read: Option<Reading>,
    /// Operations in matrix products and in attention, per second, median; a multiply-add is two.
    pub(super) flops: f64,
    /// Least time that these could take, see [`Roofs::seconds`], over the median time.
    pub(super) peak_share: f64,
}

/// How fast memory was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reading {
    /// Median of bytes that the steps must read, per second.
    pub(super) bytes_per_second: f64,
    /// Median of the same as a share of the raw reads just before and after.
    pub(super) share: f64,
}

/// Median, least and most of a few measurements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    fn of(mut x: Vec<f64>) -> Spread {
        x.sort_by(f64::total_cmp);
        let at = |i: usize| x.get(i).copied().unwrap_or(0.0);
        let last = x.len().saturating_sub(1);
        Spread { median: (at(last / 2) + at(last.div_ceil(2))) / 2.0, least: at(0), most: at(last) }
    }
}

/// What the machine can do at best with as many threads.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Roofs {
    /// Bytes read per second.
    pub(super) read: f64,
    /// Operations per second in matrix products.
    pub(super) flops: f64,
    /// In which arithmetic.
    pub(super) arithmetic: &'static str,
    /// Operations per second in attention, and in which arithmetic.
    pub(super) attention: (f64, &'static str),
}

impl Roofs {
    pub(super) fn measure(engine: &Engine) -> Roofs {
        // The format of most weights: in integer artifacts all but the head may have fewer bits than the head.
        let has = |format: &str| engine.artifact().meta().kernels.iter().any(|k| k.starts_with(&format!("dot_{format}")));
        let format = ["q4", "q8", "bf16"].into_iter().find(|f| has(f)).unwrap_or("f32");
        let cache = engine.artifact().meta().plan.kv.first().map_or("f32", |kv| &kv.format);
        let [matrices, attention] = [roof::Arithmetic::of_format(format), roof::Arithmetic::of_cache(cache)];
        let flops = |kind| 2.0 * roof::macs(kind, engine.threads());
        Roofs {
            read: raw_read(engine.threads()),
            flops: flops(matrices),
            arithmetic: matrices.name(),
            attention: (flops(attention), attention.name()),
        }
    }

    /// Least seconds for so many multiply-accumulates in matrix products and in attention, each at the peak of its arithmetic.
    pub(super) fn seconds(&self, macs: Macs) -> f64 {
        2.0 * (macs.matrices / self.flops + macs.attention / self.attention.0)
    }
}

/// Bytes per second of a raw read, now.
pub(super) fn raw_read(threads: usize) -> f64 {
    roof::read_gbs(threads, roof::read_bytes()) * 1e9
}

/// Times a case `reps` times.
pub(super) fn measure(engine: &mut Engine, roofs: &Roofs, case: &Case, reps: usize) -> Result<Figures, EngineError> {
    let work = prepare(engine, case)?;
    let mut seconds = Vec::with_capacity(reps);
    let mut shares = Vec::with_capacity(reps);
    // The first run meets cold caches and untouched memory: it does not count.
    run(engine, case)?;
    let mut before = raw_read(engine.threads());
    for _ in 0..reps {
        let start = Instant::now();
        run(engine, case)?;
        let time = start.elapsed().as_secs_f64();
        seconds.push(time);
        let after = raw_read(engine.threads());
        shares.push(2.0 / time / (before + after));
        before = after;
    }
    for slot in 0..engine.kv().slots() {
        engine.truncate(slot, 0);
    }
    let median = Spread::of(seconds.clone()).median;
    Ok(Figures {
        name: case.to_string(),
        rate: Spread::of(seconds.iter().map(|t| work.tokens / t).collect()),
        step_seconds: median / work.steps,
        read: work.bytes.map(|bytes| Reading { bytes_per_second: bytes / median, share: bytes * Spread::of(shares).median }),
        flops: 2.0 * (work.macs.matrices + work.macs.attention) / median,
        peak_share: roofs.seconds(work.macs) / median,
    })
}

/// What one run of a case does.
#[derive(Debug, Clone, Copy)]
struct Work {
    tokens: f64,
    steps: f64,
    /// Bytes of weights, keys and values, where they are what takes the time.
    bytes: Option<f64>,
    macs: Macs,
}

/// Multiply-accumulates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Macs {
    /// In products with weights.
    pub(super) matrices: f64,
    /// With keys and values that a token sees.
    pub(super) attention: f64,
}

/// Fills the cache to the depth; says what a run will do.
fn prepare(engine: &mut Engine, case: &Case) -> Result<Work, EngineError> {
    let plan = &engine.artifact().meta().plan;
    // Of an artifact that does not say it, every token counts with its logits.
    let (per_token, per_row) = match plan.token_macs {
        0 => (plan.decode_macs as f64, 0.0),
        some => (some as f64, plan.decode_macs.saturating_sub(some) as f64),
    };
    match *case {
        Case::Prefill { tokens } => {
            let macs = Macs { matrices: per_token * tokens as f64 + per_row, attention: plan.attention_macs(0, tokens) as f64 };
            Ok(Work { tokens: tokens as f64, steps: 1.0, bytes: None, macs })
        }
        Case::Decode { depth, batch, steps } => {
            let kv: u64 = (depth + 1..=depth + steps).map(|at| step_bytes(plan, at) - plan.decode_bytes).sum();
            let attention: u64 = (depth..depth + steps).map(|at| plan.attention_macs(at, 1)).sum();
            let work = Work {
                tokens: (batch * steps) as f64,
                steps: steps as f64,
                bytes: Some((steps as u64 * plan.decode_bytes + batch as u64 * kv) as f64),
                macs: Macs { matrices: (per_token + per_row) * (batch * steps) as f64, attention: batch as f64 * attention as f64 },
            };
            for slot in 0..batch {
                engine.append_constant(slot, depth)?;
            }
            Ok(work)
        }
    }
}

/// One measurement; leaves the cache as it was.
fn run(engine: &mut Engine, case: &Case) -> Result<(), EngineError> {
    let vocab = engine.artifact().meta().model.vocab as u64;
    let mut rng = Rng::new(1);
    let mut token = || (rng.next_u64() % vocab) as u32;
    match *case {
        Case::Prefill { tokens } => {
            let prompt: Vec<u32> = (0..tokens).map(|_| token()).collect();
            engine.step(&[SeqInput { slot: 0, tokens: &prompt, logits: Want::Last }])?;
            engine.truncate(0, 0);
        }
        Case::Decode { depth, batch, steps } => {
            for _ in 0..steps {
                let tokens: Vec<[u32; 1]> = (0..batch).map(|_| [token()]).collect();
                let input = |(slot, tokens)| SeqInput { slot, tokens, logits: Want::Last };
                let inputs: Vec<SeqInput<'_>> = tokens.iter().map(|t| t.as_slice()).enumerate().map(input).collect();
                engine.step(&inputs)?;
            }
            for slot in 0..batch {
                let kept = engine.truncate(slot, depth);
                engine.append_constant(slot, depth - kept)?;
            }
        }
    }
    Ok(())
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Case::Prefill { tokens } => write!(f, "prefill {tokens}"),
            Case::Decode { depth, batch, .. } => write!(f, "decode at {depth}, batch {batch}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(Spread::of(vec![4.0, 1.0, 3.0, 2.0]), Spread { median: 2.5, least: 1.0, most: 4.0 });
        assert_eq!(Spread::of(vec![7.0]).median, 7.0);
    }

    #[test]
    fn each_arithmetic_counts_at_its_own_peak() {
        let roofs = Roofs { read: 1.0, flops: 400.0, arithmetic: "int4", attention: (100.0, "f32") };
        assert_eq!(roofs.seconds(Macs { matrices: 100.0, attention: 100.0 }), 0.5 + 2.0);
    }
}
