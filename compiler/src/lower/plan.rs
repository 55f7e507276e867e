//! Places: offsets of buffers in the arena, of weights in the weight section, of calls in the schedule; and the figures of a plan.

use llamac_runtime::artifact::meta::{AttentionMeta, BufferMeta, PlanMeta};

use super::program::*;

/// Alignment of buffers and weights: a cache line, and what kernels expect.
const ALIGN: u64 = 64;
/// Alignment of a layer's weights: a page.
const AREA_ALIGN: u64 = 4096;

/// Fills in every offset of the program.
pub(super) fn place(program: &mut Program) {
    for area in &mut program.areas {
        let mut at = 0u64;
        for w in &mut area.weights {
            w.offset = at;
            at = (at + w.bytes).next_multiple_of(ALIGN);
        }
        area.bytes = at.next_multiple_of(AREA_ALIGN);
    }
    let mut at = program.areas.first().map_or(0, |a| a.bytes);
    for entry in &mut program.schedule {
        entry.weights = at;
        at += program.areas[program.functions[entry.function as usize].area].bytes;
    }
    program.weight_bytes = at;
    place_buffers(program);
}

/// First and last moment at which a buffer is in use, counted in regions; a repeated layer function counts once.
fn lifetimes(program: &Program) -> Vec<Option<(usize, usize)>> {
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; program.buffers.len()];
    let mut now = 0;
    let run = |function: &Function, now: &mut usize, lives: &mut Vec<Option<(usize, usize)>>| {
        for region in &function.regions {
            for id in region.body.reads().0.into_iter().chain(region.body.writes().0) {
                extend(&mut lives[id.0 as usize], *now, *now);
            }
            *now += 1;
        }
    };
    for step in &program.steps {
        match *step {
            Step::Run(f) => run(&program.functions[f], &mut now, &mut lives),
            Step::Layers { first, count } => {
                let before = lives.clone();
                let start = now;
                let mut seen = Vec::new();
                for entry in &program.schedule[first..first + count] {
                    if !seen.contains(&entry.function) {
                        seen.push(entry.function);
                        run(&program.functions[entry.function as usize], &mut now, &mut lives);
                    }
                }
                // What goes from call to call, or from before to after, lives through all calls.
                for (i, life) in lives.iter_mut().enumerate() {
                    let touched = life.is_some_and(|l| l.1 >= start);
                    if touched && (before[i].is_some() || program.buffers[i].role != Role::Scratch) {
                        extend(life, start, now.saturating_sub(1));
                    }
                }
            }
        }
    }
    if let Some(life) = &mut lives[program.logits.0 as usize] {
        life.1 = now;
    }
    lives
}

fn extend(life: &mut Option<(usize, usize)>, from: usize, to: usize) {
    *life = Some(life.map_or((from, to), |l| (l.0.min(from), l.1.max(to))));
}

/// First fit, largest first, among buffers whose lifetimes meet.
fn place_buffers(program: &mut Program) {
    let lives = lifetimes(program);
    let sizes: Vec<u64> = program.buffers.iter().map(|b| b.bytes(&program.limits).next_multiple_of(ALIGN)).collect();
    let mut order: Vec<usize> = (0..sizes.len()).filter(|&i| lives[i].is_some()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(sizes[i]), i));
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0;
    for i in order {
        let meets = |j: &&usize| match (lives[i], lives[**j]) {
            (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
            _ => false,
        };
        let mut taken: Vec<(u64, u64)> =
            placed.iter().filter(meets).map(|&j| (program.buffers[j].offset, program.buffers[j].offset + sizes[j])).collect();
        taken.sort_unstable();
        let mut at = 0;
        for (start, end) in taken {
            if start >= at + sizes[i] {
                break;
            }
            at = at.max(end);
        }
        program.buffers[i].offset = at;
        total = total.max(at + sizes[i]);
        placed.push(i);
    }
    program.arena_bytes = total;
}

impl Program {
    /// For each buffer the first and the last region in which it is in use, counted over the step with each kind of layer once; `None`: never.
    pub fn lifetimes(&self) -> Vec<Option<(usize, usize)>> {
        lifetimes(self)
    }

    /// Buffers that have a place in the arena, by offset.
    pub fn live_buffers(&self) -> Vec<&Buffer> {
        let lives = lifetimes(self);
        let mut out: Vec<&Buffer> = self.buffers.iter().zip(lives).filter(|(_, l)| l.is_some()).map(|(b, _)| b).collect();
        out.sort_by_key(|b| b.offset);
        out
    }

    /// Memory and work of a step, for the artifact and for `llamac plan`.
    pub fn plan_meta(&self) -> PlanMeta {
        let logits = self.buffer(self.logits);
        let (mut bytes, mut macs) = (0, 0);
        let main = self.areas.iter().take(1);
        let calls = self.schedule.iter().map(|e| &self.areas[self.functions[e.function as usize].area]);
        for weight in main.chain(calls).flat_map(|a| &a.weights) {
            match weight.form {
                WeightForm::Matrix { n, k, experts, .. } if weight.streamed => {
                    bytes += weight.bytes / experts as u64 * weight.used as u64;
                    macs += (weight.used * n * k) as u64;
                }
                WeightForm::Matrix { rows, n, .. } => bytes += weight.bytes / rows.padded(n).max(1) as u64,
                WeightForm::Vector { .. } => bytes += weight.bytes,
            }
        }
        PlanMeta {
            max_step: self.limits.max_step,
            max_rows: self.limits.max_rows,
            max_batch: self.limits.max_batch,
            arena_bytes: self.arena_bytes,
            logits_offset: logits.offset,
            logits_stride: logits.stride(),
            weight_bytes: self.weight_bytes,
            decode_bytes: bytes,
            decode_macs: macs,
            token_macs: self.token_macs(),
            buffers: self
                .live_buffers()
                .into_iter()
                .map(|b| BufferMeta { name: b.name.clone(), offset: b.offset, bytes: b.bytes(&self.limits) })
                .collect(),
            kv: self.kv.clone(),
            attention: self.attention(),
            caches: Vec::new(),
        }
    }

    /// What attention multiplies for a key, by KV group.
    fn attention(&self) -> Vec<AttentionMeta> {
        let mut groups = vec![AttentionMeta::default(); self.kv.len()];
        for function in self.schedule.iter().map(|e| &self.functions[e.function as usize]) {
            let Some(work) = groups.get_mut(function.kv_group) else { continue };
            for region in &function.regions {
                let Body::Attention { kv, group, .. } = &region.body else { continue };
                let macs = (2 * kv.heads * group * kv.head_dim) as u64;
                *(if region.rows == 0 { &mut work.token_macs } else { &mut work.row_macs }) += macs;
            }
        }
        groups
    }

    /// Multiply-accumulates of the regions that run over all new tokens.
    fn token_macs(&self) -> u64 {
        let runs = self.steps.iter().filter_map(|s| match s {
            Step::Run(f) => Some(*f),
            Step::Layers { .. } => None,
        });
        let calls = self.schedule.iter().map(|e| e.function as usize);
        let macs_of = |f: usize| {
            let function = &self.functions[f];
            let weights = &self.areas[function.area].weights;
            let dots = function.regions.iter().filter(|r| r.rows == 0).filter_map(|r| match r.body {
                Body::Dot { weight, .. } | Body::ExpertDot { weight, .. } => weights.get(weight),
                _ => None,
            });
            dots.map(|w| if let WeightForm::Matrix { n, k, .. } = w.form { (w.used * n * k) as u64 } else { 0 }).sum::<u64>()
        };
        runs.chain(calls).map(macs_of).sum()
    }
}
