//! Reading functions: parameters, weights, instructions. Names are resolved at once, so a value is defined above where it is read.

use super::recipe::recipe;
use super::scan::{Result, Scanner};
use crate::build;
use crate::infer;
use crate::module::{Func, Inst, LayerRun, Operand, ValueId, ValueInfo, Weight, WeightId};
use crate::op::{Attr, AttrKind, OpKind};
use crate::types::{Dim, Type};
use std::collections::BTreeMap;

const VALUE: &str = "a value `%name`";
const OPERAND: &str = "a value `%name` or a weight `@name`";

/// A function under construction, with its names.
struct Reader {
    func: Func,
    values: BTreeMap<String, ValueId>,
    weights: BTreeMap<String, WeightId>,
}

/// A function, with `func` read.
pub(super) fn func(scan: &mut Scanner<'_>) -> Result<Func> {
    let name = scan.marked("@", "the name of a function `@name`")?;
    let func = Func { name, values: vec![], params: vec![], weights: vec![], body: vec![], results: vec![] };
    let mut reader = Reader { func, values: BTreeMap::new(), weights: BTreeMap::new() };
    scan.expect("(")?;
    while scan.peek("%") {
        let name = reader.new_value(scan)?;
        scan.expect(":")?;
        let ty = scan.ty()?;
        let id = reader.define(name, ty);
        reader.func.params.push(id);
        if !scan.eat(",") {
            break;
        }
    }
    scan.expect(")")?;
    scan.expect("{")?;
    while scan.eat_word("weight") {
        reader.weight(scan)?;
    }
    while !scan.eat_word("return") {
        reader.inst(scan)?;
    }
    while !scan.peek("}") {
        let result = reader.operand(scan)?;
        reader.func.results.push(result);
        if !scan.eat(",") {
            break;
        }
    }
    scan.expect("}")?;
    Ok(reader.func)
}

impl Reader {
    fn weight(&mut self, scan: &mut Scanner<'_>) -> Result<()> {
        let start = scan.place();
        let name = scan.marked("@", "a weight `@name`")?;
        let ty = if scan.eat(":") { Some(scan.ty()?) } else { None };
        scan.expect("=")?;
        let recipe = recipe(scan)?;
        let ty = match ty {
            Some(ty) => ty,
            None => recipe.ty().map_err(|e| scan.error_at(start, e, "a recipe that has a type"))?,
        };
        if self.weights.insert(name.clone(), WeightId(self.func.weights.len() as u32)).is_some() {
            return Err(scan.error_at(start, format!("@{name} is defined twice"), "another name"));
        }
        self.func.weights.push(Weight { name, ty, recipe });
        Ok(())
    }

    /// `%y = op %x, @w, attr=1 [@layer 0..2] : f32[s, 64]`
    fn inst(&mut self, scan: &mut Scanner<'_>) -> Result<()> {
        let start = scan.place();
        let mut names = Vec::new();
        while scan.peek("%") {
            names.push(self.new_value(scan)?);
            if !scan.eat(",") {
                scan.expect("=")?;
                break;
            }
        }
        let place = scan.place();
        let word = scan.word(if names.is_empty() { "an instruction or `return`" } else { "the name of an op" })?;
        let mut name = word.to_owned();
        if scan.eat(".") {
            name = format!("{name}.{}", scan.word("the name of an op")?);
        }
        let op = OpKind::from_name(&name).ok_or_else(|| scan.error_at(place, format!("found `{name}`"), "the name of an op"))?;
        let mut operands = Vec::new();
        let info = op.info();
        let mut more = scan.peek("%") || scan.peek("@") || (info.operands.is_empty() && !info.attrs.is_empty());
        while more && (scan.peek("%") || scan.peek("@")) {
            operands.push(self.operand(scan)?);
            more = scan.eat(",");
        }
        let mut attrs = Vec::new();
        while more {
            attrs.push(attr(scan, op)?);
            more = scan.eat(",");
        }
        let attrs = build::fill_attrs(op, &attrs).map_err(|e| scan.error_at(start, e, "the attributes of the op table"))?;
        let calls = if scan.eat("[") { calls(scan)? } else { vec![] };
        let types = if scan.eat(":") { types(scan)? } else { self.infer(scan, start, op, &operands, &attrs)? };
        if types.len() != names.len() {
            let found = format!("found {} values and {} types", names.len(), types.len());
            return Err(scan.error_at(start, found, "a type for each value"));
        }
        let results = names.into_iter().zip(types).map(|(name, ty)| self.define(name, ty)).collect();
        self.func.body.push(Inst { op, operands, attrs, results, calls });
        Ok(())
    }

    fn infer(&self, scan: &Scanner<'_>, start: usize, op: OpKind, operands: &[Operand], attrs: &[Attr]) -> Result<Vec<Type>> {
        if op.info().results == 0 {
            return Ok(vec![]);
        }
        let types: Vec<Type> = operands.iter().map(|o| self.func.ty(*o).clone()).collect();
        infer::infer(op, &types, attrs).map_err(|e| scan.error_at(start, e, "an instruction whose type can be worked out, or `: TYPE`"))
    }

    /// The name of a value that does not exist yet.
    fn new_value(&self, scan: &mut Scanner<'_>) -> Result<String> {
        let start = scan.place();
        let name = scan.marked("%", VALUE)?;
        if self.values.contains_key(&name) {
            return Err(scan.error_at(start, format!("%{name} is defined twice"), "another name"));
        }
        Ok(name)
    }
    fn define(&mut self, name: String, ty: Type) -> ValueId {
        let id = ValueId(self.func.values.len() as u32);
        self.values.insert(name.clone(), id);
        self.func.values.push(ValueInfo { name, ty });
        id
    }
    fn operand(&self, scan: &mut Scanner<'_>) -> Result<Operand> {
        let start = scan.place();
        if scan.peek("%") {
            let name = scan.marked("%", OPERAND)?;
            let id = self.values.get(&name).map(|id| Operand::Value(*id));
            id.ok_or_else(|| scan.error_at(start, format!("found %{name}"), "a value that is defined above"))
        } else {
            let name = scan.marked("@", OPERAND)?;
            let id = self.weights.get(&name).map(|id| Operand::Weight(*id));
            id.ok_or_else(|| scan.error_at(start, format!("found @{name}"), "a weight of the function"))
        }
    }
}

fn types(scan: &mut Scanner<'_>) -> Result<Vec<Type>> {
    let mut types = vec![scan.ty()?];
    while scan.eat(",") {
        types.push(scan.ty()?);
    }
    Ok(types)
}

/// `name=value`, the value read as the op table says.
fn attr(scan: &mut Scanner<'_>, op: OpKind) -> Result<(&'static str, Attr)> {
    let table = op.info().attrs;
    let names: Vec<&str> = table.iter().map(|(n, _)| *n).collect();
    let expected =
        if names.is_empty() { format!("no attribute: `{}` has none", op.name()) } else { format!("one of {}", names.join(", ")) };
    let start = scan.place();
    let word = scan.word(&expected)?;
    let found = table.iter().find(|(name, _)| *name == word);
    let Some((name, kind)) = found else { return Err(scan.error_at(start, format!("found `{word}`"), expected)) };
    scan.expect("=")?;
    let value = match kind {
        AttrKind::Int(_) => Attr::Int(scan.integer()?),
        AttrKind::Float(_) => Attr::float(scan.float64()?),
        AttrKind::Word(words, _) => Attr::Word(scan.name(&format!("one of {}", words.join(", ")))?),
        AttrKind::Dims => Attr::Dims(dims(scan)?),
    };
    Ok((name, value))
}

/// `[batch, 1, -1]`
fn dims(scan: &mut Scanner<'_>) -> Result<Vec<Dim>> {
    let mut list = Vec::new();
    scan.expect("[")?;
    while !scan.eat("]") {
        list.push(scan.dim()?);
        if !scan.eat(",") {
            scan.expect("]")?;
            break;
        }
    }
    Ok(list)
}

/// `@layer 0..4, @last 4..5]`
fn calls(scan: &mut Scanner<'_>) -> Result<Vec<LayerRun>> {
    let mut calls = Vec::new();
    loop {
        let func = scan.marked("@", "a function `@name` and a range of layers")?;
        let start = scan.place();
        let (first, end) = scan.range()?;
        let count = end.checked_sub(first).ok_or_else(|| scan.error_at(start, format!("found {first}..{end}"), "a range that goes up"))?;
        calls.push(LayerRun { func, first, count });
        if !scan.eat(",") {
            break;
        }
    }
    scan.expect("]")?;
    Ok(calls)
}
