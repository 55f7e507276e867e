//! Kernels around the products of a mixture of experts: choosing experts, grouping rows by expert, gathering their inputs, adding up their
//! results; and the temperature of queries. All are small beside the products and exist once, in plain Rust.

use crate::abi::{AttnTemperatureArgs, CombineArgs, ExpertRowsArgs, GroupArgs, ROWS, RouteArgs};

/// `1 / (1 + exp(-x))`, in f64 and rounded once: a handful per row.
fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(x)).exp())) as f32
}

/// Where the pairs by place begin in a list.
fn header(experts: u64) -> usize {
    (experts as usize + 1).next_multiple_of(ROWS)
}

/// See [`RouteArgs`].
pub(super) unsafe extern "C" fn route(args: *const u8) {
    // SAFETY: the contract of `RouteArgs`.
    unsafe {
        let a = &*args.cast::<RouteArgs>();
        let top_k = a.top_k as usize;
        for t in 0..a.m as usize {
            let scores = std::slice::from_raw_parts(a.scores.byte_add(t * a.scores_stride as usize), a.experts as usize);
            let ids = std::slice::from_raw_parts_mut(a.ids.byte_add(t * a.ids_stride as usize), top_k);
            let gates = std::slice::from_raw_parts_mut(a.gates.byte_add(t * a.gates_stride as usize), top_k);
            choose(scores, ids);
            gates.iter_mut().zip(ids).for_each(|(gate, e)| *gate = sigmoid(scores[*e as usize]));
        }
    }
}

/// The largest scores, one for each of `ids`, in ascending order of index.
fn choose(scores: &[f32], ids: &mut [i32]) {
    // `before` is true if `a` is to be taken first; total, so that NaN cannot confuse it.
    let before = |a: usize, b: usize| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)).is_gt();
    let mut last: Option<usize> = None;
    for id in ids.iter_mut() {
        let left = (0..scores.len()).filter(|e| last.is_none_or(|l| before(l, *e)));
        let best = left.reduce(|a, b| if before(a, b) { a } else { b }).unwrap_or(0);
        *id = best as i32;
        last = Some(best);
    }
    ids.sort_unstable();
}

/// See [`GroupArgs`]. A counting sort.
pub(super) unsafe extern "C" fn moe_group(args: *const u8) {
    // SAFETY: the contract of `GroupArgs`: indices are below `experts`, the list has room for header, places and pairs.
    unsafe {
        let a = &*args.cast::<GroupArgs>();
        let (m, top_k, experts) = (a.m as usize, a.top_k as usize, a.experts as usize);
        let starts = std::slice::from_raw_parts_mut(a.list, experts + 1);
        let pairs = std::slice::from_raw_parts_mut(a.list.add(header(a.experts)), m * top_k);
        let places = std::slice::from_raw_parts_mut(a.list.add(header(a.experts) + m * top_k), m * top_k);
        let id = |pair: usize| *a.ids.byte_add(pair / top_k * a.ids_stride as usize).add(pair % top_k) as usize;
        starts.fill(0);
        (0..pairs.len()).for_each(|pair| starts[id(pair)] += 1);
        let mut next = 0;
        for start in starts.iter_mut() {
            next += std::mem::replace(start, next);
        }
        // `starts[e]` counts up to the first place of `e + 1`; then they are moved up by one.
        for pair in 0..pairs.len() {
            let place = &mut starts[id(pair)];
            pairs[*place as usize] = pair as i32;
            places[pair] = *place;
            *place += 1;
        }
        starts.copy_within(0..experts, 1);
        starts[0] = 0;
    }
}

/// See [`ExpertRowsArgs`].
pub(super) unsafe extern "C" fn expert_rows(args: *const u8) {
    // SAFETY: the contract of `ExpertRowsArgs`.
    unsafe {
        let a = &*args.cast::<ExpertRowsArgs>();
        let (top_k, width) = (a.top_k as usize, a.width as usize);
        let pairs = a.list.add(header(a.experts) + a.first as usize);
        for p in 0..a.m as usize {
            let pair = *pairs.add(p) as usize;
            let (t, j) = (pair / top_k, pair % top_k);
            let gate = *a.gates.byte_add(t * a.gates_stride as usize).add(j);
            let x = std::slice::from_raw_parts(a.x.byte_add(t * a.x_stride as usize), width);
            let out = std::slice::from_raw_parts_mut(a.out.byte_add(p * a.out_stride as usize), width);
            out.iter_mut().zip(x).for_each(|(o, x)| *o = gate * x);
        }
    }
}

/// See [`CombineArgs`].
pub(super) unsafe extern "C" fn moe_combine(args: *const u8) {
    // SAFETY: the contract of `CombineArgs`. Result and residual may be the same row, so both are read and written through one pointer each.
    unsafe {
        let a = &*args.cast::<CombineArgs>();
        let (top_k, width) = (a.top_k as usize, a.width as usize);
        let places = a.list.add(header(a.experts) + (a.all * a.top_k) as usize);
        for t in 0..a.m as usize {
            let residual = a.residual.byte_add(t * a.residual_stride as usize);
            let out = a.out.byte_add(t * a.out_stride as usize);
            let places = std::slice::from_raw_parts(places.add((a.first as usize + t) * top_k), top_k);
            let row = |place: i32| a.rows.byte_add(place as usize * a.rows_stride as usize);
            for block in (0..width).step_by(ROWS) {
                let mut sum = [0.0f32; ROWS];
                for &place in places {
                    let y = &*row(place).add(block).cast::<[f32; ROWS]>();
                    sum.iter_mut().zip(y).for_each(|(s, y)| *s += y);
                }
                let from = residual.add(block).cast::<[f32; ROWS]>().read();
                sum.iter_mut().zip(from).for_each(|(s, r)| *s += r);
                out.add(block).cast::<[f32; ROWS]>().write(sum);
            }
        }
    }
}

/// See [`AttnTemperatureArgs`].
pub(super) unsafe extern "C" fn attn_temperature(args: *const u8) {
    // SAFETY: the contract of `AttnTemperatureArgs`.
    unsafe {
        let a = &*args.cast::<AttnTemperatureArgs>();
        for t in 0..a.m as usize {
            let steps = ((f64::from(*a.pos.add(t)) + 1.0) / a.floor_scale).floor();
            let factor = (1.0 + a.attn_scale * steps.ln_1p()) as f32;
            a.out.byte_add(t * a.out_stride as usize).cast::<[f32; ROWS]>().write([factor; ROWS]);
        }
    }
}

#[cfg(test)]
#[path = "moe_tests.rs"]
mod tests;
