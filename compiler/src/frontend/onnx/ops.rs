//! Every op of the format that is read: a line in [`OPS`] with its domain, its name, the first version that means what its function does, and
//! the function, which turns one node into one tensor op or a few plain ones. Products, norms and attention are in `ops/network`.

mod contrib;
mod convolution;
mod moving;
mod network;
mod quantized;

use super::attributes::Attributes;
use super::bad;
use super::import::{Importer, input};
use super::weights::dtype_of;
use crate::diag::Result;
use llamac_ir::module::Operand;
use llamac_ir::op::TensorOp as T;
use llamac_ir::op::{Attr, TensorOp};
use llamac_ir::types::Dim;
use tract_onnx::pb::NodeProto;

/// One node to the values of its outputs.
pub(super) type Import = fn(&mut Importer, &NodeProto, &Attributes<'_>) -> Result<Vec<Operand>>;

/// Domain of the contrib ops of ONNX Runtime.
const MS: &str = "com.microsoft";

/// Every op: domain, name, first version.
const OPS: &[(&str, &str, i64, Import)] = &[
    ("", "Abs", 13, |i, n, _| i.plain(n, T::Abs)),
    ("", "Add", 13, |i, n, _| i.fold(n, T::Add)),
    ("", "And", 7, |i, n, _| i.plain(n, T::And)),
    ("", "Attention", 23, network::attention),
    ("", "Cast", 13, cast),
    ("", "CastLike", 15, cast_like),
    ("", "Ceil", 13, |i, n, _| i.plain(n, T::Ceil)),
    ("", "Concat", 13, moving::concat),
    ("", "ConstantOfShape", 9, moving::constant_of_shape),
    ("", "Conv", 11, convolution::patches),
    ("", "Cos", 7, |i, n, _| i.plain(n, T::Cos)),
    ("", "CumSum", 11, cumsum),
    ("", "DequantizeLinear", 13, quantized::dequantize),
    ("", "Div", 13, |i, n, _| i.plain(n, T::Div)),
    ("", "Dropout", 13, |i, n, _| Ok(vec![i.read(n, 0)?])),
    ("", "DynamicQuantizeLinear", 11, quantized::dynamic_quantize),
    ("", "Equal", 11, |i, n, _| i.plain(n, T::Equal)),
    ("", "Exp", 13, |i, n, _| i.plain(n, T::Exp)),
    ("", "Expand", 13, moving::expand),
    ("", "Flatten", 13, moving::flatten),
    ("", "Floor", 13, |i, n, _| i.plain(n, T::Floor)),
    ("", "Gather", 13, |i, n, a| i.along(n, a, T::Gather, 0)),
    ("", "GatherElements", 13, |i, n, a| i.along(n, a, T::GatherElements, 0)),
    ("", "GatherND", 12, moving::gather_nd),
    ("", "Gemm", 13, network::gemm),
    ("", "Greater", 13, |i, n, _| i.plain(n, T::Greater)),
    ("", "GreaterOrEqual", 12, |i, n, _| i.plain(n, T::GreaterOrEqual)),
    ("", "Identity", 13, |i, n, _| Ok(vec![i.read(n, 0)?])),
    ("", "IsNaN", 13, |i, n, _| i.plain(n, T::IsNan)),
    ("", "Less", 13, |i, n, _| i.plain(n, T::Less)),
    ("", "LessOrEqual", 12, |i, n, _| i.plain(n, T::LessOrEqual)),
    ("", "Log", 13, |i, n, _| i.plain(n, T::Log)),
    ("", "MatMul", 13, network::matmul),
    ("", "MatMulInteger", 10, quantized::matmul_integer),
    ("", "Max", 13, |i, n, _| i.fold(n, T::Max)),
    ("", "Min", 13, |i, n, _| i.fold(n, T::Min)),
    ("", "Mod", 13, modulo),
    ("", "Mul", 13, |i, n, _| i.plain(n, T::Mul)),
    ("", "Neg", 13, |i, n, _| i.plain(n, T::Neg)),
    ("", "Not", 1, |i, n, _| i.plain(n, T::Not)),
    ("", "Or", 7, |i, n, _| i.plain(n, T::Or)),
    ("", "Pow", 13, |i, n, _| i.plain(n, T::Pow)),
    ("", "RMSNormalization", 23, network::rms_norm),
    ("", "Range", 11, moving::range),
    ("", "Reciprocal", 13, |i, n, _| i.plain(n, T::Reciprocal)),
    ("", "ReduceMax", 13, reduce_by_attribute),
    ("", "ReduceMax", 18, reduce),
    ("", "ReduceMean", 13, reduce_by_attribute),
    ("", "ReduceMean", 18, reduce),
    ("", "ReduceMin", 13, reduce_by_attribute),
    ("", "ReduceMin", 18, reduce),
    ("", "ReduceSum", 13, reduce),
    ("", "Relu", 13, |i, n, _| i.plain(n, T::Relu)),
    ("", "Reshape", 13, moving::reshape),
    ("", "RotaryEmbedding", 23, network::rotary),
    ("", "Round", 11, |i, n, _| i.plain(n, T::Round)),
    ("", "ScatterElements", 13, moving::scatter_elements),
    ("", "Sigmoid", 13, |i, n, _| i.plain(n, T::Sigmoid)),
    ("", "SimplifiedLayerNormalization", 1, network::rms_norm),
    ("", "Sin", 7, |i, n, _| i.plain(n, T::Sin)),
    ("", "Slice", 13, moving::slice),
    ("", "Softmax", 13, |i, n, a| i.along(n, a, T::Softmax, -1)),
    ("", "Split", 13, moving::split),
    ("", "Sqrt", 13, |i, n, _| i.plain(n, T::Sqrt)),
    ("", "Squeeze", 13, moving::squeeze),
    ("", "Sub", 13, |i, n, _| i.plain(n, T::Sub)),
    ("", "Sum", 13, |i, n, _| i.fold(n, T::Add)),
    ("", "Tanh", 13, |i, n, _| i.plain(n, T::Tanh)),
    ("", "Tile", 13, moving::tile),
    ("", "TopK", 11, moving::top_k),
    ("", "Transpose", 13, moving::transpose),
    ("", "Trilu", 14, moving::trilu),
    ("", "Unsqueeze", 13, moving::unsqueeze),
    ("", "Where", 9, |i, n, _| i.plain(n, T::Where)),
    ("", "Xor", 7, |i, n, _| i.plain(n, T::Xor)),
    (MS, "GatherBlockQuantized", 1, quantized::gather_blocks),
    (MS, "GroupQueryAttention", 1, contrib::group_query_attention),
    (MS, "MatMulNBits", 1, quantized::matmul_bits),
    (MS, "RotaryEmbedding", 1, contrib::rotary),
    (MS, "SimplifiedLayerNormalization", 1, network::rms_norm),
    (MS, "SkipSimplifiedLayerNormalization", 1, network::skip_rms_norm),
];

/// The function for an op at a version.
///
/// # Errors
/// The op is not compiled.
pub(super) fn find(domain: &str, name: &str, version: i64) -> Result<Import> {
    let lines = OPS.iter().filter(|(d, n, ..)| *d == domain && *n == name);
    let shown = if domain.is_empty() { "ai.onnx" } else { domain };
    let best = lines.clone().filter(|(_, _, since, _)| *since <= version).max_by_key(|(_, _, since, _)| *since);
    best.map(|(.., import)| *import).ok_or_else(|| {
        let what = format!("the op `{name}` of `{shown}` is not compiled at version {version}");
        match lines.map(|(_, _, since, _)| *since).min() {
            Some(since) => bad(what).expected(format_args!("version {since} or later")).help("export the model with a newer opset"),
            None => {
                let all: Vec<&str> = OPS.iter().filter(|(d, ..)| *d == domain).map(|(_, n, ..)| *n).collect();
                bad(what)
                    .expected(if all.is_empty() {
                        "the domain ai.onnx or com.microsoft".to_owned()
                    } else {
                        format!("one of {}", all.join(", "))
                    })
                    .help("export the model without it, or open an issue with the exporter's name and version")
            }
        }
    })
}

impl Importer {
    /// Operand `at` of a node, which must be there.
    pub(super) fn read(&mut self, node: &NodeProto, at: usize) -> Result<Operand> {
        let name = input(node, at)
            .ok_or_else(|| bad("an input is missing").found(format_args!("{} inputs", node.input.len())).expected(at + 1))?;
        self.operand(name)
    }
    /// Refuses inputs that are not compiled.
    pub(super) fn at_most(&self, node: &NodeProto, count: usize) -> Result<()> {
        match (count..node.input.len()).find(|i| input(node, *i).is_some()) {
            Some(at) => Err(bad("an input is not compiled")
                .found(format_args!("input {at}, `{}`", node.input[at]))
                .expected(format_args!("{count} inputs"))),
            None => Ok(()),
        }
    }
    /// An op that takes all inputs and has no attributes.
    pub(super) fn plain(&mut self, node: &NodeProto, op: TensorOp) -> Result<Vec<Operand>> {
        self.at_most(node, op.info().operands.len())?;
        let operands = (0..op.info().operands.len()).map(|i| self.read(node, i)).collect::<Result<Vec<_>>>()?;
        Ok(vec![self.tensor(op, &node.output[0], &operands, &[])?.into()])
    }
    /// An op of two operands over any number of inputs, from the left.
    fn fold(&mut self, node: &NodeProto, op: TensorOp) -> Result<Vec<Operand>> {
        let mut value = self.read(node, 0)?;
        for at in 1..node.input.len() {
            let next = self.read(node, at)?;
            value = self.tensor(op, &node.output[0], &[value, next], &[])?.into();
        }
        Ok(vec![value])
    }
    /// An op whose one attribute is `axis`.
    fn along(&mut self, node: &NodeProto, a: &Attributes<'_>, op: TensorOp, default: i64) -> Result<Vec<Operand>> {
        self.at_most(node, op.info().operands.len())?;
        let operands = (0..op.info().operands.len()).map(|i| self.read(node, i)).collect::<Result<Vec<_>>>()?;
        let axis = Attr::Int(a.int_or("axis", default)?);
        Ok(vec![self.tensor(op, &node.output[0], &operands, &[("axis", axis)])?.into()])
    }
    /// Known values of an input: dimensions.
    pub(super) fn dims(&self, node: &NodeProto, at: usize, what: &str) -> Result<Vec<Dim>> {
        let known = input(node, at).and_then(|name| self.known.get(name)).map(|k| k.values.clone());
        known.ok_or_else(|| {
            bad(format!("{what} is worked out from data, not from sizes"))
                .found(input(node, at).unwrap_or("nothing"))
                .expected("numbers or sums and products of dimensions")
                .help("export the model with shapes that follow from batch, sequence and past length")
        })
    }
    /// As [`Importer::dims`], plain integers.
    pub(super) fn numbers(&self, node: &NodeProto, at: usize, what: &str) -> Result<Vec<i64>> {
        let dims = self.dims(node, at, what)?;
        let numbers: Option<Vec<i64>> = dims.iter().map(Dim::number).collect();
        numbers.ok_or_else(|| bad(format!("{what} depends on sizes")).found(Attr::Dims(dims)).expected("plain integers"))
    }
}

fn cast(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Result<Vec<Operand>> {
    let to = a.int("to")?.ok_or_else(|| bad("`to` is missing"))?;
    a.only("saturate", 1)?;
    let dtype = dtype_of(to as i32)?;
    let x = i.read(node, 0)?;
    if i.ty(x).dtype == dtype {
        return Ok(vec![x]);
    }
    Ok(vec![i.tensor(T::Cast, &node.output[0], &[x], &[("to", Attr::Word(dtype.name().to_owned()))])?.into()])
}

fn cast_like(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Result<Vec<Operand>> {
    a.only("saturate", 1)?;
    let (x, like) = (i.read(node, 0)?, i.read(node, 1)?);
    let dtype = i.ty(like).dtype;
    if i.ty(x).dtype == dtype {
        return Ok(vec![x]);
    }
    Ok(vec![i.tensor(T::Cast, &node.output[0], &[x], &[("to", Attr::Word(dtype.name().to_owned()))])?.into()])
}

fn modulo(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Result<Vec<Operand>> {
    // C's remainder differs for negative numbers only, but nothing says that there are none.
    a.only("fmod", 0)?;
    i.plain(node, T::Mod)
}

fn cumsum(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Result<Vec<Operand>> {
    let axis = i.numbers(node, 1, "the axis")?;
    let [axis] = axis[..] else { return Err(bad("the axis is no single number")) };
    let (exclusive, reverse) = (a.int_or("exclusive", 0)?, a.int_or("reverse", 0)?);
    let attrs = [("axis", Attr::Int(axis)), ("exclusive", Attr::Int(exclusive)), ("reverse", Attr::Int(reverse))];
    let x = i.read(node, 0)?;
    Ok(vec![i.tensor(T::CumSum, &node.output[0], &[x], &attrs)?.into()])
}

/// Axes as an input.
fn reduce(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Result<Vec<Operand>> {
    let axes = match input(node, 1) {
        Some(_) => i.numbers(node, 1, "the axes")?,
        None => vec![],
    };
    reduce_over(i, node, a, axes)
}

/// Axes as an attribute.
fn reduce_by_attribute(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Result<Vec<Operand>> {
    let axes = a.ints("axes")?.unwrap_or_default().to_vec();
    reduce_over(i, node, a, axes)
}

fn reduce_over(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>, mut axes: Vec<i64>) -> Result<Vec<Operand>> {
    let op = match node.op_type.as_str() {
        "ReduceMean" => T::ReduceMean,
        "ReduceMax" => T::ReduceMax,
        "ReduceMin" => T::ReduceMin,
        _ => T::ReduceSum,
    };
    let x = i.read(node, 0)?;
    let rank = i.ty(x).shape.len() as i64;
    let nothing = a.int_or("noop_with_empty_axes", 0)? != 0;
    let keep = a.int_or("keepdims", 1)? != 0;
    if axes.is_empty() {
        if nothing {
            return Ok(vec![x]);
        }
        axes = (0..rank).collect();
    }
    let mut value: Operand = i.tensor(op, &node.output[0], &[x], &[("axes", Attr::ints(&axes))])?.into();
    if !keep {
        let gone: Vec<i64> = axes.iter().map(|a| if *a < 0 { a + rank } else { *a }).collect();
        let shape = i.ty(value).shape;
        let shape = shape.into_iter().enumerate().filter(|(at, _)| !gone.contains(&(*at as i64))).map(|(_, d)| d).collect();
        value = i.tensor(T::Reshape, &node.output[0], &[value], &[("shape", Attr::Dims(shape))])?.into();
    }
    Ok(vec![value])
}
