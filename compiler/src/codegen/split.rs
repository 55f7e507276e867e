//! The static split of an iteration space among threads: thread `t` of `T` gets `n t / T .. n (t+1) / T` of `n` units.

use std::mem::offset_of;

use cranelift_codegen::ir::types::{F64, I64};
use cranelift_codegen::ir::{InstBuilder, Value};

use llamac_runtime::abi::StepContext;

use super::frame::Emit;

impl Emit<'_, '_> {
    /// First unit of this thread and first unit of the next.
    pub(super) fn split(&mut self, units: Value) -> (Value, Value) {
        let threads = self.context(offset_of!(StepContext, threads));
        let thread = self.thread;
        let low = self.b.ins().imul(units, thread);
        let high = self.b.ins().iadd(low, units);
        (self.div(low, threads), self.div(high, threads))
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
