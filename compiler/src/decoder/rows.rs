//! Which columns of a batch are tokens: from the mask, from counts, from positions. The compiled code has sequences without padding, whose positions
//! count from 0; what would come out otherwise is refused.

use crate::diag::{Diag, Result};
use std::ops::Range;

/// One sequence of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Columns of the past that are tokens.
    pub(super) past: Range<usize>,
    /// Columns of the new tokens that are.
    pub(super) new: Range<usize>,
    /// Column of the result's cache in which the past begins.
    pub(super) past_at: usize,
    /// Column in which the new tokens begin.
    pub(super) new_at: usize,
}

/// What a batch says about its tokens.
pub(super) struct Told<'a> {
    pub(super) batch: usize,
    pub(super) past: usize,
    pub(super) new: usize,
    /// Name and elements of the mask, `[batch, past + new]`, and whether padding may stand on the left.
    pub(super) mask: Option<(&'a str, &'a [i64], bool)>,
    /// Number of the last token of each sequence.
    pub(super) last: Option<(&'a str, &'a [i64])>,
    /// Positions, `[batch, new]`.
    pub(super) positions: Option<(&'a str, &'a [i64])>,
    /// The graph counts tokens.
    pub(super) counts: bool,
}

impl Told<'_> {
    /// The sequences.
    ///
    /// # Errors
    /// A mask that is no padding at one end, padding that the graph does not take, or other positions than those of the tokens.
    pub(super) fn rows(&self) -> Result<Vec<Row>> {
        (0..self.batch).map(|b| self.row(b)).collect()
    }

    fn row(&self, b: usize) -> Result<Row> {
        let total = self.past + self.new;
        let mut real = 0..total;
        let mut name = "";
        if let Some((port, mask, padding)) = self.mask {
            name = port;
            let bad = |what: &str| Diag::new("tensors", what).place(format_args!("`{port}`, sequence {b}"));
            let mask = &mask[b * total..(b + 1) * total];
            if let Some(other) = mask.iter().find(|m| !matches!(m, 0 | 1)) {
                return Err(bad("a mask has something else than 0 and 1").found(other).expected("1 for tokens, 0 for padding"));
            }
            let first = mask.iter().position(|m| *m == 1).unwrap_or(total);
            let count = mask[first..].iter().take_while(|m| **m == 1).count();
            real = first..first + count;
            if let Some(hole) = mask[real.end..].iter().position(|m| *m == 1) {
                return Err(bad("a mask is no padding at one end")
                    .found(format_args!("tokens in columns {}..{}, and again from {}", real.start, real.end, real.end + hole))
                    .expected("tokens that stand together, padding before or behind them")
                    .help("leave the columns between out, and their entries of the past"));
            }
            if first > 0 && count > 0 && !padding {
                let (what, expected) = match self.counts {
                    true => ("the graph counts tokens: padding stands behind them", "padding on the right"),
                    false => ("in this graph tokens behind padding are not what they are without it", "no padding on the left"),
                };
                return Err(bad(what)
                    .found(format_args!("{first} columns of padding first"))
                    .expected(expected)
                    .help("run the sequence by itself"));
            }
        }
        if let Some((port, last)) = self.last {
            name = port;
            let count = usize::try_from(last[b] + 1).ok().filter(|n| *n <= total);
            let bad = || {
                Diag::new("tensors", "the number of the last token is not one of the columns").place(format_args!("`{port}`, sequence {b}"))
            };
            real = 0..count.ok_or_else(|| bad().found(last[b]).expected(format_args!("-1 to {}", total as i64 - 1)))?;
        }
        let row = if self.counts {
            // Without a past the first columns are the tokens; behind one all new columns are.
            let past = if self.past == 0 { 0 } else { real.end.saturating_sub(self.new) };
            Row { past: 0..past, new: 0..real.end - past, past_at: 0, new_at: past }
        } else {
            let (start, end) = (real.start, real.end);
            let row = Row {
                past: start.min(self.past)..end.min(self.past),
                new: start.max(self.past) - self.past..end.max(self.past) - self.past,
                past_at: start.min(self.past),
                new_at: start.max(self.past),
            };
            if self.positions.is_none() && start > 0 && !row.new.is_empty() && !self.mask.is_some_and(|m| m.2) {
                return Err(Diag::new("tensors", "the graph counts positions from its first column, padding or not")
                    .place(format_args!("`{name}`, sequence {b}"))
                    .found(format_args!("{start} columns of padding first"))
                    .expected("no padding on the left"));
            }
            row
        };
        if let Some((port, positions)) = self.positions {
            let given = &positions[b * self.new..(b + 1) * self.new][row.new.clone()];
            let wrong = given.iter().enumerate().find(|(i, p)| **p != (row.past.len() + i) as i64);
            if let Some((i, found)) = wrong {
                return Err(Diag::new("tensors", "positions are not those of the tokens in their sequences")
                    .place(format_args!("`{port}`, sequence {b}, column {}", row.new.start + i))
                    .found(found)
                    .expected(format_args!("{}: as many tokens stand before it, padding not counted", row.past.len() + i))
                    .help("compiled code counts positions from 0 for each sequence; `llamac infer` of the ONNX file itself takes any"));
            }
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<'a>(past: usize, new: usize, mask: &'a [i64], positions: Option<&'a [i64]>) -> Told<'a> {
        let positions = positions.map(|p| ("pos", p));
        Told { batch: mask.len() / (past + new), past, new, mask: Some(("mask", mask, true)), last: None, positions, counts: false }
    }

    fn row(past: Range<usize>, new: Range<usize>, past_at: usize, new_at: usize) -> Row {
        Row { past, new, past_at, new_at }
    }

    #[test]
    fn padding_is_left_out_at_either_end() {
        let rows = told(2, 3, &[0, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0], None).rows().unwrap();
        assert_eq!(rows, [row(1..2, 0..3, 1, 2), row(2..2, 1..3, 2, 3), row(0..2, 0..2, 0, 2)]);
        let none = told(1, 1, &[0, 0], None).rows().unwrap();
        assert!(none[0].past.is_empty() && none[0].new.is_empty());
    }

    #[test]
    fn holes_other_numbers_and_other_positions_are_refused() {
        assert!(told(0, 3, &[1, 0, 1], None).rows().unwrap_err().what.contains("no padding"));
        assert!(told(0, 2, &[1, 2], None).rows().unwrap_err().what.contains("0 and 1"));
        assert!(told(0, 3, &[0, 1, 1], Some(&[9, 0, 1])).rows().is_ok());
        let wrong = told(0, 3, &[0, 1, 1], Some(&[0, 1, 2])).rows().unwrap_err();
        assert_eq!(wrong.place.as_deref(), Some("`pos`, sequence 0, column 1"));
    }

    #[test]
    fn a_graph_that_counts_has_its_padding_last() {
        let counting = |past, new, mask| Told { mask: Some(("mask", mask, false)), counts: true, ..told(past, new, mask, None) };
        assert_eq!(counting(0, 3, &[1, 1, 0]).rows().unwrap(), [row(0..0, 0..2, 0, 0)]);
        assert_eq!(counting(3, 1, &[1, 1, 1, 0]).rows().unwrap(), [row(0..2, 0..1, 0, 2)]);
        assert!(counting(0, 3, &[0, 1, 1]).rows().unwrap_err().what.contains("counts tokens"));
    }
}
