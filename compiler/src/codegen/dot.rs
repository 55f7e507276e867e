//! Dot regions: each thread takes contiguous weight blocks, goes through them panel by panel and through the rows tile by tile, lets a kernel fill a tile in its scratch and does the segment's work on it while it is in the L1 cache.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};

use llamac_runtime::abi::{DotArgs, ROWS, SCRATCH_BYTES};

use super::CodegenError;
use super::frame::Emit;
use crate::lower::program::{BufferId, Segment, View, WeightForm};

/// Weight blocks per panel when there is one row: long sequential reads, and a result tile of 4 KB.
const DECODE_BLOCKS: u64 = 64;
/// Bytes of weights that a thread takes at a time when there is one row: read in some ten microseconds, so long may others wait for it.
const DECODE_CHUNK: u64 = 64 << 10;
/// Blocks that it takes at least: as many as kernels read side by side.
const DECODE_LEAST: u64 = 4;

/// How rows and blocks are tiled; values, because the number of rows is known only at run time.
struct Tiling {
    kernel: Value,
    /// Rows of a tile.
    rows: Value,
    /// Blocks of a panel, a multiple of the lanes.
    panel: Value,
    /// Blocks of one kernel call.
    call: Value,
}

/// What a dot region computes with.
struct Dot<'s> {
    x: View,
    segments: &'s [Segment],
    lanes: u64,
    format: &'static str,
    block_bytes: u64,
    /// Blocks of a matrix.
    blocks: u64,
    /// Kernel arguments, the constant ones filled in.
    args: Value,
}

/// Some rows of a dot region and the matrix that they are multiplied with.
struct Rows {
    /// Address of the matrix.
    w: Value,
    /// Number of the first row in the buffers.
    first: Value,
    /// How many.
    n: Value,
}

/// With `shared`, threads that have finished take from the others' shares; only one region between two barriers may do so.
pub(super) fn dot(e: &mut Emit<'_, '_>, weight: usize, x: View, segments: &[Segment], shared: bool) -> Result<(), CodegenError> {
    let dot = prepare(e, weight, x, segments)?;
    let rows = Rows { w: e.weight_address(weight), first: e.int(0), n: e.n_rows() };
    if !shared {
        let range = dot.share(e);
        return dot.rows(e, &rows, range);
    }
    let (units, lanes) = (e.int(dot.blocks / dot.lanes), dot.lanes);
    let chunk = dot.chunk(e, rows.n)?;
    e.take_chunks(units, chunk, |e, (low, high)| {
        let range = (e.mul_int(low, lanes), e.mul_int(high, lanes));
        dot.rows(e, &rows, range)
    })
}

/// Expert by expert, over the rows between its first place and that of the next.
pub(super) fn expert_dot(e: &mut Emit<'_, '_>, weight: usize, list: BufferId, x: View, segments: &[Segment]) -> Result<(), CodegenError> {
    let dot = prepare(e, weight, x, segments)?;
    let WeightForm::Matrix { experts, .. } = e.weight(weight).form else { return Ok(()) };
    let (zero, one, experts) = (e.int(0), e.int(1), e.int(experts as u64));
    let (starts, w) = (e.row(list, zero), e.weight_address(weight));
    let expert_bytes = e.int(dot.blocks * dot.block_bytes);
    let range = dot.share(e);
    e.for_each(zero, experts, one, |e, expert| {
        let at = e.element(starts, expert, 4);
        let (first, next) = (e.load_u32(at, 0), e.load_u32(at, 4));
        let n = e.b.ins().isub(next, first);
        let (some, after) = (e.b.create_block(), e.b.create_block());
        e.b.ins().brif(n, some, &[], after, &[]);
        e.b.switch_to_block(some);
        let offset = e.b.ins().imul(expert, expert_bytes);
        let rows = Rows { w: e.add(w, offset), first, n };
        dot.rows(e, &rows, range)?;
        e.b.ins().jump(after, &[]);
        e.b.switch_to_block(after);
        Ok(())
    })
}

fn prepare<'s>(e: &mut Emit<'_, '_>, weight: usize, x: View, segments: &'s [Segment]) -> Result<Dot<'s>, CodegenError> {
    let WeightForm::Matrix { format, rows, cols, n, k, .. } = e.weight(weight).form else {
        return Err(CodegenError::Unresolved { function: e.weight(weight).weight.name.clone(), what: "a dot with a vector".to_owned() });
    };
    let lanes = segments.first().map_or(1, |s| s.lanes) as u64;
    let k = cols.padded(k).next_multiple_of(format.k_unit);
    let blocks = (rows.padded(n) / ROWS) as u64;
    let args = e.arguments(size_of::<DotArgs>());
    let (stride, length) = (e.int(e.buffer(x.buffer).stride()), e.int(k as u64));
    e.store(stride, args, offset_of!(DotArgs, x_stride));
    e.store(length, args, offset_of!(DotArgs, k));
    Ok(Dot { x, segments, lanes, format: format.name, block_bytes: format.block_bytes(k) as u64, blocks, args })
}

impl Dot<'_> {
    /// This thread's share of the blocks.
    fn share(&self, e: &mut Emit<'_, '_>) -> (Value, Value) {
        let units = e.int(self.blocks / self.lanes);
        let (low, high) = e.split(units);
        (e.mul_int(low, self.lanes), e.mul_int(high, self.lanes))
    }

    /// Units (blocks that stand together) that a thread takes at a time: a panel of all rows, or a few blocks of a single one.
    fn chunk(&self, e: &mut Emit<'_, '_>, n_rows: Value) -> Result<Value, CodegenError> {
        let panel = e.kernels.dot(self.format)?.many.blocks.next_multiple_of(self.lanes);
        let decode = (DECODE_CHUNK / self.block_bytes).next_multiple_of(DECODE_LEAST).max(DECODE_LEAST).next_multiple_of(self.lanes);
        let single = e.b.ins().icmp_imm_u(IntCC::Equal, n_rows, 1);
        let (decode, panel) = (e.int(decode / self.lanes), e.int(panel / self.lanes));
        Ok(e.b.ins().select(single, decode, panel))
    }

    /// Some rows by the blocks of a range.
    fn rows(&self, e: &mut Emit<'_, '_>, rows: &Rows, range: (Value, Value)) -> Result<(), CodegenError> {
        let Dot { lanes, block_bytes, args, .. } = *self;
        let tiling = tiling(e, self.format, lanes, rows.n)?;
        let x_rows = e.row(self.x.buffer, rows.first);
        let x_rows = e.add_int(x_rows, (self.x.col * e.buffer(self.x.buffer).elem.bytes()) as u64);
        let x_stride = e.buffer(self.x.buffer).stride();
        let tile = e.scratch();
        let tile_stride = e.mul_int(tiling.panel, (ROWS * 4) as u64);
        e.store(tile_stride, args, offset_of!(DotArgs, out_stride));
        for segment in self.segments {
            let (first, end) = (e.int(segment.first as u64), e.int((segment.first + segment.blocks * segment.lanes) as u64));
            let (low, high) = (e.max(range.0, first), e.min(range.1, end));
            e.for_each(low, high, tiling.panel, |e, panel| {
                let left = e.b.ins().isub(high, panel);
                let width = e.min(tiling.panel, left);
                let w_panel = e.element(rows.w, panel, block_bytes);
                let inside = e.b.ins().isub(panel, first);
                let (block0, _) = e.div_rem_int(inside, lanes);
                let (zero, one) = (e.int(0), e.int(1));
                e.for_each(zero, rows.n, tiling.rows, |e, row| {
                    let left = e.b.ins().isub(rows.n, row);
                    let m = e.min(tiling.rows, left);
                    let x_tile = e.element(x_rows, row, x_stride);
                    e.store(m, args, offset_of!(DotArgs, m));
                    e.store(x_tile, args, offset_of!(DotArgs, x));
                    e.each_by(zero, width, tiling.call, |e, at| {
                        let left = e.b.ins().isub(width, at);
                        let blocks = e.min(tiling.call, left);
                        let w_call = e.element(w_panel, at, block_bytes);
                        let out = e.element(tile, at, (ROWS * 4) as u64);
                        e.store(w_call, args, offset_of!(DotArgs, w));
                        e.store(blocks, args, offset_of!(DotArgs, blocks));
                        e.store(out, args, offset_of!(DotArgs, out));
                        e.call_kernel(tiling.kernel, args);
                    });
                    let (result_blocks, _) = e.div_rem_int(width, lanes);
                    let row = e.add(rows.first, row);
                    e.for_each(zero, m, one, |e, t| {
                        let line = e.b.ins().imul(t, tile_stride);
                        let line = e.add(tile, line);
                        let at = e.add(row, t);
                        let addresses = e.segment_row(segment, at);
                        e.each(zero, result_blocks, |e, b| {
                            let block = e.add(block0, b);
                            let acc = e.element(line, b, lanes * (ROWS * 4) as u64);
                            e.segment_block(segment, &addresses, block, Some(acc));
                        });
                        Ok(())
                    })
                })
            })?;
        }
        Ok(())
    }
}

/// One row takes the kernel for one row and long panels; more rows take tiles. Both give the same bits per element.
fn tiling(e: &mut Emit<'_, '_>, format: &str, lanes: u64, n_rows: Value) -> Result<Tiling, CodegenError> {
    let picked = e.kernels.dot(format)?;
    let (one, many) = (picked.one, picked.many);
    let tile_panel = many.blocks.next_multiple_of(lanes);
    let decode_call = one.blocks.min(DECODE_BLOCKS);
    debug_assert!(many.m * tile_panel * ROWS as u64 * 4 <= SCRATCH_BYTES as u64);
    let single = e.b.ins().icmp_imm_u(IntCC::Equal, n_rows, 1);
    let choose = |e: &mut Emit<'_, '_>, a: u64, b: u64| {
        let (a, b) = (e.int(a), e.int(b));
        e.b.ins().select(single, a, b)
    };
    let rows = choose(e, 1, many.m);
    let panel = choose(e, DECODE_BLOCKS.next_multiple_of(lanes), tile_panel);
    let call = choose(e, decode_call, many.blocks);
    let (a, b) = (e.kernel(one.slot), e.kernel(many.slot));
    let kernel = e.b.ins().select(single, a, b);
    Ok(Tiling { kernel, rows, panel, call })
}
