//! Every op of the format that is read: a line in [`OPS`] with its domain, its name, the first version that means what its function does, and
//! the function, which turns one node into one tensor op or a few plain ones. Products, norms and attention are in `ops/network`.

mod arranging;
mod attention;
mod codes;
mod contrib;
mod convolution;
mod experts;
mod make;
mod moving;
mod network;
mod pointwise;
mod quantized;
mod reducing;

use super::attributes::Attributes;
use super::bad;
use super::import::{Importer, input};
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
    ("", "Abs", 6, |i, n, _| i.plain(n, T::Abs)),
    ("", "Acos", 7, |i, n, _| i.plain(n, T::Acos)),
    ("", "Acosh", 9, |i, n, _| i.plain(n, T::Acosh)),
    ("", "Add", 7, |i, n, _| i.fold(n, T::Add)),
    ("", "And", 7, |i, n, _| i.plain(n, T::And)),
    ("", "ArgMax", 11, reducing::arg),
    ("", "ArgMin", 11, reducing::arg),
    ("", "Asin", 7, |i, n, _| i.plain(n, T::Asin)),
    ("", "Asinh", 9, |i, n, _| i.plain(n, T::Asinh)),
    ("", "Atan", 7, |i, n, _| i.plain(n, T::Atan)),
    ("", "Atanh", 9, |i, n, _| i.plain(n, T::Atanh)),
    ("", "Attention", 23, attention::attention),
    ("", "BitShift", 11, pointwise::bit_shift),
    ("", "BitwiseAnd", 18, |i, n, _| i.plain(n, T::BitAnd)),
    ("", "BitwiseNot", 18, |i, n, _| i.plain(n, T::BitNot)),
    ("", "BitwiseOr", 18, |i, n, _| i.plain(n, T::BitOr)),
    ("", "BitwiseXor", 18, |i, n, _| i.plain(n, T::BitXor)),
    ("", "Cast", 9, pointwise::cast),
    ("", "CastLike", 15, pointwise::cast),
    ("", "Ceil", 6, |i, n, _| i.plain(n, T::Ceil)),
    ("", "Celu", 12, pointwise::activation),
    ("", "Clip", 11, pointwise::clip),
    ("", "Compress", 9, arranging::compress),
    ("", "Concat", 11, moving::concat),
    ("", "ConstantOfShape", 9, moving::constant_of_shape),
    ("", "Conv", 11, convolution::patches),
    ("", "Cos", 7, |i, n, _| i.plain(n, T::Cos)),
    ("", "Cosh", 9, |i, n, _| i.plain(n, T::Cosh)),
    ("", "CumProd", 26, reducing::cumulated),
    ("", "CumSum", 11, reducing::cumulated),
    ("", "DepthToSpace", 11, arranging::depth_and_space),
    ("", "DequantizeLinear", 10, codes::dequantize),
    ("", "Div", 7, |i, n, _| i.plain(n, T::Div)),
    ("", "Dropout", 7, pointwise::dropout),
    ("", "DynamicQuantizeLinear", 11, codes::dynamic_quantize),
    ("", "Elu", 6, pointwise::activation),
    ("", "Equal", 11, |i, n, _| i.plain(n, T::Equal)),
    ("", "Erf", 9, |i, n, _| i.plain(n, T::Erf)),
    ("", "Exp", 6, |i, n, _| i.plain(n, T::Exp)),
    ("", "Expand", 8, moving::expand),
    ("", "EyeLike", 9, arranging::eye_like),
    ("", "Flatten", 11, moving::flatten),
    ("", "Floor", 6, |i, n, _| i.plain(n, T::Floor)),
    ("", "Gather", 11, |i, n, a| i.along(n, a, T::Gather, 0)),
    ("", "GatherElements", 11, |i, n, a| i.along(n, a, T::GatherElements, 0)),
    ("", "GatherND", 12, arranging::gather_nd),
    ("", "Gelu", 20, pointwise::activation),
    ("", "Gemm", 11, network::gemm),
    ("", "Greater", 9, |i, n, _| i.plain(n, T::Greater)),
    ("", "GreaterOrEqual", 12, |i, n, _| i.plain(n, T::GreaterOrEqual)),
    ("", "HardSigmoid", 6, pointwise::activation),
    ("", "HardSwish", 14, pointwise::activation),
    ("", "Hardmax", 13, reducing::hardmax),
    ("", "Identity", 1, |i, n, _| Ok(vec![i.read(n, 0)?])),
    ("", "IsInf", 10, pointwise::is_inf),
    ("", "IsNaN", 9, |i, n, _| i.plain(n, T::IsNan)),
    ("", "LayerNormalization", 17, reducing::layer_norm),
    ("", "LeakyRelu", 6, pointwise::activation),
    ("", "Less", 9, |i, n, _| i.plain(n, T::Less)),
    ("", "LessOrEqual", 12, |i, n, _| i.plain(n, T::LessOrEqual)),
    ("", "Log", 6, |i, n, _| i.plain(n, T::Log)),
    ("", "LogSoftmax", 13, reducing::log_softmax),
    ("", "MatMul", 9, network::matmul),
    ("", "MatMulInteger", 10, codes::matmul_integer),
    ("", "Max", 8, |i, n, _| i.fold(n, T::Max)),
    ("", "Mean", 8, pointwise::mean),
    ("", "Min", 8, |i, n, _| i.fold(n, T::Min)),
    ("", "Mish", 18, pointwise::activation),
    ("", "Mod", 10, pointwise::modulo),
    ("", "Mul", 7, |i, n, _| i.plain(n, T::Mul)),
    ("", "Neg", 6, |i, n, _| i.plain(n, T::Neg)),
    ("", "NonZero", 9, arranging::non_zero),
    ("", "Not", 1, |i, n, _| i.plain(n, T::Not)),
    ("", "OneHot", 11, arranging::one_hot),
    ("", "Or", 7, |i, n, _| i.plain(n, T::Or)),
    ("", "PRelu", 9, pointwise::prelu),
    ("", "Pad", 11, arranging::pad),
    ("", "Pow", 7, |i, n, _| i.plain(n, T::Pow)),
    ("", "QLinearMatMul", 10, codes::linear_matmul),
    ("", "QuantizeLinear", 10, codes::quantize),
    ("", "RMSNormalization", 23, reducing::rms_norm),
    ("", "Range", 11, arranging::range),
    ("", "Reciprocal", 6, |i, n, _| i.plain(n, T::Reciprocal)),
    ("", "ReduceL1", 11, reducing::by_attribute),
    ("", "ReduceL1", 18, reducing::by_input),
    ("", "ReduceL2", 11, reducing::by_attribute),
    ("", "ReduceL2", 18, reducing::by_input),
    ("", "ReduceLogSum", 11, reducing::by_attribute),
    ("", "ReduceLogSum", 18, reducing::by_input),
    ("", "ReduceLogSumExp", 11, reducing::by_attribute),
    ("", "ReduceLogSumExp", 18, reducing::by_input),
    ("", "ReduceMax", 11, reducing::by_attribute),
    ("", "ReduceMax", 18, reducing::by_input),
    ("", "ReduceMean", 11, reducing::by_attribute),
    ("", "ReduceMean", 18, reducing::by_input),
    ("", "ReduceMin", 11, reducing::by_attribute),
    ("", "ReduceMin", 18, reducing::by_input),
    ("", "ReduceProd", 11, reducing::by_attribute),
    ("", "ReduceProd", 18, reducing::by_input),
    ("", "ReduceSum", 11, reducing::by_attribute),
    ("", "ReduceSum", 13, reducing::by_input),
    ("", "ReduceSumSquare", 11, reducing::by_attribute),
    ("", "ReduceSumSquare", 18, reducing::by_input),
    ("", "Relu", 6, |i, n, _| i.plain(n, T::Relu)),
    ("", "Reshape", 5, moving::reshape),
    ("", "RotaryEmbedding", 23, attention::rotary),
    ("", "Round", 11, |i, n, _| i.plain(n, T::Round)),
    ("", "ScatterElements", 11, arranging::scatter_elements),
    ("", "ScatterND", 13, arranging::scatter_nd),
    ("", "Selu", 6, pointwise::activation),
    ("", "Shrink", 9, pointwise::activation),
    ("", "Sigmoid", 6, |i, n, _| i.plain(n, T::Sigmoid)),
    ("", "Sign", 9, |i, n, _| i.plain(n, T::Sign)),
    ("", "SimplifiedLayerNormalization", 1, network::rms_norm),
    ("", "Sin", 7, |i, n, _| i.plain(n, T::Sin)),
    ("", "Sinh", 9, |i, n, _| i.plain(n, T::Sinh)),
    ("", "Slice", 10, arranging::slice),
    ("", "Softmax", 13, |i, n, a| i.along(n, a, T::Softmax, -1)),
    ("", "Softplus", 1, pointwise::activation),
    ("", "Softsign", 1, pointwise::activation),
    ("", "SpaceToDepth", 1, arranging::depth_and_space),
    ("", "Split", 13, moving::split),
    ("", "Sqrt", 6, |i, n, _| i.plain(n, T::Sqrt)),
    ("", "Squeeze", 13, moving::squeeze),
    ("", "Sub", 7, |i, n, _| i.plain(n, T::Sub)),
    ("", "Sum", 8, |i, n, _| i.fold(n, T::Add)),
    ("", "SwiGLU", 28, attention::swiglu),
    ("", "Swish", 24, pointwise::activation),
    ("", "Tan", 7, |i, n, _| i.plain(n, T::Tan)),
    ("", "Tanh", 6, |i, n, _| i.plain(n, T::Tanh)),
    ("", "TensorScatter", 24, arranging::tensor_scatter),
    ("", "ThresholdedRelu", 10, pointwise::activation),
    ("", "Tile", 6, moving::tile),
    ("", "TopK", 11, arranging::top_k),
    ("", "Transpose", 1, moving::transpose),
    ("", "Trilu", 14, moving::trilu),
    ("", "Unsqueeze", 13, moving::unsqueeze),
    ("", "Where", 9, |i, n, _| i.plain(n, T::Where)),
    ("", "Xor", 7, |i, n, _| i.plain(n, T::Xor)),
    (MS, "GatherBlockQuantized", 1, quantized::gather_blocks),
    (MS, "GroupQueryAttention", 1, contrib::group_query_attention),
    (MS, "MatMulNBits", 1, quantized::matmul_bits),
    (MS, "QMoE", 1, experts::quantized),
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
                let mut all: Vec<&str> = OPS.iter().filter(|(d, ..)| *d == domain).map(|(_, n, ..)| *n).collect();
                all.dedup();
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
