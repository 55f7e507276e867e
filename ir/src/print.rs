//! The text form of modules, functions and recipes: one op per line, types at the right, attributes with their default left out.
//! Reading it back is in `parse`; a function whose values are numbered in order of definition (as the builder does) reads back equal.

use crate::module::{Func, Inst, LayerRun, Module, Operand, ValueId};
use crate::op::{Attr, AttrKind, OpKind};
use crate::recipe::Recipe;
use std::fmt::{self, Display, Formatter, Write};

/// Types stand in this column, or right behind longer lines.
const TYPE_COLUMN: usize = 60;

impl Display for Module {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "module {} stage={}", name(&self.name), self.stage.name())?;
        for (symbol, low, high) in &self.dims {
            writeln!(f, "dim {} = {low}..{high}", name(symbol))?;
        }
        self.funcs.iter().try_for_each(|func| write!(f, "\n{func}"))
    }
}

impl Display for Func {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "func @{}(", name(&self.name))?;
        list(f, &self.params, |f, &p| write!(f, "{}: {}", value(self, p), value_type(self, p)))?;
        f.write_str(") {\n")?;
        for w in &self.weights {
            writeln!(f, "  weight @{}: {} = {}", name(&w.name), w.ty, w.recipe)?;
        }
        let lines: Vec<String> = self.body.iter().map(|i| inst(self, i)).collect();
        let typed = self.body.iter().zip(&lines).filter(|(i, _)| !i.results.is_empty());
        let column = typed.map(|(_, l)| l.chars().count()).max().unwrap_or(0).min(TYPE_COLUMN);
        for (i, line) in self.body.iter().zip(&lines) {
            if i.results.is_empty() {
                writeln!(f, "  {line}")?;
                continue;
            }
            write!(f, "  {line:<column$}  : ")?;
            list(f, &i.results, |f, &r| f.write_str(&value_type(self, r)))?;
            f.write_char('\n')?;
        }
        f.write_str(if self.results.is_empty() { "  return" } else { "  return " })?;
        list(f, &self.results, |f, &o| f.write_str(&operand(self, o)))?;
        f.write_str("\n}\n")
    }
}

/// An instruction without its types: `%n = rms_norm %x, @norm, eps=1e-5`.
pub fn inst(func: &Func, inst: &Inst) -> String {
    let mut out = String::new();
    for (i, r) in inst.results.iter().enumerate() {
        out += if i > 0 { ", " } else { "" };
        out += &value(func, *r);
    }
    out += if inst.results.is_empty() { "" } else { " = " };
    out += inst.op.name();
    let mut parts: Vec<String> = inst.operands.iter().map(|o| operand(func, *o)).collect();
    parts.extend(attributes(inst.op, &inst.attrs));
    if !parts.is_empty() {
        out += " ";
        out += &parts.join(", ");
    }
    if !inst.calls.is_empty() {
        let calls: Vec<String> = inst.calls.iter().map(LayerRun::to_string).collect();
        out += &format!(" [{}]", calls.join(", "));
    }
    out
}

/// Attributes as they are written, in the order of the op table, those with their default left out: `eps=1e-5`.
pub fn attributes(op: OpKind, attrs: &[Attr]) -> Vec<String> {
    let table = op.info().attrs;
    let shown = |(i, attr): (usize, &Attr)| match table.get(i) {
        Some((_, kind)) if is_default(*kind, attr) => None,
        found => Some(format!("{}={}", found.map_or("?", |(n, _)| n), Value(attr))),
    };
    attrs.iter().enumerate().filter_map(shown).collect()
}

/// `@layer 0..16`: the number behind the dots is not called.
impl Display for LayerRun {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "@{} {}..{}", name(&self.func), self.first, self.first.saturating_add(self.count))
    }
}

impl Display for Recipe {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Recipe::Source { name, ty } => write!(f, "{}: {ty}", quoted(name)),
            Recipe::Literal { shape, data } => {
                f.write_str("literal([")?;
                list(f, shape, |f, n| write!(f, "{n}"))?;
                f.write_str("]")?;
                data.iter().try_for_each(|x| {
                    f.write_str(", ")?;
                    f.write_str(&float32(*x))
                })?;
                f.write_str(")")
            }
            Recipe::Cast(dtype, of) => write!(f, "cast({dtype}, {of})"),
            Recipe::Concat(parts) => {
                f.write_str("concat(")?;
                list(f, parts, |f, p| write!(f, "{p}"))?;
                f.write_str(")")
            }
            Recipe::Stack(parts) => {
                f.write_str("stack(")?;
                list(f, parts, |f, p| write!(f, "{p}"))?;
                f.write_str(")")
            }
            Recipe::Transpose(of) => write!(f, "transpose({of})"),
            Recipe::PermuteRope(head, of) => write!(f, "permute_rope({head}, {of})"),
            Recipe::Rows(start, len, of) => write!(f, "rows({start}, {len}, {of})"),
            Recipe::ScaleColumns(of, by) => write!(f, "scale_columns({of}, {by})"),
            Recipe::ScaleRows(of, by) => write!(f, "scale_rows({of}, {by})"),
        }
    }
}

/// An attribute's value as it reads back.
struct Value<'a>(&'a Attr);

impl Display for Value<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Attr::Int(i) => write!(f, "{i}"),
            Attr::Float(bits) if f64::from_bits(*bits).is_nan() => write!(f, "nan({bits:x})"),
            Attr::Float(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Attr::Word(w) => f.write_str(&name(w)),
            Attr::Dims(_) => write!(f, "{}", self.0),
        }
    }
}

fn is_default(kind: AttrKind, attr: &Attr) -> bool {
    match (kind, attr) {
        (AttrKind::Int(Some(d)), Attr::Int(i)) => d == *i,
        (AttrKind::Float(Some(d)), Attr::Float(bits)) => d.to_bits() == *bits,
        (AttrKind::Word(words, true), Attr::Word(w)) => words.first() == Some(&w.as_str()),
        _ => false,
    }
}

/// The shortest text that reads back to the same bits.
fn float32(x: f32) -> String {
    if x.is_nan() { format!("nan({:x})", x.to_bits()) } else { format!("{x:?}") }
}

/// A name as it is, or in quotes if it has other characters than names usually have.
pub(crate) fn name(name: &str) -> String {
    if !name.is_empty() && name.chars().all(is_name_char) { name.to_owned() } else { quoted(name) }
}

/// Characters of a name that needs no quotes.
pub(crate) fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out += &format!("\\u{{{:x}}}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `%name`, also for an id that the function does not have.
fn value(func: &Func, id: ValueId) -> String {
    func.values.get(id.0 as usize).map_or_else(|| format!("%?{}", id.0), |v| format!("%{}", name(&v.name)))
}

fn value_type(func: &Func, id: ValueId) -> String {
    func.values.get(id.0 as usize).map_or_else(|| "?".to_owned(), |v| v.ty.to_string())
}

/// `%name` or `@name`, also for an id that the function does not have.
pub(crate) fn operand(func: &Func, operand: Operand) -> String {
    match operand {
        Operand::Value(v) => value(func, v),
        Operand::Weight(w) => func.weights.get(w.0 as usize).map_or_else(|| format!("@?{}", w.0), |w| format!("@{}", name(&w.name))),
    }
}

fn list<T>(f: &mut Formatter<'_>, items: &[T], each: impl Fn(&mut Formatter<'_>, &T) -> fmt::Result) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        f.write_str(if i > 0 { ", " } else { "" })?;
        each(f, item)?;
    }
    Ok(())
}
