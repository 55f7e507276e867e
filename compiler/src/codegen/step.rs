//! The entry and the functions between it and the regions: calls, barriers and the loop over the schedule.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{BlockArg, Function, InstBuilder, MemFlagsData, UserFuncName, Value};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use llamac_runtime::abi::{ScheduleEntry, StepContext};

use super::link::Symbol;
use super::{frame, isa};
use crate::lower::program::{self, Program, Step};

/// `step(ctx, thread)`. It ends with a barrier, so when one thread returns, all have done their part.
pub(super) fn step(program: &Program, isa: &OwnedTargetIsa) -> Function {
    let mut func = Function::with_name_signature(UserFuncName::default(), isa::signature(2));
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut func, &mut context);
    let [ctx, thread] = frame::entry(&mut b);
    let flags = MemFlagsData::trusted();
    let weights = b.ins().load(I64, flags, ctx, offset_of!(StepContext, weights) as i32);
    for step in &program.steps {
        match *step {
            Step::Run(function) => {
                let zero = b.ins().iconst(I64, 0);
                call(&mut b, Symbol::Function(function), &[ctx, thread, weights, zero]);
            }
            Step::Layers { first, count } => layers(&mut b, program, first, count, [ctx, thread, weights]),
        }
    }
    call(&mut b, Symbol::Barrier, &[ctx, thread]);
    b.ins().return_(&[]);
    b.seal_all_blocks();
    b.finalize(isa.frontend_config());
    func
}

fn call(b: &mut FunctionBuilder<'_>, symbol: Symbol, args: &[Value]) {
    let callee = symbol.import(b.func, args.len());
    b.ins().call(callee, args);
}

/// The loop over `count` entries of the schedule from `first` on.
fn layers(b: &mut FunctionBuilder<'_>, program: &Program, first: usize, count: usize, [ctx, thread, weights]: [Value; 3]) {
    let flags = MemFlagsData::trusted();
    let size = size_of::<ScheduleEntry>() as i64;
    let mut kinds: Vec<u64> = program.schedule[first..first + count].iter().map(|e| e.function).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let [head, inside, next, after] = std::array::from_fn(|_| b.create_block());
    let schedule = b.ins().load(I64, flags, ctx, offset_of!(StepContext, schedule) as i32);
    let start = b.ins().iadd_imm_s(schedule, first as i64 * size);
    let end = b.ins().iadd_imm_s(schedule, (first + count) as i64 * size);
    let entry = b.append_block_param(head, I64);
    b.ins().jump(head, &[BlockArg::Value(start)]);
    b.switch_to_block(head);
    let more = b.ins().icmp(IntCC::UnsignedLessThan, entry, end);
    b.ins().brif(more, inside, &[], after, &[]);

    b.switch_to_block(inside);
    let offset = b.ins().load(I64, flags, entry, offset_of!(ScheduleEntry, weights) as i32);
    let kv = b.ins().load(I64, flags, entry, offset_of!(ScheduleEntry, kv) as i32);
    let area = b.ins().iadd(weights, offset);
    let kind = b.ins().load(I64, flags, entry, offset_of!(ScheduleEntry, function) as i32);
    // A model has a handful of layer kinds: a chain of comparisons, with nothing at its end: `abi::SKIPPED`.
    for function in kinds {
        let (this, other) = (b.create_block(), b.create_block());
        let is = b.ins().icmp_imm_u(IntCC::Equal, kind, function as i64);
        b.ins().brif(is, this, &[], other, &[]);
        b.switch_to_block(this);
        call(b, Symbol::Function(function as usize), &[ctx, thread, area, kv]);
        b.ins().jump(next, &[]);
        b.switch_to_block(other);
    }
    b.ins().jump(next, &[]);
    b.switch_to_block(next);
    let following = b.ins().iadd_imm_s(entry, size);
    b.ins().jump(head, &[BlockArg::Value(following)]);
    b.switch_to_block(after);
}

/// A function of the step program: its regions in order, with barriers where they are needed.
pub(super) fn function(function: &program::Function, number: usize, isa: &OwnedTargetIsa) -> Function {
    let mut func = Function::with_name_signature(UserFuncName::default(), isa::signature(4));
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut func, &mut context);
    let params: [Value; 4] = frame::entry(&mut b);
    let barrier = Symbol::Barrier.import(b.func, 2);
    for (i, region) in function.regions.iter().enumerate() {
        if region.barrier {
            b.ins().call(barrier, &params[..2]);
        }
        call(&mut b, Symbol::Region(number, i), &params);
    }
    b.ins().return_(&[]);
    b.seal_all_blocks();
    b.finalize(isa.frontend_config());
    func
}
