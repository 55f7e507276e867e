//! Writing int8 pages: the definition, places, and equal bits on every instruction set.

use super::kv_write;
use super::testing::{Numbers, runnable};
use crate::abi::{Kernel, KvWriteArgs, PAGE_TOKENS};
use crate::format::KvFormat;

const KV: KvFormat = KvFormat::I8;
const HEADS: usize = 3;
const CHUNK: usize = 40;
/// Bytes before the layer in a page.
const OFFSET: usize = 64;

struct Rows {
    head_dim: usize,
    k: Vec<f32>,
    v: Vec<f32>,
    pos: Vec<u32>,
    pages: Vec<u64>,
    page_bytes: usize,
}

impl Rows {
    /// Neighbouring positions over the edge of a ring, each sequence's page chosen at random.
    fn new(head_dim: usize) -> Rows {
        let mut numbers = Numbers::new(head_dim as u64);
        let m = 7;
        let mut rows = || {
            let mut x = numbers.many(m * HEADS * head_dim, false);
            for (i, head) in x.chunks_mut(head_dim).enumerate() {
                let factor = [1.0, 3e-5, 0.0, 1e9, 1e-44][i % 5];
                head.iter_mut().for_each(|x| *x *= factor);
            }
            x
        };
        let (k, v) = (rows(), rows());
        let page_bytes = OFFSET + KV.layer_bytes(HEADS, head_dim);
        let pages = (0..m).map(|i| (i * 5 % 3 * page_bytes) as u64).collect();
        Rows { head_dim, k, v, pos: (CHUNK as u32 - 3..).take(m).collect(), pages, page_bytes }
    }

    fn write(&self, kernel: Kernel, chunk: usize) -> Vec<u8> {
        let mut pool = vec![0xee; 3 * self.page_bytes];
        let stride = 4 * (HEADS * self.head_dim) as u64;
        let args = KvWriteArgs {
            k: self.k.as_ptr(),
            k_stride: stride,
            v: self.v.as_ptr(),
            v_stride: stride,
            m: self.pos.len() as u64,
            base: pool[OFFSET..].as_mut_ptr(),
            pages: self.pages.as_ptr(),
            pos: self.pos.as_ptr(),
            chunk: chunk as u64,
            heads: HEADS as u64,
            head_dim: self.head_dim as u64,
        };
        // SAFETY: the arguments describe the vectors above.
        unsafe { kernel((&raw const args).cast()) };
        pool
    }
}

#[test]
fn codes_and_scales_are_where_and_what_they_are_defined_to_be() {
    for (head_dim, chunk) in [(16, 0), (64, CHUNK), (80, 0)] {
        let rows = Rows::new(head_dim);
        let mut want = vec![0xee; 3 * rows.page_bytes];
        for (row, &pos) in rows.pos.iter().enumerate() {
            let token = if chunk == 0 { pos as usize } else { pos as usize % chunk } % PAGE_TOKENS;
            for head in 0..2 * HEADS {
                let from = if head < HEADS { &rows.k } else { &rows.v };
                let x = &from[(row * HEADS + head % HEADS) * head_dim..][..head_dim];
                let page = &mut want[rows.pages[row] as usize + OFFSET + head * KV.head_bytes(head_dim)..];
                let scale = x.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 127.0;
                page[KV.scale_offset(head_dim, token)..][..4].copy_from_slice(&scale.to_le_bytes());
                for (i, x) in x.iter().enumerate() {
                    let code = if scale == 0.0 { 0.0 } else { (x / scale).round_ties_even().clamp(-127.0, 127.0) };
                    let at = if head < HEADS { KV.k_offset(head_dim, token, i) } else { KV.v_offset(head_dim, token, i) };
                    page[at] = code as i8 as u8;
                }
            }
        }
        assert!(rows.write(kv_write::generic, chunk) == want, "head_dim {head_dim} chunk {chunk}");
    }
}

#[test]
fn every_instruction_set_writes_the_same_bits() {
    for head_dim in [16, 64, 112] {
        let rows = Rows::new(head_dim);
        let want = rows.write(kv_write::generic, CHUNK);
        for (row, kernel) in runnable("kv_write", "i8") {
            assert!(rows.write(kernel, CHUNK) == want, "{} head_dim {head_dim}", row.name);
        }
    }
}
