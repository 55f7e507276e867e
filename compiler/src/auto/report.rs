//! The choice as text: one line for each kind of group, then sums.

use super::{Auto, FORMATS};
use std::collections::BTreeMap;
use std::fmt;

impl fmt::Display for Auto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: BTreeMap<(bool, &str, &[String]), Vec<usize>> = BTreeMap::new();
        for (i, site) in self.sites.iter().enumerate() {
            kinds.entry((site.layer.is_none(), &site.func, &site.weights)).or_default().push(i);
        }
        writeln!(f, "formats chosen (a group of matrices has one input), bytes, and the divergence that they are predicted to add")?;
        for ((_, func, weights), of) in kinds {
            for format in FORMATS {
                let with: Vec<usize> = of.iter().copied().filter(|i| self.sites[*i].format(self.solution.chosen[*i]) == format).collect();
                if with.is_empty() {
                    continue;
                }
                let choices = with.iter().map(|i| self.sites[*i].choices[self.solution.chosen[*i]]);
                let (bytes, loss) = choices.fold((0, 0.0), |(b, l), c| (b + c.bytes, l + c.loss));
                let layers: Vec<usize> = with.iter().filter_map(|i| self.sites[*i].layer).collect();
                let layers = if layers.is_empty() { String::new() } else { format!(" layers {}", ranges(&layers)) };
                let group = weights.join(" ");
                writeln!(f, "  {:<8} {bytes:>13} {loss:>10.2e}  @{func} {group}{layers}", format.name())?;
            }
        }
        let elements: u64 = self.sites.iter().map(|s| s.elements).sum();
        let milliseconds = self.bytes() as f64 / self.read_gbs / 1e6;
        writeln!(
            f,
            "  {} bytes, {:.3} bits for each of {elements} weights; reading them once takes {milliseconds:.3} ms",
            self.bytes(),
            self.bits_per_weight()
        )?;
        let gap = if self.solution.loss > 0.0 { (self.solution.loss / self.solution.bound.max(1e-300) - 1.0) * 100.0 } else { 0.0 };
        writeln!(
            f,
            "  divergence predicted {:.3e} ({:.3e} of it what int8 everywhere loses), measured {:.3e} on held-out text; the choice is within {gap:.1}% of the best",
            self.predicted, self.cache.base, self.measured
        )?;
        if self.others.is_empty() {
            return Ok(());
        }
        for (cache, what) in std::iter::once((&self.cache, "chosen")).chain(self.others.iter().map(|c| (c, "not chosen"))) {
            let name = cache.name.as_deref().unwrap_or_default();
            writeln!(f, "  KV cache {name}: {} bytes a sequence, int8 weights lose {:.3e} with it ({what})", cache.bytes, cache.base)?;
        }
        Ok(())
    }
}

/// `0-3,7`.
fn ranges(layers: &[usize]) -> String {
    let mut out: Vec<(usize, usize)> = Vec::new();
    for &layer in layers {
        match out.last_mut() {
            Some((_, last)) if *last + 1 == layer => *last = layer,
            _ => out.push((layer, layer)),
        }
    }
    let one = |&(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    out.iter().map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_written_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }
}
