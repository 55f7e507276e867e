//! Reading less than a row, and several rows at once: what makes transposed weights cheap. A band of rows of a transposed matrix is a band of
//! columns of its source, gathered from each source row once. Single rows are in `prepared`.

use super::prepared::{Node, Prepared, before_permutation, part_of};
use crate::eval::quant;

/// Rows of the source that are gathered together: a cache line of elements of a transposed row.
const TILE: usize = 16;

impl Prepared<'_> {
    /// Writes rows `first .. first + count` as f32, row `i` at `out[i * stride ..]`. Costs about what it copies, also where the
    /// recipe transposes.
    ///
    /// # Errors
    /// There are no such rows, `out` or `stride` is too small, or the source cannot be read.
    pub fn band(&self, first: usize, count: usize, out: &mut [f32], stride: usize) -> Result<(), String> {
        let (rows, columns) = (self.rows, self.columns);
        let room = count.checked_sub(1).and_then(|last| last.checked_mul(stride)).map_or(0, |before| before + columns);
        if first.checked_add(count).is_none_or(|end| end > rows) || stride < columns || out.len() < room {
            let found = format!("found rows {first}, {count} of them, into {} elements with {stride} for each", out.len());
            return Err(format!("{found}, expected [{rows}, {columns}]"));
        }
        match &self.node {
            Node::Round(dtype, of) => {
                of.band(first, count, out, stride)?;
                (0..count).try_for_each(|i| quant::round(*dtype, &mut out[i * stride..][..columns]))
            }
            Node::RoundFor(dtype, of, feedback) => {
                of.band(first, count, out, stride)?;
                (0..count).try_for_each(|i| {
                    quant::round_for(*dtype, &mut out[i * stride..][..columns], self.expert(first + i, feedback), feedback)
                })
            }
            Node::Below(parts) => {
                let mut done = 0;
                while done < count {
                    let (start, part) = part_of(parts, first + done);
                    let now = (count - done).min(start + part.rows - first - done);
                    part.band(first + done - start, now, &mut out[done * stride..], stride)?;
                    done += now;
                }
                Ok(())
            }
            Node::Transposed(each, of) => {
                // Source rows are gathered in tiles: writing columns of single rows would touch a cache line for every element.
                let mut tile = vec![0.0; TILE * count.min(of.columns)];
                let mut done = 0;
                while done < count {
                    let (matrix, column) = ((first + done) / of.columns, (first + done) % of.columns);
                    let width = (count - done).min(of.columns - column);
                    for r in (0..*each).step_by(TILE) {
                        let high = TILE.min(*each - r);
                        let tile = &mut tile[..high * width];
                        of.patch(matrix * each + r, column, width, tile)?;
                        for i in 0..width {
                            let to = &mut out[(done + i) * stride + r..][..high];
                            to.iter_mut().zip(tile[i..].iter().step_by(width)).for_each(|(to, from)| *to = *from);
                        }
                    }
                    done += width;
                }
                Ok(())
            }
            Node::ScaledColumns(of, by) => {
                of.band(first, count, out, stride)?;
                (0..count).for_each(|i| out[i * stride..].iter_mut().zip(by).for_each(|(x, b)| *x *= b));
                Ok(())
            }
            Node::ScaledRows(of, by) => {
                of.band(first, count, out, stride)?;
                (0..count).for_each(|i| out[i * stride..][..columns].iter_mut().for_each(|x| *x *= by[first + i]));
                Ok(())
            }
            Node::From(start, of) => of.band(start + first, count, out, stride),
            Node::Source(..)
            | Node::Kept(..)
            | Node::Literal(_)
            | Node::After(_)
            | Node::PermutedRows(..)
            | Node::PermutedElements(..)
            | Node::ElementsFrom(..) => (0..count).try_for_each(|i| self.row(first + i, &mut out[i * stride..][..columns])),
        }
    }

    /// Writes the codes and scales of rows `first .. first + out.len()`, if the weight is of a quantized type; `room` is used for rows as f32.
    /// Costs about what it copies and quantizes, also where the recipe transposes.
    ///
    /// # Errors
    /// As [`Prepared::band`], or the weight is not of a quantized type.
    pub fn codes_band(&self, first: usize, room: &mut Vec<f32>, out: &mut [quant::Codes]) -> Result<(), String> {
        match &self.node {
            Node::Round(dtype, of) => {
                room.resize(out.len() * of.columns, 0.0);
                of.band(first, out.len(), room, of.columns)?;
                out.iter_mut().zip(room.chunks_exact(of.columns)).try_for_each(|(codes, row)| quant::quantize(*dtype, row, codes))
            }
            Node::RoundFor(dtype, of, feedback) => {
                room.resize(out.len() * of.columns, 0.0);
                of.band(first, out.len(), room, of.columns)?;
                let mut rows = out.iter_mut().zip(room.chunks_exact_mut(of.columns)).zip(first..);
                rows.try_for_each(|((codes, row), number)| quant::quantize_for(*dtype, row, self.expert(number, feedback), feedback, codes))
            }
            Node::Below(parts) => {
                let mut done = 0;
                while done < out.len() {
                    let (start, part) = part_of(parts, first + done);
                    let now = (out.len() - done).min(start + part.rows - first - done);
                    part.codes_band(first + done - start, room, &mut out[done..done + now])?;
                    done += now;
                }
                Ok(())
            }
            Node::From(start, of) => of.codes_band(start + first, room, out),
            _ => out.iter_mut().zip(first..).try_for_each(|(codes, row)| self.codes(row, room, codes)),
        }
    }

    /// Whether rows cost less when many are read together.
    pub fn transposes(&self) -> bool {
        match &self.node {
            Node::Transposed(..) => true,
            Node::Below(parts) => parts.iter().any(|(_, part)| part.transposes()),
            Node::RoundFor(_, of, _) => of.transposes(),
            Node::Round(_, of) | Node::PermutedRows(_, of) | Node::From(_, of) | Node::ScaledColumns(of, _) | Node::ScaledRows(of, _) => {
                of.transposes()
            }
            Node::Source(..) | Node::Kept(..) | Node::Literal(_) | Node::After(_) | Node::PermutedElements(..) | Node::ElementsFrom(..) => {
                false
            }
        }
    }

    /// Writes elements `start .. start + width` of the rows from `row` on, which must be there, row after row.
    fn patch(&self, row: usize, start: usize, width: usize, out: &mut [f32]) -> Result<(), String> {
        match &self.node {
            Node::Source(source, name) => source.patch(name, row, self.columns, start, width, out),
            _ => out.chunks_exact_mut(width).zip(row..).try_for_each(|(out, row)| self.part(row, start, out)),
        }
    }

    /// Writes elements `start .. start + out.len()` of row `row`, which must be there.
    pub(super) fn part(&self, row: usize, start: usize, out: &mut [f32]) -> Result<(), String> {
        match &self.node {
            Node::Source(source, name) => source.part(name, row, self.columns, start, out),
            Node::Below(parts) => {
                let (first, part) = part_of(parts, row);
                part.part(row - first, start, out)
            }
            Node::PermutedRows(head, of) => of.part(before_permutation(row, *head), start, out),
            Node::From(first, of) => of.part(first + row, start, out),
            Node::ScaledRows(of, by) => {
                of.part(row, start, out)?;
                out.iter_mut().for_each(|x| *x *= by[row]);
                Ok(())
            }
            _ => {
                let mut whole = vec![0.0; self.columns];
                self.row(row, &mut whole)?;
                out.copy_from_slice(&whole[start..start + out.len()]);
                Ok(())
            }
        }
    }
}
