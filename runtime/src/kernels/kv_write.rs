//! Rows of K and V to int8 pages: one body, which the compiler turns into vectors of each instruction set. All of them do the same operations
//! on the same elements, so they agree bit for bit.

use super::quant::round::Steps;
use crate::abi::{KvWriteArgs, PAGE_TOKENS};
use crate::format::KvFormat;

const KV: KvFormat = KvFormat::I8;

/// # Safety
/// The contract of [`KvWriteArgs`].
#[inline(always)]
unsafe fn rows(a: &KvWriteArgs) {
    let (heads, head_dim) = (a.heads as usize, a.head_dim as usize);
    let head_bytes = KV.head_bytes(head_dim);
    for row in 0..a.m as usize {
        // SAFETY: `k`, `v`, `pages` and `pos` have `m` rows; the page holds K, then V, of every head behind `base`.
        unsafe {
            let pos = u64::from(*a.pos.add(row));
            let place = if a.chunk == 0 { pos } else { pos % a.chunk };
            let token = (place % PAGE_TOKENS as u64) as usize;
            let k = a.k.byte_add(row * a.k_stride as usize);
            let v = a.v.byte_add(row * a.v_stride as usize);
            let page = a.base.add(*a.pages.add(row) as usize);
            for head in 0..heads {
                let to = page.add(head * head_bytes);
                one_head(k.add(head * head_dim), to, head_dim, token, |i| KV.k_offset(head_dim, token, i));
                let to = to.add(heads * head_bytes);
                one_head(v.add(head * head_dim), to, head_dim, token, |i| KV.v_offset(head_dim, token, i));
            }
        }
    }
}

/// # Safety
/// `x` has `head_dim` elements, `to` is the K or V of a head in a page, `offset` the places of a token's elements there.
#[inline(always)]
unsafe fn one_head(x: *const f32, to: *mut u8, head_dim: usize, token: usize, offset: impl Fn(usize) -> usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let x = std::slice::from_raw_parts(x, head_dim);
        let mut most = [0.0f32; 16];
        for part in x.as_chunks::<16>().0 {
            for (m, x) in most.iter_mut().zip(part) {
                *m = if x.abs() > *m { x.abs() } else { *m };
            }
        }
        let steps = Steps::up_to(most.iter().fold(0.0f32, |a, &b| if b > a { b } else { a }));
        for (block, part) in x.as_chunks::<16>().0.iter().enumerate() {
            let codes = part.map(|x| steps.code(x));
            for (i, code) in codes.into_iter().enumerate() {
                to.add(offset(block * 16 + i)).cast::<i8>().write(code);
            }
        }
        to.add(KV.scale_offset(head_dim, token)).cast::<f32>().write_unaligned(steps.scale);
    }
}

/// Plain Rust.
pub(super) unsafe extern "C" fn generic(args: *const u8) {
    // SAFETY: the contract of `KvWriteArgs`.
    unsafe { rows(&*args.cast()) }
}

/// By vectors of 8.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe extern "C" fn avx2(args: *const u8) {
    // SAFETY: the contract of `KvWriteArgs`.
    unsafe { rows(&*args.cast()) }
}
