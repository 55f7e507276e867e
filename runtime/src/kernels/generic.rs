//! The generic twins: every dot and attention kernel once more, in plain Rust, for every architecture and as the meaning of the others.

use super::exp::{LOG2_E, exp2};
use super::parts::{Weight, mix};
use super::table::first_key;
use crate::abi::{AttentionArgs, DotArgs, PAGE_TOKENS, ROWS, part_tokens};
use crate::format::KvFormat;
use std::ops::Range;

/// Elements of 16 rows (or tokens, or columns) at one place of the sum.
type Line = [f32; ROWS];

/// How words of [`Format::PAIR`] elements are read.
trait Format {
    const KV: KvFormat;
    /// Elements in a word.
    const PAIR: usize = Self::KV.pair();
    /// Element `j` of a word.
    fn element(word: u32, j: usize) -> f32;

    /// Element `j` of each of 16 words.
    ///
    /// # Safety
    /// 16 words at `at` are readable.
    #[inline(always)]
    unsafe fn line(at: *const u8, j: usize) -> Line {
        // SAFETY: the caller's promise; bytes have no alignment.
        let words: [u32; ROWS] = unsafe { at.cast::<[u32; ROWS]>().read_unaligned() };
        words.map(|w| Self::element(w, j))
    }

    /// Factor on the elements of token `t` in the K or V of a head.
    ///
    /// # Safety
    /// `head` is that in a page.
    #[inline(always)]
    unsafe fn scale(_head: *const u8, _head_dim: usize, _t: usize) -> f32 {
        1.0
    }
}

struct F32;
impl Format for F32 {
    const KV: KvFormat = KvFormat::F32;
    #[inline(always)]
    fn element(word: u32, _j: usize) -> f32 {
        f32::from_bits(word)
    }
}

struct Bf16;
impl Format for Bf16 {
    const KV: KvFormat = KvFormat::Bf16;
    #[inline(always)]
    fn element(word: u32, j: usize) -> f32 {
        f32::from_bits(if j == 0 { word << 16 } else { word & 0xffff_0000 })
    }
}

struct I8;
impl Format for I8 {
    const KV: KvFormat = KvFormat::I8;
    #[inline(always)]
    fn element(word: u32, j: usize) -> f32 {
        f32::from((word >> (8 * j)) as i8)
    }
    #[inline(always)]
    unsafe fn line(at: *const u8, j: usize) -> Line {
        // SAFETY: the caller's promise.
        let words: [u16; ROWS] = unsafe { at.cast::<[u16; ROWS]>().read_unaligned() };
        words.map(|w| Self::element(u32::from(w), j))
    }
    #[inline(always)]
    unsafe fn scale(head: *const u8, head_dim: usize, t: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { head.add(Self::KV.scale_offset(head_dim, t)).cast::<f32>().read_unaligned() }
    }
}

fn multiply_add(sum: &mut Line, line: &Line, x: f32) {
    sum.iter_mut().zip(line).for_each(|(s, w)| *s += w * x);
}

/// f32 weights and activations.
pub(super) unsafe extern "C" fn dot_f32(args: *const u8) {
    // SAFETY: the contract of `DotArgs`.
    unsafe { dot::<F32>(&*args.cast()) }
}

/// bf16 weights and activations, f32 sums.
pub(super) unsafe extern "C" fn dot_bf16(args: *const u8) {
    // SAFETY: the contract of `DotArgs`.
    unsafe { dot::<Bf16>(&*args.cast()) }
}

unsafe fn dot<F: Format>(a: &DotArgs) {
    let lines = a.k as usize / F::PAIR;
    for block in 0..a.blocks as usize {
        for t in 0..a.m as usize {
            // SAFETY: `w` has `blocks` blocks of `lines` lines, `x` and `out` have `m` rows of `k` and `16 * blocks` elements.
            unsafe {
                let w = a.w.add(block * lines * 64);
                let x = a.x.add(t * a.x_stride as usize).cast::<u32>();
                let mut sum = [0.0; ROWS];
                for l in 0..lines {
                    let word = x.add(l).read_unaligned();
                    for j in 0..F::PAIR {
                        multiply_add(&mut sum, &F::line(w.add(l * 64), j), F::element(word, j));
                    }
                }
                a.out.byte_add(t * a.out_stride as usize).cast::<Line>().add(block).write_unaligned(sum);
            }
        }
    }
}

/// Attention over f32 pages.
pub(super) unsafe extern "C" fn attention_f32(args: *const u8) {
    // SAFETY: the contract of `AttentionArgs`.
    unsafe { attention::<F32>(&*args.cast()) }
}

/// Attention over bf16 pages; queries and probabilities stay f32.
pub(super) unsafe extern "C" fn attention_bf16(args: *const u8) {
    // SAFETY: the contract of `AttentionArgs`.
    unsafe { attention::<Bf16>(&*args.cast()) }
}

/// Attention over int8 pages; queries and probabilities stay f32.
pub(super) unsafe extern "C" fn attention_i8(args: *const u8) {
    // SAFETY: the contract of `AttentionArgs`.
    unsafe { attention::<I8>(&*args.cast()) }
}

/// Each row and head by itself, part by part.
unsafe fn attention<F: Format>(a: &AttentionArgs) {
    let head_dim = a.head_dim as usize;
    // SAFETY: there is scratch for more than a head.
    let scratch = unsafe { std::slice::from_raw_parts_mut(a.scratch.cast::<f32>(), head_dim) };
    for r in 0..u64::from(a.rows) {
        let pos = a.pos + r;
        let (first, tokens) = (first_key(pos, a.chunk), part_tokens(pos));
        for h in 0..a.group as usize {
            // SAFETY: `q` and `out` have `rows` rows of `group * head_dim` elements, and `out` the weights behind them for a part.
            unsafe {
                let q = a.q.byte_add((r * a.q_stride) as usize).add(h * head_dim);
                let row = a.out.byte_add((r * a.out_stride) as usize);
                let out = std::slice::from_raw_parts_mut(row.add(h * head_dim), head_dim);
                let keys = |part: u64| first.max(part * tokens)..(pos + 1).min((part + 1) * tokens);
                if let Some(part) = a.part.checked_sub(1) {
                    let weight = part_of::<F>(a, q, keys(u64::from(part)), out);
                    row.add(a.group as usize * head_dim).cast::<Weight>().add(h).write(weight);
                    continue;
                }
                let mut total = part_of::<F>(a, q, keys(first / tokens), out);
                for part in first / tokens + 1..=pos / tokens {
                    let weight = part_of::<F>(a, q, keys(part), scratch);
                    mix(out, scratch, total.join(weight));
                }
            }
        }
    }
}

/// Page by page with a running maximum (Milakov and Gimelshein, 2018).
///
/// # Safety
/// `q` has `head_dim` elements; every page of the keys is in the table, and has K and V of this head at the offsets.
unsafe fn part_of<F: Format>(a: &AttentionArgs, q: *const f32, keys: Range<u64>, out: &mut [f32]) -> Weight {
    let mut weight = Weight { max: f32::NEG_INFINITY, sum: 0.0 };
    out.fill(0.0);
    for page in keys.start / PAGE_TOKENS as u64..keys.end.div_ceil(PAGE_TOKENS as u64) {
        // SAFETY: the caller's promise.
        unsafe {
            let base = a.kv.add(*a.table.add(page as usize) as usize * a.page_bytes as usize);
            let mut p = scores::<F>(base.add(a.k_offset as usize), q, out.len(), a.scale * LOG2_E);
            for (t, p) in p.iter_mut().enumerate() {
                if !keys.contains(&(page * PAGE_TOKENS as u64 + t as u64)) {
                    *p = f32::NEG_INFINITY;
                }
            }
            let max = p.iter().fold(weight.max, |m, &s| m.max(s));
            let shrink = exp2(weight.max - max);
            p.iter_mut().for_each(|p| *p = exp2(*p - max));
            weight = Weight { max, sum: weight.sum * shrink + p.iter().sum::<f32>() };
            out.iter_mut().for_each(|o| *o *= shrink);
            add_values::<F>(base.add(a.v_offset as usize), &p, out);
        }
    }
    out.iter_mut().for_each(|o| *o /= weight.sum);
    weight
}

/// `scale * (q . k)` of the 64 keys of a page.
///
/// # Safety
/// `k` is the K of a head in a page, `q` has `head_dim` elements.
unsafe fn scores<F: Format>(k: *const u8, q: *const f32, head_dim: usize, scale: f32) -> [f32; PAGE_TOKENS] {
    let mut scores = [0.0; PAGE_TOKENS];
    for (tile, scores) in scores.chunks_exact_mut(ROWS).enumerate() {
        let mut sum = [0.0; ROWS];
        for i in 0..head_dim {
            // SAFETY: the caller's promise; the line of element `i - i % PAIR` begins with token 0 of the tile.
            unsafe {
                let line = k.add(F::KV.k_offset(head_dim, tile * ROWS, i - i % F::PAIR));
                multiply_add(&mut sum, &F::line(line, i % F::PAIR), *q.add(i));
            }
        }
        for (t, (score, sum)) in scores.iter_mut().zip(sum).enumerate() {
            // SAFETY: the caller's promise.
            *score = sum * (unsafe { F::scale(k, head_dim, tile * ROWS + t) } * scale);
        }
    }
    scores
}

/// `out += p . V` of the 64 tokens of a page.
///
/// # Safety
/// `v` is the V of a head in a page with `out.len()` elements a token.
unsafe fn add_values<F: Format>(v: *const u8, p: &[f32; PAGE_TOKENS], out: &mut [f32]) {
    let head_dim = out.len();
    for (t, &p) in p.iter().enumerate() {
        // SAFETY: the caller's promise.
        let p = p * unsafe { F::scale(v, head_dim, t) };
        for (block, out) in out.chunks_exact_mut(ROWS).enumerate() {
            // SAFETY: the caller's promise; the line begins with token `t - t % PAIR` of the pair.
            let line = unsafe { F::line(v.add(F::KV.v_offset(head_dim, t - t % F::PAIR, block * ROWS)), t % F::PAIR) };
            out.iter_mut().zip(line).for_each(|(o, v)| *o += p * v);
        }
    }
}
