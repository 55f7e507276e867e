//! f32 rows to rows of int8 activations ([`crate::format::Act::I8`]): one body, which the compiler turns into vectors of each instruction
//! set. All of them do the same operations on the same elements, so they agree bit for bit.

use crate::abi::QuantizeArgs;
use crate::format::{ACT_GROUP, I8Row, SUM_GROUP};

/// 1.5 * 2^23: adding it to a small number rounds that to an integer, to nearest even, in the low bits.
const ROUND: f32 = 12_582_912.0;

/// The codes of a group: 127 steps each way, the last one at the greatest magnitude.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Steps {
    /// Of one step.
    pub(in crate::kernels) scale: f32,
    divisor: f32,
    limit: f32,
}

impl Steps {
    /// For numbers of that magnitude at most.
    #[inline(always)]
    pub(in crate::kernels) fn up_to(most: f32) -> Steps {
        let scale = most / 127.0;
        // Nothing but zeros, or too small for a scale: any divisor makes zeros of zeros.
        let (divisor, limit) = if scale > 0.0 { (scale, 127.0) } else { (1.0, 0.0) };
        Steps { scale, divisor, limit }
    }
    /// The code of a number.
    #[inline(always)]
    pub(in crate::kernels) fn code(self, x: f32) -> i8 {
        let x = x / self.divisor;
        let x = if x > self.limit { self.limit } else { x };
        let x = if x < -self.limit { -self.limit } else { x };
        (x + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i8
    }
}

/// # Safety
/// The contract of [`QuantizeArgs`].
#[inline(always)]
unsafe fn rows(a: &QuantizeArgs) {
    let k = a.k as usize;
    for t in 0..a.m as usize {
        for group in a.first_group as usize..(a.first_group + a.groups) as usize {
            // SAFETY: `x` has `m` rows of `k` elements, `out` has `m` rows for `k` elements; `group` is one of those.
            unsafe {
                let x = a.x.byte_add(t * a.x_stride as usize).add(group * ACT_GROUP);
                let out = a.out.add(t * a.out_stride as usize);
                let mut columns = [0.0; ACT_GROUP];
                match k - group * ACT_GROUP {
                    ACT_GROUP.. => columns = x.cast::<[f32; ACT_GROUP]>().read_unaligned(),
                    rest => columns[..rest].copy_from_slice(std::slice::from_raw_parts(x, rest)),
                }
                one_group(&columns, I8Row::new(k), group, out);
            }
        }
    }
}

/// # Safety
/// `out` is a row of that form, with that group.
#[inline(always)]
unsafe fn one_group(x: &[f32; ACT_GROUP], row: I8Row, group: usize, out: *mut u8) {
    let mut max = [0.0f32; 32];
    for part in x.as_chunks::<32>().0 {
        for (m, x) in max.iter_mut().zip(part) {
            *m = if x.abs() > *m { x.abs() } else { *m };
        }
    }
    let steps = Steps::up_to(max.iter().fold(0.0f32, |a, &b| if b > a { b } else { a }));
    let mut total = 0;
    for (i, part) in x.as_chunks::<SUM_GROUP>().0.iter().enumerate() {
        let mut codes = [0i8; SUM_GROUP];
        let mut sum = 0;
        for (code, x) in codes.iter_mut().zip(part) {
            *code = steps.code(*x);
            sum += i32::from(*code);
        }
        total += sum;
        // SAFETY: the caller's promise.
        unsafe {
            out.add(group * ACT_GROUP + i * SUM_GROUP).cast::<[i8; SUM_GROUP]>().write_unaligned(codes);
            out.add(row.sums).cast::<i32>().add(group * (ACT_GROUP / SUM_GROUP) + i).write_unaligned(-8 * sum);
        }
    }
    // SAFETY: the caller's promise.
    unsafe {
        out.add(row.group_sums).cast::<i32>().add(group).write_unaligned(-128 * total);
        out.add(row.scales).cast::<f32>().add(group).write_unaligned(steps.scale);
    }
}

/// Plain Rust.
pub(in crate::kernels) unsafe extern "C" fn generic(args: *const u8) {
    // SAFETY: the contract of `QuantizeArgs`.
    unsafe { rows(&*args.cast()) }
}

/// By vectors of 8.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(in crate::kernels) unsafe extern "C" fn avx2(args: *const u8) {
    // SAFETY: the contract of `QuantizeArgs`.
    unsafe { rows(&*args.cast()) }
}

/// By vectors of 16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
pub(in crate::kernels) unsafe extern "C" fn avx512(args: *const u8) {
    // SAFETY: the contract of `QuantizeArgs`.
    unsafe { rows(&*args.cast()) }
}
