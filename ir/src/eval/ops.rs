//! The meaning of every op, by name. A fused op is written as its parts, so it means exactly them.

use super::attention::{Heads, attention};
use super::cache::Cache;
use super::experts;
use super::linear::{embed, linear};
use super::pointwise::{attn_temperature, rms, rope, rope_angles, row_scale, silu, slice_cols, zip};
use super::tensor::{Arg, Tensor};
use crate::dtype::DType;
use crate::module::Inst;
use crate::op::OpKind;

/// Results of one instruction of a verified function.
pub(super) fn eval(inst: &Inst, args: &[Arg<'_>], cache: &mut Cache) -> Result<Vec<Tensor>, String> {
    let value = |i: usize| args[i].tensor();
    let eps = || inst.float("eps");
    let product = |x: &Tensor, w: usize, bias: usize| linear(x, &args[w], args.get(bias), rounding(inst, "act")?);
    Ok(vec![match inst.op {
        OpKind::Embed => embed(&value(0)?, &args[1])?,
        OpKind::Linear => product(&value(0)?, 1, 2)?,
        OpKind::RmsNorm => rms(&value(0)?, Some(&value(1)?), eps(), 0)?,
        OpKind::RmsUnit => rms(&value(0)?, None, eps(), inst.int("group"))?,
        OpKind::RopeAngles => rope_angles(&value(0)?, &value(1)?)?,
        OpKind::Rope => rope(&value(0)?, &value(1)?, inst.int("head_dim"), inst.word("layout") == "interleaved")?,
        OpKind::KvWrite => {
            cache.write(&value(0)?, &value(1)?, &value(2)?, &value(3)?, (rounding(inst, "kv")?, inst.int("head_dim")))?;
            return Ok(vec![]);
        }
        OpKind::Attention => {
            let int = |name| inst.int(name);
            let (heads, kv_heads, head_dim) = (int("heads"), int("kv_heads"), int("head_dim"));
            let h = Heads { heads, kv_heads, head_dim, scale: inst.float("scale"), chunk: int("chunk") };
            attention(&value(0)?, &value(1)?, &value(2)?, cache, h)?
        }
        OpKind::Silu => silu(&value(0)?)?,
        OpKind::Add => zip(&value(0)?, &value(1)?, |a, b| a + b)?,
        OpKind::Mul => zip(&value(0)?, &value(1)?, |a, b| a * b)?,
        OpKind::SliceCols => slice_cols(&value(0)?, inst.int("start"), inst.int("len"))?,
        OpKind::GatherRows => value(0)?.gather(value(1)?.ints()?)?,
        OpKind::TopGates => experts::top_gates(&value(0)?, inst.int("top_k"))?,
        OpKind::ExpertScale => experts::scale(&value(0)?, &value(1)?)?,
        OpKind::ExpertLinear => experts::expert_linear(&value(0)?, &args[1], rounding(inst, "act")?)?,
        OpKind::ExpertSum => experts::sum(&value(0)?)?,
        OpKind::RowScale => row_scale(&value(0)?, &value(1)?)?,
        OpKind::AttnTemperature => attn_temperature(&value(0)?, inst.float("floor_scale"), inst.float("attn_scale"))?,
        OpKind::Route => return experts::route(&value(0)?, inst.int("top_k")),
        OpKind::MoeLinearSwiGlu => {
            let x = experts::scale(&value(0)?, &value(2)?)?;
            swiglu_of_halves(&experts::chosen_linear(&x, &value(1)?, &args[3], rounding(inst, "act")?)?)?
        }
        OpKind::MoeLinearAdd => {
            let y = experts::chosen_linear(&value(0)?, &value(1)?, &args[2], rounding(inst, "act")?)?;
            zip(&value(3)?, &experts::sum(&y)?, |a, b| a + b)?
        }
        OpKind::Layers => return Err("found `layers` in a function evaluated by itself, expected an `Evaluator` of the module".to_owned()),
        OpKind::Tensor(_) => return Err("found a tensor op without the sizes of its symbols".to_owned()),
        OpKind::SwiGlu => swiglu(&value(0)?, &value(1)?)?,
        OpKind::NormLinear => product(&rms(&value(0)?, Some(&value(1)?), eps(), 0)?, 2, 3)?,
        OpKind::UnitLinear => product(&rms(&value(0)?, None, eps(), 0)?, 1, 2)?,
        OpKind::NormLinearSwiGlu => swiglu_of_halves(&product(&rms(&value(0)?, Some(&value(1)?), eps(), 0)?, 2, 3)?)?,
        OpKind::UnitLinearSwiGlu => swiglu_of_halves(&product(&rms(&value(0)?, None, eps(), 0)?, 1, 2)?)?,
        OpKind::LinearAdd => zip(&value(2)?, &product(&value(0)?, 1, 3)?, |a, b| a + b)?,
        OpKind::RopeKvWrite => {
            let k = rope(&value(0)?, &value(2)?, inst.int("head_dim"), true)?;
            cache.write(&k, &value(1)?, &value(3)?, &value(4)?, (rounding(inst, "kv")?, inst.int("head_dim")))?;
            return Ok(vec![]);
        }
    }])
}

fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor, String> {
    zip(&silu(gate)?, up, |a, b| a * b)
}

fn swiglu_of_halves(x: &Tensor) -> Result<Tensor, String> {
    let half = x.width() / 2;
    swiglu(&slice_cols(x, 0, half)?, &slice_cols(x, half, half)?)
}

fn rounding(inst: &Inst, attr: &str) -> Result<DType, String> {
    let word = inst.word(attr);
    DType::from_name(word).ok_or_else(|| format!("found {attr}={word}, expected an element type"))
}
