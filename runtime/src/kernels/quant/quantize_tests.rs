//! Rounding of activations to int8: the definition, the sums behind the codes, and equal bits on every instruction set.

use super::testing::{number, quantize};
use crate::abi::QuantizeArgs;
use crate::format::{Act, I8Row};
use crate::kernels::quant::round;
use crate::kernels::testing::{Numbers, runnable};

/// Rows with large and small groups, zeros, ties, and numbers that are all but nothing.
fn rows(m: usize, k: usize) -> Vec<f32> {
    let mut numbers = Numbers::new((m + k) as u64);
    let mut x = numbers.many(m * k, false);
    for (i, group) in x.chunks_mut(64).enumerate() {
        let factor = [1.0, 1e-4, 3e7, 0.0, 1e-44, 1e-38][i % 6];
        group.iter_mut().for_each(|x| *x *= factor);
    }
    // Exactly halfway: 127 units of 1 and some of 0.5, 1.5, 2.5.
    x.iter_mut().take(k.min(256)).enumerate().for_each(|(i, x)| *x = if i == 5 { -127.0 } else { i as f32 % 7.0 - 2.5 });
    x
}

#[test]
fn codes_scales_and_sums_are_what_they_are_defined_to_be() {
    for (m, k) in [(3, 16), (2, 256), (2, 560), (1, 2048)] {
        let (x, place, stride) = (rows(m, k), I8Row::new(k), Act::I8.row_bytes(k) + 4);
        let out = quantize(round::generic, &x, m, k, stride);
        for (x, out) in x.chunks(k).zip(out.chunks(stride)) {
            let kp = k.next_multiple_of(256);
            for (g, group) in x.chunks(256).enumerate() {
                let scale = group.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 127.0;
                assert_eq!(number::<f32>(out, place.scales, g), scale);
                for (i, x) in group.iter().enumerate() {
                    let code = if scale == 0.0 { 0.0 } else { (x / scale).round_ties_even().clamp(-127.0, 127.0) };
                    assert_eq!(out[g * 256 + i] as i8, code as i8, "{x} / {scale}");
                }
            }
            assert!(out[k..kp].iter().all(|&code| code == 0), "the padding is not zero");
            let codes: Vec<i32> = out[..kp].iter().map(|&code| i32::from(code as i8)).collect();
            for (i, codes) in codes.chunks(32).enumerate() {
                assert_eq!(number::<i32>(out, place.sums, i), -8 * codes.iter().sum::<i32>());
            }
            for (i, codes) in codes.chunks(256).enumerate() {
                assert_eq!(number::<i32>(out, place.group_sums, i), -128 * codes.iter().sum::<i32>());
            }
            assert_eq!(out[place.bytes..], [0xee; 4], "written behind the row");
        }
    }
}

#[test]
fn every_instruction_set_rounds_to_the_same_bits() {
    for (m, k) in [(1, 16), (5, 272), (3, 2048)] {
        let (x, stride) = (rows(m, k), Act::I8.row_bytes(k));
        let want = quantize(round::generic, &x, m, k, stride);
        for (row, kernel) in runnable("quantize_i8", "") {
            assert!(quantize(kernel, &x, m, k, stride) == want, "{} m {m} k {k}", row.name);
        }
    }
}

#[test]
fn groups_by_themselves_make_the_same_row() {
    let (m, k) = (2, 1040);
    let (x, stride) = (rows(m, k), Act::I8.row_bytes(k));
    for (row, kernel) in runnable("quantize_i8", "") {
        let mut out = vec![0xee; m * stride];
        for (first_group, groups) in [(3, 2), (0, 1), (1, 2)] {
            let (x_stride, k, out_stride) = (4 * k as u64, k as u64, stride as u64);
            let args = QuantizeArgs { x: x.as_ptr(), x_stride, m: m as u64, k, first_group, groups, out: out.as_mut_ptr(), out_stride };
            // SAFETY: the arguments describe the vectors above.
            unsafe { kernel((&raw const args).cast()) };
        }
        assert!(out == quantize(kernel, &x, m, k, stride), "{}", row.name);
    }
}
