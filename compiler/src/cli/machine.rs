//! `llamac plan --machine`: what a machine of given cores, bandwidth and memory would do with a plan, from its roofline. Nothing is measured.

use super::output::{bytes, table};
use crate::target::Target;
use llamac_runtime::artifact::meta::Meta;
use std::str::FromStr;

/// A machine as the user describes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MachineArg {
    /// Physical cores.
    cores: f64,
    /// Reading from memory, bytes per second.
    bandwidth: f64,
    /// Memory, bytes.
    memory: f64,
}

impl FromStr for MachineArg {
    type Err = String;

    fn from_str(text: &str) -> Result<MachineArg, String> {
        let parts: Vec<f64> =
            text.split(',').filter_map(|part| part.trim().parse().ok()).filter(|x: &f64| x.is_finite() && *x > 0.0).collect();
        match parts.as_slice() {
            &[cores, bandwidth, memory] if text.split(',').count() == 3 => {
                Ok(MachineArg { cores, bandwidth: bandwidth * 1e9, memory: memory * 1e9 })
            }
            _ => Err("expected cores,GB/s,GB: three numbers above 0, such as 64,400,512".to_owned()),
        }
    }
}

/// Predictions for one sequence, as a table.
pub(super) fn predictions(machine: MachineArg, meta: &Meta, target: &Target) -> String {
    let plan = &meta.plan;
    let context = meta.model.max_context as u64;
    let figures = target.machine();
    let of_all = match meta.model.quant.as_str() {
        "f32" => figures.f32_gmacs,
        "bf16" => figures.bf16_gmacs,
        _ => figures.i8_gmacs,
    };
    let macs = of_all * 1e9 / f64::from(figures.threads) * machine.cores;

    let compute = plan.decode_macs as f64 / macs;
    let decode = |depth: u64| 1.0 / compute.max((plan.decode_bytes + plan.cache_bytes(depth)) as f64 / machine.bandwidth);
    let step = plan.max_step as f64;
    // A step reads every expert at most once, and no more of them than its tokens choose.
    let read = (plan.weight_bytes as f64).min(step * plan.decode_bytes as f64);
    let prefill = step / (compute * step).max(read / machine.bandwidth);
    let need = plan.weight_bytes + plan.arena_bytes + plan.cache_bytes(context);
    let fits = if need as f64 <= machine.memory { "yes" } else { "no" };
    let rate = |x: f64| format!("{x:.3} tokens/s");
    table(&[
        vec!["on that machine, predicted from its roofline".into(), String::new()],
        vec!["decode, empty cache".into(), rate(decode(0))],
        vec![format!("decode, {context} tokens in the cache"), rate(decode(context))],
        vec![format!("prefill, {} tokens a step", plan.max_step), rate(prefill)],
        vec![format!("fits, with a sequence of {context}"), format!("{fits}: {} of {}", bytes(need), bytes(machine.memory as u64))],
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_three_numbers_above_zero() {
        let found: MachineArg = "64, 400,512".parse().unwrap();
        assert_eq!(found, MachineArg { cores: 64.0, bandwidth: 4e11, memory: 5.12e11 });
        for wrong in ["", "64", "64,400", "64,400,512,1", "64,x,512", "0,1,1", "-1,1,1", "inf,1,1"] {
            assert!(wrong.parse::<MachineArg>().unwrap_err().contains("cores,GB/s,GB"), "{wrong}");
        }
    }
}
