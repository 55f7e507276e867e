//! The choice of one option for each item under a budget: multiple-choice knapsack, by dynamic programming over sizes. What items, sizes and
//! losses are is the caller's business.

/// What an item may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    /// Bytes.
    pub(super) bytes: u64,
    /// What it loses.
    pub(super) loss: f64,
}

/// What may not be exceeded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Limit {
    /// The sum of bytes; the least loss is wanted.
    Bytes(u64),
    /// The sum of losses; the fewest bytes are wanted.
    Loss(f64),
}

/// An option for each item.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Solution {
    /// Index of the option of each item.
    pub(super) chosen: Vec<usize>,
    /// Sum of bytes.
    pub(super) bytes: u64,
    /// Sum of losses.
    pub(super) loss: f64,
    /// No choice within the same bytes loses less than this: the bound of the relaxation in which options may be mixed.
    pub(super) bound: f64,
}

/// Steps that sizes are counted in: sums are rounded up to the next one, so a solution always keeps to its budget.
const STEPS: usize = 1 << 14;

/// The best choice; `None`: nothing keeps to the limit.
pub(super) fn solve(items: &[Vec<Choice>], limit: Limit) -> Option<Solution> {
    let least = |of: &Vec<Choice>| of.iter().map(|c| c.bytes).min();
    let most = |of: &Vec<Choice>| of.iter().map(|c| c.bytes).max();
    let floor: u64 = items.iter().map(least).sum::<Option<u64>>()?;
    let ceiling: u64 = items.iter().map(most).sum::<Option<u64>>()?;
    let room = match limit {
        Limit::Bytes(bytes) => bytes.min(ceiling).checked_sub(floor)?,
        Limit::Loss(_) => ceiling - floor,
    };
    // Each item is counted from its smallest option, in steps that are as fine as the sizes themselves if these allow it.
    let unit =
        items.iter().filter_map(|of| Some((of, least(of)?))).flat_map(|(of, low)| of.iter().map(move |c| c.bytes - low)).fold(0, gcd);
    let step = unit.max(1) * (room / unit.max(1)).div_ceil(STEPS as u64).max(1);
    let width = (room / step) as usize + 1;
    let mut best = vec![0.0f64; width];
    let mut took: Vec<Vec<u8>> = Vec::with_capacity(items.len());
    for of in items {
        let low = least(of)?;
        let (mut next, mut by) = (vec![f64::INFINITY; width], vec![u8::MAX; width]);
        for (i, choice) in of.iter().enumerate() {
            let cost = (choice.bytes - low).div_ceil(step) as usize;
            for at in cost..width {
                let loss = best[at - cost] + choice.loss;
                if loss < next[at] {
                    (next[at], by[at]) = (loss, i as u8);
                }
            }
        }
        best = next;
        took.push(by);
    }
    let mut at = match limit {
        Limit::Bytes(_) => width - 1,
        Limit::Loss(loss) => best.iter().position(|l| *l <= loss)?,
    };
    if !best[at].is_finite() {
        return None;
    }
    let mut chosen = vec![0; items.len()];
    for (i, of) in items.iter().enumerate().rev() {
        chosen[i] = usize::from(took[i][at]);
        at -= (of[chosen[i]].bytes - least(of)?).div_ceil(step) as usize;
    }
    let sum = |f: &dyn Fn(&Choice) -> f64| items.iter().zip(&chosen).map(|(of, c)| f(&of[*c])).sum::<f64>();
    let bytes: u64 = items.iter().zip(&chosen).map(|(of, c)| of[*c].bytes).sum();
    let loss = sum(&|c| c.loss);
    let within = if let Limit::Bytes(bytes) = limit { bytes } else { bytes };
    Some(Solution { chosen, bytes, loss, bound: relaxed(items, within).min(loss) })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The largest value of the Lagrangian over the price of a byte: below every choice within `bytes`.
fn relaxed(items: &[Vec<Choice>], bytes: u64) -> f64 {
    let at = |price: f64| -> f64 {
        let cheapest = |of: &Vec<Choice>| of.iter().map(|c| c.loss + price * c.bytes as f64).fold(f64::INFINITY, f64::min);
        items.iter().map(cheapest).sum::<f64>() - price * bytes as f64
    };
    // It is concave in the price, so the best price lies between neighbours of the best one on a grid; powers of two span every scale.
    let grid: Vec<f64> = (-120..20).map(|e| 2f64.powi(e)).collect();
    let best = (0..grid.len()).max_by(|a, b| at(grid[*a]).total_cmp(&at(grid[*b]))).unwrap_or(0);
    let (mut low, mut high) = (grid[best.saturating_sub(1)], grid[(best + 1).min(grid.len() - 1)]);
    for _ in 0..100 {
        let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if at(a) < at(b) { low = a } else { high = b }
    }
    at(low).max(at(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(seed: u64, count: usize) -> Vec<Vec<Choice>> {
        let mut state = seed;
        let mut next = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % 100
        };
        let item = |_| {
            let (bytes, loss) = (next() + 10, (next() + 1) as f64);
            (1..4u64).map(|i| Choice { bytes: bytes * (i + 3), loss: loss / (i * i) as f64 }).collect()
        };
        (0..count).map(item).collect()
    }

    /// Every combination.
    fn all(items: &[Vec<Choice>]) -> Vec<(u64, f64)> {
        let mut sums = vec![(0, 0.0)];
        for of in items {
            sums = sums.iter().flat_map(|(b, l)| of.iter().map(move |c| (b + c.bytes, l + c.loss))).collect();
        }
        sums
    }

    #[test]
    fn the_best_of_all_combinations_is_found() {
        for seed in 0..20 {
            let items = items(seed, 6);
            let every = all(&items);
            let (low, high) = (every.iter().map(|s| s.0).min().unwrap(), every.iter().map(|s| s.0).max().unwrap());
            for part in 0..5 {
                let budget = low + (high - low) * part / 4;
                let best = every.iter().filter(|s| s.0 <= budget).map(|s| s.1).fold(f64::INFINITY, f64::min);
                let found = solve(&items, Limit::Bytes(budget)).unwrap();
                assert!(found.bytes <= budget && (found.loss - best).abs() < 1e-9, "{seed} {part}: {found:?}, best {best}");
                assert!(found.bound <= best + 1e-9 && found.bound > 0.5 * best, "{seed} {part}: bound {} of {best}", found.bound);
                let found = solve(&items, Limit::Loss(best)).unwrap();
                let fewest = every.iter().filter(|s| s.1 <= best + 1e-9).map(|s| s.0).min().unwrap();
                assert!(found.loss <= best + 1e-9 && found.bytes == fewest, "{seed} {part}: {found:?}, fewest {fewest}");
            }
        }
    }

    #[test]
    fn large_sizes_keep_to_the_budget_and_come_close_to_the_bound() {
        let mut items = items(3, 200);
        items.iter_mut().flatten().for_each(|c| c.bytes = c.bytes * 1_000_003 + 7);
        let low: u64 = items.iter().map(|of| of[0].bytes).sum();
        let found = solve(&items, Limit::Bytes(low + low / 4)).unwrap();
        assert!(found.bytes <= low + low / 4 && found.loss <= 1.02 * found.bound, "{} {}", found.loss, found.bound);
    }

    #[test]
    fn what_cannot_be_kept_is_none() {
        let items = items(1, 3);
        assert_eq!(solve(&items, Limit::Bytes(10)), None);
        assert_eq!(solve(&items, Limit::Loss(0.0)), None);
    }
}
