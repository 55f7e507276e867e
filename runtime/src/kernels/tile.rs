//! The inner loop of all templates: a tile of rows of activations by columns of 16 numbers, its sums in registers. What a tile belongs to is
//! in `dot` and `flash`.

use super::lanes::Lanes;
use super::mac::Mac;

/// The numbers of a [`Mac`].
pub(super) type F<K> = <<K as Mac>::L as Lanes>::F;

/// Where the lines of a tile stand, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    /// First line of the first column.
    pub(super) at: *const u8,
    /// From a line to the next of its column.
    pub(super) stride: usize,
    /// From a column to the next.
    pub(super) column: usize,
    /// Lines of a column.
    pub(super) count: usize,
    /// Lines that will be wanted soon.
    pub(super) ahead: Option<Ahead>,
}

/// Lines to ask for on the way, as many as there are in all columns.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// The first; any address will do.
    pub(super) at: *const u8,
    /// From one to the next, in bytes; 0 where they have been asked for: so there is one loop for both.
    pub(super) step: usize,
}

/// Where the activations of a tile stand, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// First activations of the first row.
    pub(super) at: *const u8,
    /// From one line's activations to the next line's.
    pub(super) step: usize,
    /// From a row to the next.
    pub(super) stride: usize,
}

/// The body once for each row below `M`: written out, because an unrolling that LLVM declines would leave the sums in memory.
macro_rules! for_rows {
    ($m:ident, $t:ident => $body:block) => {
        for_rows!(@ $m, $t => $body, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $m:ident, $t:ident => $body:block, $($row:literal)*) => {
        $(if $row < $m {
            let $t = $row;
            $body
        })*
    };
}

pub(super) use for_rows;

/// Adds `count` lines of `C` columns times `M` (at most 12) rows to the sums, in order.
///
/// # Safety
/// As for [`Mac`]: the lines, and `X_BYTES` bytes for each of them in each row, are readable.
#[inline(always)]
pub(super) unsafe fn add<K: Mac, const M: usize, const C: usize>(sums: &mut [[F<K>; C]; M], lines: Lines, x: Rows) {
    const { assert!(M <= 12) };
    for l in 0..lines.count {
        // SAFETY: the caller's promise.
        unsafe {
            let at = lines.at.add(l * lines.stride);
            let x_at = x.at.add(l * x.step);
            if let Some(ahead) = lines.ahead {
                for c in 0..C {
                    K::L::prefetch(ahead.at.wrapping_add((l * C + c) * ahead.step));
                }
            }
            let line: [K::Line; C] = std::array::from_fn(|c| K::line(at.add(c * lines.column)));
            for_rows!(M, t => {
                let x = K::x(x_at.add(t * x.stride));
                for c in 0..C {
                    sums[t][c] = K::mac(sums[t][c], line[c], x);
                }
            });
        }
    }
}

/// As [`add`] for one column and `P` lines at a time, each with its own sums: the chains of dependent additions are shorter.
///
/// # Safety
/// As for [`add`]; `count` is a multiple of `P`.
#[inline(always)]
pub(super) unsafe fn add_alternately<K: Mac, const M: usize, const P: usize>(sums: &mut [[F<K>; P]; M], lines: Lines, x: Rows) {
    const { assert!(M <= 12) };
    for l in (0..lines.count).step_by(P) {
        // An index, because `for_rows` takes the row first.
        #[expect(clippy::needless_range_loop)]
        for p in 0..P {
            // SAFETY: the caller's promise.
            unsafe {
                let at = lines.at.add((l + p) * lines.stride);
                if M == 1 && K::AHEAD > 0 {
                    K::L::prefetch(at.wrapping_add(K::AHEAD));
                }
                let line = K::line(at);
                let x_at = x.at.add((l + p) * x.step);
                for_rows!(M, t => { sums[t][p] = K::mac(sums[t][p], line, K::x(x_at.add(t * x.stride))); });
            }
        }
    }
}
