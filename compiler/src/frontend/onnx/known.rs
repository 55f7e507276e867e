//! Small integer tensors whose values are known while importing, as sums and products of symbolic dimensions: what exporters compute shapes
//! with. Everything here is exact or refuses to know.

use llamac_ir::dtype::DType;
use llamac_ir::types::Dim;

/// A tensor of known values; truth values are 0 and 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<Dim>,
}

/// Largest tensor that is worked out element by element.
pub(super) const MOST: usize = 64;

impl Known {
    pub(super) fn scalar(value: Dim) -> Known {
        Known { dtype: DType::I64, shape: vec![], values: vec![value] }
    }
    pub(super) fn vector(values: Vec<Dim>) -> Known {
        Known { dtype: DType::I64, shape: vec![values.len()], values }
    }
    /// The one element of a scalar or of a tensor of one element.
    pub(super) fn single(&self) -> Option<&Dim> {
        if let [one] = self.values.as_slice() { Some(one) } else { None }
    }
    /// Plain integers, if all are.
    pub(super) fn numbers(&self) -> Option<Vec<i64>> {
        self.values.iter().map(Dim::number).collect()
    }
    /// `f` of every pair, broadcast for scalars and equal shapes.
    pub(super) fn zip(&self, other: &Known, dtype: DType, f: impl Fn(&Dim, &Dim) -> Option<Dim>) -> Option<Known> {
        let shape =
            if self.values.len() >= other.values.len() && self.shape.len() >= other.shape.len() { &self.shape } else { &other.shape };
        let count: usize = shape.iter().product();
        let at = |k: &Known, i: usize| match k.values.len() {
            1 => Some(0),
            n if n == count && k.shape == *shape => Some(i),
            _ => None,
        };
        let values = (0..count).map(|i| f(&self.values[at(self, i)?], &other.values[at(other, i)?])).collect::<Option<Vec<_>>>()?;
        Some(Known { dtype, shape: shape.clone(), values })
    }
}

/// Whether a dimension is at least 0 whatever its symbols are.
fn not_negative(d: &Dim) -> bool {
    d.constant >= 0 && d.terms.iter().all(|(_, n)| *n > 0)
}

/// `a == b`, if that does not depend on symbols.
pub(super) fn equal(a: &Dim, b: &Dim) -> Option<bool> {
    let difference = a.sub(b);
    match difference.number() {
        Some(n) => Some(n == 0),
        // A size is never a negative number.
        None if not_negative(&a.sub(b).add(&Dim::int(-1))) || not_negative(&b.sub(a).add(&Dim::int(-1))) => Some(false),
        None => None,
    }
}

/// `a <= b`, if that does not depend on symbols.
pub(super) fn at_most(a: &Dim, b: &Dim) -> Option<bool> {
    if not_negative(&b.sub(a)) {
        Some(true)
    } else if not_negative(&a.sub(b).add(&Dim::int(-1))) {
        Some(false)
    } else {
        None
    }
}

/// Quotient towards zero, if it does not depend on symbols or leaves nothing over.
pub(super) fn quotient(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a.number(), b.number()) {
        (_, Some(0)) => None,
        (Some(a), Some(b)) => Some(Dim::int(a.wrapping_div(b))),
        _ => a.exact_div(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_compared_only_where_their_sizes_do_not_matter() {
        let s = Dim::sym("s");
        assert_eq!(equal(&s, &s), Some(true));
        assert_eq!(equal(&s, &Dim::int(-1)), Some(false));
        assert_eq!(equal(&s, &Dim::int(1)), None);
        assert_eq!(equal(&s.add(&Dim::int(1)), &s), Some(false));
        assert_eq!(at_most(&s, &s.add(&Dim::sym("t"))), Some(true));
        assert_eq!(at_most(&s, &Dim::sym("t")), None);
        assert_eq!(quotient(&s.scale(6), &Dim::int(3)), Some(s.scale(2)));
        assert_eq!(quotient(&s, &Dim::int(2)), None);
    }
}
