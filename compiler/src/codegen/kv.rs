//! Writing K and V of a row into the page of its position (`runtime::format::KvFormat` has the layout).

use std::mem::offset_of;

use cranelift_codegen::ir::types::{I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Value};

use llamac_runtime::abi::{KvGroup, KvWriteArgs, PAGE_TOKENS, ROWS, RowSet};

use super::CodegenError;
use super::frame::Emit;
use super::map::with_rows;
use super::math::Block;
use crate::lower::kv_format;
use crate::lower::program::{Cache, Elem, Sink, View};

/// Where the elements of one row go: computed once per row.
#[derive(Clone, Copy)]
pub(super) struct CacheRow {
    /// Address of element 0 of head 0.
    base: Value,
    is_k: bool,
    cache: Cache,
}

/// Rows of K and V to int8 pages: a kernel does the work.
pub(super) fn write(e: &mut Emit<'_, '_>, k: View, v: View, cache: Cache) -> Result<(), CodegenError> {
    let slot = e.kernels.kv_write(kv_format(cache.elem).name())?;
    let args = e.arguments(size_of::<KvWriteArgs>());
    let (set, group) = (e.set, e.kv_group());
    let chunk = e.program.kv.get(group).map_or(0, |kv| kv.chunk as u64);
    with_rows(e, |e, low, m| {
        let (base, layer) = (e.kv_field(offset_of!(KvGroup, base)), e.kv);
        let pages = e.row_set(set, offset_of!(RowSet, page) + 8 * group);
        let positions = e.row_set(set, offset_of!(RowSet, pos));
        let [k_row, v_row] = [k, v].map(|x| {
            let row = e.row(x.buffer, low);
            e.add_int(row, (x.col * 4) as u64)
        });
        let fields = [
            (k_row, offset_of!(KvWriteArgs, k)),
            (e.int(e.buffer(k.buffer).stride()), offset_of!(KvWriteArgs, k_stride)),
            (v_row, offset_of!(KvWriteArgs, v)),
            (e.int(e.buffer(v.buffer).stride()), offset_of!(KvWriteArgs, v_stride)),
            (m, offset_of!(KvWriteArgs, m)),
            (e.add(base, layer), offset_of!(KvWriteArgs, base)),
            (e.element(pages, low, 8), offset_of!(KvWriteArgs, pages)),
            (e.element(positions, low, 4), offset_of!(KvWriteArgs, pos)),
            (e.int(chunk), offset_of!(KvWriteArgs, chunk)),
            (e.int(cache.heads as u64), offset_of!(KvWriteArgs, heads)),
            (e.int(cache.head_dim as u64), offset_of!(KvWriteArgs, head_dim)),
        ];
        fields.into_iter().for_each(|(value, at)| e.store(value, args, at));
        let kernel = e.kernel(slot);
        e.call_kernel(kernel, args);
    });
    Ok(())
}

impl Emit<'_, '_> {
    /// Place of row `row` in the cache, for a K or V sink.
    pub(super) fn cache_row(&mut self, sink: Sink, row: Value) -> Option<CacheRow> {
        let (cache, is_k) = match sink {
            Sink::CacheK(cache) => (cache, true),
            Sink::CacheV(cache) => (cache, false),
            Sink::Store(_) => return None,
        };
        let (set, group) = (self.set, self.kv_group());
        let format = kv_format(cache.elem);
        let (pair, d) = (format.pair() as u64, cache.head_dim as u64);
        let pool = self.kv_field(offset_of!(KvGroup, base));
        let pages = self.row_set(set, offset_of!(RowSet, page) + 8 * group);
        let page = self.element(pages, row, 8);
        let page = self.load(I64, page, 0);
        let positions = self.row_set(set, offset_of!(RowSet, pos));
        let position = self.element(positions, row, 4);
        let position = self.load_u32(position, 0);
        let position = self.cache_place(position);
        let token = self.b.ins().band_imm_u(position, PAGE_TOKENS as i64 - 1);
        let kv = self.kv;
        let base = self.add(pool, page);
        let base = self.add(base, kv);
        let base = if is_k {
            let (tile, lane) = self.div_rem_int(token, ROWS as u64);
            let base = self.element(base, tile, d / pair * ROWS as u64 * 4);
            self.element(base, lane, 4)
        } else {
            let (line, half) = self.div_rem_int(token, pair);
            let base = self.add_int(base, (cache.heads * format.head_bytes(cache.head_dim)) as u64);
            let base = self.element(base, line, d * 4);
            self.element(base, half, cache.elem.bytes() as u64)
        };
        Some(CacheRow { base, is_k, cache })
    }

    /// Writes sixteen columns, number `block` of the row.
    pub(super) fn cache_store(&mut self, x: Block, at: CacheRow, block: Value) {
        let cache = at.cache;
        let head_bytes = kv_format(cache.elem).head_bytes(cache.head_dim) as u64;
        let (head, part) = self.div_rem_int(block, (cache.head_dim / 16) as u64);
        let base = self.element(at.base, head, head_bytes);
        let line = (ROWS * 4) as u64;
        match (cache.elem, at.is_k) {
            // Columns are a line apart.
            (Elem::F32 | Elem::I32, true) => {
                let base = self.element(base, part, 16 * line);
                for (i, x) in x.into_iter().enumerate() {
                    for lane in 0..4u8 {
                        let x = self.b.ins().extractlane(x, lane);
                        self.store(x, base, (i * 4 + usize::from(lane)) * line as usize);
                    }
                }
            }
            (Elem::F32 | Elem::I32, false) => {
                let base = self.element(base, part, 64);
                self.store_block(x, base, false);
            }
            // Pairs of columns are a line apart.
            // int8 caches are written by `write`.
            (Elem::Bf16 | Elem::I8, true) => {
                let base = self.element(base, part, 8 * line);
                let halves = self.bf16_halves(x);
                for (i, eight) in halves.into_iter().enumerate() {
                    let pairs = self.cast(I32X4, eight);
                    for lane in 0..4u8 {
                        let pair = self.b.ins().extractlane(pairs, lane);
                        self.store(pair, base, (i * 4 + usize::from(lane)) * line as usize);
                    }
                }
            }
            // Columns are 4 bytes apart, the other token of the pair between them.
            (Elem::Bf16 | Elem::I8, false) => {
                let base = self.element(base, part, 64);
                let halves = self.bf16_halves(x);
                for (i, eight) in halves.into_iter().enumerate() {
                    for lane in 0..8u8 {
                        let x = self.b.ins().extractlane(eight, lane);
                        self.store(x, base, (i * 8 + usize::from(lane)) * 4);
                    }
                }
            }
        }
    }
}
