//! Second moments of inputs, summed up while a model runs. What they are used for is in `feedback`.

use super::feedback::{BLOCK, Moments};
use crate::wide::wide;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Sums from which [`Moments`] are made. The order of the sums does not depend on threads.
#[derive(Debug, Clone)]
pub struct MomentSums {
    columns: usize,
    /// As `Moments::data`.
    sums: Vec<f32>,
    /// Rows that each expert has seen.
    rows: Vec<usize>,
}

/// An expert that has seen few rows is taken to be like all of them together: they count as this many rows of its own.
const SHARED: f32 = 32.0;

impl MomentSums {
    /// Nothing seen, of an input of `columns` elements for each of `experts` (1 for an input without experts).
    pub fn new(columns: usize, experts: usize) -> MomentSums {
        MomentSums { columns, sums: vec![0.0; experts * columns * BLOCK], rows: vec![0; experts] }
    }

    /// Adds rows `[n, experts, columns]`. Rows of zeros are of experts that were not chosen.
    pub fn add(&mut self, x: &[f32]) {
        let (columns, experts) = (self.columns, self.rows.len());
        let seen = |e: usize| -> Vec<&[f32]> {
            let of_expert = x.chunks_exact(columns).skip(e).step_by(experts);
            of_expert.filter(|row| experts == 1 || row.iter().any(|x| *x != 0.0)).collect()
        };
        let seen: Vec<Vec<&[f32]>> = (0..experts).map(seen).collect();
        self.rows.iter_mut().zip(&seen).for_each(|(n, rows)| *n += rows.len());
        let jobs: Vec<(usize, usize, Mutex<&mut [f32]>)> = (self.sums.chunks_mut(columns * BLOCK).enumerate())
            .flat_map(|(e, sums)| sums.chunks_mut(BLOCK * BLOCK).enumerate().map(move |(b, sums)| (e, b, Mutex::new(sums))))
            .collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((expert, block, sums)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let first = block * BLOCK;
                let sums = &mut **sums.lock().unwrap_or_else(PoisonError::into_inner);
                let parts: Vec<&[f32]> = seen[*expert].iter().map(|row| &row[first..(first + BLOCK).min(columns)]).collect();
                add_block(&parts, sums);
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(jobs.len());
        std::thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
    }

    /// The moments of what was seen.
    pub fn finish(self) -> Moments {
        let MomentSums { columns, sums, rows } = self;
        let (experts, each) = (rows.len(), columns * BLOCK);
        let total = rows.iter().sum::<usize>().max(1) as f32;
        let mut data = sums;
        if experts == 1 {
            data.iter_mut().for_each(|x| *x /= total);
            return Moments { columns, data };
        }
        let mut shared = vec![0.0f32; each];
        data.chunks_exact(each).for_each(|sums| shared.iter_mut().zip(sums).for_each(|(s, x)| *s += x));
        shared.iter_mut().for_each(|s| *s /= total);
        for (sums, n) in data.chunks_exact_mut(each).zip(&rows) {
            sums.iter_mut().zip(&shared).for_each(|(x, s)| *x = (*x + SHARED * s) / (*n as f32 + SHARED));
        }
        Moments { columns, data }
    }
}

wide! {
    /// Adds the upper triangle of `transpose(x) x` for rows `x` of one block.
    pub(super) fn add_block(rows: &[&[f32]], sums: &mut [f32]) {
        // Four rows at a time: the sums are read and written a quarter as often.
        for four in rows.chunks(4) {
            let row = |i: usize| four.get(i).copied();
            for (c, sums) in sums.chunks_exact_mut(BLOCK).enumerate() {
                match [row(0), row(1), row(2), row(3)] {
                    [Some(p), Some(q), Some(r), Some(s)] => {
                        let by = [p[c], q[c], r[c], s[c]];
                        for ((((x, p), q), r), s) in sums[c..].iter_mut().zip(&p[c..]).zip(&q[c..]).zip(&r[c..]).zip(&s[c..]) {
                            *x += (by[0] * p + by[1] * q) + (by[2] * r + by[3] * s);
                        }
                    }
                    some => {
                        for part in some.into_iter().flatten() {
                            sums[c..].iter_mut().zip(&part[c..]).for_each(|(x, p)| *x += part[c] * p);
                        }
                    }
                }
            }
        }
    }
}
