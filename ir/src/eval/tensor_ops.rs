//! The meaning of the tensor dialect: floats are f64 while an op works on them and are rounded once to the element type of the result. Integers are
//! exact: elementwise in `tensor_int`, elsewhere as f64 up to 2^53 and refused beyond. Products, softmax, norms, rotation and attention are in
//! `tensor_heavy`; moving elements is in `tensor_move`.

use super::tensor::{Arg, Tensor};
use super::{quant, tensor_heavy as heavy, tensor_int as ints, tensor_move as moves};
use crate::dtype::DType;
use crate::module::Inst;
use crate::op::TensorOp;
use crate::types::Dim;

/// A tensor of numbers of one kind.
#[derive(Debug, Clone)]
pub(super) struct Nd<T = f64> {
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<T>,
}

/// A tensor of numbers of any element type: floats, or integers and truth values.
#[derive(Debug, Clone)]
pub(super) enum Num {
    Float(Nd<f64>),
    Int(Nd<i128>),
}

/// Sizes of symbols.
pub(super) type Sizes<'a> = &'a dyn Fn(&str) -> Option<usize>;

impl<T> Nd<T> {
    /// Elements from an axis on, the axis itself counted: `(outer, length of the axis, inner)`.
    pub(super) fn around(&self, axis: usize) -> (usize, usize, usize) {
        (self.shape[..axis].iter().product(), self.shape[axis], self.shape[axis + 1..].iter().product())
    }
}

impl Nd<f64> {
    fn map(mut self, f: impl Fn(f64) -> f64) -> Nd {
        self.data.iter_mut().for_each(|x| *x = f(*x));
        self
    }
}

impl Num {
    fn of(arg: &Arg<'_>, dtype: DType) -> Result<Num, String> {
        let tensor = arg.tensor()?;
        let shape = tensor.shape().to_vec();
        Ok(match dtype.info().real {
            true => Num::Float(Nd { shape, data: tensor.reals() }),
            false => Num::Int(Nd { shape, data: tensor.integers(dtype == DType::U64) }),
        })
    }
    /// As floats, if that is exact.
    fn floats(self) -> Result<Nd, String> {
        match self {
            Num::Float(nd) => Ok(nd),
            Num::Int(nd) => {
                let exact = |x: i128| if x.unsigned_abs() <= EXACT { Ok(x as f64) } else { Err(inexact(x)) };
                Ok(Nd { shape: nd.shape, data: nd.data.into_iter().map(exact).collect::<Result<_, _>>()? })
            }
        }
    }
    /// Rounded or wrapped to the element type of a result.
    fn rounded(self, dtype: DType) -> Result<Tensor, String> {
        match (self, dtype.info().real) {
            (Num::Float(nd), true) => {
                if dtype == DType::F64 {
                    return Ok(Tensor::f64(&nd.shape, nd.data));
                }
                // What is too large for a small float is said by the cast to it.
                if dtype.info().bits <= 8 && dtype.info().scale.is_none() {
                    let data = nd.data.iter().map(|x| quant::minifloat::round(dtype, *x, false) as f32).collect();
                    return Ok(Tensor::f32(&nd.shape, data));
                }
                let mut data: Vec<f32> = nd.data.iter().map(|x| *x as f32).collect();
                quant::round(dtype, &mut data)?;
                Ok(Tensor::f32(&nd.shape, data))
            }
            (Num::Int(nd), true) => Num::Float(Nd { shape: nd.shape, data: nd.data.iter().map(|x| *x as f64).collect() }).rounded(dtype),
            (Num::Float(nd), false) => {
                if let Some(x) = nd.data.iter().find(|x| x.abs() > EXACT as f64) {
                    return Err(inexact(x));
                }
                Num::Int(Nd { shape: nd.shape, data: nd.data.iter().map(|x| *x as i128).collect() }).rounded(dtype)
            }
            (Num::Int(nd), false) => Ok(match dtype {
                DType::I32 => Tensor::i32(&nd.shape, nd.data.iter().map(|x| *x as i32).collect()),
                _ => Tensor::i64(&nd.shape, nd.data.iter().map(|x| wrapped(*x, dtype)).collect()),
            }),
        }
    }
}

/// Integers up to this are exact as f64.
const EXACT: u128 = 1 << 53;

fn inexact(x: impl std::fmt::Display) -> String {
    format!("found {x}, expected at most 2^53: the op is computed in floats of 64 bits")
}

/// What is left of an integer in a type, as the evaluator holds it.
fn wrapped(x: i128, dtype: DType) -> i64 {
    match dtype.range() {
        None => i64::from(x != 0),
        Some((low, high)) => (low + (x - low).rem_euclid(high - low + 1)) as i64,
    }
}

/// `tensor.cast`. Floats go to integers towards zero; what does not fit wraps in types of less than 32 bits and stays at the ends in larger ones.
fn cast(x: Num, from: DType, to: DType, saturate: bool) -> Num {
    match (x, to.info().real) {
        (Num::Float(nd), true) => {
            // Small floats are made from f32, as everywhere.
            let small = to.info().bits <= 8;
            Num::Float(nd.map(|x| if small { quant::minifloat::round(to, f64::from(x as f32), saturate) } else { x }))
        }
        (Num::Int(nd), true) => {
            let data = nd.data.iter().map(|x| quant::minifloat::round(to, *x as f64, saturate)).collect();
            Num::Float(Nd { shape: nd.shape, data })
        }
        (Num::Float(nd), false) => {
            let whole = |x: &f64| match to.range() {
                None => i128::from(*x != 0.0),
                // Four and two bits take the nearest integer.
                Some(_) if to.info().bits < 8 => x.round_ties_even() as i128,
                Some((low, high)) if to.info().bits >= 32 => (*x as i128).clamp(low, high),
                Some(_) => *x as i128,
            };
            Num::Int(Nd { data: nd.data.iter().map(whole).collect(), shape: nd.shape })
        }
        (Num::Int(nd), false) => match (from, to) {
            (_, DType::Bool) => Num::Int(Nd { data: nd.data.iter().map(|x| i128::from(*x != 0)).collect(), shape: nd.shape }),
            _ => Num::Int(nd),
        },
    }
}

/// Results of a tensor op of a verified function; `read` and `types` are the element types of operands and results.
pub(super) fn eval(
    op: TensorOp,
    inst: &Inst,
    args: &[Arg<'_>],
    read: &[DType],
    types: &[DType],
    sizes: Sizes<'_>,
) -> Result<Vec<Tensor>, String> {
    let inputs = args.iter().zip(read).map(|(arg, dtype)| Num::of(arg, *dtype)).collect::<Result<Vec<_>, _>>()?;
    let outputs = computed(op, inst, inputs, read, types, sizes)?;
    outputs.into_iter().zip(types).map(|(num, dtype)| num.rounded(*dtype)).collect()
}

fn computed(op: TensorOp, inst: &Inst, mut x: Vec<Num>, read: &[DType], types: &[DType], sizes: Sizes<'_>) -> Result<Vec<Num>, String> {
    use TensorOp as T;
    match (op, x.as_slice()) {
        (T::Cast, _) => return Ok(vec![cast(x.swap_remove(0), read[0], types[0], inst.signed("saturate") != 0)]),
        (T::Range, _) => {
            let (start, len) = (list(inst, "start", sizes)?[0], lengths(inst, "len", sizes)?[0]);
            let data = (0..len as i128).map(|i| i128::from(start) + i * i128::from(inst.signed("step"))).collect();
            return Ok(vec![Num::Int(Nd { shape: vec![len], data })]);
        }
        (T::Values, _) => {
            let data = list(inst, "values", sizes)?.iter().map(|&n| i128::from(n)).collect();
            return Ok(vec![Num::Int(Nd { shape: lengths(inst, "shape", sizes)?, data })]);
        }
        (T::Fill, _) => {
            let shape = lengths(inst, "shape", sizes)?;
            let data = vec![inst.float("value"); shape.iter().product()];
            return Ok(vec![cast(Num::Float(Nd { shape, data }), DType::F64, types[0], true)]);
        }
        (_, [Num::Int(_)]) if ints::unary(op) => {
            let Some(Num::Int(nd)) = x.pop() else { return Ok(vec![]) };
            return Ok(vec![Num::Int(ints::eval1(op, nd))]);
        }
        (_, [Num::Int(a), Num::Int(b)]) if ints::binary(op) => return Ok(vec![Num::Int(ints::eval2(op, read[0], a, b)?)]),
        _ => {}
    }
    if let Some(moved) = moves::eval(op, inst, &mut x, sizes)? {
        return Ok(vec![moved]);
    }
    let bools = x.get(3).is_some_and(|m| matches!(m, Num::Int(_)));
    let floats = x.into_iter().map(Num::floats).collect::<Result<Vec<_>, _>>()?;
    Ok(numbers(op, inst, floats, sizes, (types[0], bools))?.into_iter().map(Num::Float).collect())
}

/// Values of a list attribute.
pub(super) fn list(inst: &Inst, name: &str, sizes: Sizes<'_>) -> Result<Vec<i64>, String> {
    let one = |d: &Dim| d.eval_signed(sizes).ok_or_else(|| format!("`{name}` has {d}, of unknown size"));
    inst.dims(name).iter().map(one).collect()
}

/// As [`list`], of numbers that are not negative.
pub(super) fn lengths(inst: &Inst, name: &str, sizes: Sizes<'_>) -> Result<Vec<usize>, String> {
    let all = list(inst, name, sizes)?;
    all.into_iter().map(|n| usize::try_from(n).map_err(|_| format!("`{name}` has {n}, expected lengths"))).collect()
}

/// An axis attribute, counted from the front.
pub(super) fn axis(inst: &Inst, rank: usize) -> usize {
    let axis = inst.signed("axis");
    (if axis < 0 { axis + rank as i64 } else { axis }) as usize
}

/// Ops on floats; `dtype`: that of the result; `bools`: the fourth operand holds truth values.
fn numbers(op: TensorOp, inst: &Inst, mut x: Vec<Nd>, sizes: Sizes<'_>, (dtype, bools): (DType, bool)) -> Result<Vec<Nd>, String> {
    use TensorOp as T;
    let truth = |b: bool| f64::from(u8::from(b));
    let one = |nd: Nd| Ok(vec![nd]);
    let mut take = || if x.is_empty() { Nd { shape: vec![], data: vec![0.0] } } else { x.remove(0) };
    let first = take();
    match op {
        T::Add => one(zip(&first, &take(), |a, b| a + b)?),
        T::Sub => one(zip(&first, &take(), |a, b| a - b)?),
        T::Mul => one(zip(&first, &take(), |a, b| a * b)?),
        T::Div => one(zip(&first, &take(), |a, b| a / b)?),
        T::Mod => one(zip(&first, &take(), floored)?),
        T::FMod => one(zip(&first, &take(), |a, b| a % b)?),
        T::Pow => one(zip(&first, &take(), f64::powf)?),
        T::Max => one(zip(&first, &take(), larger)?),
        T::Min => one(zip(&first, &take(), smaller)?),
        T::Equal => one(zip(&first, &take(), |a, b| truth(a == b))?),
        T::Less => one(zip(&first, &take(), |a, b| truth(a < b))?),
        T::LessOrEqual => one(zip(&first, &take(), |a, b| truth(a <= b))?),
        T::Greater => one(zip(&first, &take(), |a, b| truth(a > b))?),
        T::GreaterOrEqual => one(zip(&first, &take(), |a, b| truth(a >= b))?),
        T::Neg => one(first.map(|x| -x)),
        T::Abs => one(first.map(f64::abs)),
        T::Sqrt => one(first.map(f64::sqrt)),
        T::Reciprocal => one(first.map(f64::recip)),
        T::Exp => one(first.map(f64::exp)),
        T::Log => one(first.map(f64::ln)),
        T::Floor => one(first.map(f64::floor)),
        T::Ceil => one(first.map(f64::ceil)),
        T::Round => one(first.map(f64::round_ties_even)),
        T::Sign => one(first.map(|x| if x == 0.0 || x.is_nan() { x } else { x.signum() })),
        T::Erf => one(first.map(erf)),
        T::Tan => one(first.map(f64::tan)),
        T::Asin => one(first.map(f64::asin)),
        T::Acos => one(first.map(f64::acos)),
        T::Atan => one(first.map(f64::atan)),
        T::Sinh => one(first.map(f64::sinh)),
        T::Cosh => one(first.map(f64::cosh)),
        T::Asinh => one(first.map(f64::asinh)),
        T::Acosh => one(first.map(f64::acosh)),
        T::Atanh => one(first.map(f64::atanh)),
        T::Cos => one(first.map(f64::cos)),
        T::Sin => one(first.map(f64::sin)),
        T::Tanh => one(first.map(f64::tanh)),
        T::Sigmoid => one(first.map(|x| 1.0 / (1.0 + (-x).exp()))),
        T::Silu => one(first.map(|x| x / (1.0 + (-x).exp()))),
        T::Relu => one(first.map(|x| larger(x, 0.0))),
        T::IsInf => {
            let (negative, positive) = (inst.signed("negative") != 0, inst.signed("positive") != 0);
            one(first.map(|x| truth(x == f64::INFINITY && positive || x == f64::NEG_INFINITY && negative)))
        }
        T::IsNan => one(first.map(|x| truth(x.is_nan()))),
        T::DynamicScale => one(heavy::dynamic(&first).0),
        T::DynamicZero => one(heavy::dynamic(&first).1),
        T::Quantize => {
            let (scale, zero) = (take(), take());
            one(heavy::quantize(first, &scale, &zero, dtype))
        }
        T::ReduceMean | T::ReduceSum | T::ReduceMax | T::ReduceMin | T::ReduceProd => {
            one(heavy::reduce(op, first, &list(inst, "axes", sizes)?, dtype))
        }
        T::ArgMax | T::ArgMin => one(heavy::arg(&first, axis(inst, first.shape.len()), op == T::ArgMax, inst.signed("last") != 0)?),
        T::CumSum | T::CumProd => {
            let axis = axis(inst, first.shape.len());
            one(heavy::cumulated(&first, axis, op == T::CumProd, inst.signed("exclusive") != 0, inst.signed("reverse") != 0))
        }
        T::Softmax => {
            let axis = axis(inst, first.shape.len());
            one(heavy::softmax(&first, axis, dtype))
        }
        T::MatMul => one(heavy::matmul(&first, &take())?),
        T::TopK => Ok(heavy::top_k(&first, axis(inst, first.shape.len()), inst.int("k"), inst.signed("largest") != 0)),
        T::RmsNorm => one(heavy::rms(&first, Some(&take()), inst.float("eps"))),
        T::RmsUnit => one(heavy::rms(&first, None, inst.float("eps"))),
        T::Rotary => one(heavy::rotary(first, &take(), &take(), inst.signed("interleaved") != 0)?),
        T::Attention => {
            let (k, v) = (take(), take());
            let mask = x.pop().map(|m| (m, bools));
            one(heavy::attention(&first, &k, &v, mask.as_ref(), inst.float("scale"), inst.signed("is_causal") != 0)?)
        }
        // What moves elements or works on integers only is done before.
        _ => Err("found floats, expected integers".to_owned()),
    }
}

/// Remainder with the sign of the divisor, also of zeros and infinities.
fn floored(a: f64, b: f64) -> f64 {
    let rest = a % b;
    match rest == 0.0 {
        true => 0.0f64.copysign(b),
        false if (rest < 0.0) != (b < 0.0) => rest + b,
        false => rest,
    }
}

/// The larger; NaN if one is.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The smaller; NaN if one is.
pub(super) fn smaller(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

/// The error function: its power series (Abramowitz and Stegun 7.1.6) for small numbers, the continued fraction of its complement (7.1.14) for large ones.
fn erf(x: f64) -> f64 {
    let size = x.abs();
    let value = if size.is_nan() || size > 6.0 {
        if size.is_nan() { size } else { 1.0 }
    } else if size < 2.5 {
        let (mut term, mut sum) = (size, size);
        for n in 1..80 {
            term *= 2.0 * size * size / f64::from(2 * n + 1);
            sum += term;
        }
        std::f64::consts::FRAC_2_SQRT_PI * (-size * size).exp() * sum
    } else {
        let tail = (1..120).rev().fold(0.0, |tail, n| f64::from(n) / 2.0 / (size + tail));
        1.0 - (-size * size).exp() / (size + tail) * std::f64::consts::FRAC_2_SQRT_PI / 2.0
    };
    value.copysign(x)
}

/// `f` of every pair of elements, broadcast.
pub(super) fn zip<T: Copy>(a: &Nd<T>, b: &Nd<T>, f: impl Fn(T, T) -> T) -> Result<Nd<T>, String> {
    let shape = moves::broadcast(&a.shape, &b.shape)?;
    let (a, b) = (moves::expand(a, &shape)?, moves::expand(b, &shape)?);
    Ok(Nd { shape, data: a.data.iter().zip(&b.data).map(|(a, b)| f(*a, *b)).collect() })
}
