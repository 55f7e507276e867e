//! Arithmetic on vectors of four f32: rounding to bf16 and back, exp, SiLU, rotation of pairs. No fused multiply-add, so that the
//! results are the same on every target.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::types::{F32X4, I8X16, I16X8, I32, I32X4};
use cranelift_codegen::ir::{ConstantData, Endianness, InstBuilder, MemFlagsData, Type, Value};

use super::frame::Emit;

/// Sixteen columns.
pub(super) type Block = [Value; 4];

/// Lanes are numbered as in memory.
const LANES: MemFlagsData = MemFlagsData::new().with_endianness(Endianness::Little);

impl Emit<'_, '_> {
    pub(super) fn cast(&mut self, to: Type, x: Value) -> Value {
        self.b.ins().bitcast(to, LANES, x)
    }
    /// Four copies of a constant.
    pub(super) fn splat(&mut self, x: f32) -> Value {
        let x = self.b.ins().f32const(x);
        self.b.ins().splat(F32X4, x)
    }
    /// Four copies of an integer.
    pub(super) fn splat_int(&mut self, x: i32) -> Value {
        let x = self.b.ins().iconst(I32, i64::from(x as u32));
        self.b.ins().splat(I32X4, x)
    }
    /// Bytes of `x` in another order.
    fn shuffle(&mut self, x: Value, lanes: [u8; 4]) -> Value {
        let bytes: Vec<u8> = lanes.iter().flat_map(|&l| (0..4).map(move |b| l * 4 + b)).collect();
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(&bytes[..]));
        let x = self.cast(I8X16, x);
        let y = self.b.ins().shuffle(x, x, mask);
        self.cast(F32X4, y)
    }

    /// The bits of `x` rounded to nearest even in the lower half of each lane. NaNs stay NaNs.
    fn bf16_bits(&mut self, x: Value) -> Value {
        let nan = self.b.ins().fcmp(FloatCC::Unordered, x, x);
        let bits = self.cast(I32X4, x);
        let (half, one, quiet) = (self.splat_int(0x7fff), self.splat_int(1), self.splat_int(0x40));
        let upper = self.b.ins().ushr_imm_u(bits, 16);
        let odd = self.b.ins().band(upper, one);
        let sum = self.b.ins().iadd(bits, half);
        let sum = self.b.ins().iadd(sum, odd);
        let rounded = self.b.ins().ushr_imm_u(sum, 16);
        let quieted = self.b.ins().bor(upper, quiet);
        self.b.ins().bitselect(nan, quieted, rounded)
    }
    /// Eight bf16 from eight f32.
    fn narrow(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = (self.bf16_bits(a), self.bf16_bits(b));
        self.b.ins().unarrow(a, b)
    }
    /// Rounded to bf16: two vectors of eight.
    pub(super) fn bf16_halves(&mut self, x: Block) -> [Value; 2] {
        [self.narrow(x[0], x[1]), self.narrow(x[2], x[3])]
    }
    /// Rounded to bf16 and back.
    pub(super) fn round_bf16(&mut self, x: Value) -> Value {
        let bits = self.bf16_bits(x);
        let bits = self.b.ins().ishl_imm_u(bits, 16);
        self.cast(F32X4, bits)
    }
    /// Sixteen columns at an address as f32.
    pub(super) fn load_block(&mut self, at: Value, bf16: bool) -> Block {
        if !bf16 {
            return std::array::from_fn(|i| self.load4(at, 16 * i));
        }
        let mut out = [at; 4];
        for i in 0..2 {
            let eight = self.b.ins().load(I16X8, super::frame::unaligned(), at, 16 * i);
            let wide = [self.b.ins().uwiden_low(eight), self.b.ins().uwiden_high(eight)];
            for (j, x) in wide.into_iter().enumerate() {
                let bits = self.b.ins().ishl_imm_u(x, 16);
                out[i as usize * 2 + j] = self.cast(F32X4, bits);
            }
        }
        out
    }
    /// Stores sixteen columns, rounded if asked.
    pub(super) fn store_block(&mut self, x: Block, at: Value, bf16: bool) {
        if bf16 {
            let halves = self.bf16_halves(x);
            halves.into_iter().enumerate().for_each(|(i, h)| self.store(h, at, 16 * i));
        } else {
            x.into_iter().enumerate().for_each(|(i, v)| self.store(v, at, 16 * i));
        }
    }

    /// `exp(x)` for `-87 <= x <= 88`, within 2 units in the last place: `2^n * exp(r)` with `|r| <= ln 2 / 2` and a polynomial of
    /// degree 7 for `exp(r)` (coefficients as in Cephes).
    fn exp(&mut self, x: Value) -> Value {
        let log2e = self.splat(std::f32::consts::LOG2_E);
        let t = self.b.ins().fmul(x, log2e);
        // Adding 1.5 * 2^23 rounds to an integer, which then stands in the lower bits.
        let magic = self.splat(12_582_912.0);
        let shifted = self.b.ins().fadd(t, magic);
        let n = self.b.ins().fsub(shifted, magic);
        // ln 2 in two parts: the first has so few bits that n times it is exact.
        let (high, low) = (self.splat(0.693_359_4), self.splat(-2.121_944_4e-4));
        let a = self.b.ins().fmul(n, high);
        let b = self.b.ins().fmul(n, low);
        let r = self.b.ins().fsub(x, a);
        let r = self.b.ins().fsub(r, b);
        let mut p = self.splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
            let c = self.splat(c);
            p = self.b.ins().fmul(p, r);
            p = self.b.ins().fadd(p, c);
        }
        let r2 = self.b.ins().fmul(r, r);
        let p = self.b.ins().fmul(p, r2);
        let p = self.b.ins().fadd(p, r);
        let one = self.splat(1.0);
        let p = self.b.ins().fadd(p, one);
        let bits = self.cast(I32X4, shifted);
        let bias = self.splat_int(127 - 0x4b40_0000);
        let exponent = self.b.ins().iadd(bits, bias);
        let scale = self.b.ins().ishl_imm_u(exponent, 23);
        let scale = self.cast(F32X4, scale);
        self.b.ins().fmul(p, scale)
    }

    /// `x / (1 + exp(-x))`. Beyond the range of `exp` the true value is below 1e-35 or equal to `x`.
    pub(super) fn silu(&mut self, x: Value) -> Value {
        let (low, high, one) = (self.splat(-87.0), self.splat(88.0), self.splat(1.0));
        let t = self.b.ins().fneg(x);
        let t = self.b.ins().fmax(t, low);
        let t = self.b.ins().fmin(t, high);
        let e = self.exp(t);
        let d = self.b.ins().fadd(e, one);
        self.b.ins().fdiv(x, d)
    }

    /// Rotates two pairs of neighbours by `(cos, sin, cos, sin)`: `(x0 c - x1 s, x1 c + x0 s)`.
    pub(super) fn rotate(&mut self, x: Value, angles: Value) -> Value {
        let cos = self.shuffle(angles, [0, 0, 2, 2]);
        let sin = self.shuffle(angles, [1, 1, 3, 3]);
        let swapped = self.shuffle(x, [1, 0, 3, 2]);
        let signs: Vec<u8> = [-0.0f32, 0.0, -0.0, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let signs = self.b.func.dfg.constants.insert(ConstantData::from(&signs[..]));
        let signs = self.b.ins().vconst(I32X4, signs);
        let sin = self.cast(I32X4, sin);
        let sin = self.b.ins().bxor(sin, signs);
        let sin = self.cast(F32X4, sin);
        let a = self.b.ins().fmul(x, cos);
        let b = self.b.ins().fmul(swapped, sin);
        self.b.ins().fadd(a, b)
    }

    /// `x` where `first + lane < end`, else 0.
    pub(super) fn keep(&mut self, x: Value, first: Value, end: usize) -> Value {
        let first = self.b.ins().ireduce(I32, first);
        let first = self.b.ins().splat(I32X4, first);
        let lanes: Vec<u8> = (0..4i32).flat_map(i32::to_le_bytes).collect();
        let lanes = self.b.func.dfg.constants.insert(ConstantData::from(&lanes[..]));
        let lanes = self.b.ins().vconst(I32X4, lanes);
        let at = self.b.ins().iadd(first, lanes);
        let end = self.splat_int(end as i32);
        let inside = self.b.ins().icmp(cranelift_codegen::ir::condcodes::IntCC::SignedLessThan, at, end);
        let bits = self.cast(I32X4, x);
        let bits = self.b.ins().band(bits, inside);
        self.cast(F32X4, bits)
    }
}
