//! Modules, functions and instructions as plain data. Building is in `build`, checking in `verify`, text in `print` and `parse`.

use crate::op::{Attr, OpKind, Stage};
use crate::recipe::Recipe;
use crate::types::{Dim, Type};

/// A value of a function: index into [`Func::values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

/// A weight of a function: index into [`Func::weights`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeightId(pub u32);

/// What an instruction reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operand {
    /// `%name`
    Value(ValueId),
    /// `@name`
    Weight(WeightId),
}

/// A whole model.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// Name, for people.
    pub name: String,
    /// What has been done to it.
    pub stage: Stage,
    /// Symbolic dimensions with their inclusive bounds, `("s", 1, 512)`.
    pub dims: Vec<(String, usize, usize)>,
    /// Functions; the entry is the one called `main`.
    pub funcs: Vec<Func>,
}

/// A function: SSA values, weights as recipes over named source tensors, straight-line code.
#[derive(Debug, Clone, PartialEq)]
pub struct Func {
    /// Name without `@`.
    pub name: String,
    /// Name and type of every value.
    pub values: Vec<ValueInfo>,
    /// Parameters, in order.
    pub params: Vec<ValueId>,
    /// Weights. In a layer function source names hold `{layer}`.
    pub weights: Vec<Weight>,
    /// Instructions in order.
    pub body: Vec<Inst>,
    /// What it returns.
    pub results: Vec<Operand>,
}

/// Name and type of a value.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueInfo {
    /// Name without `%`, unique in the function.
    pub name: String,
    /// Type.
    pub ty: Type,
}

/// A weight of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// Name without `@`, unique in the function.
    pub name: String,
    /// Type of the evaluated recipe.
    pub ty: Type,
    /// How it is made from source tensors.
    pub recipe: Recipe,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Inst {
    /// What it does.
    pub op: OpKind,
    /// What it reads.
    pub operands: Vec<Operand>,
    /// Attributes in the order of the op table; all of them, defaults filled in.
    pub attrs: Vec<Attr>,
    /// What it defines.
    pub results: Vec<ValueId>,
    /// For [`OpKind::Layers`]: the calls in order.
    pub calls: Vec<LayerRun>,
}

/// `count` calls of a layer function, for layers `first .. first + count`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRun {
    /// Name of the function.
    pub func: String,
    /// Number of the first layer: replaces `{layer}` in source names.
    pub first: usize,
    /// How many.
    pub count: usize,
}

impl Inst {
    /// The attribute of that name.
    ///
    /// # Panics
    /// If the op has no such attribute: a bug of the caller.
    pub fn attr(&self, name: &str) -> &Attr {
        let at = self.op.info().attrs.iter().position(|(n, _)| *n == name);
        &self.attrs[at.unwrap_or_else(|| panic!("`{}` has no attribute `{name}`", self.op.name()))]
    }
    /// An integer attribute as `usize`.
    pub fn int(&self, name: &str) -> usize {
        match self.attr(name) {
            Attr::Int(i) => usize::try_from(*i).unwrap_or_else(|_| panic!("`{name}` of `{}` is negative", self.op.name())),
            other => panic!("`{name}` of `{}` is {other}, not an integer", self.op.name()),
        }
    }
    /// An integer attribute of either sign.
    pub fn signed(&self, name: &str) -> i64 {
        match self.attr(name) {
            Attr::Int(i) => *i,
            other => panic!("`{name}` of `{}` is {other}, not an integer", self.op.name()),
        }
    }
    /// A list attribute.
    pub fn dims(&self, name: &str) -> &[Dim] {
        match self.attr(name) {
            Attr::Dims(list) => list,
            other => panic!("`{name}` of `{}` is {other}, not a list", self.op.name()),
        }
    }
    /// A float attribute.
    pub fn float(&self, name: &str) -> f64 {
        match self.attr(name) {
            Attr::Float(bits) => f64::from_bits(*bits),
            other => panic!("`{name}` of `{}` is {other}, not a float", self.op.name()),
        }
    }
    /// A word attribute.
    pub fn word(&self, name: &str) -> &str {
        match self.attr(name) {
            Attr::Word(w) => w,
            other => panic!("`{name}` of `{}` is {other}, not a word", self.op.name()),
        }
    }
}

impl Module {
    /// The function of that name.
    pub fn func(&self, name: &str) -> Option<&Func> {
        self.funcs.iter().find(|f| f.name == name)
    }
    /// The function of that name, to change it.
    pub fn func_mut(&mut self, name: &str) -> Option<&mut Func> {
        self.funcs.iter_mut().find(|f| f.name == name)
    }
}

impl Func {
    /// Type of an operand.
    pub fn ty(&self, operand: Operand) -> &Type {
        match operand {
            Operand::Value(v) => &self.values[v.0 as usize].ty,
            Operand::Weight(w) => &self.weights[w.0 as usize].ty,
        }
    }
    /// Index of the instruction that defines a value; `None` for a parameter.
    pub fn def(&self, value: ValueId) -> Option<usize> {
        self.body.iter().position(|inst| inst.results.contains(&value))
    }
    /// Numbers the values in the order in which they are defined and drops those that nothing defines: the numbering that the text form
    /// reads back to.
    pub fn renumber(&mut self) {
        let mut order: Vec<ValueId> = self.params.clone();
        order.extend(self.body.iter().flat_map(|inst| &inst.results));
        order.retain(|v| (v.0 as usize) < self.values.len());
        let mut number: Vec<Option<ValueId>> = vec![None; self.values.len()];
        let mut values = Vec::with_capacity(order.len());
        for old in order {
            if number[old.0 as usize].is_none() {
                number[old.0 as usize] = Some(ValueId(values.len() as u32));
                values.push(self.values[old.0 as usize].clone());
            }
        }
        self.values = values;
        // A value that is read but never defined gets a number out of range: the verifier says so.
        let renumber = |v: &mut ValueId| *v = number.get(v.0 as usize).copied().flatten().unwrap_or(ValueId(u32::MAX));
        let operand = |o: &mut Operand| {
            if let Operand::Value(v) = o {
                renumber(v);
            }
        };
        self.params.iter_mut().for_each(renumber);
        for inst in &mut self.body {
            inst.operands.iter_mut().for_each(operand);
            inst.results.iter_mut().for_each(renumber);
        }
        self.results.iter_mut().for_each(operand);
    }
}
