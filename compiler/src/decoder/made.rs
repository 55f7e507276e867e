//! What came out of the engine as tensors: logits and cache by columns of the batch, zeros where no token stands.

use super::given::Batch;
use crate::diag::{Diag, Result};
use crate::frontend::onnx::eager::Value;
use llamac_ir::dtype::DType;
use llamac_ir::eval::Tensor;
use llamac_runtime::artifact::signature::{Port, Role};

/// What came out.
pub(super) struct Made {
    pub(super) vocab: usize,
    /// `[batch, new, vocab]`.
    pub(super) logits: Vec<f32>,
    /// Keys and values of each layer, `[batch, heads, past + new, d]`, and heads and d.
    pub(super) present: Vec<([Vec<f32>; 2], [usize; 2])>,
}

impl Made {
    /// Puts `[heads, tokens, d]` of a sequence into the columns from `column` on.
    pub(super) fn put(&mut self, layer: usize, b: usize, total: usize, column: usize, part: &[Vec<f32>; 2]) {
        let (present, [heads, d]) = &mut self.present[layer];
        let (heads, d) = (*heads, *d);
        for (to, from) in present.iter_mut().zip(part) {
            let each = from.len() / heads.max(1);
            for (h, rows) in from.chunks_exact(each.max(1)).enumerate() {
                to[((b * heads + h) * total + column) * d..][..each].copy_from_slice(rows);
            }
        }
    }

    pub(super) fn output(&self, port: &Port, batch: &Batch) -> Result<Value> {
        let unknown = |what: &str| Diag::new("tensors", what).place(format_args!("output `{}`", port.name));
        let dtype = DType::from_name(&port.dtype).ok_or_else(|| unknown("an output of an unknown element type"))?;
        let rows = batch.rows.len();
        let cache = |layer: usize, which: usize| {
            let (present, [heads, d]) = self.present.get(layer).ok_or_else(|| unknown("an output of a layer that is not there"))?;
            Ok(Tensor::f32(&[rows, *heads, batch.past + batch.new, *d], present[which].clone()))
        };
        let tensor = match port.role {
            Role::Logits => Tensor::f32(&[rows, batch.new, self.vocab], self.logits.clone()),
            Role::Key(layer) => cache(layer, 0)?,
            Role::Value(layer) => cache(layer, 1)?,
            _ => return Err(unknown("an output that is neither logits nor cache")),
        };
        Ok(Value { dtype, tensor })
    }
}
