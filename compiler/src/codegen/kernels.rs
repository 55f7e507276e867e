//! Which kernels of the runtime's table a program calls, chosen for the target, and their slots in the context's table.

use llamac_runtime::kernels::table::{self, KernelRow};

use super::CodegenError;
use crate::lower::kv_format;
use crate::lower::program::{Body, Program, WeightForm};
use crate::target::Target;

/// A dot kernel: its slot, rows of `x` at most, weight blocks at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Picked {
    pub(super) slot: usize,
    pub(super) m: u64,
    pub(super) blocks: u64,
}

/// The kernels of a weight format.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dot {
    /// For a single row.
    pub(super) one: Picked,
    /// For tiles of rows.
    pub(super) many: Picked,
}

/// The program's kernel list while it grows.
pub(super) struct Kernels<'p> {
    target: &'p Target,
    names: Vec<String>,
}

/// Names of the kernels that a program calls on a target, in slot order.
pub fn kernel_names(program: &Program, target: &Target) -> Result<Vec<String>, CodegenError> {
    Ok(Kernels::new(program, target)?.into_names())
}

impl<'p> Kernels<'p> {
    /// Chooses every kernel of the program, so that slots do not depend on the order of emission.
    pub(super) fn new(program: &'p Program, target: &'p Target) -> Result<Kernels<'p>, CodegenError> {
        let mut kernels = Kernels { target, names: Vec::new() };
        kernels.simple("yield_now")?;
        for function in &program.functions {
            let area = &program.areas[function.area];
            for region in &function.regions {
                match &region.body {
                    Body::Gather { table: weight, .. } | Body::Dot { weight, .. } | Body::ExpertDot { weight, .. } => {
                        let WeightForm::Matrix { format, .. } = area.weights[*weight].form else { continue };
                        if matches!(region.body, Body::Gather { .. }) {
                            kernels.gather(format.name)?;
                        } else {
                            kernels.dot(format.name)?;
                        }
                    }
                    Body::Quantize { .. } => drop(kernels.simple("quantize_i8")?),
                    Body::RopeAngles { .. } => drop(kernels.simple("rope_angles")?),
                    Body::Route { .. } => drop(kernels.simple("route")?),
                    Body::Group { .. } => drop(kernels.simple("moe_group")?),
                    Body::ExpertRows { .. } => drop(kernels.simple("expert_rows")?),
                    Body::Combine { .. } => drop(kernels.simple("moe_combine")?),
                    Body::AttnTemperature { .. } => drop(kernels.simple("attn_temperature")?),
                    Body::KvWrite { cache, .. } => drop(kernels.kv_write(kv_format(cache.elem).name())?),
                    Body::Attention { kv, .. } => {
                        kernels.attention(kv_format(kv.elem).name())?;
                        kernels.simple("attention_merge")?;
                    }
                    _ => {}
                }
            }
        }
        Ok(kernels)
    }

    pub(super) fn into_names(self) -> Vec<String> {
        self.names
    }

    fn slot(&mut self, name: &str) -> usize {
        self.names.iter().position(|n| n == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    pub(super) fn missing(&self, what: String) -> CodegenError {
        CodegenError::NoKernel { what, target: self.target.name.clone() }
    }

    /// Rows that give the same bits, of the best instruction set of the target. The host's CPU plays no part.
    fn candidates(&self, op: &str, format: &str) -> Vec<&'static KernelRow> {
        table::candidates(op, format, self.target.arch.name(), |feature| self.target.has(feature))
    }

    fn only(&mut self, op: &str, format: &str) -> Result<usize, CodegenError> {
        let row = self.candidates(op, format).into_iter().next().ok_or_else(|| self.missing(format!("{op} {format}")))?;
        Ok(self.slot(row.name))
    }

    /// The kernel of an op that knows no format.
    pub(super) fn simple(&mut self, op: &str) -> Result<usize, CodegenError> {
        self.only(op, "")
    }

    pub(super) fn gather(&mut self, weight: &str) -> Result<usize, CodegenError> {
        self.only("gather", weight)
    }

    pub(super) fn kv_write(&mut self, kv: &str) -> Result<usize, CodegenError> {
        self.only("kv_write", kv)
    }

    pub(super) fn attention(&mut self, kv: &str) -> Result<usize, CodegenError> {
        self.only("attention", kv)
    }

    pub(super) fn dot(&mut self, weight: &str) -> Result<Dot, CodegenError> {
        let rows = self.candidates("dot", weight);
        let one = rows.iter().find(|r| r.m == 1).ok_or_else(|| self.missing(format!("dot {weight}")))?;
        let many = rows.iter().max_by_key(|r| r.m).ok_or_else(|| self.missing(format!("dot {weight}")))?;
        let mut pick = |r: &KernelRow| Picked { slot: self.slot(r.name), m: r.m as u64, blocks: r.blocks as u64 };
        Ok(Dot { one: pick(one), many: pick(many) })
    }
}
