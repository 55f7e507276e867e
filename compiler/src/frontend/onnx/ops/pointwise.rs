//! Functions of one number that are made of others, and other ops element by element.

use super::super::attributes::Attributes;
use super::super::bad;
use super::super::import::{Importer, input};
use super::make::Make;
use crate::diag::Result;
use llamac_ir::dtype::DType;
use llamac_ir::module::Operand;
use llamac_ir::op::{Attr, TensorOp as T};
use tract_onnx::pb::NodeProto;

type Found = Result<Vec<Operand>>;

/// An activation of one input, computed in f32 or wider.
pub(super) fn activation(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    i.at_most(node, 1)?;
    let x = i.read(node, 0)?;
    let mut m = Make::new(i, node);
    let dtype = m.dtype(x);
    let x = m.wide(x)?;
    let float = |name: &'static str, default: f64| -> Result<f64> { Ok(a.raw_float(name)?.map_or(default, f64::from)) };
    let value = match node.op_type.as_str() {
        "Elu" => elu(&mut m, x, float("alpha", 1.0)?)?,
        "Selu" => {
            let (alpha, gamma) = (float("alpha", f64::from(1.673_263_2_f32))?, float("gamma", f64::from(1.050_701_f32))?);
            let y = elu(&mut m, x, alpha)?;
            m.with(T::Mul, y, gamma)?
        }
        "Celu" => {
            let alpha = float("alpha", 1.0)?;
            let scaled = m.with(T::Div, x, alpha)?;
            let e = m.un(T::Exp, scaled)?;
            let e = m.with(T::Sub, e, 1.0)?;
            let low = m.with(T::Mul, e, alpha)?;
            let (low, high) = (m.with(T::Min, low, 0.0)?, m.with(T::Max, x, 0.0)?);
            m.bin(T::Add, low, high)?
        }
        "LeakyRelu" => {
            let low = m.with(T::Mul, x, float("alpha", f64::from(0.01_f32))?)?;
            above(&mut m, x, 0.0, x, low)?
        }
        "ThresholdedRelu" => {
            let zero = m.number(0.0, m.dtype(x))?;
            above(&mut m, x, float("alpha", 1.0)?, x, zero)?
        }
        "HardSigmoid" => hard_sigmoid(&mut m, x, float("alpha", f64::from(0.2_f32))?, float("beta", 0.5)?)?,
        "HardSwish" => {
            let gate = hard_sigmoid(&mut m, x, 1.0 / 6.0, 0.5)?;
            m.bin(T::Mul, x, gate)?
        }
        "Softplus" => softplus(&mut m, x)?,
        "Softsign" => {
            let size = m.un(T::Abs, x)?;
            let size = m.with(T::Add, size, 1.0)?;
            m.bin(T::Div, x, size)?
        }
        "Mish" => {
            let y = softplus(&mut m, x)?;
            let y = m.un(T::Tanh, y)?;
            m.bin(T::Mul, x, y)?
        }
        "Swish" => swish(&mut m, x, float("alpha", 1.0)?)?,
        "Shrink" => {
            let (bias, edge) = (float("bias", 0.0)?, float("lambd", 0.5)?);
            let (less, more, zero) = (m.with(T::Sub, x, bias)?, m.with(T::Add, x, bias)?, m.number(0.0, m.dtype(x))?);
            let high = above(&mut m, x, edge, less, zero)?;
            let edge = m.number(-edge, m.dtype(x))?;
            let below = m.bin(T::Less, x, edge)?;
            m.op(T::Where, &[below, more, high], &[])?
        }
        "Gelu" => match a.text("approximate")?.as_deref() {
            None | Some("none") => {
                let scaled = m.with(T::Mul, x, std::f64::consts::FRAC_1_SQRT_2)?;
                let e = m.un(T::Erf, scaled)?;
                half_of_one_more(&mut m, x, e)?
            }
            Some("tanh") => gelu_tanh(&mut m, x)?,
            Some(other) => {
                return Err(bad("attribute `approximate` has a value that is not compiled").found(other).expected("none or tanh"));
            }
        },
        other => return Err(bad(format!("the op `{other}` is no activation"))),
    };
    Ok(vec![m.cast(value, dtype)?])
}

/// `yes` where `x > edge`, else `no`.
fn above(m: &mut Make<'_>, x: Operand, edge: f64, yes: Operand, no: Operand) -> Result<Operand> {
    let above = m.with(T::Greater, x, edge)?;
    m.op(T::Where, &[above, yes, no], &[])
}

fn elu(m: &mut Make<'_>, x: Operand, alpha: f64) -> Result<Operand> {
    let e = m.un(T::Exp, x)?;
    let e = m.with(T::Sub, e, 1.0)?;
    let low = m.with(T::Mul, e, alpha)?;
    above(m, x, 0.0, x, low)
}

fn hard_sigmoid(m: &mut Make<'_>, x: Operand, alpha: f64, beta: f64) -> Result<Operand> {
    let y = m.with(T::Mul, x, alpha)?;
    let y = m.with(T::Add, y, beta)?;
    let y = m.with(T::Min, y, 1.0)?;
    m.with(T::Max, y, 0.0)
}

/// `log(1 + e^x)`, also where `e^x` is too large.
fn softplus(m: &mut Make<'_>, x: Operand) -> Result<Operand> {
    let size = m.un(T::Abs, x)?;
    let size = m.un(T::Neg, size)?;
    let e = m.un(T::Exp, size)?;
    let e = m.with(T::Add, e, 1.0)?;
    let (log, high) = (m.un(T::Log, e)?, m.with(T::Max, x, 0.0)?);
    m.bin(T::Add, high, log)
}

/// `x sigmoid(alpha x)`.
pub(super) fn swish(m: &mut Make<'_>, x: Operand, alpha: f64) -> Result<Operand> {
    let scaled = if alpha == 1.0 { x } else { m.with(T::Mul, x, alpha)? };
    let gate = m.un(T::Sigmoid, scaled)?;
    m.bin(T::Mul, x, gate)
}

/// `x / 2 * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`.
pub(super) fn gelu_tanh(m: &mut Make<'_>, x: Operand) -> Result<Operand> {
    let cube = m.with(T::Pow, x, 3.0)?;
    let cube = m.with(T::Mul, cube, 0.044_715)?;
    let sum = m.bin(T::Add, x, cube)?;
    let sum = m.with(T::Mul, sum, (2.0 / std::f64::consts::PI).sqrt())?;
    let t = m.un(T::Tanh, sum)?;
    half_of_one_more(m, x, t)
}

/// `x / 2 * (1 + y)`.
fn half_of_one_more(m: &mut Make<'_>, x: Operand, y: Operand) -> Result<Operand> {
    let (half, sum) = (m.with(T::Mul, x, 0.5)?, m.with(T::Add, y, 1.0)?);
    m.bin(T::Mul, half, sum)
}

pub(super) fn prelu(i: &mut Importer, node: &NodeProto, _: &Attributes<'_>) -> Found {
    let (x, slope) = (i.read(node, 0)?, i.read(node, 1)?);
    let mut m = Make::new(i, node);
    let low = m.bin(T::Mul, x, slope)?;
    let zero = m.number(0.0, m.dtype(x))?;
    let below = m.bin(T::Less, x, zero)?;
    Ok(vec![m.op(T::Where, &[below, low, x], &[])?])
}

pub(super) fn clip(i: &mut Importer, node: &NodeProto, _: &Attributes<'_>) -> Found {
    i.at_most(node, 3)?;
    let mut x = i.read(node, 0)?;
    for (at, op) in [(1, T::Max), (2, T::Min)] {
        if input(node, at).is_some() {
            let edge = i.read(node, at)?;
            x = i.tensor(op, &node.output[0], &[x, edge], &[])?.into();
        }
    }
    Ok(vec![x])
}

pub(super) fn mean(i: &mut Importer, node: &NodeProto, _: &Attributes<'_>) -> Found {
    let parts = (0..node.input.len()).map(|at| i.read(node, at)).collect::<Result<Vec<_>>>()?;
    let mut m = Make::new(i, node);
    let mut sum = *parts.first().ok_or_else(|| bad("an input is missing"))?;
    for part in &parts[1..] {
        sum = m.bin(T::Add, sum, *part)?;
    }
    Ok(vec![m.with(T::Div, sum, parts.len() as f64)?])
}

pub(super) fn bit_shift(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    match a.text("direction")?.as_deref() {
        Some("LEFT") => i.plain(node, T::ShiftLeft),
        Some("RIGHT") => i.plain(node, T::ShiftRight),
        other => {
            Err(bad("attribute `direction` has a value that is not compiled").found(other.unwrap_or("nothing")).expected("LEFT or RIGHT"))
        }
    }
}

pub(super) fn is_inf(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let attrs = [("negative", Attr::Int(a.int_or("detect_negative", 1)?)), ("positive", Attr::Int(a.int_or("detect_positive", 1)?))];
    let x = i.read(node, 0)?;
    Ok(vec![i.tensor(T::IsInf, &node.output[0], &[x], &attrs)?.into()])
}

pub(super) fn modulo(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    match a.int_or("fmod", 0)? {
        0 => i.plain(node, T::Mod),
        _ => i.plain(node, T::FMod),
    }
}

/// Nothing is dropped: only what runs, not what learns.
/// Whether the part of elements that a node drops is 0.
fn drops_none(i: &mut Importer, node: &NodeProto) -> Result<bool> {
    if input(node, 1).is_none() {
        return Ok(false);
    }
    let ratio = i.read(node, 1)?;
    Ok(i.value_of(ratio).is_ok_and(|t| t.as_f32() == Some(&[0.0]) || t.as_f64() == Some(&[0.0])))
}

pub(super) fn dropout(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    a.int("seed")?;
    // Before version 12 the part to drop, which inference does not look at, is no input.
    a.float("ratio")?;
    if input(node, 2).is_some() && i.numbers(node, 2, "whether elements are dropped")? != [0] && !drops_none(i, node)? {
        return Err(bad("dropping elements is not compiled: it is for training").found("training_mode = true").expected("false"));
    }
    let x = i.read(node, 0)?;
    if node.output.len() < 2 {
        return Ok(vec![x]);
    }
    let mut m = Make::new(i, node);
    let mask = m.fill(m.shape(x), 1.0, DType::Bool)?;
    Ok(vec![x, mask])
}

/// `Cast` and `CastLike`.
pub(super) fn cast(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let x = i.read(node, 0)?;
    let to = match node.op_type.as_str() {
        "Cast" => super::super::elements::dtype_of(a.int("to")?.ok_or_else(|| bad("`to` is missing"))? as i32)?,
        _ => {
            let like = i.read(node, 1)?;
            i.ty(like).dtype
        }
    };
    // It is for powers of two alone.
    if let Some(other) = a.text("round_mode")?.filter(|r| r != "up") {
        return Err(bad("attribute `round_mode` has a value that is not compiled").found(other).expected("up"));
    }
    let saturate = a.int_or("saturate", 1)?;
    if i.ty(x).dtype == to {
        return Ok(vec![x]);
    }
    let attrs = [("to", Attr::Word(to.name().to_owned())), ("saturate", Attr::Int(i64::from(saturate != 0)))];
    Ok(vec![i.tensor(T::Cast, &node.output[0], &[x], &attrs)?.into()])
}

/// Where along a new axis of `depth` each index points.
pub(super) fn mask_of_equal(m: &mut Make<'_>, indices: Operand, depth: usize, axis: usize) -> Result<Operand> {
    let rank = m.shape(indices).len();
    let range = m.range(depth)?;
    let range = m.cast(range, m.dtype(indices))?;
    let mut shape = vec![1.into(); rank];
    shape[axis] = depth.into();
    let range = m.reshape(range, shape)?;
    m.bin(T::Equal, indices, range)
}
