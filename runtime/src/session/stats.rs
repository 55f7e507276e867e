//! What a generation cost: tokens, seconds, bytes. Counting only; printing is in `app`.

use crate::abi::PAGE_TOKENS;
use crate::artifact::meta::PlanMeta;
use std::time::Duration;

/// Tokens and time of a generation so far. Time between two calls of the iterator does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, tokens that were in the cache already.
    pub reused_tokens: usize,
    /// Tokens that were chosen, an end-of-text token included.
    pub generated_tokens: usize,
    /// Steps of one token: one for every token but the first, which the prompt's step gives.
    pub decode_steps: usize,
    /// Time of the step over the prompt's new tokens, up to the choice of the first token.
    pub prefill: Duration,
    /// Time of all further steps and choices.
    pub decode: Duration,
    /// Bytes that these further steps read from memory: weights, and keys and values of the tokens before.
    pub decode_bytes: u64,
}

impl Stats {
    /// New prompt tokens per second; 0 before there are any.
    pub fn prefill_rate(&self) -> f64 {
        rate((self.prompt_tokens - self.reused_tokens) as f64, self.prefill)
    }

    /// Tokens per second after the first; 0 before there are any.
    pub fn decode_rate(&self) -> f64 {
        rate(self.decode_steps as f64, self.decode)
    }

    /// Bytes read per second while decoding; 0 before anything was decoded.
    pub fn bytes_per_second(&self) -> f64 {
        rate(self.decode_bytes as f64, self.decode)
    }

    /// Mean bytes read for one token after the first.
    pub fn bytes_per_token(&self) -> u64 {
        self.decode_bytes / self.decode_steps.max(1) as u64
    }
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Stats) {
        self.prompt_tokens += other.prompt_tokens;
        self.reused_tokens += other.reused_tokens;
        self.generated_tokens += other.generated_tokens;
        self.decode_steps += other.decode_steps;
        self.prefill += other.prefill;
        self.decode += other.decode;
        self.decode_bytes += other.decode_bytes;
    }
}

fn rate(count: f64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count / time.as_secs_f64() }
}

/// Bytes that one step of one token reads when the token is the `context`-th of its sequence: all weights of the step, and the keys and
/// values that it sees.
pub fn step_bytes(plan: &PlanMeta, context: usize) -> u64 {
    let kv = plan.kv.iter().map(|group| {
        let seen = if group.chunk == 0 { context } else { context.saturating_sub(1) % group.chunk + 1 };
        seen as u64 * (group.page_bytes / PAGE_TOKENS as u64)
    });
    plan.decode_bytes + kv.sum::<u64>()
}
