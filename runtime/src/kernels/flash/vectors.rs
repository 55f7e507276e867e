//! The products of a page by vectors: tiles of a few queries by lines of keys or values, for any format of the cache.

use super::{P_STRIDE, Products, Queries};
use crate::abi::{AttentionArgs, PAGE_TOKENS, ROWS};
use crate::kernels::kept::Kept;
use crate::kernels::lanes::Lanes;
use crate::kernels::tile::{self, Ahead, F, Lines, Rows, for_rows};
use std::marker::PhantomData;
use std::ops::Range;

/// Scores in tiles of up to `Q` queries, values in tiles of up to `M` queries by `C` columns of 16.
pub(in crate::kernels) struct Vectors<K, const Q: usize, const M: usize, const C: usize>(PhantomData<K>);

impl<K: Kept, const Q: usize, const M: usize, const C: usize> Products for Vectors<K, Q, M, C> {
    type K = K;
    #[inline(always)]
    unsafe fn scores(
        a: &AttentionArgs,
        queries: &Queries,
        range: Range<usize>,
        (k, scales): (*const u8, *const f32),
        v: *const u8,
        tokens: usize,
    ) {
        let count = a.head_dim as usize / K::ELEMENTS;
        for block in 0..tokens / ROWS {
            let mut i = range.start;
            let even = even_parts(range.len(), Q);
            while i < range.end {
                // SAFETY: the caller's promise.
                unsafe {
                    let at = block * count * K::LINE;
                    let ahead = first_asks::<K>(v.wrapping_add(at), i == range.start);
                    let lines = Lines { at: k.add(at), stride: K::LINE, column: 0, count, ahead };
                    let (scales, factors) = (scales.wrapping_add(block * ROWS), queries.scale.add(i));
                    let x = Rows { at: queries.q.add(i * queries.q_stride), step: K::X_BYTES, stride: queries.q_stride };
                    let to = queries.p.add(i * P_STRIDE).cast::<f32>().add(block * ROWS);
                    macro_rules! up_to_q {
                        ($($n:literal)*) => {
                            match even.min(range.end - i) {
                                $($n if $n < Q => score_tile::<K, $n>(lines, x, scales, factors, to),)*
                                _ => score_tile::<K, Q>(lines, x, scales, factors, to),
                            }
                        };
                    }
                    up_to_q!(1 2 3 4 5 6 7 8 9 10 11);
                }
                i += even;
            }
        }
    }
    #[inline(always)]
    unsafe fn values(a: &AttentionArgs, queries: &Queries, range: Range<usize>, v: *const u8, next: *const u8, tokens: usize) {
        let columns = a.head_dim as usize / ROWS;
        let whole = columns - columns % C;
        let lines = |column: usize| Lines {
            at: v.wrapping_add(column * K::LINE),
            stride: columns * K::LINE,
            column: K::LINE,
            count: tokens / K::ELEMENTS,
            ahead: first_asks::<K>(next.wrapping_add(column * K::LINE * PAGE_TOKENS / K::ELEMENTS), true),
        };
        for column in (0..whole).step_by(C) {
            // SAFETY: the caller's promise.
            unsafe { value_columns::<K, M, C>(a, queries, range.clone(), lines(column), column) }
        }
        for column in whole..columns {
            // SAFETY: the caller's promise.
            unsafe { value_columns::<K, M, 1>(a, queries, range.clone(), lines(column), column) }
        }
    }
}

/// Lines at `at` to ask for, if nobody has.
fn first_asks<K: Kept>(at: *const u8, first: bool) -> Option<Ahead> {
    Some(Ahead { at, step: if first { K::LINE } else { 0 } })
}

/// The size of parts of `n`, at most `max` each, none much smaller than the others: small tiles are slow.
fn even_parts(n: usize, max: usize) -> usize {
    n.div_ceil(n.div_ceil(max))
}

/// Scores of `M` queries and 16 keys.
///
/// # Safety
/// As for [`super::attention`].
#[inline(always)]
unsafe fn score_tile<K: Kept, const M: usize>(lines: Lines, x: Rows, scales: *const f32, factors: *const f32, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[K::L::splat(0.0); 1]; M];
        tile::add::<K, M, 1>(&mut sums, lines, x);
        for_rows!(M, t => { K::L::store(to.byte_add(t * P_STRIDE), K::scores(sums[t][0], scales, *factors.add(t))) });
    }
}

/// As [`Products::values`] for `C` columns of 16 from `column` on.
///
/// # Safety
/// As for [`super::attention`].
#[inline(always)]
unsafe fn value_columns<K: Kept, const M: usize, const C: usize>(
    a: &AttentionArgs,
    queries: &Queries,
    range: Range<usize>,
    lines: Lines,
    column: usize,
) {
    let (mut i, mut lines) = (range.start, lines);
    let even = even_parts(range.len(), M);
    while i < range.end {
        macro_rules! up_to_m {
            ($($n:literal)*) => {
                match even.min(range.end - i) {
                    $($n if $n < M => value_tile::<K, $n, C>(a, queries, i, lines, column),)*
                    _ => value_tile::<K, M, C>(a, queries, i, lines, column),
                }
            };
        }
        // SAFETY: the caller's promise.
        unsafe { up_to_m!(1 2 3 4 5) }
        lines.ahead = first_asks::<K>(lines.at, false);
        i += even;
    }
}

/// As [`Products::values`] for `M` queries from `i` on and `C` columns of 16.
///
/// # Safety
/// As for [`super::attention`].
#[inline(always)]
unsafe fn value_tile<K: Kept, const M: usize, const C: usize>(a: &AttentionArgs, queries: &Queries, i: usize, lines: Lines, column: usize) {
    const { assert!(M <= 6) };
    // SAFETY: the caller's promise.
    unsafe {
        let out: [*mut f32; M] = std::array::from_fn(|t| queries.part(a, i + t).add(column * ROWS));
        let mut sums: [[F<K>; C]; M] = [[K::L::splat(0.0); C]; M];
        for_rows!(M, t => {
            let shrink = *queries.shrink.add(i + t);
            sums[t] = std::array::from_fn(|c| K::begin(out[t].add(c * ROWS), shrink));
        });
        let x = Rows { at: queries.p.add(i * P_STRIDE), step: K::X_BYTES, stride: P_STRIDE };
        tile::add::<K, M, C>(&mut sums, lines, x);
        for_rows!(M, t => {
            let (shrink, factor) = (*queries.shrink.add(i + t), *queries.factor.add(i + t));
            for (c, sum) in sums[t].into_iter().enumerate() {
                K::finish(out[t].add(c * ROWS), sum, shrink, factor);
            }
        });
    }
}
