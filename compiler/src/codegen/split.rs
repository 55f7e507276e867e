//! The split of an iteration space among threads: thread `t` of `T` gets `n t / T .. n (t+1) / T` of `n` units. Where a thread may be held
//! up (by memory, by neighbours on its core), those who have finished take from the shares of the others, chunk by chunk. Who computes an
//! element changes none of its bits.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F64, I64};
use cranelift_codegen::ir::{AtomicRmwOp, InstBuilder, MemFlagsData, Value};

use llamac_runtime::abi::{BARRIER_GENERATION, StepContext, Work};

use super::frame::Emit;
use super::{CodegenError, barrier};

/// Threads whose shares a thread looks at, its own the first: with many threads, looking at all would cost more than it brings.
const NEIGHBOURS: u64 = 8;

impl Emit<'_, '_> {
    /// First unit of this thread and first unit of the next.
    pub(super) fn split(&mut self, units: Value) -> (Value, Value) {
        let thread = self.thread;
        self.share(units, thread)
    }

    /// First unit of a thread and first unit of the next.
    fn share(&mut self, units: Value, thread: Value) -> (Value, Value) {
        let threads = self.context(offset_of!(StepContext, threads));
        let low = self.b.ins().imul(units, thread);
        let high = self.b.ins().iadd(low, units);
        (self.div(low, threads), self.div(high, threads))
    }

    /// Chunks of this thread's share, then of what others have not come to. For at most one region between two barriers.
    pub(super) fn take_chunks(
        &mut self,
        units: Value,
        chunk: Value,
        body: impl FnOnce(&mut Self, (Value, Value)) -> Result<(), CodegenError>,
    ) -> Result<(), CodegenError> {
        let flags = MemFlagsData::trusted();
        let (threads, work) = (self.context(offset_of!(StepContext, threads)), self.context(offset_of!(StepContext, work)));
        let words = self.context(offset_of!(StepContext, barrier));
        let generation = self.add_int(words, BARRIER_GENERATION as u64);
        let generation = self.b.ins().atomic_load(I64, flags, generation);
        let (zero, one, most) = (self.int(0), self.int(1), self.int(NEIGHBOURS));
        // A thread alone passes no barrier that would clear its count.
        let (clear, begin) = (self.b.create_block(), self.b.create_block());
        let alone = self.b.ins().icmp(IntCC::UnsignedLessThanOrEqual, threads, one);
        self.b.ins().brif(alone, clear, &[], begin, &[]);
        self.b.switch_to_block(clear);
        let own = barrier::taken(&mut self.b, work, generation);
        self.b.ins().atomic_store(flags, zero, own);
        self.b.ins().jump(begin, &[]);
        self.b.switch_to_block(begin);
        let looks = self.min(threads, most);
        self.for_each(zero, looks, one, |e, i| {
            let thread = e.thread;
            let other = e.add(thread, i);
            let wrapped = e.b.ins().isub(other, threads);
            let inside = e.b.ins().icmp(IntCC::UnsignedLessThan, other, threads);
            let other = e.b.ins().select(inside, other, wrapped);
            let (low, high) = e.share(units, other);
            let count = e.element(work, other, size_of::<Work>() as u64);
            let count = barrier::taken(&mut e.b, count, generation);
            let [look, take, run, after] = std::array::from_fn(|_| e.b.create_block());
            e.b.ins().jump(look, &[]);
            e.b.switch_to_block(look);
            // Without writing to it, where there is nothing left.
            let taken = e.b.ins().atomic_load(I64, flags, count);
            let at = e.add(low, taken);
            let left = e.b.ins().icmp(IntCC::UnsignedLessThan, at, high);
            e.b.ins().brif(left, take, &[], after, &[]);
            e.b.switch_to_block(take);
            let taken = e.b.ins().atomic_rmw(I64, flags, AtomicRmwOp::Add, count, chunk);
            let at = e.add(low, taken);
            let left = e.b.ins().icmp(IntCC::UnsignedLessThan, at, high);
            e.b.ins().brif(left, run, &[], after, &[]);
            e.b.switch_to_block(run);
            let end = e.add(at, chunk);
            let end = e.min(end, high);
            body(e, (at, end))?;
            e.b.ins().jump(look, &[]);
            e.b.switch_to_block(after);
            Ok(())
        })
    }

    /// Quotient of integers below 2^53 whose quotient is below 2^26: exact, because a quotient that is no integer is further from one
    /// than rounding can move it. An integer division would bring a trap along.
    pub(super) fn div(&mut self, a: Value, b: Value) -> Value {
        let a = self.b.ins().fcvt_from_sint(F64, a);
        let b = self.b.ins().fcvt_from_sint(F64, b);
        let q = self.b.ins().fdiv(a, b);
        self.b.ins().fcvt_to_sint_sat(I64, q)
    }
}
