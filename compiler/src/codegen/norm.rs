//! RMS norm of rows: sums of squares in f64 in a fixed order, the factor rounded once to f32.

use cranelift_codegen::ir::types::{F32, F32X4, F64, F64X2};
use cranelift_codegen::ir::{BlockArg, InstBuilder, Value, condcodes::IntCC, types::I64};

use super::frame::Emit;
use crate::lower::program::{BufferId, Elem, View};

/// As [`crate::lower::program::Body::Norm`].
pub(super) struct Norm {
    pub(super) x: View,
    pub(super) gamma: Option<usize>,
    pub(super) eps: f64,
    pub(super) groups: usize,
    pub(super) width: usize,
    pub(super) out: BufferId,
}

pub(super) fn norm(e: &mut Emit<'_, '_>, norm: &Norm) {
    let n = e.n_rows();
    let (low, high) = e.split(n);
    let out_elem = e.buffer(norm.out).elem;
    // Columns of one part of the row; the buffers are padded part by part.
    let part = e.buffer(norm.out).padded() / norm.groups;
    let gamma = norm.gamma.map(|g| e.weight_address(g));
    e.each(low, high, |e, row| {
        let x = e.row(norm.x.buffer, row);
        let x = e.add_int(x, (norm.x.col * 4) as u64);
        let out = e.row(norm.out, row);
        let (zero, groups, blocks) = (e.int(0), e.int(norm.groups as u64), e.int((part / 16) as u64));
        e.each(zero, groups, |e, group| {
            let x = e.element(x, group, (part * 4) as u64);
            let out = e.element(out, group, (part * out_elem.bytes()) as u64);
            let gamma = gamma.map(|g| e.element(g, group, (part * 4) as u64));
            let sum = sum_of_squares(e, x, part / 16);
            let width = e.b.ins().f64const(norm.width as f64);
            let eps = e.b.ins().f64const(norm.eps);
            let one = e.b.ins().f64const(1.0);
            let mean = e.b.ins().fdiv(sum, width);
            let mean = e.b.ins().fadd(mean, eps);
            let root = e.b.ins().sqrt(mean);
            let factor = e.b.ins().fdiv(one, root);
            let factor = e.b.ins().fdemote(F32, factor);
            let factor = e.b.ins().splat(F32X4, factor);
            e.each(zero, blocks, |e, block| {
                let from = e.element(x, block, 64);
                let mut y = e.load_block(from, false).map(|x| e.b.ins().fmul(x, factor));
                if let Some(gamma) = gamma {
                    let at = e.element(gamma, block, 64);
                    let g = e.load_block(at, false);
                    y = std::array::from_fn(|i| e.b.ins().fmul(y[i], g[i]));
                }
                let to = e.element(out, block, 16 * out_elem.bytes() as u64);
                e.store_block(y, to, out_elem == Elem::Bf16);
            });
        });
    });
}

/// Sum of squares of `blocks * 16` f32 as f64, in eight chains that are added pairwise at the end.
fn sum_of_squares(e: &mut Emit<'_, '_>, x: Value, blocks: usize) -> Value {
    let (head, inside, after) = (e.b.create_block(), e.b.create_block(), e.b.create_block());
    let i = e.b.append_block_param(head, I64);
    let sums: [Value; 4] = std::array::from_fn(|_| e.b.append_block_param(head, F64X2));
    let (start, end) = (e.int(0), e.int(blocks as u64 * 64));
    let zero = e.b.ins().f64const(0.0);
    let zero = e.b.ins().splat(F64X2, zero);
    let args = [start, zero, zero, zero, zero].map(BlockArg::Value);
    e.b.ins().jump(head, &args);
    e.b.switch_to_block(head);
    let more = e.b.ins().icmp(IntCC::UnsignedLessThan, i, end);
    e.b.ins().brif(more, inside, &[], after, &[]);
    e.b.switch_to_block(inside);
    let at = e.add(x, i);
    let mut next = sums;
    for part in 0..8 {
        // Two elements at a time: the row gap lets the last load read past the row.
        let two = e.load4(at, part * 8);
        let two = e.b.ins().fvpromote_low(two);
        let square = e.b.ins().fmul(two, two);
        next[part % 4] = e.b.ins().fadd(next[part % 4], square);
    }
    let i = e.add_int(i, 64);
    let args = [i, next[0], next[1], next[2], next[3]].map(BlockArg::Value);
    e.b.ins().jump(head, &args);
    e.b.switch_to_block(after);
    let a = e.b.ins().fadd(sums[0], sums[1]);
    let b = e.b.ins().fadd(sums[2], sums[3]);
    let sum = e.b.ins().fadd(a, b);
    let low = e.b.ins().extractlane(sum, 0u8);
    let high = e.b.ins().extractlane(sum, 1u8);
    debug_assert_eq!(e.b.func.dfg.value_type(low), F64);
    e.b.ins().fadd(low, high)
}
