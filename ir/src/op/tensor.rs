//! The tensor dialect: ops of graphs that others exported, with broadcasting as in NumPy and any element type. They stand in modules at
//! [`Stage::Graph`] only; raising turns them into the ops of the parent table. What in the exporter's graph computes shapes is not here:
//! importing works it out and writes it into attributes.

use super::{AttrKind, Effect, OpInfo, Stage};

macro_rules! tensor_ops {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal ($($operand:literal),*) {$($attr:ident : $kind:expr),*} -> $results:literal;)+) => {
        /// The kind of a tensor op; its facts are [`TensorOp::info`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum TensorOp { $($(#[doc = $doc])+ $variant),+ }

        /// Every tensor op, in the order of [`TensorOp`].
        pub static TENSOR_OPS: &[(TensorOp, OpInfo)] = &[$((TensorOp::$variant, OpInfo {
            name: $name, operands: &[$($operand),*], attrs: &[$((stringify!($attr), $kind)),*],
            results: $results, effect: Effect::Pure, from: Stage::Graph, doc: concat!($($doc, "\n"),+),
        })),+];
    };
}

use AttrKind::{Dims, Float, Int, Word};
/// Element types that attributes can name.
pub const TYPES: &[&str] = &[
    "f32",
    "f16",
    "bf16",
    "i64",
    "i32",
    "i8",
    "u8",
    "bool",
    "f64",
    "i16",
    "u16",
    "u32",
    "u64",
    "f8e4m3",
    "f8e5m2",
    "f8e4m3fnuz",
    "f8e5m2fnuz",
    "f4e2m1",
    "i4",
    "u4",
    "i2",
    "u2",
    "f8e8m0",
];
const DTYPE: AttrKind = Word(TYPES, false);
const REDUCTION: AttrKind = Word(&["none", "add", "mul", "max", "min"], true);

tensor_ops! {
    /// Sum.
    Add "tensor.add" ("a", "b") {} -> 1;
    /// Difference.
    Sub "tensor.sub" ("a", "b") {} -> 1;
    /// Product.
    Mul "tensor.mul" ("a", "b") {} -> 1;
    /// Quotient; of integers towards zero.
    Div "tensor.div" ("a", "b") {} -> 1;
    /// Remainder with the sign of the divisor.
    Mod "tensor.mod" ("a", "b") {} -> 1;
    /// Remainder with the sign of the dividend.
    FMod "tensor.fmod" ("a", "b") {} -> 1;
    /// Bits that both have.
    BitAnd "tensor.bit_and" ("a", "b") {} -> 1;
    /// Bits that either has.
    BitOr "tensor.bit_or" ("a", "b") {} -> 1;
    /// Bits that one but not both have.
    BitXor "tensor.bit_xor" ("a", "b") {} -> 1;
    /// `a * 2^b`, what does not fit is lost; a negative `b` is a very large one.
    ShiftLeft "tensor.shift_left" ("a", "b") {} -> 1;
    /// `a / 2^b` towards minus infinity; a negative `b` is a very large one.
    ShiftRight "tensor.shift_right" ("a", "b") {} -> 1;
    /// `a` to the power of `b`; `b` may be of another type.
    Pow "tensor.pow" ("a", "b") {} -> 1;
    /// The larger.
    Max "tensor.max" ("a", "b") {} -> 1;
    /// The smaller.
    Min "tensor.min" ("a", "b") {} -> 1;
    /// `a == b`.
    Equal "tensor.equal" ("a", "b") {} -> 1;
    /// `a < b`.
    Less "tensor.less" ("a", "b") {} -> 1;
    /// `a <= b`.
    LessOrEqual "tensor.less_or_equal" ("a", "b") {} -> 1;
    /// `a > b`.
    Greater "tensor.greater" ("a", "b") {} -> 1;
    /// `a >= b`.
    GreaterOrEqual "tensor.greater_or_equal" ("a", "b") {} -> 1;
    /// Both.
    And "tensor.and" ("a", "b") {} -> 1;
    /// Either.
    Or "tensor.or" ("a", "b") {} -> 1;
    /// One but not both.
    Xor "tensor.xor" ("a", "b") {} -> 1;
    /// `a` where the condition holds, else `b`.
    Where "tensor.where" ("condition", "a", "b") {} -> 1;
    /// `not x`.
    Not "tensor.not" ("x") {} -> 1;
    /// `-x`.
    Neg "tensor.neg" ("x") {} -> 1;
    /// Absolute value.
    Abs "tensor.abs" ("x") {} -> 1;
    /// Square root.
    Sqrt "tensor.sqrt" ("x") {} -> 1;
    /// `1 / x`.
    Reciprocal "tensor.reciprocal" ("x") {} -> 1;
    /// `e^x`.
    Exp "tensor.exp" ("x") {} -> 1;
    /// Natural logarithm.
    Log "tensor.log" ("x") {} -> 1;
    /// Largest integer not above `x`.
    Floor "tensor.floor" ("x") {} -> 1;
    /// Smallest integer not below `x`.
    Ceil "tensor.ceil" ("x") {} -> 1;
    /// Nearest integer, halves to the even one.
    Round "tensor.round" ("x") {} -> 1;
    /// Cosine.
    Cos "tensor.cos" ("x") {} -> 1;
    /// Sine.
    Sin "tensor.sin" ("x") {} -> 1;
    /// Hyperbolic tangent.
    Tanh "tensor.tanh" ("x") {} -> 1;
    /// `1 / (1 + e^-x)`.
    Sigmoid "tensor.sigmoid" ("x") {} -> 1;
    /// `max(x, 0)`.
    Relu "tensor.relu" ("x") {} -> 1;
    /// Inverted bits.
    BitNot "tensor.bit_not" ("x") {} -> 1;
    /// -1, 0 or 1; NaN of NaN.
    Sign "tensor.sign" ("x") {} -> 1;
    /// `2 / sqrt(pi)` times the integral of `e^-t^2` from 0 to `x`.
    Erf "tensor.erf" ("x") {} -> 1;
    /// Tangent.
    Tan "tensor.tan" ("x") {} -> 1;
    /// Inverse sine.
    Asin "tensor.asin" ("x") {} -> 1;
    /// Inverse cosine.
    Acos "tensor.acos" ("x") {} -> 1;
    /// Inverse tangent.
    Atan "tensor.atan" ("x") {} -> 1;
    /// Hyperbolic sine.
    Sinh "tensor.sinh" ("x") {} -> 1;
    /// Hyperbolic cosine.
    Cosh "tensor.cosh" ("x") {} -> 1;
    /// Inverse hyperbolic sine.
    Asinh "tensor.asinh" ("x") {} -> 1;
    /// Inverse hyperbolic cosine.
    Acosh "tensor.acosh" ("x") {} -> 1;
    /// Inverse hyperbolic tangent.
    Atanh "tensor.atanh" ("x") {} -> 1;
    /// Whether `x` is infinite, of a sign that is asked for.
    IsInf "tensor.is_inf" ("x") {negative: Int(Some(1)), positive: Int(Some(1))} -> 1;
    /// Whether `x` is NaN.
    IsNan "tensor.is_nan" ("x") {} -> 1;
    /// Another element type: floats to integers towards zero, to bool by `x != 0`. What is larger than the
    /// largest float of 8 bits becomes it, or infinity or NaN with `saturate=0`; powers of two (`f8e8m0`) are rounded up, without a sign.
    Cast "tensor.cast" ("x") {to: DTYPE, saturate: Int(Some(1))} -> 1;
    /// What a step of u8 codes is worth, codes spread over all of `x` and 0: `(max(x, 0) - min(x, 0)) / 255`, 1 if that is 0.
    DynamicScale "tensor.dynamic_scale" ("x") {} -> 1;
    /// The u8 code of 0 in that scale.
    DynamicZero "tensor.dynamic_zero" ("x") {} -> 1;
    /// Codes: `x / scale` to the nearest integer, halves to the even one, plus `zero`, within what the type of `zero` holds.
    Quantize "tensor.quantize" ("x", "scale", "zero") {} -> 1;
    /// Mean over axes, which stay with length 1.
    ReduceMean "tensor.reduce_mean" ("x") {axes: Dims} -> 1;
    /// Sum over axes, which stay with length 1.
    ReduceSum "tensor.reduce_sum" ("x") {axes: Dims} -> 1;
    /// Largest over axes, which stay with length 1.
    ReduceMax "tensor.reduce_max" ("x") {axes: Dims} -> 1;
    /// Smallest over axes, which stay with length 1.
    ReduceMin "tensor.reduce_min" ("x") {axes: Dims} -> 1;
    /// Product over axes, which stay with length 1.
    ReduceProd "tensor.reduce_prod" ("x") {axes: Dims} -> 1;
    /// Index of the largest along an axis, which stays with length 1; `last=1`: of the last one of equals.
    ArgMax "tensor.arg_max" ("x") {axis: Int(None), last: Int(Some(0))} -> 1;
    /// Index of the smallest, as `tensor.arg_max`.
    ArgMin "tensor.arg_min" ("x") {axis: Int(None), last: Int(Some(0))} -> 1;
    /// As `tensor.cumsum`, products.
    CumProd "tensor.cumprod" ("x") {axis: Int(None), exclusive: Int(Some(0)), reverse: Int(Some(0))} -> 1;
    /// Sums up to each element along an axis; `exclusive=1` without it, `reverse=1` from the end.
    CumSum "tensor.cumsum" ("x") {axis: Int(None), exclusive: Int(Some(0)), reverse: Int(Some(0))} -> 1;
    /// Softmax along an axis. In floats of 16 bits powers, their sum and the quotient are rounded one by one.
    Softmax "tensor.softmax" ("x") {axis: Int(None)} -> 1;
    /// Matrix product over the last two axes; those before broadcast.
    MatMul "tensor.matmul" ("a", "b") {} -> 1;
    /// The same elements in another shape.
    Reshape "tensor.reshape" ("x") {shape: Dims} -> 1;
    /// Broadcast to a shape of at least as many axes.
    Expand "tensor.expand" ("x") {shape: Dims} -> 1;
    /// Axis `i` of the result is axis `perm[i]`.
    Transpose "tensor.transpose" ("x") {perm: Dims} -> 1;
    /// One after the other along an axis.
    Concat "tensor.concat" ("parts*") {axis: Int(None)} -> 1;
    /// Elements `start, start + step ..` of an axis, `len` of them.
    Slice "tensor.slice" ("x") {axis: Int(None), start: Dims, len: Dims, step: Int(Some(1))} -> 1;
    /// Slices of an axis by index; negative ones count from the end.
    Gather "tensor.gather" ("x", "indices") {axis: Int(None)} -> 1;
    /// `out[i..] = x[indices[i..]]` where the last axis of the indices addresses the first axes of `x` behind `batch_dims` axes that
    /// both have.
    GatherNd "tensor.gather_nd" ("x", "indices") {batch_dims: Int(Some(0))} -> 1;
    /// `out[..i..] = x[..indices[..i..]..]` along an axis.
    GatherElements "tensor.gather_elements" ("x", "indices") {axis: Int(None)} -> 1;
    /// `x` with `out[..indices[..i..]..] = updates[..i..]` along an axis, or what is there combined with it.
    ScatterElements "tensor.scatter_elements" ("x", "indices", "updates") {axis: Int(None), reduction: REDUCTION} -> 1;
    /// `x` with `out[indices[i..]] = updates[i..]`, as in `tensor.gather_nd`, or what is there combined with it.
    ScatterNd "tensor.scatter_nd" ("x", "indices", "updates") {reduction: REDUCTION} -> 1;
    /// The whole, `repeats[i]` times along axis `i`.
    Tile "tensor.tile" ("x") {repeats: Dims} -> 1;
    /// The `k` largest along an axis, largest first (ties: the lowest index), and their indices; `largest=0`: the smallest.
    TopK "tensor.top_k" ("x") {axis: Int(None), k: Int(None), largest: Int(Some(1))} -> 2;
    /// The upper (else lower) triangle from diagonal `k` of the last two axes, 0 elsewhere.
    Trilu "tensor.trilu" ("x") {upper: Int(None), k: Int(Some(0))} -> 1;
    /// `start, start + step ..`, `len` of them, i64.
    Range "tensor.range" () {start: Dims, len: Dims, step: Int(Some(1))} -> 1;
    /// A shape full of one number.
    Fill "tensor.fill" () {shape: Dims, value: Float(None), dtype: DTYPE} -> 1;
    /// Integers that depend on dimensions: i64 of a shape.
    Values "tensor.values" () {shape: Dims, values: Dims} -> 1;
    /// `gamma * x / sqrt(mean(x^2) + eps)` over the last axis.
    RmsNorm "tensor.rms_norm" ("x", "gamma") {eps: Float(None)} -> 1;
    /// `x / sqrt(mean(x^2) + eps)` over the last axis.
    RmsUnit "tensor.rms_unit" ("x") {eps: Float(None)} -> 1;
    /// `x * sigmoid(x)`.
    Silu "tensor.silu" ("x") {} -> 1;
    /// Rotates each head of `x: [batch, heads, seq, d]` by `cos, sin: [batch, seq, d/2]`: pairs `(i, i + d/2)`, or `(2i, 2i+1)` if interleaved.
    Rotary "tensor.rotary" ("x", "cos", "sin") {interleaved: Int(Some(0))} -> 1;
    /// `softmax(scale * q k^T + mask) v`; a bool mask says what is seen. `q: [batch, heads, s, d]`, `k, v: [batch, kv_heads, t, d]`: query head `h`
    /// reads KV head `h / (heads / kv_heads)`. `is_causal=1`: the query `i` sees keys up to `i + t - s`.
    Attention "tensor.attention" ("q", "k", "v", "mask?") {scale: Float(None), is_causal: Int(Some(0))} -> 1;
}

impl TensorOp {
    /// Its facts.
    pub fn info(self) -> &'static OpInfo {
        &TENSOR_OPS[self as usize].1
    }
    /// The tensor op of that name.
    pub fn from_name(name: &str) -> Option<TensorOp> {
        TENSOR_OPS.iter().find(|(_, info)| info.name == name).map(|(op, _)| *op)
    }
}
