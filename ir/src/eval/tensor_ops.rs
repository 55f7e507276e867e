//! The meaning of the tensor dialect: numbers are f64 while an op works on them and are rounded once to the element type of the result.
//! Integers are exact up to 2^53. Products, softmax, norms, rotation and attention are in `tensor_heavy`; moving elements is in `tensor_move`.

use super::tensor::{Arg, Tensor};
use super::{quant, tensor_heavy as heavy, tensor_move as moves};
use crate::dtype::DType;
use crate::module::Inst;
use crate::op::TensorOp;
use crate::types::{Dim, Type};

/// A tensor of numbers of any type.
#[derive(Debug, Clone)]
pub(super) struct Nd {
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<f64>,
}

/// Sizes of symbols.
pub(super) type Sizes<'a> = &'a dyn Fn(&str) -> Option<usize>;

impl Nd {
    fn of(arg: &Arg<'_>) -> Result<Nd, String> {
        let tensor = arg.tensor()?;
        let data = tensor.numbers()?;
        Ok(Nd { shape: tensor.shape().to_vec(), data })
    }
    /// Rounded to an element type.
    fn rounded(self, dtype: DType) -> Result<Tensor, String> {
        let wrap = |x: &f64| *x as i64;
        Ok(match dtype {
            DType::I32 => Tensor::i32(&self.shape, self.data.iter().map(|x| wrap(x) as i32).collect()),
            DType::I64 => Tensor::i64(&self.shape, self.data.iter().map(wrap).collect()),
            DType::I8 => Tensor::i64(&self.shape, self.data.iter().map(|x| i64::from(wrap(x) as i8)).collect()),
            DType::U8 => Tensor::i64(&self.shape, self.data.iter().map(|x| i64::from(wrap(x) as u8)).collect()),
            DType::Bool => Tensor::i64(&self.shape, self.data.iter().map(|x| i64::from(*x != 0.0)).collect()),
            real => {
                let mut data: Vec<f32> = self.data.iter().map(|x| *x as f32).collect();
                quant::round(real, &mut data)?;
                Tensor::f32(&self.shape, data)
            }
        })
    }
    /// Elements from an axis on, the axis itself counted: `(outer, length of the axis, inner)`.
    pub(super) fn around(&self, axis: usize) -> (usize, usize, usize) {
        (self.shape[..axis].iter().product(), self.shape[axis], self.shape[axis + 1..].iter().product())
    }
    fn map(mut self, f: impl Fn(f64) -> f64) -> Nd {
        self.data.iter_mut().for_each(|x| *x = f(*x));
        self
    }
}

/// Results of a tensor op of a verified function; `types` are those of the results.
pub(super) fn eval(op: TensorOp, inst: &Inst, args: &[Arg<'_>], types: &[&Type], sizes: Sizes<'_>) -> Result<Vec<Tensor>, String> {
    let inputs = args.iter().map(Nd::of).collect::<Result<Vec<_>, _>>()?;
    let bools = args.get(3).is_some_and(|m| m.dtype() != DType::F32);
    let outputs = numbers(op, inst, inputs, types, (sizes, bools))?;
    outputs.into_iter().zip(types).map(|(nd, ty)| nd.rounded(ty.dtype)).collect()
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

/// `bools`: the fourth operand is not of floats.
fn numbers(op: TensorOp, inst: &Inst, mut x: Vec<Nd>, types: &[&Type], (sizes, bools): (Sizes<'_>, bool)) -> Result<Vec<Nd>, String> {
    use TensorOp as T;
    let float = types.first().is_none_or(|t| t.dtype.info().real);
    let truth = |b: bool| f64::from(u8::from(b));
    let one = |nd: Nd| Ok(vec![nd]);
    let mut take = || if x.is_empty() { Nd { shape: vec![], data: vec![0.0] } } else { x.remove(0) };
    let first = take();
    match op {
        T::Add => one(zip(&first, &take(), |a, b| a + b)?),
        T::Sub => one(zip(&first, &take(), |a, b| a - b)?),
        T::Mul => one(zip(&first, &take(), |a, b| a * b)?),
        T::Div => {
            let b = take();
            if !float && b.data.contains(&0.0) {
                return Err("an integer is divided by 0".to_owned());
            }
            one(zip(&first, &b, |a, b| if float { a / b } else { (a / b).trunc() })?)
        }
        T::Mod => {
            let b = take();
            if !float && b.data.contains(&0.0) {
                return Err("an integer is divided by 0".to_owned());
            }
            one(zip(&first, &b, |a, b| a - (a / b).floor() * b)?)
        }
        T::Pow => one(zip(&first, &take(), f64::powf)?),
        T::Max => one(zip(&first, &take(), f64::max)?),
        T::Min => one(zip(&first, &take(), f64::min)?),
        T::Equal => one(zip(&first, &take(), |a, b| truth(a == b))?),
        T::Less => one(zip(&first, &take(), |a, b| truth(a < b))?),
        T::LessOrEqual => one(zip(&first, &take(), |a, b| truth(a <= b))?),
        T::Greater => one(zip(&first, &take(), |a, b| truth(a > b))?),
        T::GreaterOrEqual => one(zip(&first, &take(), |a, b| truth(a >= b))?),
        T::And => one(zip(&first, &take(), |a, b| truth(a != 0.0 && b != 0.0))?),
        T::Or => one(zip(&first, &take(), |a, b| truth(a != 0.0 || b != 0.0))?),
        T::Xor => one(zip(&first, &take(), |a, b| truth((a != 0.0) != (b != 0.0)))?),
        T::Where => {
            let (a, b) = (take(), take());
            // Values in pairs, so that an infinity on the other side does no harm.
            let pick = zip(&zip(&first, &a, |c, _| c)?, &b, |c, _| c)?;
            let (a, b) = (moves::expand(&a, &pick.shape)?, moves::expand(&b, &pick.shape)?);
            let data = pick.data.iter().zip(a.data.iter().zip(&b.data)).map(|(c, (a, b))| if *c != 0.0 { *a } else { *b });
            one(Nd { shape: pick.shape, data: data.collect() })
        }
        T::Not => one(first.map(|x| truth(x == 0.0))),
        T::Neg => one(first.map(|x| -x)),
        T::Abs => one(first.map(f64::abs)),
        T::Sqrt => one(first.map(f64::sqrt)),
        T::Reciprocal => one(first.map(f64::recip)),
        T::Exp => one(first.map(f64::exp)),
        T::Log => one(first.map(f64::ln)),
        T::Floor => one(first.map(f64::floor)),
        T::Ceil => one(first.map(f64::ceil)),
        T::Round => one(first.map(f64::round_ties_even)),
        T::Cos => one(first.map(f64::cos)),
        T::Sin => one(first.map(f64::sin)),
        T::Tanh => one(first.map(f64::tanh)),
        T::Sigmoid => one(first.map(|x| 1.0 / (1.0 + (-x).exp()))),
        T::Silu => one(first.map(|x| x / (1.0 + (-x).exp()))),
        T::Relu => one(first.map(|x| x.max(0.0))),
        T::IsNan => one(first.map(|x| truth(x.is_nan()))),
        T::Cast => one(if float || types[0].dtype == DType::Bool { first } else { first.map(f64::trunc) }),
        T::DynamicScale => one(heavy::dynamic(&first).0),
        T::DynamicZero => one(heavy::dynamic(&first).1),
        T::Quantize => {
            let (scale, zero) = (take(), take());
            one(heavy::quantize(first, &scale, &zero, types[0].dtype))
        }
        T::ReduceMean | T::ReduceSum | T::ReduceMax | T::ReduceMin => one(heavy::reduce(op, first, &list(inst, "axes", sizes)?)),
        T::CumSum => one(heavy::cumsum(&first, axis(inst, first.shape.len()), inst.signed("exclusive") != 0, inst.signed("reverse") != 0)),
        T::Softmax => one(heavy::softmax(&first, axis(inst, first.shape.len()))),
        T::MatMul => one(heavy::matmul(&first, &take())?),
        T::Reshape => {
            let shape = lengths(inst, "shape", sizes)?;
            if shape.iter().product::<usize>() != first.data.len() {
                return Err(format!("found {:?}, expected as many elements as {shape:?}", first.shape));
            }
            one(Nd { shape, data: first.data })
        }
        T::Expand => {
            let wanted = lengths(inst, "shape", sizes)?;
            let shape = moves::broadcast(&first.shape, &wanted)?;
            one(moves::expand(&first, &shape)?)
        }
        T::Transpose => one(moves::transpose(&first, &lengths(inst, "perm", sizes)?)),
        T::Concat => {
            let mut parts = vec![first];
            parts.append(&mut x);
            let axis = axis(inst, parts[0].shape.len());
            one(moves::concat(&parts, axis))
        }
        T::Slice => {
            let (start, len) = (list(inst, "start", sizes)?[0], lengths(inst, "len", sizes)?[0]);
            let indices = (0..len as i64).map(|i| (start + i * inst.signed("step")) as f64).collect();
            let axis = axis(inst, first.shape.len());
            one(moves::gather(&first, &Nd { shape: vec![len], data: indices }, axis)?)
        }
        T::Gather => one(moves::gather(&first, &take(), axis(inst, first.shape.len()))?),
        T::GatherNd => one(moves::gather_nd(&first, &take())?),
        T::GatherElements => one(moves::gather_elements(&first, &take(), axis(inst, first.shape.len()))?),
        T::ScatterElements => {
            let indices = take();
            let axis = axis(inst, first.shape.len());
            one(moves::scatter_elements(first, &indices, &take(), axis)?)
        }
        T::Tile => one(moves::tile(&first, &lengths(inst, "repeats", sizes)?)),
        T::TopK => Ok(heavy::top_k(&first, axis(inst, first.shape.len()), inst.int("k"))),
        T::Trilu => one(moves::trilu(first, inst.signed("upper") != 0, inst.signed("k"))),
        T::Range => {
            let (start, len) = (list(inst, "start", sizes)?[0], lengths(inst, "len", sizes)?[0]);
            one(Nd { shape: vec![len], data: (0..len as i64).map(|i| (start + i * inst.signed("step")) as f64).collect() })
        }
        T::Fill => {
            let shape = lengths(inst, "shape", sizes)?;
            let count = shape.iter().product();
            one(Nd { shape, data: vec![inst.float("value"); count] })
        }
        T::Values => {
            let data = list(inst, "values", sizes)?.iter().map(|&n| n as f64).collect();
            one(Nd { shape: lengths(inst, "shape", sizes)?, data })
        }
        T::RmsNorm => one(heavy::rms(&first, Some(&take()), inst.float("eps"))),
        T::RmsUnit => one(heavy::rms(&first, None, inst.float("eps"))),
        T::Rotary => one(heavy::rotary(first, &take(), &take(), inst.signed("interleaved") != 0)?),
        T::Attention => {
            let (k, v) = (take(), take());
            let mask = x.pop().map(|m| (m, bools));
            one(heavy::attention(&first, &k, &v, mask.as_ref(), inst.float("scale"), inst.signed("is_causal") != 0)?)
        }
    }
}

/// `f` of every pair of elements, broadcast.
pub(super) fn zip(a: &Nd, b: &Nd, f: impl Fn(f64, f64) -> f64) -> Result<Nd, String> {
    let shape = moves::broadcast(&a.shape, &b.shape)?;
    let (a, b) = (moves::expand(a, &shape)?, moves::expand(b, &shape)?);
    Ok(Nd { shape, data: a.data.iter().zip(&b.data).map(|(a, b)| f(*a, *b)).collect() })
}
