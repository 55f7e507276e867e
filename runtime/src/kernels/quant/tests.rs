//! Every dot kernel of the integer formats that this machine can run, bit for bit: against its generic twin, alone and in tiles; and the
//! twins against sums in f64.

use super::testing::{Case, FORMATS};
use crate::abi::{GatherArgs, ROWS};
use crate::format::WEIGHT_FORMATS;
use crate::kernels::testing::runnable;

/// As many rows as the largest tile has.
const ROWS_OF_CASE: usize = 128;

/// Lengths shorter and longer than a chunk of 256 that the format's unit divides, most of them with a short last chunk.
fn lengths(format: &str) -> Vec<usize> {
    let unit = WEIGHT_FORMATS.iter().find(|f| f.name == format).expect("a format").k_unit;
    [unit, 256 / unit * unit, 256 + unit, 1280 - unit, 2048].into_iter().map(|k| k.next_multiple_of(unit)).collect()
}

#[test]
fn a_generic_dot_is_the_sum_of_what_the_codes_stand_for() {
    for (format, _) in FORMATS {
        for (row, kernel) in runnable("dot", format).into_iter().filter(|(r, _)| r.isa.name == "generic") {
            for k in lengths(format) {
                let (m, blocks) = (row.m.min(3), row.blocks.min(2));
                let case = Case::new(format, k, m, blocks, false);
                for (i, &got) in case.run(kernel, 0, m, 0, blocks).iter().enumerate() {
                    let (t, r) = (i / (ROWS * blocks), i % (ROWS * blocks));
                    let product = |i: usize| f64::from(case.w_values[r * k + i]) * case.x_value(t, i);
                    let (exact, size) = (0..k).fold((0.0, 0.0), |(sum, size), i| (sum + product(i), size + product(i).abs()));
                    assert!((f64::from(got) - exact).abs() <= 1e-6 * size, "{} k {k}: {got} for {exact}", row.name);
                }
            }
        }
    }
}

#[test]
fn every_kernel_has_the_bits_of_its_generic_twin() {
    for (format, _) in FORMATS {
        let kernels = runnable("dot", format);
        let twin = kernels.iter().find(|(r, _)| r.isa.name == "generic").expect("a generic kernel").1;
        for k in lengths(format) {
            for extreme in [false, true] {
                let case = Case::new(format, k, ROWS_OF_CASE, 4, extreme);
                let want = case.run(twin, 0, ROWS_OF_CASE, 0, 4);
                for (row, kernel) in kernels.iter().filter(|(r, _)| r.isa.name != "generic") {
                    for m in (1..=row.m.min(ROWS_OF_CASE)).filter(|m| *m <= 12 || m % 7 == 1) {
                        let (first, block) = (ROWS_OF_CASE - m, m % 3);
                        let got = case.run(*kernel, first, m, block, 4 - block);
                        for (t, got) in got.chunks(ROWS * (4 - block)).enumerate() {
                            let want = &want[((first + t) * 4 + block) * ROWS..][..got.len()];
                            assert!(got == want, "{} k {k} m {m} row {t} extreme {extreme}: {got:?} for {want:?}", row.name);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn rows_are_gathered_as_what_their_codes_stand_for() {
    for (format, _) in FORMATS {
        for k in lengths(format) {
            let case = Case::new(format, k, 1, 3, false);
            // A row may end before the padding of the matrix.
            let width = k - 16;
            let ids = [47u32, 0, 17, 16, 17];
            for (row, kernel) in runnable("gather", format) {
                let mut out = vec![9.0; ids.len() * (width + 1)];
                let out_stride = 4 * (width as u64 + 1);
                let args = GatherArgs {
                    w: case.w.as_ptr(),
                    ids: ids.as_ptr(),
                    m: ids.len() as u64,
                    k: width as u64,
                    out: out.as_mut_ptr(),
                    out_stride,
                };
                // SAFETY: the arguments describe the vectors above.
                unsafe { kernel((&raw const args).cast()) };
                for (out, id) in out.chunks(width + 1).zip(ids) {
                    assert!(out[..width] == case.w_values[id as usize * k..][..width] && out[width] == 9.0, "{} row {id}", row.name);
                }
            }
        }
    }
}
