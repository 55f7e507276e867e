//! Reading less than a row, and several rows at once: what makes transposed weights cheap. A band of rows of a transposed matrix is a band of
//! columns of its source, gathered from each source row once. Single rows are in `prepared`.

use super::prepared::{Node, Prepared, before_permutation, part_of};
use crate::eval::quant;

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
                let mut part = vec![0.0; count.min(of.columns)];
                let mut done = 0;
                while done < count {
                    let (matrix, column) = ((first + done) / of.columns, (first + done) % of.columns);
                    let part = &mut part[..(count - done).min(of.columns - column)];
                    for r in 0..*each {
                        of.part(matrix * each + r, column, part)?;
                        part.iter().enumerate().for_each(|(i, x)| out[(done + i) * stride + r] = *x);
                    }
                    done += part.len();
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
            Node::Source(..) | Node::Literal(_) | Node::After(_) | Node::PermutedRows(..) | Node::PermutedElements(..) => {
                (0..count).try_for_each(|i| self.row(first + i, &mut out[i * stride..][..columns]))
            }
        }
    }

    /// Writes elements `start .. start + out.len()` of row `row`, which must be there.
    fn part(&self, row: usize, start: usize, out: &mut [f32]) -> Result<(), String> {
        match &self.node {
            Node::Source(source, name) => source.part(name, row, self.columns, start, out),
            Node::Below(parts) => {
                let (first, part) = part_of(parts, row);
                part.part(row - first, start, out)
            }
            Node::PermutedRows(head, of) => of.part(before_permutation(row, *head), start, out),
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
