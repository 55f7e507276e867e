//! Attention in parts: the keys of a query are cut into at most [`ATTENTION_PARTS`](crate::abi::ATTENTION_PARTS) parts by its position alone;
//! each has a softmax of its own, and parts are joined in their order. So threads may share one query's keys (as in Dao et al., Flash-Decoding,
//! 2023) and the bits are those of one thread. Computing a part is in `flash` and `generic`.

use super::exp::exp2;
use crate::abi::{AttentionMergeArgs, part_tokens};

/// What a softmax over some keys was divided by: `exp2(max) * sum`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(super) struct Weight {
    /// Largest score, as exponent of 2.
    pub(super) max: f32,
    /// Sum of the probabilities under that maximum.
    pub(super) sum: f32,
}

impl Weight {
    /// Takes a later part in; returns the factors on the results before and of the part.
    pub(super) fn join(&mut self, part: Weight) -> (f32, f32) {
        let max = self.max.max(part.max);
        let (before, new) = (self.sum * exp2(self.max - max), part.sum * exp2(part.max - max));
        *self = Weight { max, sum: before + new };
        (before / self.sum, new / self.sum)
    }
}

/// `out = a * out + b * part`. Every instruction set rounds both products: it is compiled without fused ones.
#[inline(always)]
pub(super) fn mix(out: &mut [f32], part: &[f32], (a, b): (f32, f32)) {
    out.iter_mut().zip(part).for_each(|(out, part)| *out = *out * a + *part * b);
}

/// See [`AttentionMergeArgs`].
pub(super) unsafe extern "C" fn merge(args: *const u8) {
    // SAFETY: the contract of `AttentionMergeArgs`.
    unsafe {
        let a = &*args.cast::<AttentionMergeArgs>();
        let (group, head_dim) = (a.group as usize, a.head_dim as usize);
        let width = group * head_dim;
        let out = std::slice::from_raw_parts_mut(a.out, width);
        let parts = (a.pos / part_tokens(a.pos)) as usize + 1;
        let part = |i: usize| a.parts.byte_add(i * a.part_stride as usize);
        let weights = |i: usize| std::slice::from_raw_parts(part(i).add(width).cast::<Weight>(), group);
        out.copy_from_slice(std::slice::from_raw_parts(part(0), width));
        for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let mut total = weights(0)[head];
            for i in 1..parts {
                let factors = total.join(weights(i)[head]);
                mix(out, std::slice::from_raw_parts(part(i).add(head * head_dim), head_dim), factors);
            }
        }
    }
}
