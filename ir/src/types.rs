//! Tensor types: a [`DType`] and dimensions that may be symbolic (`s` new tokens, `r` wanted rows). No inference is here.

use crate::dtype::DType;
use std::fmt;

/// A dimension: `constant + sum(factor * symbol)`. Almost always a number or one symbol. What is multiplied is one symbol, `batch*seq`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Dim {
    /// The part without symbols.
    pub constant: i64,
    /// `(symbol, factor)`, sorted by symbol, no zero factors.
    pub terms: Vec<(String, i64)>,
}

impl Dim {
    /// A symbol.
    pub fn sym(name: &str) -> Dim {
        Dim { constant: 0, terms: vec![(name.to_owned(), 1)] }
    }
    /// A number, which in lists of attributes may be negative.
    pub fn int(n: i64) -> Dim {
        Dim { constant: n, terms: Vec::new() }
    }
    /// Its number if it has no symbols, also a negative one.
    pub fn number(&self) -> Option<i64> {
        if self.terms.is_empty() { Some(self.constant) } else { None }
    }
    /// Its value if it has no symbols.
    pub fn value(&self) -> Option<usize> {
        if self.terms.is_empty() { usize::try_from(self.constant).ok() } else { None }
    }
    /// Its value with every symbol bound by `lookup`; `None` if one is unknown or the result negative or too large.
    pub fn eval(&self, lookup: &dyn Fn(&str) -> Option<usize>) -> Option<usize> {
        usize::try_from(self.eval_signed(lookup)?).ok()
    }
    /// As [`Dim::eval`], also for what is negative.
    pub fn eval_signed(&self, lookup: &dyn Fn(&str) -> Option<usize>) -> Option<i64> {
        let mut total = self.constant;
        for (symbol, factor) in &self.terms {
            let mut term = *factor;
            for part in symbol.split('*') {
                term = term.checked_mul(i64::try_from(lookup(part)?).ok()?)?;
            }
            total = total.checked_add(term)?;
        }
        Some(total)
    }
    /// With a number for one symbol.
    pub fn bound(&self, symbol: &str, size: usize) -> Dim {
        let mut out = Dim::int(self.constant);
        for (own, factor) in &self.terms {
            let term = own.split('*').map(|part| if part == symbol { Dim::from(size) } else { Dim::sym(part) });
            out = out.add(&term.fold(Dim::int(*factor), |product, part| product.mul(&part)));
        }
        out
    }
    /// Product with a number.
    pub fn scale(&self, n: i64) -> Dim {
        self.mul(&Dim::int(n))
    }
    /// Difference.
    pub fn sub(&self, other: &Dim) -> Dim {
        self.add(&other.scale(-1))
    }
    /// Product; what is multiplied becomes a symbol of sorted parts.
    pub fn mul(&self, other: &Dim) -> Dim {
        let all = |d: &Dim| std::iter::once((String::new(), d.constant)).chain(d.terms.iter().cloned()).collect::<Vec<_>>();
        let mut out = Dim::default();
        for (a, x) in all(self) {
            for (b, y) in all(other) {
                let mut parts: Vec<&str> = a.split('*').chain(b.split('*')).filter(|p| !p.is_empty()).collect();
                parts.sort_unstable();
                let factor = x.saturating_mul(y);
                out = match (parts.is_empty(), factor) {
                    (_, 0) => out,
                    (true, n) => Dim { constant: out.constant.saturating_add(n), terms: out.terms },
                    (false, n) => out.add(&Dim { constant: 0, terms: vec![(parts.join("*"), n)] }),
                };
            }
        }
        out
    }
    /// The quotient, if the division leaves nothing over and `by` is one term.
    pub fn exact_div(&self, by: &Dim) -> Option<Dim> {
        if self == by && *self != Dim::default() {
            return Some(Dim::int(1));
        }
        let (symbol, factor) = match (by.constant, by.terms.as_slice()) {
            (n, []) if n != 0 => ("", n),
            (0, [(symbol, n)]) => (symbol.as_str(), *n),
            _ => return None,
        };
        let mut out = Dim::default();
        for (own, n) in std::iter::once((String::new(), self.constant)).chain(self.terms.iter().cloned()).filter(|(_, n)| *n != 0) {
            let mut parts: Vec<&str> = own.split('*').filter(|p| !p.is_empty()).collect();
            for part in symbol.split('*').filter(|p| !p.is_empty()) {
                parts.remove(parts.iter().position(|p| *p == part)?);
            }
            if n % factor != 0 {
                return None;
            }
            let term =
                if parts.is_empty() { Dim::int(n / factor) } else { Dim { constant: 0, terms: vec![(parts.join("*"), n / factor)] } };
            out = out.add(&term);
        }
        Some(out)
    }
    /// Sum.
    pub fn add(&self, other: &Dim) -> Dim {
        let mut terms = self.terms.clone();
        for (symbol, factor) in &other.terms {
            match terms.binary_search_by(|(s, _)| s.cmp(symbol)) {
                Ok(at) => terms[at].1 += factor,
                Err(at) => terms.insert(at, (symbol.clone(), *factor)),
            }
        }
        terms.retain(|(_, factor)| *factor != 0);
        Dim { constant: self.constant + other.constant, terms }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim { constant: n as i64, terms: Vec::new() }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (symbol, factor) in &self.terms {
            let sign = if *factor < 0 {
                "-"
            } else if first {
                ""
            } else {
                "+"
            };
            f.write_str(sign)?;
            if factor.unsigned_abs() != 1 {
                write!(f, "{}*", factor.unsigned_abs())?;
            }
            f.write_str(symbol)?;
            first = false;
        }
        match (first, self.constant) {
            (true, c) => write!(f, "{c}"),
            (false, 0) => Ok(()),
            (false, c) => write!(f, "{c:+}"),
        }
    }
}

/// Type of a value or weight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; empty: a scalar.
    pub shape: Vec<Dim>,
}

impl Type {
    /// A type from parts: `Type::new(DType::F32, [Dim::sym("s"), 2048.into()])`.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = Dim>) -> Type {
        Type { dtype, shape: shape.into_iter().collect() }
    }
    /// A type without symbols.
    pub fn fixed(dtype: DType, shape: &[usize]) -> Type {
        Type::new(dtype, shape.iter().map(|&n| n.into()))
    }
    /// All dimensions, if none is symbolic.
    pub fn sizes(&self) -> Option<Vec<usize>> {
        self.shape.iter().map(Dim::value).collect()
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, dim) in self.shape.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}
