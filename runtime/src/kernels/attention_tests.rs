//! Every attention kernel that this machine can run, against f64; and what a row must not depend on.

use super::table::resolve;
use super::testing::{Numbers, put, runnable};
use crate::abi::{AttentionArgs, AttentionMergeArgs, Kernel, PAGE_TOKENS, SCRATCH_BYTES, part_tokens};
use crate::format::KvFormat;

/// One KV head of a sequence of `keys` tokens in shuffled pages, and its query heads at the last `rows` positions from `pos` on.
struct Case {
    head_dim: usize,
    group: usize,
    chunk: usize,
    pos: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    pool: Vec<u8>,
    page_bytes: usize,
    table: Vec<u32>,
}

/// What stands before K in a page, and what stands between K and V.
const OFFSET: usize = 192;
/// Elements between rows of queries and of results.
const GAP: usize = 16;
const SCALE: f32 = 0.3;

impl Case {
    /// `hidden`: what stands in the cache behind the last row's position.
    fn new(kv: KvFormat, head_dim: usize, group: usize, chunk: usize, pos: usize, rows: usize, hidden: f32) -> Case {
        let (bf16, i8) = (kv == KvFormat::Bf16, kv == KvFormat::I8);
        let mut numbers = Numbers::new((head_dim * 31 + group * 7 + pos) as u64);
        // Scores of about the same size whatever the head size.
        let spread = 24.0 / (head_dim as f32).sqrt();
        let keys = pos + rows;
        let pages = keys.div_ceil(PAGE_TOKENS);
        let (mut k, mut v) = (numbers.many(keys * head_dim, bf16), numbers.many(keys * head_dim, bf16));
        let mut scales = [Vec::new(), Vec::new()];
        if i8 {
            scales = [&mut k, &mut v].map(|x| x.chunks_mut(head_dim).map(to_codes).collect());
        }
        let q = numbers.many(rows * (group * head_dim + GAP), false).iter().map(|x| x * spread).collect();
        let head_bytes = kv.head_bytes(head_dim);
        let page_bytes = 2 * (OFFSET + head_bytes);
        let mut table: Vec<u32> = (0..pages as u32).collect();
        (1..pages).for_each(|i| table.swap(i, numbers.below(i + 1)));
        let mut pool = vec![0; pages * page_bytes];
        for t in 0..pages * PAGE_TOKENS {
            let page = table[t / PAGE_TOKENS] as usize * page_bytes + OFFSET;
            if i8 {
                for (scales, at) in scales.iter().zip([page, page + head_bytes + OFFSET]) {
                    let scale = scales.get(t).copied().unwrap_or(hidden);
                    put(&mut pool[at + kv.scale_offset(head_dim, t % PAGE_TOKENS)..], false, scale);
                }
            }
            for i in 0..head_dim {
                let value = |from: &[f32]| if t < keys { from[t * head_dim + i] } else { hidden };
                let at = [
                    page + kv.k_offset(head_dim, t % PAGE_TOKENS, i),
                    page + head_bytes + OFFSET + kv.v_offset(head_dim, t % PAGE_TOKENS, i),
                ];
                for (at, x) in at.into_iter().zip([&k, &v]) {
                    if i8 { pool[at] = value(x) as i8 as u8 } else { put(&mut pool[at..], bf16, value(x)) }
                }
            }
        }
        for (x, scales) in [&mut k, &mut v].into_iter().zip(scales) {
            x.chunks_mut(head_dim).zip(scales).for_each(|(x, scale)| x.iter_mut().for_each(|x| *x *= scale));
        }
        Case { head_dim, group, chunk, pos, q, k, v, pool, page_bytes, table }
    }

    /// Rows `first .. first + rows` of the tile.
    fn run(&self, kernel: Kernel, first: usize, rows: usize) -> Vec<f32> {
        let width = self.group * self.head_dim;
        self.call(kernel, first, rows, 0, width).chunks(width + GAP).flat_map(|row| row[..width].to_vec()).collect()
    }

    /// One row, from its parts.
    fn run_in_parts(&self, kernel: Kernel, row: usize) -> Vec<f32> {
        let width = self.group * self.head_dim;
        let pos = (self.pos + row) as u64;
        let written = width + 2 * self.group;
        let parts: Vec<f32> = (0..=pos / part_tokens(pos)).flat_map(|i| self.call(kernel, row, 1, i as u32 + 1, written)).collect();
        let mut out = vec![f32::NAN; width];
        let args = AttentionMergeArgs {
            parts: parts.as_ptr(),
            part_stride: 4 * (written + GAP) as u64,
            pos,
            group: self.group as u64,
            head_dim: self.head_dim as u64,
            out: out.as_mut_ptr(),
        };
        // SAFETY: the arguments describe the vectors above.
        unsafe { resolve("attention_merge_generic").unwrap()((&raw const args).cast()) };
        out
    }

    /// Rows of the result, of `written` elements and a gap.
    fn call(&self, kernel: Kernel, first: usize, rows: usize, part: u32, written: usize) -> Vec<f32> {
        let width = self.group * self.head_dim;
        let mut out = vec![f32::NAN; rows * (written + GAP)];
        let mut scratch = vec![0xffu8; SCRATCH_BYTES / 2];
        let args = AttentionArgs {
            q: self.q[first * (width + GAP)..].as_ptr(),
            q_stride: 4 * (width + GAP) as u64,
            out: out.as_mut_ptr(),
            out_stride: 4 * (written + GAP) as u64,
            kv: self.pool.as_ptr(),
            page_bytes: self.page_bytes as u64,
            table: self.table.as_ptr(),
            k_offset: OFFSET as u64,
            v_offset: (self.page_bytes / 2 + OFFSET) as u64,
            rows: rows as u32,
            part,
            pos: (self.pos + first) as u64,
            group: self.group as u64,
            head_dim: self.head_dim as u64,
            chunk: self.chunk as u64,
            scratch: scratch.as_mut_ptr(),
            scale: SCALE,
        };
        // SAFETY: the arguments describe the vectors above.
        unsafe { kernel((&raw const args).cast()) };
        for row in out.chunks(written + GAP) {
            assert!(row[written..].iter().all(|x| x.is_nan()), "a gap was written to");
            assert!(row[..written].iter().all(|x| x.is_finite()), "not everything was written");
        }
        out
    }

    fn exact(&self, row: usize, head: usize) -> Vec<f64> {
        let d = self.head_dim;
        let q = &self.q[row * (self.group * d + GAP) + head * d..][..d];
        let pos = self.pos + row;
        let first = pos.checked_div(self.chunk).map_or(0, |n| n * self.chunk);
        let dot = |t: usize| (0..d).map(|i| f64::from(q[i]) * f64::from(self.k[t * d + i])).sum::<f64>() * f64::from(SCALE);
        let max = (first..=pos).map(dot).fold(f64::NEG_INFINITY, f64::max);
        let p: Vec<f64> = (first..=pos).map(|t| (dot(t) - max).exp()).collect();
        let sum: f64 = p.iter().sum();
        (0..d).map(|i| (first..=pos).zip(&p).map(|(t, p)| p / sum * f64::from(self.v[t * d + i])).sum()).collect()
    }
}

/// Replaces numbers by codes of int8 and returns their scale.
fn to_codes(x: &mut [f32]) -> f32 {
    let scale = x.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 127.0;
    x.iter_mut().for_each(|x| *x = (*x / scale).round());
    scale
}

/// Head size, group, chunk, first position, rows: page borders inside and outside the tile, chunks shorter and longer than a page, more
/// queries than the widest tile, more than fit the scratch; keys in one part and in many, tiles over the edge of a part and of a part size.
const CASES: [(usize, usize, usize, usize, usize); 18] = [
    (16, 1, 0, 0, 1),
    (32, 3, 0, 0, 4),
    (64, 4, 0, 62, 4),
    (64, 4, 0, 64, 1),
    (128, 5, 0, 200, 3),
    (80, 16, 0, 127, 2),
    (128, 16, 0, 190, 4),
    (32, 5, 24, 22, 4),
    (48, 2, 100, 198, 4),
    (64, 3, 64, 126, 4),
    (16, 1, 8, 1021, 4),
    (64, 4, 0, 55, 16),
    (32, 8, 100, 90, 16),
    (8192, 3, 0, 70, 4),
    (64, 4, 0, 1022, 4),
    (32, 2, 0, 8190, 4),
    (16, 3, 700, 1390, 16),
    (16, 2, 0, 8200, 1),
];

fn for_every_kernel(check: impl Fn(&str, KvFormat, Kernel)) {
    for kv in KvFormat::ALL {
        let kernels = runnable("attention", kv.name());
        assert!(kernels.iter().any(|(row, _)| row.isa.name == "generic"));
        kernels.iter().for_each(|(row, kernel)| check(row.name, kv, *kernel));
    }
}

#[test]
fn every_attention_kernel_is_accurate() {
    for_every_kernel(|name, kv, kernel| {
        // Queries and probabilities in bf16 have errors of 2^-9 each.
        // In 16-bit whole numbers they have errors of 2^-16 of the greatest.
        let bound = if name.contains("bf16_bf16") {
            2e-2
        } else if name.contains("i8_i16") {
            1e-4
        } else {
            3e-6
        };
        for (head_dim, group, chunk, pos, rows) in CASES {
            // The more results, the larger the largest error.
            let bound = bound * if rows > 4 { 1.5 } else { 1.0 };
            let bound = bound * (1.0 + head_dim as f64 / 512.0);
            let case = Case::new(kv, head_dim, group, chunk, pos, rows, 0.0);
            let got = case.run(kernel, 0, rows);
            for (i, got) in got.chunks(head_dim).enumerate() {
                for (got, exact) in got.iter().zip(case.exact(i / group, i % group)) {
                    assert!((f64::from(*got) - exact).abs() < bound, "{name} head_dim {head_dim} group {group} pos {pos}: {got} {exact}");
                }
            }
        }
    });
}

#[test]
fn a_row_alone_has_the_bits_of_a_row_in_a_tile() {
    for_every_kernel(|name, kv, kernel| {
        for (head_dim, group, chunk, pos, rows) in CASES {
            let case = Case::new(kv, head_dim, group, chunk, pos, rows, 0.0);
            let whole = case.run(kernel, 0, rows);
            for (row, in_tile) in whole.chunks(group * head_dim).enumerate() {
                assert!(case.run(kernel, row, 1) == in_tile, "{name} head_dim {head_dim} group {group} pos {pos} row {row}");
            }
        }
    });
}

#[test]
fn a_row_in_parts_has_the_bits_of_a_row_in_one_call() {
    for_every_kernel(|name, kv, kernel| {
        for (head_dim, group, chunk, pos, rows) in CASES.into_iter().filter(|case| case.2 == 0) {
            let case = Case::new(kv, head_dim, group, chunk, pos, rows, 0.0);
            let row = rows - 1;
            assert!(case.run_in_parts(kernel, row) == case.run(kernel, row, 1), "{name} head_dim {head_dim} group {group} pos {pos}");
        }
    });
}

#[test]
fn keys_behind_a_position_do_not_matter() {
    for_every_kernel(|name, kv, kernel| {
        for (head_dim, group, chunk, pos, rows) in CASES {
            let results = [0.0, 1e30].map(|hidden| Case::new(kv, head_dim, group, chunk, pos, rows, hidden).run(kernel, 0, rows));
            assert!(results[0] == results[1], "{name} head_dim {head_dim} group {group} pos {pos}");
        }
    });
}
