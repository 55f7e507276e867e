//! How a tensor of an exporter's graph lies in the rows of a step. A value of ours is `[tokens, features..]`; the exporter's tensor has batch and
//! sequence as axes of their own, anywhere, and features split and joined as it likes. A view says which axis is what, so that reshapes and
//! transposes are bookkeeping and no ops.

use llamac_ir::module::ValueId;
use llamac_ir::types::Dim;

/// What an axis, or a part of one, runs over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Atom {
    /// Sequences of the batch.
    Batch,
    /// New tokens of a sequence.
    Seq,
    /// Feature `i` of [`View::feats`].
    Feat(usize),
    /// Copies: so many, all alike.
    Copies(usize),
}

/// A value of ours seen as a tensor of the exporter's.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The value: `[tokens, ..]`, its features one after the other in memory.
    pub(super) value: ValueId,
    /// Lengths of the features, outermost first.
    pub(super) feats: Vec<usize>,
    /// For each axis what it runs over, outermost first; nothing for an axis of length 1.
    pub(super) axes: Vec<Vec<Atom>>,
}

/// Symbols of batch and sequence.
#[derive(Debug, Clone)]
pub(super) struct Symbols {
    pub(super) batch: Dim,
    pub(super) seq: Dim,
}

impl Symbols {
    fn length(&self, atom: &Atom, feats: &[usize]) -> Dim {
        match atom {
            Atom::Batch => self.batch.clone(),
            Atom::Seq => self.seq.clone(),
            Atom::Feat(i) => feats[*i].into(),
            Atom::Copies(n) => (*n).into(),
        }
    }
}

impl View {
    /// `[batch, seq, features]` of a value that has one feature.
    pub(super) fn rows(value: ValueId, width: usize) -> View {
        View { value, feats: vec![width], axes: vec![vec![Atom::Batch], vec![Atom::Seq], vec![Atom::Feat(0)]] }
    }

    /// The same view of another value of that shape.
    pub(super) fn of(&self, value: ValueId) -> View {
        View { value, ..self.clone() }
    }

    /// Whether the last axis is all features in memory order, and nothing else is one.
    pub(super) fn is_rows(&self) -> bool {
        self.axes.last().is_some_and(|last| *last == (0..self.feats.len()).map(Atom::Feat).collect::<Vec<_>>())
    }

    /// Elements of a row.
    pub(super) fn width(&self) -> usize {
        self.feats.iter().product()
    }

    /// With all features joined to one, if [`View::is_rows`].
    pub(super) fn joined(&self, value: ValueId, width: usize) -> View {
        let mut axes = self.axes.clone();
        if let Some(last) = axes.last_mut() {
            *last = vec![Atom::Feat(0)];
        }
        View { value, feats: vec![width], axes }
    }

    /// With axis `i` what axis `perm[i]` was.
    pub(super) fn transposed(&self, perm: &[i64]) -> Option<View> {
        let axes = perm.iter().map(|p| self.axes.get(usize::try_from(*p).ok()?).cloned()).collect::<Option<Vec<_>>>()?;
        Some(View { axes, ..self.clone() })
    }

    /// In another shape of the same elements. `None` if an axis would begin inside what only memory could move.
    pub(super) fn reshaped(&self, shape: &[Dim], symbols: &Symbols) -> Option<View> {
        let one = Dim::int(1);
        let mut out = View { value: self.value, feats: self.feats.clone(), axes: Vec::new() };
        let mut atoms: Vec<Atom> = self.axes.iter().flatten().cloned().collect();
        atoms.reverse();
        for want in shape {
            let mut axis = Vec::new();
            let mut have = one.clone();
            while have != *want {
                let atom = atoms.pop()?;
                let next = have.mul(&symbols.length(&atom, &out.feats));
                match (want.exact_div(&next), &atom) {
                    (Some(_), _) => {
                        have = next;
                        axis.push(atom);
                    }
                    // The axis ends inside a feature: the feature becomes two.
                    (None, Atom::Feat(i)) => {
                        let (i, outer) = (*i, want.exact_div(&have)?.value()?);
                        let len = out.feats[i];
                        if outer < 2 || !len.is_multiple_of(outer) {
                            return None;
                        }
                        out.feats[i] = outer;
                        out.feats.insert(i + 1, len / outer);
                        let shift = |a: &mut Atom| {
                            if let Atom::Feat(n) = a
                                && *n > i
                            {
                                *n += 1;
                            }
                        };
                        out.axes.iter_mut().flatten().chain(&mut axis).chain(&mut atoms).for_each(shift);
                        atoms.push(Atom::Feat(i + 1));
                        axis.push(Atom::Feat(i));
                        have = want.clone();
                    }
                    _ => return None,
                }
            }
            out.axes.push(axis);
        }
        // What is left over has length 1.
        atoms.is_empty().then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> Symbols {
        Symbols { batch: Dim::sym("b"), seq: Dim::sym("s") }
    }
    fn shape(list: &[&str]) -> Vec<Dim> {
        let dim = |d: &&str| d.split('*').map(|p| p.parse().map_or(Dim::sym(p), Dim::int)).fold(Dim::int(1), |a, b| a.mul(&b));
        list.iter().map(dim).collect()
    }

    #[test]
    fn heads_are_split_turned_and_joined_again() {
        let rows = View::rows(ValueId(0), 24);
        let heads = rows.reshaped(&shape(&["b", "s", "6", "4"]), &symbols()).unwrap().transposed(&[0, 2, 1, 3]).unwrap();
        assert_eq!((heads.feats.as_slice(), heads.axes[1].as_slice(), heads.is_rows()), (&[6, 4][..], &[Atom::Feat(0)][..], false));
        let back = heads.transposed(&[0, 2, 1, 3]).unwrap().reshaped(&shape(&["b", "s", "24"]), &symbols()).unwrap();
        assert!(back.is_rows() && back.width() == 24);
        assert!(!heads.reshaped(&shape(&["b", "s", "24"]), &symbols()).is_some_and(|v| v.is_rows()));
    }

    #[test]
    fn batch_and_sequence_may_be_one_axis() {
        let flat = View::rows(ValueId(0), 8).reshaped(&shape(&["b*s", "8"]), &symbols()).unwrap();
        assert_eq!(flat.axes, [vec![Atom::Batch, Atom::Seq], vec![Atom::Feat(0)]]);
        let back = flat.reshaped(&shape(&["b", "1", "s", "8"]), &symbols()).unwrap();
        assert_eq!(back.axes[1], []);
        assert!(flat.reshaped(&shape(&["s", "b", "8"]), &symbols()).is_none());
    }
}
