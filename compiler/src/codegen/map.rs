//! Regions over rows: maps, gathers, copies to the wanted rows, rope angles, half-split rope. Threads take ranges of rows.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, I8X16};
use cranelift_codegen::ir::{InstBuilder, Value};

use llamac_runtime::abi::{AttnTemperatureArgs, GatherArgs, RopeAnglesArgs, RowSet, StepContext};

use super::CodegenError;
use super::frame::{Emit, unaligned};
use crate::lower::layout::pad;
use crate::lower::program::{BufferId, Elem, Segment, View, WeightForm};

pub(super) fn map(e: &mut Emit<'_, '_>, segments: &[Segment]) {
    let n = e.n_rows();
    let (low, high) = e.split(n);
    e.each(low, high, |e, row| {
        for segment in segments {
            let addresses = e.segment_row(segment, row);
            let (zero, blocks) = (e.int(0), e.int(segment.blocks as u64));
            e.each(zero, blocks, |e, block| e.segment_block(segment, &addresses, block, None));
        }
    });
}

/// Runs `body(first row, number of rows)` if this thread has any.
pub(super) fn with_rows(e: &mut Emit<'_, '_>, body: impl FnOnce(&mut Emit<'_, '_>, Value, Value)) {
    let n = e.n_rows();
    let (low, high) = e.split(n);
    let m = e.b.ins().isub(high, low);
    let (some, after) = (e.b.create_block(), e.b.create_block());
    let any = e.b.ins().icmp_imm_u(IntCC::NotEqual, m, 0);
    e.b.ins().brif(any, some, &[], after, &[]);
    e.b.switch_to_block(some);
    body(e, low, m);
    e.b.ins().jump(after, &[]);
    e.b.switch_to_block(after);
}

pub(super) fn gather(e: &mut Emit<'_, '_>, table: usize, out: BufferId) -> Result<(), CodegenError> {
    let WeightForm::Matrix { format, cols, k, .. } = e.weight(table).form else {
        return Err(CodegenError::Unresolved { function: e.weight(table).weight.name.clone(), what: "rows of a vector".to_owned() });
    };
    let slot = e.kernels.gather(format.name)?;
    let args = e.arguments(size_of::<GatherArgs>());
    with_rows(e, |e, low, m| {
        let ids = e.context(offset_of!(StepContext, tokens));
        let fields = [
            (e.weight_address(table), offset_of!(GatherArgs, w)),
            (e.element(ids, low, 4), offset_of!(GatherArgs, ids)),
            (m, offset_of!(GatherArgs, m)),
            (e.int(cols.padded(k) as u64), offset_of!(GatherArgs, k)),
            (e.row(out, low), offset_of!(GatherArgs, out)),
            (e.int(e.buffer(out).stride()), offset_of!(GatherArgs, out_stride)),
        ];
        fields.into_iter().for_each(|(value, at)| e.store(value, args, at));
        let kernel = e.kernel(slot);
        e.call_kernel(kernel, args);
    });
    Ok(())
}

pub(super) fn rope_angles(e: &mut Emit<'_, '_>, inv_freq: usize, out: BufferId) -> Result<(), CodegenError> {
    let pairs = match e.weight(inv_freq).form {
        WeightForm::Vector { n, .. } | WeightForm::Matrix { n, .. } => n,
    };
    let slot = e.kernels.simple("rope_angles")?;
    let args = e.arguments(size_of::<RopeAnglesArgs>());
    with_rows(e, |e, low, m| {
        let positions = e.row_set(e.set, offset_of!(RowSet, pos));
        let fields = [
            (e.element(positions, low, 4), offset_of!(RopeAnglesArgs, pos)),
            (e.weight_address(inv_freq), offset_of!(RopeAnglesArgs, inv_freq)),
            (m, offset_of!(RopeAnglesArgs, m)),
            (e.int(pairs as u64), offset_of!(RopeAnglesArgs, pairs)),
            (e.int(e.buffer(out).padded() as u64 / 2), offset_of!(RopeAnglesArgs, padded_pairs)),
            (e.row(out, low), offset_of!(RopeAnglesArgs, out)),
            (e.int(e.buffer(out).stride()), offset_of!(RopeAnglesArgs, out_stride)),
        ];
        fields.into_iter().for_each(|(value, at)| e.store(value, args, at));
        let kernel = e.kernel(slot);
        e.call_kernel(kernel, args);
    });
    Ok(())
}

pub(super) fn attn_temperature(e: &mut Emit<'_, '_>, floor_scale: f64, attn_scale: f64, out: BufferId) -> Result<(), CodegenError> {
    let slot = e.kernels.simple("attn_temperature")?;
    let args = e.arguments(size_of::<AttnTemperatureArgs>());
    with_rows(e, |e, low, m| {
        let positions = e.row_set(e.set, offset_of!(RowSet, pos));
        let fields = [
            (e.element(positions, low, 4), offset_of!(AttnTemperatureArgs, pos)),
            (m, offset_of!(AttnTemperatureArgs, m)),
            (e.b.ins().f64const(floor_scale), offset_of!(AttnTemperatureArgs, floor_scale)),
            (e.b.ins().f64const(attn_scale), offset_of!(AttnTemperatureArgs, attn_scale)),
            (e.row(out, low), offset_of!(AttnTemperatureArgs, out)),
            (e.int(e.buffer(out).stride()), offset_of!(AttnTemperatureArgs, out_stride)),
        ];
        fields.into_iter().for_each(|(value, at)| e.store(value, args, at));
        let kernel = e.kernel(slot);
        e.call_kernel(kernel, args);
    });
    Ok(())
}

/// Copies the wanted rows of set 0.
pub(super) fn row_gather(e: &mut Emit<'_, '_>, x: BufferId, out: BufferId) {
    let n = e.n_rows();
    let (low, high) = e.split(n);
    let index = e.row_set(e.set, offset_of!(RowSet, index));
    let bytes = e.buffer(out).padded() * e.buffer(out).elem.bytes();
    e.each(low, high, |e, row| {
        let from = e.element(index, row, 4);
        let from = e.load_u32(from, 0);
        let (from, to) = (e.row(x, from), e.row(out, row));
        let (zero, end, step) = (e.int(0), e.int(bytes as u64), e.int(32));
        e.each_by(zero, end, step, |e, at| {
            let (from, to) = (e.add(from, at), e.add(to, at));
            for part in [0, 16] {
                let x = e.b.ins().load(I8X16, unaligned(), from, part);
                e.store(x, to, part as usize);
            }
        });
    });
}

/// Rotates pairs `(i, i + d/2)` of each head, one by one: only unfused programs need this.
pub(super) fn rope_half(e: &mut Emit<'_, '_>, x: View, angles: View, heads: usize, d: usize, out: BufferId) {
    debug_assert!(e.buffer(x.buffer).elem == Elem::F32 && e.buffer(out).elem == Elem::F32);
    let n = e.n_rows();
    let (low, high) = e.split(n);
    let head_bytes = (pad(d) * 4) as u64;
    e.each(low, high, |e, row| {
        let from = e.row(x.buffer, row);
        let from = e.add_int(from, (x.col * 4) as u64);
        let to = e.row(out, row);
        let angles_row = e.row(angles.buffer, row);
        let angles_row = e.add_int(angles_row, (angles.col * 4) as u64);
        let (zero, heads, pairs, padded) = (e.int(0), e.int(heads as u64), e.int(d as u64 / 2), e.int(pad(d) as u64));
        e.each(zero, heads, |e, head| {
            let (from, to) = (e.element(from, head, head_bytes), e.element(to, head, head_bytes));
            e.each(zero, pairs, |e, i| {
                let (a, b, w) = (e.element(from, i, 4), e.element(to, i, 4), e.element(angles_row, i, 8));
                let (x0, x1) = (e.load(F32, a, 0), e.load(F32, a, d / 2 * 4));
                let (cos, sin) = (e.load(F32, w, 0), e.load(F32, w, 4));
                let (p, q) = (e.b.ins().fmul(x0, cos), e.b.ins().fmul(x1, sin));
                let y0 = e.b.ins().fsub(p, q);
                let (p, q) = (e.b.ins().fmul(x1, cos), e.b.ins().fmul(x0, sin));
                let y1 = e.b.ins().fadd(p, q);
                e.store(y0, b, 0);
                e.store(y1, b, d / 2 * 4);
            });
            // Places in the arena are used again, so the padding must be written too.
            let (first, zero) = (e.int(d as u64), e.b.ins().f32const(0.0));
            e.each(first, padded, |e, i| {
                let at = e.element(to, i, 4);
                e.store(zero, at, 0);
            });
        });
    });
}
