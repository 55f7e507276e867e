//! Weight recipes: how a weight is made from named source tensors. Evaluated once, row by row, when the artifact is written,
//! so weight-side algebra costs nothing at run time. No file is read here: rows come through [`Source`].

use crate::dtype::DType;
use crate::types::Type;
use std::sync::Arc;

/// A recipe. Its type is [`Recipe::ty`].
#[derive(Debug, Clone, PartialEq)]
pub enum Recipe {
    /// A tensor of the checkpoint. `{layer}` in the name stands for the number of the layer.
    Source {
        /// Name template.
        name: String,
        /// Type in the file.
        ty: Type,
    },
    /// Values known at compile time, f32.
    Literal {
        /// Shape.
        shape: Vec<usize>,
        /// Elements, row-major.
        data: Arc<[f32]>,
    },
    /// Rounded to an element type (quantizing, for a quantized one).
    Cast(DType, Box<Recipe>),
    /// Rows of the parts one after the other (axis 0).
    Concat(Vec<Recipe>),
    /// `[a, b]` to `[b, a]`.
    Transpose(Box<Recipe>),
    /// Rows of each head of this size from half-split to interleaved rotary order: row `i + b*d/2` goes to row `2i + b`.
    PermuteRope(usize, Box<Recipe>),
    /// `out[r][c] = of[r][c] * by[c]`, in f32.
    ScaleColumns(Box<Recipe>, Box<Recipe>),
    /// `out[r][c] = of[r][c] * by[r]`, in f32.
    ScaleRows(Box<Recipe>, Box<Recipe>),
}

/// Where rows of source tensors come from.
pub trait Source: Sync {
    /// Writes row `row` (last axis) of the tensor as f32; a vector has one row. Tensors of three and more axes are seen as `[product, last]`.
    fn row(&self, name: &str, row: usize, out: &mut [f32]) -> Result<(), String>;
}
