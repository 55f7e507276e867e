//! Which true row or column stands at each padded place of a packed weight. The layouts themselves are `lower::layout`.

use crate::lower::layout::{Layout, pad};
use crate::lower::program::RowOrder;
use llamac_runtime::abi::ROWS;

/// The true index at padded index `i`, of `n` true ones; `None`: padding.
fn plain(layout: Layout, n: usize, i: usize) -> Option<usize> {
    let at = match layout {
        Layout::Plain => i,
        Layout::Heads(d) if i % pad(d) < d => i / pad(d) * d + i % pad(d),
        Layout::Heads(_) => return None,
    };
    (at < n).then_some(at)
}

fn at(order: RowOrder, n: usize, i: usize) -> Option<usize> {
    match order {
        RowOrder::Plain(layout) => plain(layout, n, i),
        RowOrder::GateUp(layout) => {
            let (block, lane) = (i / ROWS, i % ROWS);
            let half = n / 2;
            plain(layout, half, block / 2 * ROWS + lane).map(|row| block % 2 * half + row)
        }
    }
}

/// Rows of block `number`, of `n` true rows.
pub(super) fn block(order: RowOrder, n: usize, number: usize) -> [Option<usize>; ROWS] {
    std::array::from_fn(|lane| at(order, n, number * ROWS + lane))
}

/// Elements of a vector of `n` true ones, with padding between and behind them.
pub(super) fn vector(order: RowOrder, n: usize) -> Vec<Option<usize>> {
    (0..order.padded(n)).map(|i| at(order, n, i)).collect()
}

/// Columns of a matrix: how a true row is spread over a padded one.
pub(super) struct Columns {
    layout: Layout,
    n: usize,
}

impl Columns {
    pub(super) fn new(layout: Layout, n: usize) -> Columns {
        Columns { layout, n }
    }

    pub(super) fn padded(&self) -> usize {
        self.layout.padded(self.n)
    }

    /// The number of columns, if true ones stand together in front.
    pub(super) fn plain(&self) -> Option<usize> {
        (self.layout == Layout::Plain).then_some(self.n)
    }

    /// Puts the heads of `row` where they belong in `out`, whose padding is zero already. Plain columns are left alone.
    pub(super) fn spread(&self, row: &[f32], out: &mut [f32]) {
        if let Layout::Heads(d) = self.layout {
            row.chunks_exact(d).zip(out.chunks_exact_mut(pad(d))).for_each(|(from, to)| to[..d].copy_from_slice(from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_padded_one_by_one() {
        let order = vector(RowOrder::Plain(Layout::Heads(24)), 48);
        assert_eq!(order.len(), 64);
        assert_eq!((order[23], order[24], order[31], order[32], order[55], order[56]), (Some(23), None, None, Some(24), Some(47), None));
        let mut out = [0.0; 64];
        let row: Vec<f32> = (1..=48).map(|i| i as f32).collect();
        Columns::new(Layout::Heads(24), 48).spread(&row, &mut out);
        assert_eq!((out[23], out[24], out[32], out[55], out[56]), (24.0, 0.0, 25.0, 48.0, 0.0));
    }

    #[test]
    fn gate_and_up_alternate_in_blocks_of_sixteen() {
        let order = RowOrder::GateUp(Layout::Plain);
        let blocks: Vec<_> = (0..4).map(|b| block(order, 40, b)).collect();
        assert_eq!((blocks[0][0], blocks[1][0], blocks[2][3], blocks[3][3]), (Some(0), Some(20), Some(19), Some(39)));
        assert_eq!((blocks[2][4], blocks[3][4]), (None, None));
        let mut seen: Vec<usize> = blocks.iter().flatten().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..40).collect::<Vec<_>>());
    }
}
