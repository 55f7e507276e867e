//! Attention regions: one unit is a tile of rows of one sequence and one KV head with its query heads. The kernel does the work; here
//! are its arguments and the rounding of its result.

use std::mem::offset_of;

use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};

use llamac_runtime::abi::{ATTENTION_TILE_ROWS, AttentionArgs, AttentionTile, KvGroup, RowSet, SCRATCH_BYTES};

use super::CodegenError;
use super::frame::Emit;
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
    let slot = e.kernels.attention(kv_format(a.kv.elem).name())?;
    let format = kv_format(a.kv.elem);
    let (heads, head_dim, group) = (a.kv.heads as u64, a.kv.head_dim as u64, a.group as u64);
    let columns = group * head_dim;
    let head_bytes = format.head_bytes(a.kv.head_dim) as u64;
    let (q, out) = (e.buffer(a.q.buffer), e.buffer(a.out));
    // An f32 result needs no tile.
    let direct = out.elem == Elem::F32;
    let most = SCRATCH_BYTES as u64 / 2 / (ATTENTION_TILE_ROWS as u64 * 4);
    if columns > most {
        let what = format!("attention with {group} query heads of {head_dim} for a key head: together they may have {most} columns");
        return Err(e.kernels.missing(what));
    }

    let args = e.arguments(size_of::<AttentionArgs>());
    let scratch = e.scratch();
    let kernel_scratch = e.add_int(scratch, SCRATCH_BYTES as u64 / 2);
    let out_stride = if direct { out.stride() } else { columns * 4 };
    let scale = e.b.ins().f32const(a.scale as f32);
    let fixed = [
        (e.int(q.stride()), offset_of!(AttentionArgs, q_stride)),
        (e.int(out_stride), offset_of!(AttentionArgs, out_stride)),
        (e.kv_field(offset_of!(KvGroup, base)), offset_of!(AttentionArgs, kv)),
        (e.kv_field(offset_of!(KvGroup, page_bytes)), offset_of!(AttentionArgs, page_bytes)),
        (e.int(group), offset_of!(AttentionArgs, group)),
        (e.int(head_dim), offset_of!(AttentionArgs, head_dim)),
        // A tile lies in one chunk, and a ring begins with the chunk's first key.
        (e.int(0), offset_of!(AttentionArgs, chunk)),
        (kernel_scratch, offset_of!(AttentionArgs, scratch)),
        (scale, offset_of!(AttentionArgs, scale)),
    ];
    fixed.into_iter().for_each(|(value, at)| e.store(value, args, at));

    let tiles = e.row_set(e.set, offset_of!(RowSet, tiles));
    let n_tiles = e.row_set(e.set, offset_of!(RowSet, n_tiles));
    let tables = e.kv_field(offset_of!(KvGroup, tables));
    let table_stride = e.kv_field(offset_of!(KvGroup, table_stride));
    let kernel = e.kernel(slot);
    // Head by head: later tiles see more keys, so a range of tiles would not be a fair share.
    let units = e.mul_int(n_tiles, heads);
    let (low, high) = e.split(units);
    e.each(low, high, |e, unit| {
        let head = e.div(unit, n_tiles);
        let before = e.b.ins().imul(head, n_tiles);
        let number = e.b.ins().isub(unit, before);
        let tile = e.element(tiles, number, size_of::<AttentionTile>() as u64);
        let row = e.load_u32(tile, offset_of!(AttentionTile, row));
        let rows = e.load_u32(tile, offset_of!(AttentionTile, rows));
        let position = e.load_u32(tile, offset_of!(AttentionTile, pos));
        let position = e.cache_place(position);
        let sequence = e.load_u32(tile, offset_of!(AttentionTile, slot));
        let line = e.b.ins().imul(sequence, table_stride);
        let table = e.element(tables, line, 4);
        let queries = e.row(a.q.buffer, row);
        let queries = e.add_int(queries, (a.q.col * 4) as u64);
        let queries = e.element(queries, head, columns * 4);
        let place = e.row(a.out, row);
        let place = e.element(place, head, columns * out.elem.bytes() as u64);
        let result = if direct { place } else { scratch };
        let kv = e.kv;
        let keys = e.element(kv, head, head_bytes);
        let values = e.add_int(keys, heads * head_bytes);
        let fields = [
            (queries, offset_of!(AttentionArgs, q)),
            (result, offset_of!(AttentionArgs, out)),
            (table, offset_of!(AttentionArgs, table)),
            (keys, offset_of!(AttentionArgs, k_offset)),
            (values, offset_of!(AttentionArgs, v_offset)),
            (rows, offset_of!(AttentionArgs, rows)),
            (position, offset_of!(AttentionArgs, pos)),
        ];
        fields.into_iter().for_each(|(value, at)| e.store(value, args, at));
        e.call_kernel(kernel, args);
        if !direct {
            rounded(e, scratch, place, rows, columns, out.stride());
        }
    });
    Ok(())
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
