//! Making ops from ops: what several files of this folder write several tensor ops with.

use super::super::bad;
use super::super::import::Importer;
use crate::diag::Result;
use llamac_ir::dtype::DType;
use llamac_ir::module::Operand;
use llamac_ir::op::{Attr, OpKind, TensorOp as T};
use llamac_ir::types::Dim;
use tract_onnx::pb::NodeProto;

/// Writes ops for one node; all get the name of its first output.
pub(super) struct Make<'a> {
    pub(super) i: &'a mut Importer,
    name: String,
}

impl<'a> Make<'a> {
    pub(super) fn new(i: &'a mut Importer, node: &NodeProto) -> Make<'a> {
        let name = node.output.iter().find(|o| !o.is_empty()).cloned().unwrap_or_default();
        Make { i, name }
    }
    pub(super) fn op(&mut self, op: T, operands: &[Operand], attrs: &[(&str, Attr)]) -> Result<Operand> {
        Ok(self.i.tensor(op, &self.name, operands, attrs)?.into())
    }
    /// Both results of an op that has two.
    pub(super) fn pair(&mut self, op: OpKind, x: Operand, attrs: &[(&str, Attr)]) -> Result<[Operand; 2]> {
        let made = self.i.f.ops(op, &self.name, &[x], attrs).map_err(|e| bad("the operands do not fit the op").found(e))?;
        match made[..] {
            [a, b] => Ok([a.into(), b.into()]),
            _ => Err(bad("an op has another number of results; this is a bug of llamac").found(made.len())),
        }
    }
    pub(super) fn un(&mut self, op: T, x: Operand) -> Result<Operand> {
        self.op(op, &[x], &[])
    }
    pub(super) fn bin(&mut self, op: T, a: Operand, b: Operand) -> Result<Operand> {
        self.op(op, &[a, b], &[])
    }
    /// With a number on the right.
    pub(super) fn with(&mut self, op: T, a: Operand, b: f64) -> Result<Operand> {
        let b = self.number(b, self.dtype(a))?;
        self.bin(op, a, b)
    }
    pub(super) fn number(&mut self, value: f64, dtype: DType) -> Result<Operand> {
        self.fill(vec![], value, dtype)
    }
    pub(super) fn fill(&mut self, shape: Vec<Dim>, value: f64, dtype: DType) -> Result<Operand> {
        let attrs = [("shape", Attr::Dims(shape)), ("value", Attr::float(value)), ("dtype", Attr::Word(dtype.name().to_owned()))];
        self.op(T::Fill, &[], &attrs)
    }
    /// Integers of 64 bits.
    pub(super) fn values(&mut self, shape: &[usize], values: &[i64]) -> Result<Operand> {
        let shape = Attr::Dims(shape.iter().map(|n| Dim::from(*n)).collect());
        self.op(T::Values, &[], &[("shape", shape), ("values", Attr::ints(values))])
    }
    pub(super) fn dtype(&self, x: Operand) -> DType {
        self.i.ty(x).dtype
    }
    pub(super) fn shape(&self, x: Operand) -> Vec<Dim> {
        self.i.ty(x).shape
    }
    /// Lengths that are numbers.
    pub(super) fn sizes(&self, x: Operand) -> Result<Vec<usize>> {
        let ty = self.i.ty(x);
        ty.sizes()
            .ok_or_else(|| bad("the op needs lengths that are numbers").found(ty).help("`llamac infer` runs the graph with given inputs"))
    }
    pub(super) fn cast(&mut self, x: Operand, to: DType) -> Result<Operand> {
        if self.dtype(x) == to { Ok(x) } else { self.op(T::Cast, &[x], &[("to", Attr::Word(to.name().to_owned()))]) }
    }
    /// Floats of less than 32 bits as f32: what is computed in several steps is rounded once at the end.
    pub(super) fn wide(&mut self, x: Operand) -> Result<Operand> {
        let dtype = self.dtype(x);
        if dtype.info().real && dtype.info().bits < 32 { self.cast(x, DType::F32) } else { Ok(x) }
    }
    pub(super) fn reshape(&mut self, x: Operand, shape: Vec<Dim>) -> Result<Operand> {
        if self.shape(x) == shape { Ok(x) } else { self.op(T::Reshape, &[x], &[("shape", Attr::Dims(shape))]) }
    }
    pub(super) fn expand(&mut self, x: Operand, shape: Vec<Dim>) -> Result<Operand> {
        if self.shape(x) == shape { Ok(x) } else { self.op(T::Expand, &[x], &[("shape", Attr::Dims(shape))]) }
    }
    pub(super) fn transpose(&mut self, x: Operand, perm: &[i64]) -> Result<Operand> {
        self.op(T::Transpose, &[x], &[("perm", Attr::ints(perm))])
    }
    pub(super) fn concat(&mut self, parts: &[Operand], axis: i64) -> Result<Operand> {
        self.op(T::Concat, parts, &[("axis", Attr::Int(axis))])
    }
    pub(super) fn slice(&mut self, x: Operand, axis: usize, start: i64, len: i64, step: i64) -> Result<Operand> {
        let attrs =
            [("axis", Attr::Int(axis as i64)), ("start", Attr::ints(&[start])), ("len", Attr::ints(&[len])), ("step", Attr::Int(step))];
        self.op(T::Slice, &[x], &attrs)
    }
    pub(super) fn reduce(&mut self, op: T, x: Operand, axes: &[i64]) -> Result<Operand> {
        self.op(op, &[x], &[("axes", Attr::ints(axes))])
    }
    /// `0 ..`, `len` of them.
    pub(super) fn range(&mut self, len: usize) -> Result<Operand> {
        self.op(T::Range, &[], &[("start", Attr::ints(&[0])), ("len", Attr::ints(&[len as i64]))])
    }
    /// An axis counted from the front.
    pub(super) fn axis(&self, axis: i64, x: Operand) -> Result<usize> {
        super::moving::axis_of(axis, self.shape(x).len())
    }
}
