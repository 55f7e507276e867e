//! Attention regions: one unit is a tile of rows of one sequence and one KV head with its query heads, or a part of the keys of one row.
//! The kernel does the work; here are its arguments and the rounding of its result.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};

use llamac_runtime::abi::{
    ATTENTION_PARTS, ATTENTION_TILE_ROWS, AttentionArgs, AttentionMergeArgs, AttentionTile, KV_GROUPS, KvGroup, PARTS_BYTES, RowSet,
    SCRATCH_BYTES, StepContext,
};

use super::CodegenError;
use super::frame::Emit;
use super::link::Symbol;
use crate::lower::kv_format;
use crate::lower::program::{BufferId, Cache, Elem, View};

/// As [`crate::lower::program::Body::Attention`].
pub(super) struct Attention {
    pub(super) q: View,
    pub(super) kv: Cache,
    pub(super) group: usize,
    pub(super) scale: f64,
    pub(super) out: BufferId,
}

pub(super) fn attention(e: &mut Emit<'_, '_>, a: &Attention) -> Result<(), CodegenError> {
    let (head_dim, group) = (a.kv.head_dim as u64, a.group as u64);
    let columns = group * head_dim;
    let most = SCRATCH_BYTES as u64 / 2 / (ATTENTION_TILE_ROWS as u64 * 4);
    if columns > most {
        let what = format!("attention with {group} query heads of {head_dim} for a key head: together they may have {most} columns");
        return Err(e.kernels.missing(what));
    }
    let tiles = Tiles::new(e, a)?;
    let merge = e.kernels.simple("attention_merge")?;
    let part_bytes = ((columns + 2 * group) * 4).next_multiple_of(LINE);
    let shared = offset_of!(StepContext, shared_parts) + (e.set * KV_GROUPS + e.kv_group()) * 8;
    let shared = e.context(shared);
    // Parts have room for so many heads of rows.
    let threads = e.context(offset_of!(StepContext, threads));
    let room = e.mul_int(threads, PARTS_BYTES as u64 / (ATTENTION_PARTS * part_bytes));
    let units = tiles.units(e);
    let fits = e.b.ins().icmp(IntCC::UnsignedLessThanOrEqual, units, room);
    let wanted = e.b.ins().icmp_imm_u(IntCC::NotEqual, shared, 0);
    let share = e.b.ins().band(fits, wanted);
    let [whole, in_parts, done] = std::array::from_fn(|_| e.b.create_block());
    e.b.ins().brif(share, in_parts, &[], whole, &[]);

    e.b.switch_to_block(whole);
    tiles.whole(e);
    e.b.ins().jump(done, &[]);

    e.b.switch_to_block(in_parts);
    tiles.parts(e, shared, part_bytes);
    let barrier = Symbol::Barrier.import(e.b.func, 2);
    let (ctx, thread) = (e.ctx, e.thread);
    e.b.ins().call(barrier, &[ctx, thread]);
    tiles.merge(e, merge, part_bytes);
    e.b.ins().jump(done, &[]);

    e.b.switch_to_block(done);
    Ok(())
}

/// Bytes of a cache line: what threads write does not share one.
const LINE: u64 = 64;

/// What the ways to compute a region have in common.
struct Tiles<'a> {
    a: &'a Attention,
    /// Slot of the kernel.
    slot: usize,
    /// Its arguments.
    args: Value,
    tiles: Value,
    n_tiles: Value,
    tables: Value,
    table_stride: Value,
    /// This thread's.
    scratch: Value,
}

/// A tile and KV head.
struct Unit {
    row: Value,
    rows: Value,
    position: Value,
    sequence: Value,
    head: Value,
}

impl<'a> Tiles<'a> {
    fn new(e: &mut Emit<'_, '_>, a: &'a Attention) -> Result<Tiles<'a>, CodegenError> {
        let slot = e.kernels.attention(kv_format(a.kv.elem).name())?;
        let args = e.arguments(size_of::<AttentionArgs>());
        let scratch = e.scratch();
        let kernel_scratch = e.add_int(scratch, SCRATCH_BYTES as u64 / 2);
        let scale = e.b.ins().f32const(a.scale as f32);
        let q = e.buffer(a.q.buffer);
        let fixed = [
            (e.int(q.stride()), offset_of!(AttentionArgs, q_stride)),
            (e.kv_field(offset_of!(KvGroup, base)), offset_of!(AttentionArgs, kv)),
            (e.kv_field(offset_of!(KvGroup, page_bytes)), offset_of!(AttentionArgs, page_bytes)),
            (e.int(a.group as u64), offset_of!(AttentionArgs, group)),
            (e.int(a.kv.head_dim as u64), offset_of!(AttentionArgs, head_dim)),
            // A tile lies in one chunk, and a ring begins with the chunk's first key.
            (e.int(0), offset_of!(AttentionArgs, chunk)),
            (kernel_scratch, offset_of!(AttentionArgs, scratch)),
            (scale, offset_of!(AttentionArgs, scale)),
        ];
        fixed.into_iter().for_each(|(value, at)| e.store(value, args, at));
        Ok(Tiles {
            a,
            slot,
            args,
            tiles: e.row_set(e.set, offset_of!(RowSet, tiles)),
            n_tiles: e.row_set(e.set, offset_of!(RowSet, n_tiles)),
            tables: e.kv_field(offset_of!(KvGroup, tables)),
            table_stride: e.kv_field(offset_of!(KvGroup, table_stride)),
            scratch,
        })
    }

    fn columns(&self) -> u64 {
        (self.a.group * self.a.kv.head_dim) as u64
    }

    fn units(&self, e: &mut Emit<'_, '_>) -> Value {
        e.mul_int(self.n_tiles, self.a.kv.heads as u64)
    }

    /// Head by head: later tiles see more keys, so a range of tiles would not be a fair share.
    fn unit(&self, e: &mut Emit<'_, '_>, unit: Value) -> Unit {
        let head = e.div(unit, self.n_tiles);
        let before = e.b.ins().imul(head, self.n_tiles);
        let number = e.b.ins().isub(unit, before);
        let tile = e.element(self.tiles, number, size_of::<AttentionTile>() as u64);
        let row = e.load_u32(tile, offset_of!(AttentionTile, row));
        let rows = e.load_u32(tile, offset_of!(AttentionTile, rows));
        let position = e.load_u32(tile, offset_of!(AttentionTile, pos));
        let position = e.cache_place(position);
        let sequence = e.load_u32(tile, offset_of!(AttentionTile, slot));
        Unit { row, rows, position, sequence, head }
    }

    /// Calls the kernel for a unit. `rows` has the part in its upper half.
    fn call(&self, e: &mut Emit<'_, '_>, unit: &Unit, rows: Value, out: Value, out_stride: u64) {
        let &Unit { row, position, sequence, head, .. } = unit;
        let line = e.b.ins().imul(sequence, self.table_stride);
        let table = e.element(self.tables, line, 4);
        let columns = self.columns();
        let queries = e.row(self.a.q.buffer, row);
        let queries = e.add_int(queries, (self.a.q.col * 4) as u64);
        let queries = e.element(queries, head, columns * 4);
        let head_bytes = kv_format(self.a.kv.elem).head_bytes(self.a.kv.head_dim) as u64;
        let kv = e.kv;
        let keys = e.element(kv, head, head_bytes);
        let values = e.add_int(keys, self.a.kv.heads as u64 * head_bytes);
        let fields = [
            (queries, offset_of!(AttentionArgs, q)),
            (table, offset_of!(AttentionArgs, table)),
            (keys, offset_of!(AttentionArgs, k_offset)),
            (values, offset_of!(AttentionArgs, v_offset)),
            (position, offset_of!(AttentionArgs, pos)),
            (rows, offset_of!(AttentionArgs, rows)),
            (out, offset_of!(AttentionArgs, out)),
            (e.int(out_stride), offset_of!(AttentionArgs, out_stride)),
        ];
        fields.into_iter().for_each(|(value, at)| e.store(value, self.args, at));
        let kernel = e.kernel(self.slot);
        e.call_kernel(kernel, self.args);
    }

    /// Where `make` is to write a unit's f32 result of a number of rows, and its way to the buffer from there, if that has other elements.
    fn put(&self, e: &mut Emit<'_, '_>, unit: &Unit, make: impl FnOnce(&mut Emit<'_, '_>, Value, u64)) {
        let (out, columns) = (e.buffer(self.a.out), self.columns());
        let place = e.row(self.a.out, unit.row);
        let place = e.element(place, unit.head, columns * out.elem.bytes() as u64);
        if out.elem == Elem::F32 {
            make(e, place, out.stride());
        } else {
            make(e, self.scratch, columns * 4);
            rounded(e, self.scratch, place, unit.rows, columns, out.stride());
        }
    }

    /// Each tile and KV head by one thread.
    fn whole(&self, e: &mut Emit<'_, '_>) {
        let units = self.units(e);
        let (low, high) = e.split(units);
        e.each(low, high, |e, unit| {
            let unit = self.unit(e, unit);
            self.put(e, &unit, |e, out, stride| self.call(e, &unit, unit.rows, out, stride));
        });
    }

    /// Each of up to `count` parts of each row and KV head by one thread.
    fn parts(&self, e: &mut Emit<'_, '_>, count: Value, part_bytes: u64) {
        let units = self.units(e);
        let all = e.b.ins().imul(units, count);
        let (low, high) = e.split(all);
        e.each(low, high, |e, i| {
            let number = e.div(i, count);
            let before = e.b.ins().imul(number, count);
            let part = e.b.ins().isub(i, before);
            let unit = self.unit(e, number);
            let from = self.parts_of(e, number, part_bytes);
            let out = e.element(from, part, part_bytes);
            let part = e.add_int(part, 1);
            let part = e.b.ins().ishl_imm_u(part, 32);
            let rows = e.add(part, unit.rows);
            self.call(e, &unit, rows, out, part_bytes);
        });
    }

    /// First part of a unit.
    fn parts_of(&self, e: &mut Emit<'_, '_>, number: Value, part_bytes: u64) -> Value {
        let parts = e.context(offset_of!(StepContext, parts));
        e.element(parts, number, ATTENTION_PARTS * part_bytes)
    }

    /// Each row and KV head by one thread, from its parts.
    fn merge(&self, e: &mut Emit<'_, '_>, slot: usize, part_bytes: u64) {
        let args = e.arguments(size_of::<AttentionMergeArgs>());
        let fixed = [
            (e.int(part_bytes), offset_of!(AttentionMergeArgs, part_stride)),
            (e.int(self.a.group as u64), offset_of!(AttentionMergeArgs, group)),
            (e.int(self.a.kv.head_dim as u64), offset_of!(AttentionMergeArgs, head_dim)),
        ];
        fixed.into_iter().for_each(|(value, at)| e.store(value, args, at));
        let units = self.units(e);
        let (low, high) = e.split(units);
        e.each(low, high, |e, number| {
            let unit = self.unit(e, number);
            let parts = self.parts_of(e, number, part_bytes);
            e.store(parts, args, offset_of!(AttentionMergeArgs, parts));
            e.store(unit.position, args, offset_of!(AttentionMergeArgs, pos));
            self.put(e, &unit, |e, out, _| {
                e.store(out, args, offset_of!(AttentionMergeArgs, out));
                let kernel = e.kernel(slot);
                e.call_kernel(kernel, args);
            });
        });
    }
}

/// Copies a tile of f32 rows to bf16 rows.
fn rounded(e: &mut Emit<'_, '_>, tile: Value, out: Value, rows: Value, columns: u64, stride: u64) {
    debug_assert_eq!(e.b.func.dfg.value_type(rows), I64);
    let (zero, blocks) = (e.int(0), e.int(columns / 16));
    e.each(zero, rows, |e, t| {
        let (from, to) = (e.element(tile, t, columns * 4), e.element(out, t, stride));
        e.each(zero, blocks, |e, block| {
            let (from, to) = (e.element(from, block, 64), e.element(to, block, 32));
            let x = e.load_block(from, false);
            e.store_block(x, to, true);
        });
    });
}
