//! Every dot kernel that this machine can run, against sums in f64, against its generic twin and against the other kernels of its
//! instruction set.

use super::testing::{Numbers, put, runnable};
use crate::abi::{DotArgs, Kernel, ROWS};

/// A case: weights `[16 * blocks][k]` and activations `[m][k]`, and their packed forms.
struct Case {
    k: usize,
    blocks: usize,
    w: Vec<f32>,
    x: Vec<f32>,
    w_packed: Vec<u8>,
    x_packed: Vec<u8>,
    x_stride: usize,
}

/// Elements between rows of results that no kernel may touch.
const OUT_GAP: usize = 5;

impl Case {
    fn new(bf16: bool, k: usize, m: usize, blocks: usize) -> Case {
        let mut numbers = Numbers::new((k * 1000 + m * 10 + blocks) as u64);
        let (w, x) = (numbers.many(ROWS * blocks * k, bf16), numbers.many(m * k, bf16));
        let (bytes, pair) = if bf16 { (2, 2) } else { (4, 1) };
        let x_stride = k * bytes + 36;
        let (mut w_packed, mut x_packed) = (vec![0; w.len() * bytes], vec![0xee; m * x_stride]);
        for (i, &value) in w.iter().enumerate() {
            let (row, i) = (i / k, i % k);
            let at = ((row / ROWS * k + i - i % pair) * ROWS + row % ROWS * pair + i % pair) * bytes;
            put(&mut w_packed[at..], bf16, value);
        }
        for (i, &value) in x.iter().enumerate() {
            put(&mut x_packed[i / k * x_stride + i % k * bytes..], bf16, value);
        }
        Case { k, blocks, w, x, w_packed, x_packed, x_stride }
    }

    /// Rows `first .. first + m` of the activations and blocks from `block` on.
    fn run(&self, kernel: Kernel, first: usize, m: usize, block: usize, blocks: usize) -> Vec<f32> {
        let stride = ROWS * blocks + OUT_GAP;
        let mut out = vec![-7.5; m * stride];
        let block_bytes = self.w_packed.len() / self.blocks;
        let args = DotArgs {
            w: self.w_packed[block * block_bytes..].as_ptr(),
            x: self.x_packed[first * self.x_stride..].as_ptr(),
            x_stride: self.x_stride as u64,
            k: self.k as u64,
            m: m as u64,
            blocks: blocks as u64,
            out: out.as_mut_ptr(),
            out_stride: 4 * stride as u64,
        };
        // SAFETY: the arguments describe the vectors above.
        unsafe { kernel((&raw const args).cast()) };
        for row in out.chunks(stride) {
            assert!(row[ROWS * blocks..].iter().all(|&x| x == -7.5), "a gap was written to");
        }
        out.chunks(stride).flat_map(|row| row[..ROWS * blocks].to_vec()).collect()
    }

    /// The sum in f64 of row `t` and weight row `r`, and the sum of absolute products.
    fn exact(&self, t: usize, r: usize) -> (f64, f64) {
        let products = || (0..self.k).map(|i| f64::from(self.w[r * self.k + i]) * f64::from(self.x[t * self.k + i]));
        (products().sum(), products().map(f64::abs).sum())
    }
}

/// Sums shorter and longer than a chunk of converted activations, odd multiples of 16 among them.
const LENGTHS: [usize; 4] = [16, 48, 208, 2096];

#[test]
fn every_dot_kernel_sums_what_it_should() {
    for format in ["f32", "bf16"] {
        for (row, kernel) in runnable("dot", format) {
            for k in LENGTHS {
                for m in 1..=row.m {
                    let blocks = 1 + (m + k / 16) % row.blocks.min(5);
                    let case = Case::new(format == "bf16", k, m, blocks);
                    let got = case.run(kernel, 0, m, 0, blocks);
                    for (i, &got) in got.iter().enumerate() {
                        let (exact, size) = case.exact(i / (ROWS * blocks), i % (ROWS * blocks));
                        let error = (f64::from(got) - exact).abs();
                        assert!(error <= 2e-6 * size, "{} k {k} m {m}: {got} for {exact}", row.name);
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_alone_has_the_bits_that_it_has_in_a_tile() {
    for format in ["f32", "bf16"] {
        let kernels = runnable("dot", format);
        for (row, tile) in kernels.iter().filter(|r| r.0.m > 1) {
            let (_, one) = kernels.iter().find(|(r, _)| r.m == 1 && r.isa == row.isa).expect("a kernel for one row");
            for k in LENGTHS {
                for m in 1..=row.m {
                    let case = Case::new(format == "bf16", k, m, row.blocks);
                    let whole = case.run(*tile, 0, m, 0, row.blocks);
                    for t in 0..m {
                        for block in 0..row.blocks {
                            let alone = case.run(*one, t, 1, block, 1);
                            let in_tile = &whole[(t * row.blocks + block) * ROWS..][..ROWS];
                            assert!(alone == in_tile, "{} k {k} m {m} row {t} block {block}", row.name);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_dot_kernel_is_near_its_generic_twin() {
    for format in ["f32", "bf16"] {
        let kernels = runnable("dot", format);
        let twin = kernels.iter().find(|r| r.0.isa.name == "generic").expect("a generic kernel").1;
        let case = Case::new(format == "bf16", 1040, 1, 3);
        let want = case.run(twin, 0, 1, 0, 3);
        for (row, kernel) in kernels {
            let near = case.run(kernel, 0, 1, 0, 3).iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(near, "{}", row.name);
        }
    }
}
