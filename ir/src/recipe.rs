//! Weight recipes: how a weight is made from named source tensors. Evaluated once, row by row, when the artifact is written,
//! so weight-side algebra costs nothing at run time. No file is read here: rows come through [`Source`].

mod band;
mod kept;
mod prepared;
mod ty;

use crate::dtype::DType;
use crate::eval::quant::{Codes, Moments};
use crate::types::Type;
use std::sync::Arc;

pub use prepared::Prepared;

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
    /// Rounded to an element type; quantizing, for a quantized one, with regard to the moments that [`Source::moments`] knows.
    Cast(DType, Box<Recipe>),
    /// Rows of the parts one after the other (axis 0).
    Concat(Vec<Recipe>),
    /// Parts of one type as a new first axis: `[n, k]`, `e` times, to `[e, n, k]`.
    Stack(Vec<Recipe>),
    /// The last two axes exchanged: `[.., a, b]` to `[.., b, a]`.
    Transpose(Box<Recipe>),
    /// Rows of each head of this size from half-split to interleaved rotary order: row `i + b*d/2` goes to row `2i + b`.
    PermuteRope(usize, Box<Recipe>),
    /// `len` rows (axis 0) from `start` on: `rows(start, len, of)`.
    Rows(usize, usize, Box<Recipe>),
    /// `out[r][c] = of[r][c] * by[c]`, in f32.
    ScaleColumns(Box<Recipe>, Box<Recipe>),
    /// `out[r][c] = of[r][c] * by[r]`, in f32.
    ScaleRows(Box<Recipe>, Box<Recipe>),
}

/// A line of a matrix of so many columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// A row.
    Row {
        /// Which.
        row: usize,
        /// Elements of a row.
        columns: usize,
    },
    /// A column: a row of the transposed matrix.
    Column {
        /// Which.
        column: usize,
        /// Elements of a row.
        columns: usize,
        /// Elements of a column.
        rows: usize,
    },
}

/// Where rows of source tensors come from.
pub trait Source: Sync {
    /// Writes row `row` (last axis) of the tensor as f32; a vector has one row. Tensors of three and more axes are seen as `[product, last]`.
    fn row(&self, name: &str, row: usize, out: &mut [f32]) -> Result<(), String>;

    /// Writes elements `start .. start + out.len()` of a row of `columns` elements. Sources that can read less than a row should: transposed
    /// weights are read by it.
    fn part(&self, name: &str, row: usize, columns: usize, start: usize, out: &mut [f32]) -> Result<(), String> {
        let mut whole = vec![0.0; columns];
        self.row(name, row, &mut whole)?;
        let part = whole.get(start..start.saturating_add(out.len())).ok_or_else(|| format!("`{name}`: no elements from {start} on"))?;
        out.copy_from_slice(part);
        Ok(())
    }

    /// Writes `width` elements from `start` on of the rows from `row` on, row after row, as many rows as `out` holds. Sources that look a name
    /// up should do it once here.
    fn patch(&self, name: &str, row: usize, columns: usize, start: usize, width: usize, out: &mut [f32]) -> Result<(), String> {
        out.chunks_exact_mut(width.max(1)).zip(row..).try_for_each(|(out, row)| self.part(name, row, columns, start, out))
    }

    /// The bytes of a row in memory, little-endian, and their type, if there are such: what is stored as it is wanted need not be widened.
    fn stored(&self, _name: &str, _row: usize) -> Option<(DType, &[u8])> {
        None
    }

    /// The codes and scales of a line, if the tensor was made of just such codes, in groups as the type has them: then they are kept, and nothing is
    /// quantized a second time. Whether it was must not depend on the line. `false`: it was not.
    fn codes(&self, _name: &str, _dtype: DType, _line: Line, _out: &mut Codes) -> Result<bool, String> {
        Ok(false)
    }

    /// What the rows of the tensor, or of the matrix that is made of it, are multiplied with, if it is known. Tensors that are multiplied
    /// with the same input give the same object.
    fn moments(&self, _name: &str) -> Option<Arc<Moments>> {
        None
    }
}

/// What stands for the number of the layer in source names.
pub const LAYER: &str = "{layer}";

impl Recipe {
    /// Calls `visit` with the name of every source, from left to right.
    pub fn sources<'a>(&'a self, visit: &mut dyn FnMut(&'a str)) {
        match self {
            Recipe::Source { name, .. } => visit(name),
            Recipe::Literal { .. } => {}
            Recipe::Cast(_, of) | Recipe::Transpose(of) | Recipe::PermuteRope(_, of) | Recipe::Rows(_, _, of) => of.sources(visit),
            Recipe::Concat(parts) | Recipe::Stack(parts) => parts.iter().for_each(|p| p.sources(visit)),
            Recipe::ScaleColumns(of, by) | Recipe::ScaleRows(of, by) => {
                of.sources(visit);
                by.sources(visit);
            }
        }
    }

    /// The recipe with the number of the layer in its source names.
    pub fn for_layer(&self, layer: usize) -> Recipe {
        let boxed = |of: &Recipe| Box::new(of.for_layer(layer));
        match self {
            Recipe::Source { name, ty } => Recipe::Source { name: name.replace(LAYER, &layer.to_string()), ty: ty.clone() },
            Recipe::Literal { .. } => self.clone(),
            Recipe::Cast(dtype, of) => Recipe::Cast(*dtype, boxed(of)),
            Recipe::Concat(parts) => Recipe::Concat(parts.iter().map(|p| p.for_layer(layer)).collect()),
            Recipe::Stack(parts) => Recipe::Stack(parts.iter().map(|p| p.for_layer(layer)).collect()),
            Recipe::Transpose(of) => Recipe::Transpose(boxed(of)),
            Recipe::PermuteRope(head, of) => Recipe::PermuteRope(*head, boxed(of)),
            Recipe::Rows(start, len, of) => Recipe::Rows(*start, *len, boxed(of)),
            Recipe::ScaleColumns(of, by) => Recipe::ScaleColumns(boxed(of), boxed(by)),
            Recipe::ScaleRows(of, by) => Recipe::ScaleRows(boxed(of), boxed(by)),
        }
    }
}

#[cfg(test)]
#[path = "recipe/recipe_tests.rs"]
mod tests;
