//! What all emitted code uses: the region's parameters, loops, loads and stores, fields of the step context, kernel calls.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32X4, I32, I64};
use cranelift_codegen::ir::{
    BlockArg, Function, InstBuilder, MemFlagsData, SigRef, StackSlotData, StackSlotKind, Type, UserFuncName, Value,
};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use llamac_runtime::abi::{KvGroup, RowSet, SCRATCH_BYTES, StepContext};

use super::kernels::Kernels;
use super::{CodegenError, isa};
use crate::lower::program::{Buffer, BufferId, PlacedWeight, Program};

/// Emits one region.
pub(super) struct Emit<'a, 'p> {
    pub(super) b: FunctionBuilder<'a>,
    pub(super) program: &'p Program,
    pub(super) kernels: &'a mut Kernels<'p>,
    /// Index of the function in the program.
    pub(super) function: usize,
    /// Row set of the region.
    pub(super) set: usize,
    /// How often it iterates over the set.
    times: usize,
    /// `*const StepContext`.
    pub(super) ctx: Value,
    /// Number of this thread.
    pub(super) thread: Value,
    /// Address of the call's weights.
    pub(super) weights: Value,
    /// Byte offset of the call's cache in a page.
    pub(super) kv: Value,
    kernel_signature: SigRef,
}

/// Flags for data of the context: it never traps and is aligned.
const fn aligned() -> MemFlagsData {
    MemFlagsData::trusted()
}

/// Flags for 16-byte vectors, which may lie anywhere.
pub(super) const fn unaligned() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

/// Builds a function `(ctx, thread, weights, kv)` whose body `emit` makes.
pub(super) fn build<'p>(
    program: &'p Program,
    function: usize,
    (set, times): (usize, usize),
    kernels: &mut Kernels<'p>,
    isa: &OwnedTargetIsa,
    emit: impl FnOnce(&mut Emit<'_, 'p>) -> Result<(), CodegenError>,
) -> Result<Function, CodegenError> {
    let mut func = Function::with_name_signature(UserFuncName::default(), isa::signature(4));
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut func, &mut context);
    let [ctx, thread, weights, kv] = entry(&mut b);
    let kernel_signature = b.import_signature(isa::signature(1));
    let mut e = Emit { b, program, kernels, function, set, times, ctx, thread, weights, kv, kernel_signature };
    emit(&mut e)?;
    e.b.ins().return_(&[]);
    e.b.seal_all_blocks();
    e.b.finalize(isa.frontend_config());
    Ok(func)
}

/// Starts a function of `N` integers.
pub(super) fn entry<const N: usize>(b: &mut FunctionBuilder<'_>) -> [Value; N] {
    let block = b.create_block();
    b.append_block_params_for_function_params(block);
    b.switch_to_block(block);
    let params = b.block_params(block);
    std::array::from_fn(|i| params[i])
}

impl<'p> Emit<'_, 'p> {
    // Integers.

    pub(super) fn int(&mut self, n: u64) -> Value {
        self.b.ins().iconst(I64, n as i64)
    }
    pub(super) fn add(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().iadd(a, b)
    }
    pub(super) fn add_int(&mut self, a: Value, n: u64) -> Value {
        if n == 0 { a } else { self.b.ins().iadd_imm_s(a, n as i64) }
    }
    pub(super) fn mul_int(&mut self, a: Value, n: u64) -> Value {
        match n {
            1 => a,
            _ if n.is_power_of_two() => self.b.ins().ishl_imm_u(a, i64::from(n.trailing_zeros())),
            _ => self.b.ins().imul_imm_s(a, n as i64),
        }
    }
    pub(super) fn min(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().umin(a, b)
    }
    pub(super) fn max(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().umax(a, b)
    }
    /// Quotient and remainder by a constant, for numerators below 2^24: by multiplication, so that no division can trap.
    pub(super) fn div_rem_int(&mut self, a: Value, d: u64) -> (Value, Value) {
        debug_assert!(d > 0 && d < 1 << 8);
        if d == 1 {
            let zero = self.int(0);
            return (a, zero);
        }
        if d.is_power_of_two() {
            let q = self.b.ins().ushr_imm_u(a, i64::from(d.trailing_zeros()));
            let r = self.b.ins().band_imm_u(a, d as i64 - 1);
            return (q, r);
        }
        let magic = ((1u64 << 32) / d + 1) as i64;
        let wide = self.b.ins().imul_imm_s(a, magic);
        let q = self.b.ins().ushr_imm_u(wide, 32);
        let back = self.mul_int(q, d);
        (q, self.b.ins().isub(a, back))
    }

    // Memory.

    pub(super) fn load(&mut self, ty: Type, at: Value, offset: usize) -> Value {
        self.b.ins().load(ty, aligned(), at, offset as i32)
    }
    pub(super) fn load_u32(&mut self, at: Value, offset: usize) -> Value {
        let word = self.load(I32, at, offset);
        self.b.ins().uextend(I64, word)
    }
    pub(super) fn load4(&mut self, at: Value, offset: usize) -> Value {
        self.b.ins().load(F32X4, unaligned(), at, offset as i32)
    }
    pub(super) fn store(&mut self, value: Value, at: Value, offset: usize) {
        self.b.ins().store(unaligned(), value, at, offset as i32);
    }
    /// Element `i` of an array of `bytes`-byte elements.
    pub(super) fn element(&mut self, base: Value, i: Value, bytes: u64) -> Value {
        let offset = self.mul_int(i, bytes);
        self.add(base, offset)
    }

    // Control.

    /// `for i in (lo..hi).step_by(step)`, unsigned.
    pub(super) fn for_each(
        &mut self,
        lo: Value,
        hi: Value,
        step: Value,
        body: impl FnOnce(&mut Self, Value) -> Result<(), CodegenError>,
    ) -> Result<(), CodegenError> {
        let (head, inside, after) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let i = self.b.append_block_param(head, I64);
        self.b.ins().jump(head, &[BlockArg::Value(lo)]);
        self.b.switch_to_block(head);
        let more = self.b.ins().icmp(IntCC::UnsignedLessThan, i, hi);
        self.b.ins().brif(more, inside, &[], after, &[]);
        self.b.switch_to_block(inside);
        body(self, i)?;
        let next = self.b.ins().iadd(i, step);
        self.b.ins().jump(head, &[BlockArg::Value(next)]);
        self.b.switch_to_block(after);
        Ok(())
    }

    /// The same with step 1 and a body that cannot fail.
    pub(super) fn each(&mut self, lo: Value, hi: Value, body: impl FnOnce(&mut Self, Value)) {
        let one = self.int(1);
        self.each_by(lo, hi, one, body);
    }

    /// The same with a body that cannot fail.
    pub(super) fn each_by(&mut self, lo: Value, hi: Value, step: Value, body: impl FnOnce(&mut Self, Value)) {
        let done = self.for_each(lo, hi, step, |e, i| {
            body(e, i);
            Ok(())
        });
        debug_assert!(done.is_ok());
    }

    // The step context.

    /// A word of the context.
    pub(super) fn context(&mut self, offset: usize) -> Value {
        let ctx = self.ctx;
        self.load(I64, ctx, offset)
    }
    /// A word of the region's row set.
    pub(super) fn row_set(&mut self, set: usize, field: usize) -> Value {
        self.context(offset_of!(StepContext, rows) + set * size_of::<RowSet>() + field)
    }
    /// Number of rows of the region.
    pub(super) fn n_rows(&mut self) -> Value {
        let n = self.set_rows();
        self.mul_int(n, self.times as u64)
    }
    /// Number of rows of the region's row set.
    pub(super) fn set_rows(&mut self) -> Value {
        self.row_set(self.set, offset_of!(RowSet, n))
    }
    /// Group of KV pages of this function.
    pub(super) fn kv_group(&self) -> usize {
        self.program.functions[self.function].kv_group
    }
    /// Place of a position in the cache of this function: in a ring of one chunk, if its attention is chunked.
    pub(super) fn cache_place(&mut self, position: Value) -> Value {
        match self.program.kv.get(self.kv_group()).map_or(0, |kv| kv.chunk as u64) {
            0 => position,
            chunk if chunk.is_power_of_two() => self.b.ins().band_imm_u(position, chunk as i64 - 1),
            chunk => {
                let d = self.int(chunk);
                let chunks = self.div(position, d);
                let before = self.mul_int(chunks, chunk);
                self.b.ins().isub(position, before)
            }
        }
    }
    /// A word of the function's KV group.
    pub(super) fn kv_field(&mut self, field: usize) -> Value {
        self.context(offset_of!(StepContext, kv) + self.kv_group() * size_of::<KvGroup>() + field)
    }
    /// This thread's scratch.
    pub(super) fn scratch(&mut self) -> Value {
        let base = self.context(offset_of!(StepContext, scratch));
        let thread = self.thread;
        self.element(base, thread, SCRATCH_BYTES as u64)
    }
    pub(super) fn buffer(&self, id: BufferId) -> &'p Buffer {
        self.program.buffer(id)
    }
    /// Address of row `row` of a buffer.
    pub(super) fn row(&mut self, id: BufferId, row: Value) -> Value {
        let (offset, stride) = (self.buffer(id).offset, self.buffer(id).stride());
        let arena = self.context(offset_of!(StepContext, arena));
        let base = self.add_int(arena, offset);
        self.element(base, row, stride)
    }
    pub(super) fn weight(&self, i: usize) -> &'p PlacedWeight {
        &self.program.areas[self.program.functions[self.function].area].weights[i]
    }
    /// Address of a weight.
    pub(super) fn weight_address(&mut self, i: usize) -> Value {
        let (base, offset) = (self.weights, self.weight(i).offset);
        self.add_int(base, offset)
    }

    // Kernels.

    /// Stack space for a kernel's arguments.
    pub(super) fn arguments(&mut self, bytes: usize) -> Value {
        let data = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes as u32, 3);
        let slot = self.b.create_sized_stack_slot(data);
        self.b.ins().stack_addr(I64, slot, 0)
    }
    /// Address of the kernel in a slot of the table.
    pub(super) fn kernel(&mut self, slot: usize) -> Value {
        let table = self.context(offset_of!(StepContext, kernels));
        self.load(I64, table, slot * 8)
    }
    pub(super) fn call_kernel(&mut self, kernel: Value, arguments: Value) {
        let signature = self.kernel_signature;
        self.b.ins().call_indirect(signature, kernel, &[arguments]);
    }
}
