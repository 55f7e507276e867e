//! The attention template over any format of the cache ([`Kept`]): page after page of the cache with a running maximum (Milakov and Gimelshein, 2018; Dao et al.,
//! 2022). All query heads of a group and all rows of a tile share the loads of keys and values.
//!
//! A page is so short that hardware prefetchers are always late: scores fetch the values of the page, values the keys of the next page.
//!
//! What is computed for a query depends on its position and on the pages, which begin at multiples of 64: never on the other queries. A
//! page that a query does not see is skipped for it; a hidden key in a page that it does see gets probability 0. Many keys are taken in
//! parts (`parts`), whether one call computes them all or one of them.

use super::exp::LOG2_E;
use super::kept::Kept;
use super::lanes::Lanes;
use super::parts::{Weight, mix};
use super::table::first_key;
use super::tile::{self, Ahead, F, Lines, Rows, for_rows};
use crate::abi::{AttentionArgs, PAGE_TOKENS, ROWS, SCRATCH_BYTES, part_tokens};
use std::ops::Range;

/// Bytes of a line.
const LINE: usize = 64;

/// State of a number of queries, in the kernel's scratch. Query `i` is head `i % group` of row `i / group`, counted from `first`.
struct Queries {
    first: usize,
    n: usize,
    /// Queries in the form that the [`Mac`] wants.
    q: *mut u8,
    q_stride: usize,
    /// Scores, then probabilities, in the form that the [`Mac`] wants; [`P_STRIDE`] bytes apart.
    p: *mut u8,
    /// Running sums of probabilities, 16 partial sums each.
    sum: *mut f32,
    /// Running maxima, [`Queries::padded`] of them, as of what follows.
    max: *mut f32,
    /// Factors on what was summed before the page at hand.
    shrink: *mut f32,
    /// Factors on sums of products with keys, where queries were rounded to whole numbers.
    scale: *mut f32,
    /// Factors on sums of products with the values of the page at hand.
    factor: *mut f32,
    /// Weights of the parts so far.
    total: *mut Weight,
    /// Results of the part at hand, where they do not go to the result rows.
    later: *mut f32,
    /// Whether they do not: earlier parts are there.
    joins: bool,
}

/// Bytes from the scores of a query to those of the next.
const P_STRIDE: usize = PAGE_TOKENS * 4;

impl Queries {
    /// As many queries from `first` on as fit the scratch, see the same first key and have their keys cut alike; at least one.
    ///
    /// # Safety
    /// `scratch` has `SCRATCH_BYTES / 2` bytes.
    unsafe fn new<K: Kept>(a: &AttentionArgs, first: usize) -> Queries {
        let (head_dim, group) = (a.head_dim as usize, a.group as usize);
        let q_stride = head_dim / K::ELEMENTS * K::X_BYTES;
        let each = q_stride + P_STRIDE + LINE + 4 * size_of::<f32>() + size_of::<Weight>() + head_dim * size_of::<f32>();
        let room = SCRATCH_BYTES / 2 - 4 * ROWS * size_of::<f32>();
        let (row, pos) = (first / group, a.pos + (first / group) as u64);
        let alike = |r: &usize| {
            let other = a.pos + *r as u64;
            part_tokens(other) == part_tokens(pos) && first_key(other, a.chunk) == first_key(pos, a.chunk)
        };
        let rows = (row..a.rows as usize).take_while(alike).count();
        let n = (room / each).clamp(1, (row + rows) * group - first);
        // SAFETY: the caller's promise; `each` counts the bytes of all arrays but of what fills the four of numbers up.
        unsafe {
            let q = a.scratch;
            let p = q.add(n * q_stride);
            let sum = p.add(n * P_STRIDE).cast::<f32>();
            let later = sum.add(n * ROWS);
            let max = later.add(n * head_dim);
            let [shrink, scale, factor, total] = [1, 2, 3, 4].map(|i| max.add(i * n.next_multiple_of(ROWS)));
            Queries { first, n, q, q_stride, p, sum, max, shrink, scale, factor, total: total.cast(), later, joins: false }
        }
    }

    /// Row and head of query `i`.
    #[inline(always)]
    fn row_head(&self, a: &AttentionArgs, i: usize) -> (usize, usize) {
        ((self.first + i) / a.group as usize, (self.first + i) % a.group as usize)
    }

    /// Position of query `i`.
    #[inline(always)]
    fn pos(&self, a: &AttentionArgs, i: usize) -> u64 {
        a.pos + self.row_head(a, i).0 as u64
    }

    /// Where the result of query `i` stands.
    unsafe fn out(&self, a: &AttentionArgs, i: usize) -> *mut f32 {
        let (row, head) = self.row_head(a, i);
        // SAFETY: `out` has `rows` rows of `group * head_dim` elements.
        unsafe { a.out.byte_add(row * a.out_stride as usize).add(head * a.head_dim as usize) }
    }

    /// Where that of the part at hand stands.
    unsafe fn part(&self, a: &AttentionArgs, i: usize) -> *mut f32 {
        // SAFETY: `later` has a row for each query.
        unsafe { if self.joins { self.later.add(i * a.head_dim as usize) } else { self.out(a, i) } }
    }
}

/// Attention of a tile. Scores come in tiles of up to `Q` queries, values in tiles of up to `M` queries by `C` columns of 16.
///
/// # Safety
/// The contract of [`AttentionArgs`], and as for [`Mac`].
#[inline(always)]
pub(super) unsafe fn attention<K: Kept, const Q: usize, const M: usize, const C: usize>(a: &AttentionArgs) {
    let all = (u64::from(a.rows) * a.group) as usize;
    let mut first = 0;
    while first < all {
        // SAFETY: the caller's promise.
        first += unsafe {
            let mut queries = Queries::new::<K>(a, first);
            take::<K>(a, &queries);
            let (tokens, begin, end) =
                (part_tokens(queries.pos(a, 0)), first_key(queries.pos(a, 0), a.chunk), queries.pos(a, queries.n - 1) + 1);
            let parts = match a.part.checked_sub(1) {
                None => begin / tokens..end.div_ceil(tokens),
                Some(part) => u64::from(part)..u64::from(part) + 1,
            };
            for part in parts.clone() {
                let keys = begin.max(part * tokens)..end.min((part + 1) * tokens);
                let low = (0..queries.n).find(|i| queries.pos(a, *i) >= keys.start).unwrap_or(queries.n);
                queries.joins = part > parts.start;
                self::part::<K, Q, M, C>(a, &queries, low..queries.n, keys);
            }
            queries.n
        };
    }
}

/// Attention of some queries, all up to the last, over the keys of a part.
///
/// # Safety
/// As for [`attention`].
#[inline(always)]
unsafe fn part<K: Kept, const Q: usize, const M: usize, const C: usize>(
    a: &AttentionArgs,
    queries: &Queries,
    range: Range<usize>,
    part: Range<u64>,
) {
    let head_bytes = a.head_dim as usize * K::LINE / (K::ELEMENTS * ROWS);
    let pos = |i: usize| queries.pos(a, i);
    let pages = part.start / PAGE_TOKENS as u64..part.end.div_ceil(PAGE_TOKENS as u64);
    // SAFETY: the caller's promise.
    unsafe {
        clear::<K>(a, queries, range.clone());
        for page in pages.clone() {
            let keys = page * PAGE_TOKENS as u64..(page + 1) * PAGE_TOKENS as u64;
            let Some(low) = range.clone().find(|i| pos(*i) >= keys.start) else { continue };
            let high = range.end;
            // Whole lines of tokens, up to the last that any of these queries sees.
            let tokens = (part.end.min(keys.end) - keys.start).next_multiple_of(ROWS as u64) as usize;
            let base = a.kv.add(*a.table.add(page as usize) as usize * a.page_bytes as usize);
            let (k, v) = (base.add(a.k_offset as usize), base.add(a.v_offset as usize));
            let scales = |of: *const u8| of.wrapping_add(PAGE_TOKENS * head_bytes).cast::<f32>();
            fetch_scales::<K>(scales(v));
            scores::<K, Q>(a, queries, low..high, (k, scales(k)), v, tokens);
            for i in low..high {
                let from = part.start.saturating_sub(keys.start) as usize;
                let to = (pos(i) + 1 - keys.start).min(tokens as u64) as usize;
                hide(queries, i, from..to, tokens);
            }
            maxima::<K>(queries, low..high, tokens);
            // Of whole pages, which most are, the number is known when this is compiled.
            if tokens == PAGE_TOKENS {
                (low..high).for_each(|i| probabilities::<K>(queries, i, PAGE_TOKENS, scales(v)));
            } else {
                (low..high).for_each(|i| probabilities::<K>(queries, i, tokens, scales(v)));
            }
            let next = if page + 1 < pages.end { *a.table.add(page as usize + 1) as usize * a.page_bytes as usize } else { 0 };
            let next = a.kv.add(next + a.k_offset as usize);
            fetch_scales::<K>(scales(next));
            values::<K, M, C>(a, queries, low..high, v, next, tokens);
        }
        end::<K>(a, queries, range);
    }
}

/// Asks for the scales of a page's keys or values.
///
/// # Safety
/// As for [`attention`]; any address will do.
#[inline(always)]
unsafe fn fetch_scales<K: Kept>(at: *const f32) {
    for line in 0..PAGE_TOKENS * K::SCALE_BYTES / LINE {
        // SAFETY: the caller's promise.
        unsafe { K::L::prefetch(at.cast::<u8>().wrapping_add(line * LINE)) }
    }
}

/// Takes the queries over.
///
/// # Safety
/// As for [`attention`].
#[inline(always)]
unsafe fn take<K: Kept>(a: &AttentionArgs, queries: &Queries) {
    for i in 0..queries.n {
        let (row, head) = queries.row_head(a, i);
        // SAFETY: the caller's promise.
        unsafe {
            let from = a.q.byte_add(row * a.q_stride as usize).add(head * a.head_dim as usize);
            let to = queries.q.add(i * queries.q_stride);
            queries.scale.add(i).write(K::put_query(from, to, a.head_dim as usize, a.scale * LOG2_E));
        }
    }
}

/// Clears what a part sums up.
///
/// # Safety
/// As for [`attention`].
#[inline(always)]
unsafe fn clear<K: Kept>(a: &AttentionArgs, queries: &Queries, range: Range<usize>) {
    for i in range {
        // SAFETY: the caller's promise.
        unsafe {
            let out = queries.part(a, i);
            for block in 0..a.head_dim as usize / ROWS {
                K::L::store(out.add(block * ROWS), K::L::splat(0.0));
            }
            K::L::store(queries.sum.add(i * ROWS), K::L::splat(0.0));
            queries.max.add(i).write(f32::NEG_INFINITY);
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

/// Scores of some queries and the first `tokens` keys of a page, as exponents of 2.
///
/// # Safety
/// As for [`attention`].
#[inline(always)]
unsafe fn scores<K: Kept, const Q: usize>(
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

/// Scores of `M` queries and 16 keys.
///
/// # Safety
/// As for [`attention`].
#[inline(always)]
unsafe fn score_tile<K: Kept, const M: usize>(lines: Lines, x: Rows, scales: *const f32, factors: *const f32, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[K::L::splat(0.0); 1]; M];
        tile::add::<K, M, 1>(&mut sums, lines, x);
        for_rows!(M, t => { K::L::store(to.byte_add(t * P_STRIDE), K::scores(sums[t][0], scales, *factors.add(t))) });
    }
}

/// Scores that are not `visible` to query `i` become those of probability 0.
///
/// # Safety
/// As for [`attention`].
#[inline(always)]
unsafe fn hide(queries: &Queries, i: usize, visible: Range<usize>, tokens: usize) {
    // SAFETY: the caller's promise.
    let scores = unsafe { std::slice::from_raw_parts_mut(queries.p.add(i * P_STRIDE).cast::<f32>(), tokens) };
    scores[..visible.start].fill(f32::NEG_INFINITY);
    scores[visible.end..].fill(f32::NEG_INFINITY);
}

/// Brings the running maxima of some queries up to date, and what shrinks by it. A loop of its own, so that exponentials wait for none of
/// it, and those of 16 queries take one.
///
/// # Safety
/// As for [`attention`].
#[inline(always)]
unsafe fn maxima<K: Kept>(queries: &Queries, range: Range<usize>, tokens: usize) {
    // SAFETY: the caller's promise. The maxima before stand where the factors will, which has room for whole sixteens.
    unsafe {
        for i in range.clone() {
            let p = queries.p.add(i * P_STRIDE).cast::<f32>();
            let mut top = K::L::load(p);
            for block in 1..tokens / ROWS {
                top = K::L::max(top, K::L::load(p.add(block * ROWS)));
            }
            let old = *queries.max.add(i);
            queries.shrink.add(i).write(old);
            queries.max.add(i).write(old.max(K::L::max_lane(top)));
        }
        // From a multiple of 16 on; queries of no concern get factors that nobody reads.
        for i in (range.start / ROWS * ROWS..range.end).step_by(ROWS) {
            let shrink = queries.shrink.add(i);
            K::L::store(shrink, K::L::exp2(K::L::sub(K::L::load(shrink), K::L::load(queries.max.add(i)))));
        }
    }
}

/// Turns the scores of query `i` into probabilities under the running maximum, in place. `v_scales` are the scales of the page's values.
///
/// # Safety
/// As for [`attention`].
#[inline(always)]
unsafe fn probabilities<K: Kept>(queries: &Queries, i: usize, tokens: usize, v_scales: *const f32) {
    // SAFETY: the caller's promise. A probability takes no more bytes than a score, so line after line can be replaced.
    unsafe {
        let p = queries.p.add(i * P_STRIDE);
        let max = K::L::splat(*queries.max.add(i));
        let mut score = [K::L::splat(0.0); PAGE_TOKENS / ROWS];
        for (block, score) in score.iter_mut().enumerate().take(tokens / ROWS) {
            *score = K::L::exp2(K::L::sub(K::L::load(p.cast::<f32>().add(block * ROWS)), max));
        }
        let (sum, factor) = K::put_probabilities(p, score, tokens / ROWS, v_scales);
        let before = K::L::mul(K::L::load(queries.sum.add(i * ROWS)), K::L::splat(*queries.shrink.add(i)));
        K::L::store(queries.sum.add(i * ROWS), K::L::add(before, sum));
        queries.factor.add(i).write(factor);
    }
}

/// Adds the values of a page to the results of some queries.
///
/// # Safety
/// As for [`attention`].
#[inline(always)]
unsafe fn values<K: Kept, const M: usize, const C: usize>(
    a: &AttentionArgs,
    queries: &Queries,
    range: Range<usize>,
    v: *const u8,
    next: *const u8,
    tokens: usize,
) {
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

/// As [`values`] for `C` columns of 16 from `column` on.
///
/// # Safety
/// As for [`attention`].
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

/// As [`values`] for `M` queries from `i` on and `C` columns of 16.
///
/// # Safety
/// As for [`attention`].
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

/// Divides by the sums of the probabilities and joins the part with those before, or writes its weight behind it.
///
/// # Safety
/// As for [`attention`].
#[inline(always)]
unsafe fn end<K: Kept>(a: &AttentionArgs, queries: &Queries, range: Range<usize>) {
    let head_dim = a.head_dim as usize;
    for i in range {
        // SAFETY: the caller's promise.
        unsafe {
            let sum: f32 = std::slice::from_raw_parts(queries.sum.add(i * ROWS), ROWS).iter().sum();
            let factor = K::L::splat(1.0 / sum);
            let part = queries.part(a, i);
            for block in 0..head_dim / ROWS {
                K::L::store(part.add(block * ROWS), K::L::mul(K::L::load(part.add(block * ROWS)), factor));
            }
            let weight = Weight { max: *queries.max.add(i), sum };
            if a.part > 0 {
                a.out.add(a.group as usize * head_dim).cast::<Weight>().add(queries.first + i).write(weight);
            } else if queries.joins {
                let factors = (*queries.total.add(i)).join(weight);
                let out = std::slice::from_raw_parts_mut(queries.out(a, i), head_dim);
                mix(out, std::slice::from_raw_parts(part, head_dim), factors);
            } else {
                queries.total.add(i).write(weight);
            }
        }
    }
}
