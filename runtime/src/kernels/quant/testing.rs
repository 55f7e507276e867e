//! Random matrices and activations in the integer formats, with what they stand for.

use crate::abi::{DotArgs, Kernel, QuantizeArgs, ROWS};
use crate::format::{Act, I8Row, WEIGHT_FORMATS, WeightFormat};
use crate::kernels::quant::round;
use crate::kernels::testing::Numbers;

/// The integer formats, with the columns that share a scale.
pub(super) const FORMATS: [(&str, usize); 6] =
    [("q4g32", 32), ("q4g64", 64), ("q4g128", 128), ("q6g32", 32), ("q8", usize::MAX), ("q8g32", 32)];

/// Weights `[16 * blocks][k]` and activations `[m][k]`, packed.
pub(super) struct Case {
    pub(super) format: &'static WeightFormat,
    /// Columns, a multiple of the format's unit.
    pub(super) k: usize,
    pub(super) w: Vec<u8>,
    /// What the codes of the weights stand for.
    pub(super) w_values: Vec<f32>,
    pub(super) x: Vec<u8>,
    pub(super) x_stride: usize,
}

/// f16 bits of a number between 2^-10 and 1 that has them exactly, and the number.
fn scale(numbers: &mut Numbers) -> (u16, f32) {
    let (exponent, fraction) = (5 + numbers.below(10) as u16, numbers.below(1024) as u16);
    (exponent << 10 | fraction, f32::from_bits(u32::from(exponent << 10 | fraction) << 13) * f32::from_bits(0x7780_0000))
}

impl Case {
    /// `extreme`: codes at the ends of their range, which overflow what can be overflown.
    pub(super) fn new(name: &str, k: usize, m: usize, blocks: usize, extreme: bool) -> Case {
        let format = WEIGHT_FORMATS.iter().find(|f| f.name == name).expect("a format");
        let group = FORMATS.iter().find(|f| f.0 == name).expect("a format").1;
        let bits = name.as_bytes()[1] - b'0';
        let mut numbers = Numbers::new((k * 1000 + m * 10 + blocks) as u64);
        let mut w = vec![0; format.matrix_bytes(ROWS * blocks, k)];
        let mut w_values = vec![0.0; ROWS * blocks * k];
        for row in 0..ROWS * blocks {
            let (block, r) = (row / ROWS * format.block_bytes(k), row % ROWS);
            let mut value_of_one = 0.0;
            for i in 0..k {
                if i % group == 0 {
                    let (bits, value) = scale(&mut numbers);
                    value_of_one = value;
                    if group > k {
                        w[block + k * ROWS + r * 4..][..4].copy_from_slice(&value.to_le_bytes());
                    } else {
                        let (unit, half) = (i / (2 * group), i / group % 2);
                        let at = block + (unit + 1) * format.unit_bytes - 64 + half * 32 + r * 2;
                        w[at..][..2].copy_from_slice(&bits.to_le_bytes());
                    }
                }
                let (ends, offset) = match bits {
                    4 => ([0, 15], 8.0),
                    6 => ([0, 63], 32.0),
                    // A third of the lines just fit what `panel` asks of them.
                    _ if i / 4 % 3 == 0 => ([64, 192], 128.0),
                    _ => ([1, 255], 128.0),
                };
                let code = if extreme { ends[numbers.below(2)] } else { ends[0] + numbers.below(ends[1] - ends[0] + 1) };
                if bits == 6 {
                    let first = block + i / 64 * format.unit_bytes + i / 32 % 2 * 6 * 64 + 4 * r + i % 4;
                    w[first + i % 32 / 8 * 64] |= ((code & 15) << (i / 4 % 2 * 4)) as u8;
                    w[first + (4 + i % 32 / 16) * 64] |= ((code >> 4) << (i / 4 % 4 * 2)) as u8;
                } else if bits == 4 {
                    let line = i / (2 * group) * format.unit_bytes + (i / group % 2 * (group / 8) + i % group / 8) * 64;
                    w[block + line + 4 * r + i % 4] |= (code << (if i % 8 < 4 { 0 } else { 4 })) as u8;
                } else {
                    let gap = if group == 32 { i / 64 * 64 } else { 0 };
                    w[block + i / 4 * 64 + gap + 4 * r + i % 4] = code as u8;
                }
                w_values[row * k + i] = (code as f32 - offset) * value_of_one;
            }
        }
        let x_stride = Act::I8.row_bytes(k) + 36;
        let mut x_values = numbers.many(m * k, false);
        if extreme {
            x_values.iter_mut().for_each(|x| *x = x.signum());
        }
        let x = quantize(round::generic, &x_values, m, k, x_stride);
        Case { format, k, w, w_values, x, x_stride }
    }

    /// Rows `first .. first + m` of the activations and blocks from `block` on.
    pub(super) fn run(&self, kernel: Kernel, first: usize, m: usize, block: usize, blocks: usize) -> Vec<f32> {
        let stride = ROWS * blocks + 5;
        let mut out = vec![-7.5; m * stride];
        let args = DotArgs {
            w: self.w[block * self.format.block_bytes(self.k)..].as_ptr(),
            x: self.x[first * self.x_stride..].as_ptr(),
            x_stride: self.x_stride as u64,
            k: self.k as u64,
            m: m as u64,
            blocks: blocks as u64,
            out: out.as_mut_ptr(),
            out_stride: 4 * stride as u64,
        };
        // SAFETY: the arguments describe the vectors above.
        unsafe { kernel((&raw const args).cast()) };
        assert!(out.chunks(stride).all(|row| row[ROWS * blocks..].iter().all(|&x| x == -7.5)), "a gap was written to");
        out.chunks(stride).flat_map(|row| row[..ROWS * blocks].to_vec()).collect()
    }

    /// What column `i` of row `t` of the activations stands for.
    pub(super) fn x_value(&self, t: usize, i: usize) -> f64 {
        let row = &self.x[t * self.x_stride..];
        f64::from(row[i] as i8) * f64::from(number::<f32>(row, I8Row::new(self.k).scales, i / 256))
    }
}

/// Number `i` of those at `at`.
pub(super) fn number<T: Copy>(row: &[u8], at: usize, i: usize) -> T {
    let bytes = &row[at + i * size_of::<T>()..][..size_of::<T>()];
    // SAFETY: the slice has the bytes of a T, which the tests take for i32 and f32 only.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

/// Rows of int8 activations, `0xee` between them.
pub(super) fn quantize(kernel: Kernel, x: &[f32], m: usize, k: usize, out_stride: usize) -> Vec<u8> {
    let mut out = vec![0xee; m * out_stride];
    let groups = k.div_ceil(256) as u64;
    let (x_stride, k) = (4 * k as u64, k as u64);
    let args = QuantizeArgs {
        x: x.as_ptr(),
        x_stride,
        m: m as u64,
        k,
        first_group: 0,
        groups,
        out: out.as_mut_ptr(),
        out_stride: out_stride as u64,
    };
    // SAFETY: the arguments describe the slices above.
    unsafe { kernel((&raw const args).cast()) };
    out
}
