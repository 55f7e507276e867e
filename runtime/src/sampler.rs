//! From logits to the next token: penalties, temperature, top-k, top-p, min-p, in this order, then one random number.
//!
//! No step sorts the vocabulary: top-k scans with a small heap, top-p sorts only tokens that can be in the nucleus. With 128k logits a
//! choice costs well under a millisecond.

use crate::rng::Rng;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// How to choose tokens. The default is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0: always the most probable token.
    pub temperature: f32,
    /// Keep this many most probable tokens (and those that tie with the last); 0: all.
    pub top_k: usize,
    /// Keep the fewest most probable tokens whose probabilities reach this sum; 1: all. One is always kept.
    pub top_p: f32,
    /// Keep tokens with at least this fraction of the highest probability; 0: all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of every token of the sequence, prompt included; 1: off.
    pub repetition_penalty: f32,
    /// Subtracted once for each time that a token was generated.
    pub frequency_penalty: f32,
    /// Subtracted once for each token that was generated.
    pub presence_penalty: f32,
    /// Seed of the random numbers; `None`: a fresh one.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: None,
        }
    }
}

impl Sampling {
    /// What the model's own settings ask for; greedy where they ask for no sampling.
    pub fn from_meta(meta: &crate::artifact::meta::GenerationMeta) -> Sampling {
        let off = Sampling::default();
        let repetition_penalty = meta.repetition_penalty.unwrap_or(off.repetition_penalty);
        if meta.do_sample != Some(true) {
            return Sampling { repetition_penalty, ..off };
        }
        Sampling {
            temperature: meta.temperature.unwrap_or(1.0),
            top_k: meta.top_k.unwrap_or(0) as usize,
            top_p: meta.top_p.unwrap_or(1.0),
            repetition_penalty,
            ..off
        }
    }

    /// The first setting that means nothing: its name, its value and what is possible.
    pub fn problem(&self) -> Option<(&'static str, f32, &'static str)> {
        let positive = |x: f32| x.is_finite() && x > 0.0;
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Some(("temperature", self.temperature, "0 or more"));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Some(("top-p", self.top_p, "more than 0, at most 1"));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return Some(("min-p", self.min_p, "0 to 1"));
        }
        if !positive(self.repetition_penalty) {
            return Some(("repetition-penalty", self.repetition_penalty, "more than 0"));
        }
        let penalties = [("frequency-penalty", self.frequency_penalty), ("presence-penalty", self.presence_penalty)];
        penalties.into_iter().find(|(_, x)| !x.is_finite()).map(|(name, x)| (name, x, "a finite number"))
    }

    fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }
}

/// Chooses the tokens of one sequence.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    rng: Rng,
    /// Tokens of the sequence and how often each was generated (0: only in the prompt). Kept only if a penalty asks for it.
    seen: BTreeMap<u32, u32>,
    /// Logits after penalties.
    penalised: Vec<f32>,
    /// What is left to choose from.
    kept: Vec<Candidate>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    id: u32,
    /// Probability but for a common factor; 1 for the most probable token.
    weight: f32,
}

impl Sampler {
    /// A sampler for a sequence without tokens.
    pub fn new(sampling: &Sampling) -> Sampler {
        let rng = Rng::new(sampling.seed.unwrap_or_else(Rng::fresh_seed));
        Sampler { sampling: sampling.clone(), rng, seen: BTreeMap::new(), penalised: Vec::new(), kept: Vec::new() }
    }

    /// Tells of tokens that the sequence has and that were not generated.
    pub fn observe_prompt(&mut self, ids: &[u32]) {
        if self.sampling.penalises() {
            for id in ids {
                self.seen.entry(*id).or_insert(0);
            }
        }
    }

    /// Tells of a token that was generated.
    pub fn accept(&mut self, id: u32) {
        if self.sampling.penalises() {
            *self.seen.entry(id).or_insert(0) += 1;
        }
    }

    /// Chooses a token. With equal logits at the top, greedy choice takes the lowest id. NaN is never chosen, if anything else is there.
    pub fn choose(&mut self, logits: &[f32]) -> u32 {
        self.filter(logits);
        if self.kept.len() <= 1 {
            return self.kept.first().map_or(0, |c| c.id);
        }
        let total: f64 = self.kept.iter().map(|c| f64::from(c.weight)).sum();
        let mut left = self.rng.next_f64() * total;
        for c in &self.kept {
            left -= f64::from(c.weight);
            if left < 0.0 {
                return c.id;
            }
        }
        self.kept.last().map_or(0, |c| c.id)
    }

    /// The probabilities from which [`Sampler::choose`] draws, `f32[vocab]`.
    pub fn probabilities(&mut self, logits: &[f32]) -> Vec<f32> {
        self.filter(logits);
        let total: f64 = self.kept.iter().map(|c| f64::from(c.weight)).sum();
        let mut out = vec![0.0; logits.len()];
        for c in &self.kept {
            out[c.id as usize] = (f64::from(c.weight) / total) as f32;
        }
        out
    }

    /// Fills `kept`; for a greedy choice with one token.
    fn filter(&mut self, logits: &[f32]) {
        let penalised = std::mem::take(&mut self.penalised);
        let (logits, buffer) = self.penalise(logits, penalised);
        let logits = logits.unwrap_or(&buffer);
        self.kept.clear();
        let max = maximum(logits);
        let s = &self.sampling;
        if s.temperature == 0.0 || s.top_k == 1 && !has_tie(logits, max) || !max.is_finite() {
            self.kept.push(Candidate { id: first(logits, max), weight: 1.0 });
        } else {
            let scale = 1.0 / s.temperature;
            let least = if s.top_k > 0 && s.top_k < logits.len() { kth_largest(logits, s.top_k) } else { f32::NEG_INFINITY };
            // Below this the weight is 0 in f32 anyhow. Where top-p does not look at the sum, min-p may cut already here.
            let cut = if s.top_p >= 1.0 && s.min_p > 0.0 { s.min_p.ln() - 1e-3 } else { -103.0 };
            let least = least.max(max + cut * s.temperature);
            for (id, &x) in logits.iter().enumerate() {
                if x >= least {
                    self.kept.push(Candidate { id: id as u32, weight: (x - max) * scale });
                }
            }
            // By itself, so that the compiler vectorises it.
            self.kept.iter_mut().for_each(|c| c.weight = exp(c.weight));
            if s.top_p < 1.0 {
                keep_nucleus(&mut self.kept, s.top_p);
            }
            if s.min_p > 0.0 {
                let least = s.min_p;
                self.kept.retain(|c| c.weight >= least);
            }
        }
        self.penalised = buffer;
    }

    /// The logits themselves where no penalty applies, else `None` and a buffer with the changed ones.
    fn penalise<'l>(&self, logits: &'l [f32], mut buffer: Vec<f32>) -> (Option<&'l [f32]>, Vec<f32>) {
        if self.seen.is_empty() {
            return (Some(logits), buffer);
        }
        let s = &self.sampling;
        buffer.clear();
        buffer.extend_from_slice(logits);
        for (&id, &count) in &self.seen {
            let Some(x) = buffer.get_mut(id as usize) else { continue };
            *x = if *x < 0.0 { *x * s.repetition_penalty } else { *x / s.repetition_penalty };
            if count > 0 {
                *x -= count as f32 * s.frequency_penalty + s.presence_penalty;
            }
        }
        (None, buffer)
    }
}

/// The greedy choice: the first of the largest logits. NaN counts as smallest; 0 if there is nothing else.
pub fn argmax(logits: &[f32]) -> u32 {
    first(logits, maximum(logits))
}

fn first(x: &[f32], value: f32) -> u32 {
    x.iter().position(|v| *v == value).unwrap_or(0) as u32
}

fn has_tie(x: &[f32], max: f32) -> bool {
    x.iter().filter(|v| **v == max).nth(1).is_some()
}

/// In 16 lanes, so that the compiler vectorises it.
fn maximum(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = x.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *v);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| larger(a, *b))
}

/// The `k`-th largest element, `0 < k < x.len()`.
fn kth_largest(x: &[f32], k: usize) -> f32 {
    /// Orders floats without NaN as integers.
    fn key(x: f32) -> i32 {
        let bits = (x + 0.0).to_bits() as i32;
        bits ^ (((bits >> 31) as u32) >> 1) as i32
    }
    if k > x.len() / 16 {
        let mut sorted: Vec<f32> = x.iter().map(|v| if v.is_nan() { f32::NEG_INFINITY } else { *v }).collect();
        let (_, kth, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        return *kth;
    }
    let mut heap: BinaryHeap<Reverse<(i32, u32)>> = BinaryHeap::with_capacity(k + 1);
    let mut least = f32::NEG_INFINITY;
    for chunk in x.chunks(64) {
        // Most chunks have nothing above the least of the k largest so far.
        if heap.len() == k && maximum(chunk) <= least {
            continue;
        }
        for v in chunk.iter().filter(|v| !v.is_nan()) {
            if heap.len() < k || *v > least {
                heap.push(Reverse((key(*v), v.to_bits())));
                if heap.len() > k {
                    heap.pop();
                }
                least = heap.peek().map_or(f32::NEG_INFINITY, |r| f32::from_bits(r.0.1));
            }
        }
    }
    if heap.len() < k { f32::NEG_INFINITY } else { least }
}

/// Keeps the fewest most probable candidates whose sum reaches `top_p` of the whole; they end up in descending order.
fn keep_nucleus(kept: &mut Vec<Candidate>, top_p: f32) {
    let total: f64 = kept.iter().map(|c| f64::from(c.weight)).sum();
    // All candidates below this together have less than 1 - top_p: none of them is in the nucleus.
    let least = ((1.0 - f64::from(top_p)) * total / kept.len() as f64) as f32;
    kept.retain(|c| c.weight >= least);
    kept.sort_unstable_by(|a, b| b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id)));
    let mut before = 0.0;
    let reached = kept.iter().position(|c| {
        let full = before >= f64::from(top_p) * total;
        before += f64::from(c.weight);
        full
    });
    kept.truncate(reached.unwrap_or(kept.len()).max(1));
}

/// e^x for x <= 0 with a relative error below 2e-7; 0 below -87.3.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // e^x = 2^n * e^r with n a whole number and |r| <= ln(2) / 2. Adding and subtracting 1.5 * 2^23 rounds to whole numbers.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first with few bits: the products are exact.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    let power = f32::from_bits((((shifted.to_bits() as i32) << 23).wrapping_add(127 << 23)) as u32);
    if x < -87.3 { 0.0 } else { y * power }
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
