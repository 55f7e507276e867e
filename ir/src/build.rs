//! Building functions: values and weights get names and types, defaults are filled in, types come from inference. Checking a finished
//! module is in `verify`.

use crate::infer;
use crate::module::{Func, Inst, LayerRun, Operand, ValueId, ValueInfo, Weight, WeightId};
use crate::op::{Attr, AttrKind, OpKind};
use crate::recipe::Recipe;
use crate::types::Type;

/// Result of building: the error is a sentence for the developer of a front end or pass.
pub type Result<T> = std::result::Result<T, String>;

impl From<ValueId> for Operand {
    fn from(v: ValueId) -> Operand {
        Operand::Value(v)
    }
}

impl From<WeightId> for Operand {
    fn from(w: WeightId) -> Operand {
        Operand::Weight(w)
    }
}

/// Makes a [`Func`], instruction by instruction.
#[derive(Debug, Clone)]
pub struct FuncBuilder {
    func: Func,
}

impl FuncBuilder {
    /// An empty function.
    pub fn new(name: &str) -> FuncBuilder {
        let func = Func { name: name.to_owned(), values: vec![], params: vec![], weights: vec![], body: vec![], results: vec![] };
        FuncBuilder { func }
    }

    /// Continues a function that exists.
    pub fn from_func(func: Func) -> FuncBuilder {
        FuncBuilder { func }
    }

    /// What has been built so far.
    pub fn func(&self) -> &Func {
        &self.func
    }

    /// Adds a parameter.
    pub fn param(&mut self, name: &str, ty: Type) -> ValueId {
        let id = self.value(name, ty);
        self.func.params.push(id);
        id
    }

    /// Adds a weight; its type is that of the recipe.
    ///
    /// # Errors
    /// The recipe does not type.
    pub fn weight(&mut self, name: &str, recipe: Recipe) -> Result<WeightId> {
        let ty = recipe.ty().map_err(|e| format!("@{name}: {e}"))?;
        let name = unique(name, |n| self.func.weights.iter().any(|w| w.name == n));
        self.func.weights.push(Weight { name, ty, recipe });
        Ok(WeightId(self.func.weights.len() as u32 - 1))
    }

    /// Adds an instruction with one result.
    ///
    /// # Errors
    /// The operands do not fit the op, an attribute is missing, or the op has no result.
    pub fn op(&mut self, op: OpKind, name: &str, operands: &[Operand], attrs: &[(&str, Attr)]) -> Result<ValueId> {
        let results = self.push(op, name, operands, attrs)?;
        results.first().copied().ok_or_else(|| format!("`{}` has no result", op.name()))
    }

    /// Adds an instruction with any number of results; those behind the first are called `name.1` and so on.
    ///
    /// # Errors
    /// As [`FuncBuilder::op`], but for the last.
    pub fn ops(&mut self, op: OpKind, name: &str, operands: &[Operand], attrs: &[(&str, Attr)]) -> Result<Vec<ValueId>> {
        self.push(op, name, operands, attrs)
    }

    /// Adds an instruction without a result.
    ///
    /// # Errors
    /// As [`FuncBuilder::op`].
    pub fn effect(&mut self, op: OpKind, operands: &[Operand], attrs: &[(&str, Attr)]) -> Result<()> {
        self.push(op, "", operands, attrs).map(|_| ())
    }

    /// Adds calls of layer functions. `ty` is the type of the last call's result.
    ///
    /// # Errors
    /// Never today; callers treat it as the other builders.
    pub fn layers(&mut self, name: &str, operands: &[Operand], calls: Vec<LayerRun>, ty: Type) -> Result<ValueId> {
        let result = self.value(name, ty);
        self.func.body.push(Inst { op: OpKind::Layers, operands: operands.to_vec(), attrs: vec![], results: vec![result], calls });
        Ok(result)
    }

    /// Gives a symbol its one size, in everything that has been built so far.
    pub fn bind(&mut self, symbol: &str, size: usize) {
        let attrs = self.func.body.iter_mut().flat_map(|i| &mut i.attrs).filter_map(|a| if let Attr::Dims(d) = a { Some(d) } else { None });
        let shapes = self.func.values.iter_mut().map(|v| &mut v.ty.shape);
        for dim in shapes.chain(attrs).flatten() {
            *dim = dim.bound(symbol, size);
        }
    }

    /// Ends the function.
    pub fn finish(mut self, results: &[Operand]) -> Func {
        self.func.results = results.to_vec();
        self.func
    }

    fn push(&mut self, op: OpKind, name: &str, operands: &[Operand], attrs: &[(&str, Attr)]) -> Result<Vec<ValueId>> {
        let attrs = fill_attrs(op, attrs)?;
        let types: Vec<Type> = operands.iter().map(|o| self.func.ty(*o).clone()).collect();
        let types = infer::infer(op, &types, &attrs)?;
        let results = types.into_iter().map(|ty| self.value(name, ty)).collect::<Vec<_>>();
        self.func.body.push(Inst { op, operands: operands.to_vec(), attrs, results: results.clone(), calls: vec![] });
        Ok(results)
    }

    fn value(&mut self, name: &str, ty: Type) -> ValueId {
        let name = unique(name, |n| self.func.values.iter().any(|v| v.name == n));
        self.func.values.push(ValueInfo { name, ty });
        ValueId(self.func.values.len() as u32 - 1)
    }
}

/// `name`, or `name.1`, `name.2` ... if it is taken.
fn unique(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut out = name.to_owned();
    let mut n = 0;
    while taken(&out) {
        n += 1;
        out = format!("{name}.{n}");
    }
    out
}

/// Attributes in the order of the op table, defaults filled in.
///
/// # Errors
/// An attribute is unknown, missing, or of the wrong kind.
pub fn fill_attrs(op: OpKind, given: &[(&str, Attr)]) -> Result<Vec<Attr>> {
    let table = op.info().attrs;
    if let Some((name, _)) = given.iter().find(|(n, _)| table.iter().all(|(t, _)| t != n)) {
        return Err(format!("`{}` has no attribute `{name}`", op.name()));
    }
    table.iter().map(|(name, kind)| fill(op, name, *kind, given.iter().find(|(n, _)| n == name).map(|(_, a)| a))).collect()
}

fn fill(op: OpKind, name: &str, kind: AttrKind, given: Option<&Attr>) -> Result<Attr> {
    let wrong = |expected: &str, found: &Attr| format!("attribute `{name}` of `{}` must be {expected}, found {found}", op.name());
    match (kind, given) {
        (AttrKind::Int(_), Some(a @ Attr::Int(_))) | (AttrKind::Float(_), Some(a @ Attr::Float(_))) => Ok(a.clone()),
        (AttrKind::Float(_), Some(Attr::Int(i))) => Ok(Attr::float(*i as f64)),
        (AttrKind::Dims, Some(a @ Attr::Dims(_))) => Ok(a.clone()),
        (AttrKind::Dims, Some(a)) => Err(wrong("a list of dimensions", a)),
        (AttrKind::Word(words, _), Some(a @ Attr::Word(w))) if words.contains(&w.as_str()) => Ok(a.clone()),
        (AttrKind::Int(Some(d)), None) => Ok(Attr::Int(d)),
        (AttrKind::Float(Some(d)), None) => Ok(Attr::float(d)),
        (AttrKind::Word(words, true), None) => Ok(Attr::Word(words[0].to_owned())),
        (AttrKind::Int(_), Some(a)) => Err(wrong("an integer", a)),
        (AttrKind::Float(_), Some(a)) => Err(wrong("a number", a)),
        (AttrKind::Word(words, _), Some(a)) => Err(wrong(&format!("one of {}", words.join(", ")), a)),
        (_, None) => Err(format!("`{}` needs the attribute `{name}`", op.name())),
    }
}
