//! Operands and attributes of one instruction, looked at by kind: activations, matrices, vectors, integers. Which op wants what is in the
//! parent module.

use crate::dtype::DType;
use crate::op::{Attr, AttrKind, OpInfo, OpKind};
use crate::types::{Dim, Type};
use std::fmt;

/// Why an instruction has no type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The op and its operand or attribute.
    pub(crate) what: String,
    /// What is there; empty if there is nothing to show.
    pub(crate) found: String,
    /// What should be there.
    pub(crate) expected: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.found.is_empty() {
            write!(f, ": found {}", self.found)?;
        }
        if !self.expected.is_empty() {
            write!(f, "{}expected {}", if self.found.is_empty() { ": " } else { ", " }, self.expected)?;
        }
        Ok(())
    }
}

type Result<T> = std::result::Result<T, Mismatch>;

pub(super) struct Args<'a> {
    info: &'static OpInfo,
    operands: &'a [Type],
    attrs: &'a [Attr],
}

impl<'a> Args<'a> {
    /// Checks the number of operands and the kinds of the attributes.
    pub(super) fn new(op: OpKind, operands: &'a [Type], attrs: &'a [Attr]) -> Result<Args<'a>> {
        let info = op.info();
        let args = Args { info, operands, attrs };
        let most = if info.operands.iter().any(|n| n.ends_with('*')) { usize::MAX } else { info.operands.len() };
        let least = info.operands.iter().filter(|n| !n.ends_with(['?', '*'])).count();
        if operands.len() < least || operands.len() > most {
            return Err(Mismatch {
                what: format!("`{}`: number of operands", info.name),
                found: operands.len().to_string(),
                expected: info.operands.join(", "),
            });
        }
        if attrs.len() != info.attrs.len() {
            let names: Vec<&str> = info.attrs.iter().map(|(n, _)| *n).collect();
            return Err(Mismatch {
                what: format!("`{}`: number of attributes", info.name),
                found: attrs.len().to_string(),
                expected: if names.is_empty() { "none".to_owned() } else { names.join(", ") },
            });
        }
        for ((name, kind), attr) in info.attrs.iter().zip(attrs) {
            match (kind, attr) {
                (AttrKind::Int(_), Attr::Int(_)) | (AttrKind::Float(_), Attr::Float(_)) => {}
                (AttrKind::Word(words, _), Attr::Word(w)) if words.contains(&w.as_str()) => {}
                (AttrKind::Dims, Attr::Dims(_)) => {}
                (AttrKind::Dims, _) => return Err(args.attribute(name, attr, "a list of dimensions")),
                (AttrKind::Int(_), _) => return Err(args.attribute(name, attr, "an integer")),
                (AttrKind::Float(_), _) => return Err(args.attribute(name, attr, "a number")),
                (AttrKind::Word(words, _), _) => return Err(args.attribute(name, attr, format!("one of {}", words.join(", ")))),
            }
        }
        Ok(args)
    }

    /// An error without a found and expected.
    pub(super) fn refuse(&self, what: &str) -> Mismatch {
        Mismatch { what: what.to_owned(), found: String::new(), expected: String::new() }
    }
    /// An error about operand `i`.
    pub(super) fn operand(&self, i: usize, expected: impl fmt::Display) -> Mismatch {
        let name = self.info.operands.get(i).map_or("", |n| n.trim_end_matches(['?', '*']));
        Mismatch {
            what: format!("`{}`: operand `{name}`", self.info.name),
            found: self.operands[i].to_string(),
            expected: expected.to_string(),
        }
    }
    /// An error about an attribute.
    pub(super) fn attribute(&self, name: &str, found: impl fmt::Display, expected: impl fmt::Display) -> Mismatch {
        Mismatch { what: format!("`{}`: attribute `{name}`", self.info.name), found: found.to_string(), expected: expected.to_string() }
    }

    pub(super) fn has(&self, i: usize) -> bool {
        i < self.operands.len()
    }
    pub(super) fn ty(&self, i: usize) -> &'a Type {
        &self.operands[i]
    }

    /// Rows and width of `f32[rows, width]`, compared with those given.
    pub(super) fn activations(&self, i: usize, want: Option<(&Dim, usize)>) -> Result<(Dim, usize)> {
        let ty = self.ty(i);
        let fits = match (ty.dtype, ty.shape.as_slice(), ty.shape.last().and_then(Dim::value)) {
            (DType::F32, [rows, _], Some(width)) if width > 0 => Some((rows, width)),
            _ => None,
        };
        match (fits, want) {
            (Some((rows, width)), None) => Ok((rows.clone(), width)),
            (Some((rows, width)), Some(w)) if (rows, width) == w => Ok((rows.clone(), width)),
            (_, Some((rows, width))) => Err(self.operand(i, format!("f32[{rows}, {width}]"))),
            (None, None) => Err(self.operand(i, "f32[rows, columns] with a fixed number of columns")),
        }
    }
    /// Sizes of a matrix of real numbers `T[rows, columns]`.
    pub(super) fn matrix(&self, i: usize, columns: Option<usize>) -> Result<(usize, usize)> {
        let ty = self.ty(i);
        match ty.sizes().as_deref() {
            Some(&[n, k]) if ty.dtype.info().real && n > 0 && k > 0 && columns.is_none_or(|c| c == k) => Ok((n, k)),
            _ => {
                let columns = columns.map_or("columns".to_owned(), |c| c.to_string());
                Err(self.operand(i, format!("a matrix of real numbers T[rows, {columns}]")))
            }
        }
    }
    /// Length of a vector of plain floats.
    pub(super) fn vector(&self, i: usize, len: Option<usize>) -> Result<usize> {
        let ty = self.ty(i);
        match ty.sizes().as_deref() {
            Some(&[n]) if is_plain_float(ty.dtype) && n > 0 && len.is_none_or(|l| l == n) => Ok(n),
            _ => {
                let len = len.map_or("length".to_owned(), |l| l.to_string());
                Err(self.operand(i, format!("a vector of floats [{len}]")))
            }
        }
    }
    /// Length of `i32[rows]`, compared with that given.
    pub(super) fn ints(&self, i: usize, want: Option<&Dim>) -> Result<Dim> {
        let ty = self.ty(i);
        match (ty.dtype, ty.shape.as_slice()) {
            (DType::I32, [rows]) if want.is_none_or(|w| w == rows) => Ok(rows.clone()),
            _ => Err(self.operand(i, want.map_or("i32[rows]".to_owned(), |w| format!("i32[{w}]")))),
        }
    }
    /// An f32 tensor with at least one axis.
    pub(super) fn floats(&self, i: usize) -> Result<&'a Type> {
        let ty = self.ty(i);
        if ty.dtype == DType::F32 && !ty.shape.is_empty() { Ok(ty) } else { Err(self.operand(i, "f32 with at least one axis")) }
    }
    /// An f32 or i32 tensor with at least one axis.
    pub(super) fn floats_or_ints(&self, i: usize) -> Result<&'a Type> {
        let ty = self.ty(i);
        let fits = matches!(ty.dtype, DType::F32 | DType::I32) && !ty.shape.is_empty();
        if fits { Ok(ty) } else { Err(self.operand(i, "f32 or i32 with at least one axis")) }
    }
    /// Length of the last axis.
    pub(super) fn width(&self, i: usize) -> Result<usize> {
        self.ty(i).shape.last().and_then(Dim::value).ok_or_else(|| self.operand(i, "a fixed number of columns"))
    }
    /// Exactly this type.
    pub(super) fn same(&self, i: usize, want: &Type) -> Result<()> {
        if self.ty(i) == want { Ok(()) } else { Err(self.operand(i, want)) }
    }
    /// This type, or a vector of floats as long as its last axis.
    pub(super) fn same_or_vector(&self, i: usize, want: &Type, last: Option<usize>) -> Result<()> {
        let vector = last.is_some_and(|n| self.vector(i, Some(n)).is_ok());
        if vector || self.ty(i) == want {
            return Ok(());
        }
        let vector = last.map_or(String::new(), |n| format!(" or a vector of floats [{n}]"));
        Err(self.operand(i, format!("{want}{vector}")))
    }

    fn attr(&self, name: &str) -> Option<&'a Attr> {
        let at = self.info.attrs.iter().position(|(n, _)| *n == name)?;
        self.attrs.get(at)
    }
    /// An integer attribute that is not negative.
    pub(super) fn int(&self, name: &str) -> Result<usize> {
        match self.attr(name) {
            Some(Attr::Int(i)) => usize::try_from(*i).map_err(|_| self.attribute(name, i, "an integer that is not negative")),
            _ => Err(self.attribute(name, "nothing", "an integer")),
        }
    }
    /// An integer attribute of either sign.
    pub(super) fn signed(&self, name: &str) -> Result<i64> {
        match self.attr(name) {
            Some(Attr::Int(i)) => Ok(*i),
            _ => Err(self.attribute(name, "nothing", "an integer")),
        }
    }
    /// A word attribute.
    pub(super) fn word(&self, name: &str) -> Result<&'a str> {
        match self.attr(name) {
            Some(Attr::Word(w)) => Ok(w),
            _ => Err(self.attribute(name, "nothing", "a word")),
        }
    }
    /// A list attribute.
    pub(super) fn dims(&self, name: &str) -> Result<&'a [Dim]> {
        match self.attr(name) {
            Some(Attr::Dims(list)) => Ok(list),
            _ => Err(self.attribute(name, "nothing", "a list")),
        }
    }
    /// A list attribute of plain integers.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<i64>> {
        let list = self.dims(name)?;
        let numbers: Option<Vec<i64>> = list.iter().map(Dim::number).collect();
        numbers.ok_or_else(|| self.attribute(name, Attr::Dims(list.to_vec()), "plain integers"))
    }
    /// Number of operands.
    pub(super) fn len(&self) -> usize {
        self.operands.len()
    }
    /// An axis attribute of a tensor of so many axes; negative ones count from the end.
    pub(super) fn axis(&self, name: &str, axis: i64, rank: usize) -> Result<usize> {
        let from_end = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(from_end).ok().filter(|a| *a < rank).ok_or_else(|| self.attribute(name, axis, format!("an axis of {rank}")))
    }
    pub(super) fn positive(&self, name: &str) -> Result<usize> {
        match self.int(name)? {
            0 => Err(self.attribute(name, 0, "a positive integer")),
            n => Ok(n),
        }
    }
    /// A float attribute that is neither infinite nor NaN.
    pub(super) fn finite(&self, name: &str) -> Result<f64> {
        match self.attr(name) {
            Some(Attr::Float(bits)) if f64::from_bits(*bits).is_finite() => Ok(f64::from_bits(*bits)),
            Some(found) => Err(self.attribute(name, found, "a finite number")),
            None => Err(self.attribute(name, "nothing", "a number")),
        }
    }
    /// A float attribute that may stand under a square root.
    pub(super) fn epsilon(&self, name: &str) -> Result<f64> {
        let x = self.finite(name)?;
        if x >= 0.0 { Ok(x) } else { Err(self.attribute(name, x, "a number that is not negative")) }
    }
    /// The attribute `head_dim`, which must divide the width of operand `i`.
    pub(super) fn heads(&self, i: usize, width: usize) -> Result<usize> {
        let head = self.positive("head_dim")?;
        if width.is_multiple_of(head) { Ok(head) } else { Err(self.operand(i, format!("a multiple of head_dim={head} columns"))) }
    }
    /// `a * b`, or an error about `name`.
    pub(super) fn product(&self, name: &str, a: usize, b: usize) -> Result<usize> {
        let max = i64::MAX as usize;
        a.checked_mul(b).filter(|n| *n <= max).ok_or_else(|| self.attribute(name, a, "a smaller number"))
    }
}

/// Whether elements of that type are floats of their own, without scales.
pub(crate) fn is_plain_float(dtype: DType) -> bool {
    dtype.info().real && dtype.info().scale.is_none()
}
