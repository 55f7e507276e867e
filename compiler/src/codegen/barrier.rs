//! The barrier between regions: counts arrivals up, the last thread resets the count and raises the generation, the others spin on it and
//! after a while ask the runtime to yield.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{AtomicRmwOp, BlockArg, Function, InstBuilder, MemFlagsData, UserFuncName, Value};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use llamac_runtime::abi::{BARRIER_GENERATION, StepContext, Work};

use super::kernels::Kernels;
use super::{CodegenError, frame, isa};

/// Polls before the first call of `yield_now`: a few microseconds, longer than any balanced region leaves a thread waiting.
const SPINS: i64 = 2000;

/// Address of the count of a thread's [`Work`] at `work` that regions of a generation use.
pub(super) fn taken(b: &mut FunctionBuilder<'_>, work: Value, generation: Value) -> Value {
    let odd = b.ins().band_imm_u(generation, 1);
    let offset = b.ins().ishl_imm_u(odd, 3);
    b.ins().iadd(work, offset)
}

/// `barrier(ctx, thread)`.
pub(super) fn function(kernels: &mut Kernels<'_>, isa: &OwnedTargetIsa) -> Result<Function, CodegenError> {
    let yield_now = kernels.simple("yield_now")?;
    let flags = MemFlagsData::trusted();
    let mut func = Function::with_name_signature(UserFuncName::default(), isa::signature(2));
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut func, &mut context);
    let [ctx, thread] = frame::entry(&mut b);
    let kernel_signature = b.import_signature(isa::signature(1));
    let [enter, last, wait, poll, spin, rest, done] = std::array::from_fn(|_| b.create_block());

    let threads = b.ins().load(I64, flags, ctx, offset_of!(StepContext, threads) as i32);
    let alone = b.ins().icmp_imm_u(IntCC::UnsignedLessThanOrEqual, threads, 1);
    b.ins().brif(alone, done, &[], enter, &[]);

    b.switch_to_block(enter);
    let words = b.ins().load(I64, flags, ctx, offset_of!(StepContext, barrier) as i32);
    let generation = b.ins().iadd_imm_s(words, BARRIER_GENERATION as i64);
    // Read before arriving: afterwards it may be raised at any time.
    let before = b.ins().atomic_load(I64, flags, generation);
    let one = b.ins().iconst(I64, 1);
    // The count of taken work that the next region will use; the last that used it ended before the barrier before this one.
    let work = b.ins().load(I64, flags, ctx, offset_of!(StepContext, work) as i32);
    let own = b.ins().imul_imm_s(thread, size_of::<Work>() as i64);
    let own = b.ins().iadd(work, own);
    let next = b.ins().iadd(before, one);
    let slot = taken(&mut b, own, next);
    let nothing = b.ins().iconst(I64, 0);
    b.ins().atomic_store(flags, nothing, slot);
    let arrived = b.ins().atomic_rmw(I64, flags, AtomicRmwOp::Add, words, one);
    let arrived = b.ins().iadd(arrived, one);
    let is_last = b.ins().icmp(IntCC::Equal, arrived, threads);
    b.ins().brif(is_last, last, &[], wait, &[]);

    b.switch_to_block(last);
    let zero = b.ins().iconst(I64, 0);
    b.ins().atomic_store(flags, zero, words);
    b.ins().atomic_store(flags, next, generation);
    b.ins().jump(done, &[]);

    b.switch_to_block(wait);
    let spins = b.ins().iconst(I64, SPINS);
    b.ins().jump(poll, &[BlockArg::Value(spins)]);

    let left = b.append_block_param(poll, I64);
    b.switch_to_block(poll);
    let now = b.ins().atomic_load(I64, flags, generation);
    let same = b.ins().icmp(IntCC::Equal, now, before);
    b.ins().brif(same, spin, &[], done, &[]);

    b.switch_to_block(spin);
    let less = b.ins().iadd_imm_s(left, -1);
    let tired = b.ins().icmp_imm_s(IntCC::SignedLessThan, less, 0);
    b.ins().brif(tired, rest, &[], poll, &[BlockArg::Value(less)]);

    b.switch_to_block(rest);
    let table = b.ins().load(I64, flags, ctx, offset_of!(StepContext, kernels) as i32);
    let kernel = b.ins().load(I64, flags, table, (yield_now * 8) as i32);
    b.ins().call_indirect(kernel_signature, kernel, &[ctx]);
    // The count stays below zero, so that every further poll yields.
    b.ins().jump(poll, &[BlockArg::Value(less)]);

    b.switch_to_block(done);
    b.ins().return_(&[]);
    b.seal_all_blocks();
    b.finalize(isa.frontend_config());
    Ok(func)
}
