//! Weights that are stored in the very codes that they are wanted in: what an exporter has quantized is not quantized again.

use super::Line;
use super::prepared::{Node, Prepared, before_permutation, part_of};
use crate::dtype::DType;
use crate::eval::quant::Codes;

impl Prepared<'_> {
    /// Whether every row can be had as codes of a quantized type, as its source has them.
    pub(super) fn keeps(&self, dtype: DType) -> bool {
        match &self.node {
            Node::Below(parts) => parts.iter().all(|(_, part)| part.keeps(dtype)),
            Node::PermutedRows(_, of) | Node::From(_, of) => of.keeps(dtype),
            Node::Source(..) | Node::Transposed(..) => matches!(self.kept(dtype, 0, &mut Codes::default()), Ok(true)),
            _ => false,
        }
    }

    /// The codes of a row, if [`Prepared::keeps`].
    pub(super) fn kept(&self, dtype: DType, row: usize, out: &mut Codes) -> Result<bool, String> {
        match &self.node {
            Node::Source(source, name) => source.codes(name, dtype, Line::Row { row, columns: self.columns }, out),
            Node::Transposed(rows, of) => match &of.node {
                // One matrix: of several, one after the other, rows would be counted through.
                Node::Source(source, name) if *rows == of.rows => {
                    source.codes(name, dtype, Line::Column { column: row, columns: of.columns, rows: *rows }, out)
                }
                _ => Ok(false),
            },
            Node::Below(parts) => {
                let (first, part) = part_of(parts, row);
                part.kept(dtype, row - first, out)
            }
            Node::PermutedRows(head, of) => of.kept(dtype, before_permutation(row, *head), out),
            Node::From(first, of) => of.kept(dtype, first + row, out),
            _ => Ok(false),
        }
    }

    /// As [`Prepared::kept`], of a recipe that was found to keep its codes.
    pub(super) fn must_keep(&self, dtype: DType, row: usize, out: &mut Codes) -> Result<(), String> {
        match self.kept(dtype, row, out)? {
            true => Ok(()),
            false => Err(format!("row {row} has no codes of type {dtype}, expected some as in the first row")),
        }
    }
}
