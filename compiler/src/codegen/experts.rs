//! Regions around the dots of experts: each is a kernel of the runtime over a range of rows. The dots are in `dot`.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};

use llamac_runtime::abi::{CombineArgs, ExpertRowsArgs, GroupArgs, RouteArgs};

use super::CodegenError;
use super::frame::Emit;
use super::map::with_rows;
use crate::lower::program::{BufferId, View};

/// The list of places and what it is about.
pub(super) struct Places {
    pub(super) list: BufferId,
    pub(super) experts: usize,
    pub(super) top_k: usize,
}

/// Address of the first row of a buffer.
fn start(e: &mut Emit<'_, '_>, buffer: BufferId) -> Value {
    let zero = e.int(0);
    e.row(buffer, zero)
}

/// Address of a view's columns in row `row`; its elements are f32.
fn view(e: &mut Emit<'_, '_>, view: View, row: Value) -> Value {
    let at = e.row(view.buffer, row);
    e.add_int(at, 4 * view.col as u64)
}

fn stride(e: &mut Emit<'_, '_>, buffer: BufferId) -> Value {
    e.int(e.buffer(buffer).stride())
}

fn call<const N: usize>(e: &mut Emit<'_, '_>, slot: usize, args: Value, fields: [(Value, usize); N]) {
    fields.into_iter().for_each(|(value, at)| e.store(value, args, at));
    let kernel = e.kernel(slot);
    e.call_kernel(kernel, args);
}

pub(super) fn route(
    e: &mut Emit<'_, '_>,
    scores: View,
    experts: usize,
    top_k: usize,
    ids: BufferId,
    gates: BufferId,
) -> Result<(), CodegenError> {
    let slot = e.kernels.simple("route")?;
    let args = e.arguments(size_of::<RouteArgs>());
    with_rows(e, |e, low, m| {
        let fields = [
            (view(e, scores, low), offset_of!(RouteArgs, scores)),
            (stride(e, scores.buffer), offset_of!(RouteArgs, scores_stride)),
            (m, offset_of!(RouteArgs, m)),
            (e.int(experts as u64), offset_of!(RouteArgs, experts)),
            (e.int(top_k as u64), offset_of!(RouteArgs, top_k)),
            (e.row(ids, low), offset_of!(RouteArgs, ids)),
            (stride(e, ids), offset_of!(RouteArgs, ids_stride)),
            (e.row(gates, low), offset_of!(RouteArgs, gates)),
            (stride(e, gates), offset_of!(RouteArgs, gates_stride)),
        ];
        call(e, slot, args, fields);
    });
    Ok(())
}

/// On thread 0 alone.
pub(super) fn group(e: &mut Emit<'_, '_>, ids: BufferId, experts: usize, top_k: usize, list: BufferId) -> Result<(), CodegenError> {
    let slot = e.kernels.simple("moe_group")?;
    let args = e.arguments(size_of::<GroupArgs>());
    let (first, after) = (e.b.create_block(), e.b.create_block());
    let is_first = e.b.ins().icmp_imm_u(IntCC::Equal, e.thread, 0);
    e.b.ins().brif(is_first, first, &[], after, &[]);
    e.b.switch_to_block(first);
    let fields = [
        (start(e, ids), offset_of!(GroupArgs, ids)),
        (stride(e, ids), offset_of!(GroupArgs, ids_stride)),
        (e.n_rows(), offset_of!(GroupArgs, m)),
        (e.int(experts as u64), offset_of!(GroupArgs, experts)),
        (e.int(top_k as u64), offset_of!(GroupArgs, top_k)),
        (start(e, list), offset_of!(GroupArgs, list)),
    ];
    call(e, slot, args, fields);
    e.b.ins().jump(after, &[]);
    e.b.switch_to_block(after);
    Ok(())
}

pub(super) fn rows(e: &mut Emit<'_, '_>, places: &Places, x: View, gates: BufferId, out: BufferId) -> Result<(), CodegenError> {
    let slot = e.kernels.simple("expert_rows")?;
    let args = e.arguments(size_of::<ExpertRowsArgs>());
    with_rows(e, |e, low, m| {
        let zero = e.int(0);
        let fields = [
            (view(e, x, zero), offset_of!(ExpertRowsArgs, x)),
            (stride(e, x.buffer), offset_of!(ExpertRowsArgs, x_stride)),
            (start(e, gates), offset_of!(ExpertRowsArgs, gates)),
            (stride(e, gates), offset_of!(ExpertRowsArgs, gates_stride)),
            (start(e, places.list), offset_of!(ExpertRowsArgs, list)),
            (e.int(places.experts as u64), offset_of!(ExpertRowsArgs, experts)),
            (e.int(places.top_k as u64), offset_of!(ExpertRowsArgs, top_k)),
            (low, offset_of!(ExpertRowsArgs, first)),
            (m, offset_of!(ExpertRowsArgs, m)),
            (e.int(e.buffer(out).padded() as u64), offset_of!(ExpertRowsArgs, width)),
            (e.row(out, low), offset_of!(ExpertRowsArgs, out)),
            (stride(e, out), offset_of!(ExpertRowsArgs, out_stride)),
        ];
        call(e, slot, args, fields);
    });
    Ok(())
}

pub(super) fn combine(e: &mut Emit<'_, '_>, places: &Places, rows: BufferId, residual: View, out: BufferId) -> Result<(), CodegenError> {
    let slot = e.kernels.simple("moe_combine")?;
    let args = e.arguments(size_of::<CombineArgs>());
    with_rows(e, |e, low, m| {
        let fields = [
            (start(e, rows), offset_of!(CombineArgs, rows)),
            (stride(e, rows), offset_of!(CombineArgs, rows_stride)),
            (start(e, places.list), offset_of!(CombineArgs, list)),
            (e.int(places.experts as u64), offset_of!(CombineArgs, experts)),
            (e.int(places.top_k as u64), offset_of!(CombineArgs, top_k)),
            (e.n_rows(), offset_of!(CombineArgs, all)),
            (low, offset_of!(CombineArgs, first)),
            (m, offset_of!(CombineArgs, m)),
            (e.int(e.buffer(out).padded() as u64), offset_of!(CombineArgs, width)),
            (view(e, residual, low), offset_of!(CombineArgs, residual)),
            (stride(e, residual.buffer), offset_of!(CombineArgs, residual_stride)),
            (e.row(out, low), offset_of!(CombineArgs, out)),
            (stride(e, out), offset_of!(CombineArgs, out_stride)),
        ];
        call(e, slot, args, fields);
    });
    Ok(())
}
