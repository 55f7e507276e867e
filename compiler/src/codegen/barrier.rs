//! The barrier between regions: counts arrivals up, the last thread resets the count and raises the generation, the others spin on it and
//! after a while ask the runtime to yield.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{AtomicRmwOp, BlockArg, Function, InstBuilder, MemFlagsData, UserFuncName};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use llamac_runtime::abi::{BARRIER_GENERATION, StepContext};

use super::kernels::Kernels;
use super::{CodegenError, frame, isa};

/// Polls before the first call of `yield_now`: a few microseconds, longer than any balanced region leaves a thread waiting.
const SPINS: i64 = 2000;

/// `barrier(ctx)`.
pub(super) fn function(kernels: &mut Kernels<'_>, isa: &OwnedTargetIsa) -> Result<Function, CodegenError> {
    let yield_now = kernels.simple("yield_now")?;
    let flags = MemFlagsData::trusted();
    let mut func = Function::with_name_signature(UserFuncName::default(), isa::signature(1));
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut func, &mut context);
    let [ctx] = frame::entry(&mut b);
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
    let arrived = b.ins().atomic_rmw(I64, flags, AtomicRmwOp::Add, words, one);
    let arrived = b.ins().iadd(arrived, one);
    let is_last = b.ins().icmp(IntCC::Equal, arrived, threads);
    b.ins().brif(is_last, last, &[], wait, &[]);

    b.switch_to_block(last);
    let zero = b.ins().iconst(I64, 0);
    b.ins().atomic_store(flags, zero, words);
    let raised = b.ins().iadd(before, one);
    b.ins().atomic_store(flags, raised, generation);
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
