//! Evaluation of recipes row by row. A [`Prepared`] recipe has its geometry worked out and its factors read, so that a row costs what it
//! copies. Types are in `ty`, rounding is in `eval::quant`.

use super::{Recipe, Source};
use crate::dtype::DType;
use crate::eval::quant::{self, Feedback, Moments};
use std::sync::Arc;

/// A recipe ready to be read row by row, from several threads if wanted.
pub struct Prepared<'a> {
    pub(super) node: Node<'a>,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

pub(super) enum Node<'a> {
    Source(&'a dyn Source, &'a str),
    Literal(&'a [f32]),
    Round(DType, Box<Prepared<'a>>),
    /// Of a quantized type already.
    Kept(DType, Box<Prepared<'a>>),
    /// Quantized with regard to what its rows are multiplied with.
    RoundFor(DType, Box<Prepared<'a>>, Feedback),
    /// Parts below each other, each with its first row.
    Below(Vec<(usize, Prepared<'a>)>),
    /// Vectors after each other.
    After(Vec<Prepared<'a>>),
    /// Matrices of so many rows, transposed one by one.
    Transposed(usize, Box<Prepared<'a>>),
    PermutedRows(usize, Box<Prepared<'a>>),
    /// Rows from this one on.
    From(usize, Box<Prepared<'a>>),
    /// Elements of a vector from this one on.
    ElementsFrom(usize, Box<Prepared<'a>>),
    PermutedElements(usize, Box<Prepared<'a>>),
    ScaledColumns(Box<Prepared<'a>>, Vec<f32>),
    ScaledRows(Box<Prepared<'a>>, Vec<f32>),
}

impl Recipe {
    /// Writes one row, as f32, of the weight seen as `[product, last]`; a vector has one row. To read many rows, prepare the recipe once.
    ///
    /// # Errors
    /// As [`Prepared::new`] and [`Prepared::row`].
    pub fn read_row(&self, source: &dyn Source, row: usize, out: &mut [f32]) -> Result<(), String> {
        Prepared::new(self, source)?.row(row, out)
    }
}

impl<'a> Prepared<'a> {
    /// Types the recipe and reads the vectors that it scales by.
    ///
    /// # Errors
    /// The recipe does not type, it casts to a type without arithmetic, or a factor cannot be read.
    pub fn new(recipe: &'a Recipe, source: &'a dyn Source) -> Result<Prepared<'a>, String> {
        let (_, shape) = recipe.fixed_ty()?;
        let columns = shape.last().copied().unwrap_or(1);
        let rows = rows_of(&shape);
        let boxed = |r: &'a Recipe| Prepared::new(r, source).map(Box::new);
        let node = match recipe {
            Recipe::Source { name, .. } => Node::Source(source, name),
            Recipe::Literal { data, .. } => Node::Literal(data),
            Recipe::Cast(dtype, of) => {
                quant::round(*dtype, &mut [])?;
                let inner = boxed(of)?;
                if dtype.info().scale.is_some() && inner.keeps(*dtype) {
                    Node::Kept(*dtype, inner)
                } else {
                    match moments(*dtype, of, source, rows, columns) {
                        Some(moments) => Node::RoundFor(*dtype, inner, Feedback::new(&moments)),
                        None => Node::Round(*dtype, inner),
                    }
                }
            }
            Recipe::Concat(parts) => {
                let parts = parts.iter().map(|p| Prepared::new(p, source)).collect::<Result<Vec<_>, _>>()?;
                if shape.len() == 1 { Node::After(parts) } else { Node::Below(with_first_rows(parts)) }
            }
            Recipe::Stack(parts) => {
                let parts = parts.iter().map(|p| Prepared::new(p, source)).collect::<Result<Vec<_>, _>>()?;
                Node::Below(with_first_rows(parts))
            }
            Recipe::Transpose(of) => Node::Transposed(columns, boxed(of)?),
            Recipe::PermuteRope(head, of) if shape.len() == 1 => Node::PermutedElements(*head, boxed(of)?),
            Recipe::PermuteRope(head, of) => Node::PermutedRows(*head, boxed(of)?),
            Recipe::Rows(start, _, of) if shape.len() == 1 => Node::ElementsFrom(*start, boxed(of)?),
            Recipe::Rows(start, len, of) => Node::From(start * (rows_of(&shape) / (*len).max(1)), boxed(of)?),
            Recipe::ScaleRows(of, by) if shape.len() > 1 => Node::ScaledRows(boxed(of)?, vector(by, source)?),
            Recipe::ScaleColumns(of, by) | Recipe::ScaleRows(of, by) => Node::ScaledColumns(boxed(of)?, vector(by, source)?),
        };
        Ok(Prepared { node, rows, columns })
    }

    /// Rows of the weight seen as `[product, last]`.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Writes row `row` as f32. A row of a transposed matrix reads one element of each of its rows: for many rows see [`Prepared::band`].
    ///
    /// # Errors
    /// There is no such row, `out` is not as long as a row, or the source cannot be read.
    pub fn row(&self, row: usize, out: &mut [f32]) -> Result<(), String> {
        if row >= self.rows || out.len() != self.columns {
            return Err(format!("found row {row} into {} elements, expected [{}, {}]", out.len(), self.rows, self.columns));
        }
        match &self.node {
            Node::Source(source, name) => source.row(name, row, out),
            Node::Literal(data) => {
                out.copy_from_slice(&data[row * self.columns..][..self.columns]);
                Ok(())
            }
            Node::Round(dtype, of) => {
                of.row(row, out)?;
                quant::round(*dtype, out)
            }
            Node::Kept(dtype, of) => {
                let mut codes = quant::Codes::default();
                of.must_keep(*dtype, row, &mut codes)?;
                codes.values(out);
                Ok(())
            }
            Node::RoundFor(dtype, of, feedback) => {
                of.row(row, out)?;
                quant::round_for(*dtype, out, self.expert(row, feedback), feedback)
            }
            Node::Below(parts) => {
                let (first, part) = part_of(parts, row);
                part.row(row - first, out)
            }
            Node::After(parts) => {
                let mut rest = out;
                for part in parts {
                    let (now, later) = rest.split_at_mut(part.columns);
                    part.row(0, now)?;
                    rest = later;
                }
                Ok(())
            }
            Node::Transposed(..) => self.band(row, 1, out, self.columns),
            Node::PermutedRows(head, of) => of.row(before_permutation(row, *head), out),
            Node::From(first, of) => of.row(first + row, out),
            Node::ElementsFrom(first, of) => of.part(0, *first, out),
            Node::PermutedElements(head, of) => {
                let mut plain = vec![0.0; of.columns];
                of.row(0, &mut plain)?;
                out.iter_mut().enumerate().for_each(|(i, x)| *x = plain[before_permutation(i, *head)]);
                Ok(())
            }
            Node::ScaledColumns(of, by) => {
                of.row(row, out)?;
                out.iter_mut().zip(by).for_each(|(x, b)| *x *= b);
                Ok(())
            }
            Node::ScaledRows(of, by) => {
                of.row(row, out)?;
                out.iter_mut().for_each(|x| *x *= by[row]);
                Ok(())
            }
        }
    }

    /// Writes the codes and scales of row `row`, if the weight is of a quantized type; `room` is used for the row as f32.
    ///
    /// # Errors
    /// As [`Prepared::row`], or the weight is not of a quantized type.
    pub fn codes(&self, row: usize, room: &mut Vec<f32>, out: &mut quant::Codes) -> Result<(), String> {
        match &self.node {
            Node::Round(dtype, of) => {
                room.resize(of.columns, 0.0);
                of.row(row, room)?;
                quant::quantize(*dtype, room, out)
            }
            Node::Kept(dtype, of) => of.must_keep(*dtype, row, out),
            Node::RoundFor(dtype, of, feedback) => {
                room.resize(of.columns, 0.0);
                of.row(row, room)?;
                quant::quantize_for(*dtype, room, self.expert(row, feedback), feedback, out)
            }
            Node::Below(parts) => {
                let (first, part) = part_of(parts, row);
                part.codes(row - first, room, out)
            }
            Node::PermutedRows(head, of) => of.codes(before_permutation(row, *head), room, out),
            Node::From(first, of) => of.codes(first + row, room, out),
            _ => Err("found a weight that is not quantized last, expected a cast outside".to_owned()),
        }
    }

    /// The bytes of row `row`, little-endian, if it is a row of a source that is stored in this type.
    pub fn stored(&self, row: usize, dtype: DType) -> Option<&[u8]> {
        match &self.node {
            Node::Source(source, name) => source.stored(name, row).filter(|(stored, _)| *stored == dtype).map(|(_, bytes)| bytes),
            Node::Round(to, of) if *to == dtype => of.stored(row, dtype),
            Node::Below(parts) => {
                let (first, part) = part_of(parts, row);
                part.stored(row - first, dtype)
            }
            Node::PermutedRows(head, of) => of.stored(before_permutation(row, *head), dtype),
            _ => None,
        }
    }

    /// The expert that a row belongs to.
    pub(super) fn expert(&self, row: usize, feedback: &Feedback) -> usize {
        row / (self.rows / feedback.experts())
    }

    /// All rows, one after the other.
    ///
    /// # Errors
    /// As [`Prepared::row`].
    pub fn read_all(&self) -> Result<Vec<f32>, String> {
        let mut all = vec![0.0; self.rows * self.columns];
        all.chunks_mut(self.columns).enumerate().try_for_each(|(r, out)| self.row(r, out))?;
        Ok(all)
    }
}

/// What rows of a matrix that is quantized are multiplied with, if all of its sources say the same.
fn moments(dtype: DType, of: &Recipe, source: &dyn Source, rows: usize, columns: usize) -> Option<Arc<Moments>> {
    dtype.info().scale?;
    let mut all = Vec::new();
    of.sources(&mut |name| all.push(source.moments(name)));
    let first = all.first().cloned().flatten()?;
    let same = all.iter().all(|m| m.as_ref().is_some_and(|m| Arc::ptr_eq(m, &first)));
    let fits = first.columns == columns && first.experts() > 0 && rows.is_multiple_of(first.experts());
    (same && fits).then_some(first)
}

/// Rows of a shape seen as `[product, last]`.
fn rows_of(shape: &[usize]) -> usize {
    shape.iter().rev().skip(1).product()
}

/// The part that row `row` is in, and its first row.
pub(super) fn part_of<'p, 'a>(parts: &'p [(usize, Prepared<'a>)], row: usize) -> &'p (usize, Prepared<'a>) {
    &parts[parts.partition_point(|(first, _)| *first <= row).saturating_sub(1)]
}

/// Where the row that stands at `row` in interleaved order stands in half-split order.
pub(super) fn before_permutation(row: usize, head: usize) -> usize {
    let (first, at) = (row / head * head, row % head);
    first + at / 2 + at % 2 * (head / 2)
}

fn vector(by: &Recipe, source: &dyn Source) -> Result<Vec<f32>, String> {
    Prepared::new(by, source)?.read_all()
}

fn with_first_rows(parts: Vec<Prepared<'_>>) -> Vec<(usize, Prepared<'_>)> {
    let mut next = 0;
    parts
        .into_iter()
        .map(|part| {
            let first = next;
            next += part.rows;
            (first, part)
        })
        .collect()
}
