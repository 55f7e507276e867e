//! Tensor types: a [`DType`] and dimensions that may be symbolic (`s` new tokens, `r` wanted rows). No inference is here.

use crate::dtype::DType;
use std::fmt;

/// A dimension: `constant + sum(factor * symbol)`. Almost always a number or one symbol.
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
    /// Its value if it has no symbols.
    pub fn value(&self) -> Option<usize> {
        if self.terms.is_empty() { usize::try_from(self.constant).ok() } else { None }
    }
    /// Its value with every symbol bound by `lookup`; `None` if one is unknown or the result negative or too large.
    pub fn eval(&self, lookup: &dyn Fn(&str) -> Option<usize>) -> Option<usize> {
        let mut total = self.constant;
        for (symbol, factor) in &self.terms {
            total = total.checked_add(factor.checked_mul(i64::try_from(lookup(symbol)?).ok()?)?)?;
        }
        usize::try_from(total).ok()
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
