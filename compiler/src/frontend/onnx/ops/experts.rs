//! `QMoE`, ONNX Runtime's mixture of experts with weights of codes, in plain ops: every expert on every token, weighed by gates that are 0 where an expert
//! was not chosen. The gates stand on what experts give, so raising makes no layer of a Llama 4 of it, whose gates stand on what they take.
//!
//! Source: the schema `com.microsoft.QMoE` of ONNX Runtime, and its CPU kernel where the schema is silent (gelu by tanh; gates are a softmax over the
//! chosen scores alone).

use super::super::attributes::Attributes;
use super::super::bad;
use super::super::blocks::{Blocks, Order};
use super::super::import::{Importer, input};
use super::make::Make;
use super::pointwise::{gelu_tanh, swish};
use super::quantized::{count, refused, rows_of_blocks, stored};
use crate::diag::Result;
use llamac_ir::dtype::DType;
use llamac_ir::module::Operand;
use llamac_ir::op::{Attr, OpKind, TensorOp as T};
use llamac_ir::types::Dim;
use tract_onnx::pb::NodeProto;

type Found = Result<Vec<Operand>>;

/// What is computed between the two products of an expert.
struct Activation {
    name: String,
    /// How gate and value of a gated unit stand in the first product: 0: the value is a product of its own, 1: side by side, 2: one half each.
    fusion: i64,
    alpha: f64,
    beta: f64,
    limit: Option<f64>,
}

/// Codes of weights.
#[derive(Clone, Copy)]
struct Coding {
    bits: usize,
    /// Columns that share a scale; `None`: all of a row.
    block: Option<usize>,
}

/// Inputs of one product of all experts: weight, scale, bias, zero points.
struct Places(usize, usize, usize, usize);

const FIRST: Places = Places(2, 3, 4, 11);
const SECOND: Places = Places(5, 6, 7, 12);
const THIRD: Places = Places(8, 9, 10, 13);
/// Weights of the chosen experts, if they are not made of the scores.
const ROUTER_WEIGHTS: usize = 14;

pub(super) fn quantized(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    i.at_most(node, 15)?;
    a.only("use_sparse_mixer", 0)?;
    a.only("swiglu_interleaved", 0)?;
    // How exactly the exporter wants products computed: not less exactly than that.
    a.int("accuracy_level")?;
    if let Some(other) = a.text("quant_type")?.filter(|t| t != "int") {
        return Err(bad("attribute `quant_type` has a value that is not compiled").found(other).expected("int"));
    }
    let coding = coding(a)?;
    let activation = activation(node, a)?;
    let (k, normal) = (a.int_or("k", 1)?, a.int_or("normalize_routing_weights", 0)? != 0);

    let (x, scores) = (i.read(node, 0)?, i.read(node, 1)?);
    let given = if input(node, ROUTER_WEIGHTS).is_some() { Some(i.read(node, ROUTER_WEIGHTS)?) } else { None };
    let (dtype, shape) = (i.ty(x).dtype, i.ty(x).shape);
    let Some((width, leading)) = shape.split_last().filter(|(_, l)| matches!(l.len(), 1 | 2)) else {
        return Err(bad("the input of the experts is of another rank")
            .found(i.ty(x))
            .expected("[tokens, width] or [batch, sequence, width]"));
    };
    let width = width.value().ok_or_else(|| bad("the width of the experts' input is not known").found(i.ty(x)))?;
    let tokens = leading.iter().fold(Dim::int(1), |n, d| n.mul(d));

    let (up, [experts, wide]) = weight(i, node, &FIRST, coding, width)?;
    let inner = if activation.gated() && activation.fusion > 0 { wide / 2 } else { wide };
    let (down, [same, out]) = weight(i, node, &SECOND, coding, inner)?;
    if same != experts || out != width {
        return Err(bad("the second product of the experts does not fit the first")
            .found(format_args!("[{same}, {out}, {inner}]"))
            .expected(format_args!("[{experts}, {width}, {inner}]")));
    }
    let third = match input(node, THIRD.0) {
        None => match [THIRD.1, THIRD.2, THIRD.3].into_iter().find(|at| input(node, *at).is_some()) {
            None => None,
            Some(at) => {
                return Err(bad("an input is for a product that is not there")
                    .found(&node.input[at])
                    .expected("fc3_experts_weights with it"));
            }
        },
        Some(_) => Some(weight(i, node, &THIRD, coding, width)?),
    };
    if let Some((_, found)) = &third
        && *found != [experts, inner]
    {
        return Err(bad("the third product of the experts does not fit the first").found(format_args!("{found:?}")));
    }
    let [bias, last_bias, third_bias] = [(&FIRST, wide), (&SECOND, width), (&THIRD, inner)].map(|(at, n)| bias(i, node, at, [experts, n]));

    let mut m = Make::new(i, node);
    let gates = gates(&mut m, scores, given, [k, experts as i64], normal, &tokens)?;
    let x = m.wide(x)?;
    let x = m.reshape(x, vec![1.into(), tokens.clone(), width.into()])?;
    let mut h = product(&mut m, x, up, bias?)?;
    h = match third {
        Some((third, _)) => {
            let value = product(&mut m, x, third, third_bias?)?;
            activation.unit(&mut m, h, value)?
        }
        None => activation.of(&mut m, h, inner as i64)?,
    };
    let y = product(&mut m, h, down, last_bias?)?;
    let gates = m.transpose(gates, &[1, 0])?;
    let gates = m.reshape(gates, vec![experts.into(), tokens, 1.into()])?;
    let y = m.bin(T::Mul, y, gates)?;
    let y = m.reduce(T::ReduceSum, y, &[0])?;
    let y = m.reshape(y, shape)?;
    Ok(vec![m.cast(y, dtype)?])
}

fn coding(a: &Attributes<'_>) -> Result<Coding> {
    let bits = a.int_or("expert_weight_bits", 4)?;
    if !matches!(bits, 4 | 8) {
        return Err(bad("attribute `expert_weight_bits` has a value that is not compiled").found(bits).expected("4 or 8"));
    }
    let block = match a.int_or("block_size", 0)? {
        0 | -1 => None,
        n => Some(usize::try_from(n).map_err(|_| bad("`block_size` cannot be that").found(n))?),
    };
    Ok(Coding { bits: bits as usize, block })
}

fn activation(node: &NodeProto, a: &Attributes<'_>) -> Result<Activation> {
    let float = |name: &'static str| -> Result<Option<f64>> { Ok(a.raw_float(name)?.map(f64::from)) };
    let made = Activation {
        name: a.text("activation_type")?.unwrap_or_else(|| "relu".to_owned()),
        fusion: a.int_or("swiglu_fusion", 0)?,
        alpha: float("activation_alpha")?.unwrap_or(1.0),
        beta: float("activation_beta")?.unwrap_or(0.0),
        limit: float("swiglu_limit")?,
    };
    let third = input(node, THIRD.0).is_some();
    let refused = |found: String, expected: &str| Err(bad("the activation of the experts is not compiled").found(found).expected(expected));
    match (made.name.as_str(), made.fusion, third) {
        ("relu" | "gelu" | "silu" | "identity", 0, false) | ("swiglu", 0, true) | ("swiglu", 1 | 2, false) | ("silu", 0, true) => Ok(made),
        ("relu" | "gelu" | "silu" | "identity" | "swiglu", fusion, third) => {
            let with = if third { "with" } else { "without" };
            refused(
                format!("`activation_type` {} and `swiglu_fusion` {fusion} {with} `fc3_experts_weights`", made.name),
                "swiglu_fusion 1 or 2 with swiglu alone, and fc3 with swiglu or silu that are not fused",
            )
        }
        (other, ..) => refused(format!("`activation_type` {other}"), "relu, gelu, silu, swiglu or identity"),
    }
}

/// `[experts, rows, columns]` as floats, and experts and rows.
fn weight(i: &mut Importer, node: &NodeProto, at: &Places, coding: Coding, columns: usize) -> Result<(Operand, [usize; 2])> {
    let what = "the weight of the experts";
    let (codes, shape, dtype, packed) = stored(i, node, at.0, what)?;
    let (scales, scale_shape, ..) = stored(i, node, at.1, "the scale of the experts")?;
    let &[experts, rows, bytes] = shape.as_slice() else {
        return Err(bad(format!("{what} has not three axes")).found(format_args!("{shape:?}")));
    };
    if dtype != DType::U8 || packed || bytes * 8 != columns * coding.bits {
        return Err(bad(format!("{what} does not fit"))
            .found(format_args!("{dtype}{shape:?}"))
            .expected(format_args!("u8 codes of {} bits, {columns} columns", coding.bits)));
    }
    let block = coding.block.unwrap_or(columns);
    if block == 0 || !columns.is_multiple_of(block) {
        return Err(bad("`block_size` does not divide the columns").found(block).expected(format_args!("a divisor of {columns}")));
    }
    let scale_count = experts * rows * (columns / block);
    if count(&scale_shape) != scale_count {
        return Err(refused("the scale of the experts", &scale_shape, scale_count));
    }
    let nibbles = |i: &mut Importer, name: String| if coding.bits == 4 { i.weights.as_nibbles(&name) } else { name };
    let zeros = match input(node, at.3) {
        None => None,
        Some(_) => {
            let (name, zero_shape, dtype, packed) = stored(i, node, at.3, "the zero point of the experts")?;
            if dtype != DType::U8 || packed || count(&zero_shape) * 8 != scale_count * coding.bits {
                return Err(refused("the zero point of the experts", &zero_shape, scale_count * coding.bits / 8));
            }
            Some(nibbles(i, name))
        }
    };
    let codes = nibbles(i, codes);
    let blocks = Blocks { codes, scales, zeros, zero: 1 << (coding.bits - 1), order: Order::Rows { columns, block } };
    let w = rows_of_blocks(i, experts * rows, blocks)?;
    let mut m = Make::new(i, node);
    Ok((m.reshape(w, [experts, rows, columns].map(Dim::from).to_vec())?, [experts, rows]))
}

/// `[experts, 1, rows]`, if there is one.
fn bias(i: &mut Importer, node: &NodeProto, at: &Places, [experts, rows]: [usize; 2]) -> Result<Option<Operand>> {
    if input(node, at.2).is_none() {
        return Ok(None);
    }
    let bias = i.read(node, at.2)?;
    if i.ty(bias).sizes().as_deref() != Some(&[experts, rows]) {
        return Err(bad("the bias of the experts does not fit").found(i.ty(bias)).expected(format_args!("[{experts}, {rows}]")));
    }
    let mut m = Make::new(i, node);
    let bias = m.wide(bias)?;
    m.reshape(bias, [experts, 1, rows].map(Dim::from).to_vec()).map(Some)
}

/// `[tokens, experts]`: what each expert counts for.
fn gates(m: &mut Make<'_>, scores: Operand, given: Option<Operand>, [k, experts]: [i64; 2], normal: bool, tokens: &Dim) -> Result<Operand> {
    if !(1..=experts).contains(&k) {
        return Err(bad("`k` is not a number of experts").found(k).expected(format_args!("1 to {experts}")));
    }
    // With weights that are not made to sum to 1, ONNX Runtime's CPU kernel takes a softmax over the chosen scores all the same, its CUDA kernel one over all.
    if !normal && given.is_none() && k < experts {
        return Err(bad("attribute `normalize_routing_weights` has a value that is not compiled")
            .found(0)
            .expected("1, or weights of the experts as input `router_weights`")
            .help("ONNX Runtime's kernels for CPU and CUDA give different numbers for 0"));
    }
    let all = vec![tokens.clone(), Dim::int(experts)];
    let scores = m.wide(scores)?;
    let scores = m.reshape(scores, all.clone())?;
    let attrs = [("axis", Attr::Int(1)), ("k", Attr::Int(k)), ("largest", Attr::Int(1))];
    let [chosen, indices] = m.pair(OpKind::Tensor(T::TopK), scores, &attrs)?;
    let mut weights = match given {
        None => m.op(T::Softmax, &[chosen], &[("axis", Attr::Int(1))])?,
        Some(given) => {
            let given = m.wide(given)?;
            let given = m.reshape(given, all.clone())?;
            m.op(T::GatherElements, &[given, indices], &[("axis", Attr::Int(1))])?
        }
    };
    if normal && given.is_some() {
        let sum = m.reduce(T::ReduceSum, weights, &[1])?;
        let none = m.with(T::Equal, sum, 0.0)?;
        let one = m.number(1.0, m.dtype(sum))?;
        // Weights of 0 stay 0.
        let by = m.op(T::Where, &[none, one, sum], &[])?;
        weights = m.bin(T::Div, weights, by)?;
    }
    let base = m.fill(all, 0.0, m.dtype(weights))?;
    m.op(T::ScatterElements, &[base, indices, weights], &[("axis", Attr::Int(1)), ("reduction", Attr::Word("none".to_owned()))])
}

/// `x W^T + bias` of every expert: `[experts, tokens, rows]`.
fn product(m: &mut Make<'_>, x: Operand, w: Operand, bias: Option<Operand>) -> Result<Operand> {
    let turned = m.transpose(w, &[0, 2, 1])?;
    let y = m.bin(T::MatMul, x, turned)?;
    bias.map_or(Ok(y), |bias| m.bin(T::Add, y, bias))
}

impl Activation {
    fn gated(&self) -> bool {
        self.name == "swiglu"
    }

    /// Of the first product alone.
    fn of(&self, m: &mut Make<'_>, h: Operand, inner: i64) -> Result<Operand> {
        match (self.name.as_str(), self.fusion) {
            ("relu", _) => m.un(T::Relu, h),
            ("silu", _) => swish(m, h, 1.0),
            ("gelu", _) => gelu_tanh(m, h),
            ("swiglu", 1) => {
                let (gate, value) = (m.slice(h, 2, 0, inner, 2)?, m.slice(h, 2, 1, inner, 2)?);
                self.unit(m, gate, value)
            }
            ("swiglu", _) => {
                let (gate, value) = (m.slice(h, 2, 0, inner, 1)?, m.slice(h, 2, inner, inner, 1)?);
                self.unit(m, gate, value)
            }
            _ => Ok(h),
        }
    }

    /// `g sigmoid(alpha g) (v + beta)`, both kept within the limit; a plain silu has no parameters.
    fn unit(&self, m: &mut Make<'_>, mut gate: Operand, mut value: Operand) -> Result<Operand> {
        let plain = !self.gated();
        if let Some(limit) = self.limit.filter(|_| !plain) {
            gate = m.with(T::Min, gate, limit)?;
            value = m.with(T::Min, value, limit)?;
            value = m.with(T::Max, value, -limit)?;
        }
        gate = swish(m, gate, if plain { 1.0 } else { self.alpha })?;
        if !plain && self.beta != 0.0 {
            value = m.with(T::Add, value, self.beta)?;
        }
        m.bin(T::Mul, gate, value)
    }
}
