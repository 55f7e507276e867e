//! The KV cache of one call of a layer function: keys and values by sequence and position. Who attends to what is in `attention`.

use super::quant;
use super::tensor::Tensor;
use crate::dtype::DType;
use std::collections::BTreeMap;

/// Keys and values of one call; stays from step to step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cache {
    rows: BTreeMap<(i32, i32), Entry>,
}

/// What is kept for one position: `kv_heads * head_dim` elements each.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Key of every KV head.
    pub k: Vec<f32>,
    /// Value of every KV head.
    pub v: Vec<f32>,
}

impl Cache {
    /// Everything in it, as `((sequence, position), entry)` in that order.
    pub fn iter(&self) -> impl Iterator<Item = ((i32, i32), &Entry)> {
        self.rows.iter().map(|(at, entry)| (*at, entry))
    }
    /// Puts what another program computed at a position of a sequence.
    pub fn insert(&mut self, seq: i32, pos: i32, entry: Entry) {
        self.rows.insert((seq, pos), entry);
    }
    /// What was written for a position of a sequence.
    pub fn get(&self, seq: i32, pos: i32) -> Option<&Entry> {
        self.rows.get(&(seq, pos))
    }
    /// Number of positions, over all sequences.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes rows of `k` and `v`, heads of `head_dim` elements, rounded to `kv`.
    pub(super) fn write(
        &mut self,
        k: &Tensor,
        v: &Tensor,
        pos: &Tensor,
        seq: &Tensor,
        (kv, head_dim): (DType, usize),
    ) -> Result<(), String> {
        let rows = k.floats()?.chunks_exact(k.width().max(1)).zip(v.floats()?.chunks_exact(v.width().max(1)));
        for ((k, v), (&p, &s)) in rows.zip(pos.ints()?.iter().zip(seq.ints()?)) {
            if p < 0 || s < 0 {
                return Err(format!("found position {p} of sequence {s}, expected no negative numbers"));
            }
            let (mut k, mut v) = (k.to_vec(), v.to_vec());
            for head in k.chunks_mut(head_dim.max(1)).chain(v.chunks_mut(head_dim.max(1))) {
                quant::round_head(kv, head)?;
            }
            self.rows.insert((s, p), Entry { k, v });
        }
        Ok(())
    }
}
