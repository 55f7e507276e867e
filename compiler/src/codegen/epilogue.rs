//! Segments: evaluates an expression over sixteen columns of a row and puts the result in its place. Dots (on the tile that a
//! kernel left) and maps share this code, so a value has the same bits whichever way it is made.

use cranelift_codegen::ir::{InstBuilder, Value};

use super::frame::Emit;
use super::kv::CacheRow;
use super::math::Block;
use crate::lower::program::{BufferId, Elem, Expr, Segment, Sink, View};

/// What is known of one row of a segment.
pub(super) struct Row {
    /// Address of the row in each buffer that the segment names.
    buffers: Vec<(BufferId, Value)>,
    cache: Option<CacheRow>,
}

impl Emit<'_, '_> {
    /// Addresses of row `row` for a segment.
    pub(super) fn segment_row(&mut self, segment: &Segment, row: Value) -> Row {
        let mut ids = Vec::new();
        segment.expr.views(&mut |v| ids.push(v.buffer));
        if let Sink::Store(id) = segment.sink {
            ids.push(id);
        }
        ids.sort();
        ids.dedup();
        let buffers = ids.into_iter().map(|id| (id, self.row(id, row))).collect();
        Row { buffers, cache: self.cache_row(segment.sink, row) }
    }

    /// Does block `block` of the segment for a row; `tile` is the address of the dot's results for that block.
    pub(super) fn segment_block(&mut self, segment: &Segment, row: &Row, block: Value, tile: Option<Value>) {
        let x = self.expr(&segment.expr, row, block, tile);
        match (segment.sink, row.cache) {
            (Sink::Store(id), _) => {
                let at = self.columns(row, View { buffer: id, col: 0 }, block);
                self.store_block(x, at, self.buffer(id).elem == Elem::Bf16);
            }
            (_, Some(cache)) => self.cache_store(x, cache, block),
            _ => unreachable!("a cache sink has a cache row"),
        }
    }

    /// Address of the view's columns `16 block ..`.
    fn columns(&mut self, row: &Row, view: View, block: Value) -> Value {
        let base = row.buffers.iter().find(|b| b.0 == view.buffer).map(|b| b.1);
        let Some(base) = base else { unreachable!("every buffer of the segment was addressed") };
        let bytes = self.buffer(view.buffer).elem.bytes();
        let at = self.element(base, block, 16 * bytes as u64);
        self.add_int(at, (view.col * bytes) as u64)
    }

    fn view(&mut self, row: &Row, view: View, block: Value) -> Block {
        let at = self.columns(row, view, block);
        self.load_block(at, self.buffer(view.buffer).elem == Elem::Bf16)
    }

    fn expr(&mut self, expr: &Expr, row: &Row, block: Value, tile: Option<Value>) -> Block {
        match expr {
            Expr::Acc(lane) => {
                let Some(tile) = tile else { unreachable!("only dots have accumulators") };
                let at = self.add_int(tile, 64 * *lane as u64);
                self.load_block(at, false)
            }
            Expr::Load(view) => self.view(row, *view, block),
            Expr::Row(view) => {
                let zero = self.int(0);
                self.view(row, *view, zero)
            }
            Expr::Vector { weight, start, stride } => {
                let base = self.weight_address(*weight);
                let at = self.element(base, block, 4 * *stride as u64);
                let at = self.add_int(at, 4 * *start as u64);
                self.load_block(at, false)
            }
            Expr::Add(a, b) => {
                let (a, b) = (self.expr(a, row, block, tile), self.expr(b, row, block, tile));
                std::array::from_fn(|i| self.b.ins().fadd(a[i], b[i]))
            }
            Expr::Mul(a, b) => {
                let (a, b) = (self.expr(a, row, block, tile), self.expr(b, row, block, tile));
                std::array::from_fn(|i| self.b.ins().fmul(a[i], b[i]))
            }
            Expr::Silu(x) => self.expr(x, row, block, tile).map(|x| self.silu(x)),
            Expr::Round(x) => self.expr(x, row, block, tile).map(|x| self.round_bf16(x)),
            Expr::Rope { x, angles, head_dim } => {
                let x = self.expr(x, row, block, tile);
                let (_, part) = self.div_rem_int(block, (*head_dim / 16) as u64);
                let angles = self.view(row, *angles, part);
                std::array::from_fn(|i| self.rotate(x[i], angles[i]))
            }
            Expr::Keep { x, width } => {
                let x = self.expr(x, row, block, tile);
                let first = self.mul_int(block, 16);
                std::array::from_fn(|i| {
                    let first = self.add_int(first, 4 * i as u64);
                    self.keep(x[i], first, *width)
                })
            }
        }
    }
}
