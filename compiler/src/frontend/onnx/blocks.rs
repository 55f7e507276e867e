//! Quantized weights as floats: `(code - zero point) * scale`, computed for the elements that are asked for and never for a whole tensor. Where codes
//! and scales of an element stand is all that the spellings of exporters differ in.

use super::weights::{OnnxWeights, Stored};
use llamac_ir::dtype::DType;
use llamac_ir::eval::quant::Codes;
use llamac_ir::recipe::Line;

/// How elements of a tensor find their codes and scales.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Order {
    /// `DequantizeLinear`: codes in the order of the elements; along the axis of `len` elements with `inner` behind each, `block` share a scale.
    Axis { len: usize, inner: usize, block: usize },
    /// `MatMulNBits`: rows of `columns` elements, cut into blocks; a row's last block is filled up.
    Rows { columns: usize, block: usize },
}

/// A tensor of floats that is made of codes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Blocks {
    pub(super) codes: String,
    pub(super) scales: String,
    pub(super) zeros: Option<String>,
    /// Zero point where none are given.
    pub(super) zero: i64,
    pub(super) order: Order,
}

impl Order {
    /// Where code and scale of an element stand.
    fn places(self, element: usize) -> (usize, usize) {
        match self {
            Order::Axis { len, inner, block } => {
                let (outer, at, i) = (element / (len * inner), element / inner % len, element % inner);
                (element, (outer * len.div_ceil(block) + at / block) * inner + i)
            }
            Order::Rows { columns, block } => {
                let scale = element / columns * columns.div_ceil(block) + element % columns / block;
                (scale * block + element % columns % block, scale)
            }
        }
    }
}

impl OnnxWeights {
    /// Elements `first ..` of a tensor of codes.
    pub(super) fn dequantized(&self, blocks: &Blocks, first: usize, out: &mut [f32]) -> Result<(), String> {
        let find = |name: &str| self.get(name).ok_or_else(|| format!("no tensor `{name}`"));
        let (codes, scales) = (find(&blocks.codes)?, find(&blocks.scales)?);
        let zeros = blocks.zeros.as_deref().map(find).transpose()?;
        let missing = |name: &str, at: usize| format!("tensor `{name}`: element {at} is not there");
        for (i, x) in out.iter_mut().enumerate() {
            let (code, scale) = blocks.order.places(first + i);
            let q = self.code(codes, code).ok_or_else(|| missing(&blocks.codes, code))?;
            let zero = match zeros {
                Some(zeros) => self.code(zeros, scale).ok_or_else(|| missing("zero points", scale))?,
                None => blocks.zero,
            };
            let by = self.number(scales, scale).ok_or_else(|| missing(&blocks.scales, scale))?;
            *x = (q - zero) as f32 * by as f32;
        }
        Ok(())
    }

    /// The codes of a line of a tensor of codes in 4 bits, if they are what a type with groups as large as its blocks has: -8 to 7, no zero points.
    pub(super) fn kept(&self, blocks: &Blocks, dtype: DType, line: Line, out: &mut Codes) -> Result<bool, String> {
        let info = dtype.info();
        let (Some(codes), Some(scales)) = (self.get(&blocks.codes), self.get(&blocks.scales)) else { return Ok(false) };
        let symmetric = blocks.zeros.is_none() && codes.packed && (codes.dtype == DType::I8) == (blocks.zero == 0);
        let group = info.group as usize;
        let along = match (line, blocks.order) {
            (Line::Row { columns, .. }, Order::Rows { columns: own, block }) => (columns == own).then_some(block),
            (Line::Row { columns, .. }, Order::Axis { len, inner: 1, block }) => (columns == len).then_some(block),
            (Line::Column { columns, rows, .. }, Order::Axis { len, inner, block }) => (columns == inner && rows == len).then_some(block),
            _ => None,
        };
        if info.bits != 4 || !symmetric || along != Some(group) {
            return Ok(false);
        }
        let (first, step, count) = match line {
            Line::Row { row, columns } => (row * columns, 1, columns),
            Line::Column { column, columns, rows } => (column, columns, rows),
        };
        let place = |i: usize| blocks.order.places(first + i * step);
        let missing = |i: usize| format!("tensor `{}`: element {} is not there", blocks.codes, first + i * step);
        if let Some(i) = (count > 0).then(|| count - 1).filter(|i| {
            let (code, scale) = place(*i);
            self.code(codes, code).is_none() || self.number(scales, scale).is_none()
        }) {
            return Err(missing(i));
        }
        let code = |i: usize| (self.code(codes, place(i).0).unwrap_or(blocks.zero) - blocks.zero) as i8;
        let scale = |i: usize| self.number(scales, place(i).1).unwrap_or(0.0) as f32;
        out.take(group, (0..count).map(code), (0..count).step_by(group).map(scale));
        Ok(true)
    }

    /// One code: a byte or a nibble, low ones first.
    fn code(&self, stored: &Stored, at: usize) -> Option<i64> {
        let bytes = self.bytes(stored)?;
        let byte = if stored.packed { *bytes.get(at / 2)? >> (at % 2 * 4) & 15 } else { *bytes.get(at)? };
        Some(match (stored.dtype == DType::I8, stored.packed) {
            (true, true) => i64::from((byte << 4) as i8 >> 4),
            (true, false) => i64::from(byte as i8),
            (false, _) => i64::from(byte),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_find_their_scales() {
        // Four rows of three columns, two rows share a scale.
        let axis = Order::Axis { len: 4, inner: 3, block: 2 };
        assert_eq!([0, 2, 5, 6, 11].map(|e| axis.places(e)), [(0, 0), (2, 2), (5, 2), (6, 3), (11, 5)]);
        // Rows of five columns in blocks of four: each row has eight codes and two scales.
        let rows = Order::Rows { columns: 5, block: 4 };
        assert_eq!([0, 3, 4, 5, 9].map(|e| rows.places(e)), [(0, 0), (3, 0), (4, 1), (8, 2), (12, 3)]);
    }
}
