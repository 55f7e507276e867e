//! Rounding rows to int8: threads take ranges of rows, and of groups of columns when there is only one row.

use std::mem::offset_of;

use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::condcodes::IntCC;

use llamac_runtime::abi::QuantizeArgs;
use llamac_runtime::format::ACT_GROUP;

use super::CodegenError;
use super::frame::Emit;
use crate::lower::program::{BufferId, View};

pub(super) fn quantize(e: &mut Emit<'_, '_>, x: View, out: BufferId) -> Result<(), CodegenError> {
    let slot = e.kernels.simple("quantize_i8")?;
    let k = e.buffer(out).padded();
    let n = e.n_rows();
    let (zero, one, all) = (e.int(0), e.int(1), e.int(k.div_ceil(ACT_GROUP) as u64));
    let single = e.b.ins().icmp_imm_u(IntCC::Equal, n, 1);
    let units = e.b.ins().select(single, all, n);
    let (low, high) = e.split(units);
    let count = e.b.ins().isub(high, low);
    let row = e.b.ins().select(single, zero, low);
    let rows = e.b.ins().select(single, one, count);
    let first_group = e.b.ins().select(single, low, zero);
    let groups = e.b.ins().select(single, count, all);

    let (some, after) = (e.b.create_block(), e.b.create_block());
    let any = e.b.ins().icmp_imm_u(IntCC::NotEqual, count, 0);
    e.b.ins().brif(any, some, &[], after, &[]);
    e.b.switch_to_block(some);
    let args = e.arguments(size_of::<QuantizeArgs>());
    let from = e.row(x.buffer, row);
    let fields = [
        (e.add_int(from, (x.col * 4) as u64), offset_of!(QuantizeArgs, x)),
        (e.int(e.buffer(x.buffer).stride()), offset_of!(QuantizeArgs, x_stride)),
        (rows, offset_of!(QuantizeArgs, m)),
        (e.int(k as u64), offset_of!(QuantizeArgs, k)),
        (first_group, offset_of!(QuantizeArgs, first_group)),
        (groups, offset_of!(QuantizeArgs, groups)),
        (e.row(out, row), offset_of!(QuantizeArgs, out)),
        (e.int(e.buffer(out).stride()), offset_of!(QuantizeArgs, out_stride)),
    ];
    fields.into_iter().for_each(|(value, at)| e.store(value, args, at));
    let kernel = e.kernel(slot);
    e.call_kernel(kernel, args);
    e.b.ins().jump(after, &[]);
    e.b.switch_to_block(after);
    Ok(())
}
