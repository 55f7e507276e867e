//! The attention template over any format of the cache ([`Kept`]): page after page of the cache with a running maximum (Milakov and Gimelshein, 2018; Dao et al.,
//! 2022). All query heads of a group and all rows of a tile share the loads of keys and values.
//!
//! A page is so short that hardware prefetchers are always late: scores fetch the values of the page, values the keys of the next page. Both
//! products are in `vectors`, and for CPUs with tile registers in `tiles`.
//!
//! What is computed for a query depends on its position and on the pages, which begin at multiples of 64: never on the other queries. A
//! page that a query does not see is skipped for it; a hidden key in a page that it does see gets probability 0. Many keys are taken in
//! parts (`parts`), whether one call computes them all or one of them.

#[cfg(target_arch = "x86_64")]
mod tiles;
mod vectors;

#[cfg(target_arch = "x86_64")]
pub(super) use tiles::Tiles;
pub(super) use vectors::Vectors;

use super::exp::LOG2_E;
use super::kept::Kept;
use super::lanes::Lanes;
use super::mac::Mac;
use super::parts::{Weight, mix};
use super::table::first_key;
use crate::abi::{AttentionArgs, PAGE_TOKENS, ROWS, SCRATCH_BYTES, part_tokens};
use std::ops::Range;

/// Bytes of a line.
const LINE: usize = 64;

/// The two products of attention with a page of the cache.
///
/// # Safety
/// The contract of [`AttentionArgs`], and as for [`Kept`].
pub(super) trait Products {
    /// How the cache and queries are taken.
    type K: Kept;
    /// So many queries behind the last may be read and their scores be written.
    const PAD: usize = 0;
    /// Scores of some queries and the first `tokens` keys of a page, whose scales are at `scales`, as exponents of 2. Values at `v` are
    /// wanted next.
    unsafe fn scores(a: &AttentionArgs, queries: &Queries, range: Range<usize>, keys: (*const u8, *const f32), v: *const u8, tokens: usize);
    /// Adds the values of a page to the results of some queries. The page at `next` is wanted next.
    unsafe fn values(a: &AttentionArgs, queries: &Queries, range: Range<usize>, v: *const u8, next: *const u8, tokens: usize);
}

/// State of a number of queries, in the kernel's scratch. Query `i` is head `i % group` of row `i / group`, counted from `first`.
pub(super) struct Queries {
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
    unsafe fn new<P: Products>(a: &AttentionArgs, first: usize) -> Queries {
        let (head_dim, group) = (a.head_dim as usize, a.group as usize);
        let q_stride = head_dim / P::K::ELEMENTS * P::K::X_BYTES;
        let each = q_stride + P_STRIDE + LINE + 4 * size_of::<f32>() + size_of::<Weight>() + head_dim * size_of::<f32>();
        let room = SCRATCH_BYTES / 2 - 4 * ROWS * size_of::<f32>() - P::PAD * (q_stride + P_STRIDE);
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
            let p = q.add((n + P::PAD) * q_stride);
            let sum = p.add((n + P::PAD) * P_STRIDE).cast::<f32>();
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

/// Attention of a tile.
///
/// # Safety
/// As for [`Products`].
#[inline(always)]
pub(super) unsafe fn attention<P: Products>(a: &AttentionArgs) {
    let all = (u64::from(a.rows) * a.group) as usize;
    let mut first = 0;
    while first < all {
        // SAFETY: the caller's promise.
        first += unsafe {
            let mut queries = Queries::new::<P>(a, first);
            take::<P::K>(a, &queries);
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
                self::part::<P>(a, &queries, low..queries.n, keys);
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
unsafe fn part<P: Products>(a: &AttentionArgs, queries: &Queries, range: Range<usize>, part: Range<u64>) {
    let head_bytes = a.head_dim as usize * P::K::LINE / (P::K::ELEMENTS * ROWS);
    let pos = |i: usize| queries.pos(a, i);
    let pages = part.start / PAGE_TOKENS as u64..part.end.div_ceil(PAGE_TOKENS as u64);
    // SAFETY: the caller's promise.
    unsafe {
        clear::<P::K>(a, queries, range.clone());
        for page in pages.clone() {
            let keys = page * PAGE_TOKENS as u64..(page + 1) * PAGE_TOKENS as u64;
            let Some(low) = range.clone().find(|i| pos(*i) >= keys.start) else { continue };
            let high = range.end;
            // Whole lines of tokens, up to the last that any of these queries sees.
            let tokens = (part.end.min(keys.end) - keys.start).next_multiple_of(ROWS as u64) as usize;
            let base = a.kv.add(*a.table.add(page as usize) as usize * a.page_bytes as usize);
            let (k, v) = (base.add(a.k_offset as usize), base.add(a.v_offset as usize));
            let scales = |of: *const u8| of.wrapping_add(PAGE_TOKENS * head_bytes).cast::<f32>();
            fetch_scales::<P::K>(scales(v));
            P::scores(a, queries, low..high, (k, scales(k)), v, tokens);
            for i in low..high {
                let from = part.start.saturating_sub(keys.start) as usize;
                let to = (pos(i) + 1 - keys.start).min(tokens as u64) as usize;
                hide(queries, i, from..to, tokens);
            }
            maxima::<P::K>(queries, low..high, tokens);
            // Of whole pages, which most are, the number is known when this is compiled.
            if tokens == PAGE_TOKENS {
                (low..high).for_each(|i| probabilities::<P::K>(queries, i, PAGE_TOKENS, scales(v)));
            } else {
                (low..high).for_each(|i| probabilities::<P::K>(queries, i, tokens, scales(v)));
            }
            let next = if page + 1 < pages.end { *a.table.add(page as usize + 1) as usize * a.page_bytes as usize } else { 0 };
            let next = a.kv.add(next + a.k_offset as usize);
            fetch_scales::<P::K>(scales(next));
            P::values(a, queries, low..high, v, next, tokens);
        }
        end::<P::K>(a, queries, range);
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
