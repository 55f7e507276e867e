//! Reuse of buffers in place, and barriers: a region waits for the others only if they touched what it touches.

use super::program::{Body, Buffer, BufferId, Elem, Expr, Program, Region, Segment, Sink, View};

/// Lets a value take the place of an operand that dies in the expression that makes it, so that a residual stream stays in one
/// buffer. `keep` are buffers that outlive the function; `out`, its result, is renamed with the others.
pub(super) fn in_place(regions: &mut [Region], buffers: &[Buffer], keep: &[BufferId], out: &mut BufferId) {
    for i in 0..regions.len() {
        let made: Vec<(BufferId, Vec<View>, usize)> = match &regions[i].body {
            Body::Dot { segments, .. } | Body::Map { segments } => segments.iter().filter_map(made).collect(),
            Body::Combine { residual, out, .. } => vec![(*out, vec![*residual], buffers[out.0 as usize].padded())],
            _ => continue,
        };
        let reads = regions[i].body.reads().0;
        let writes = regions[i].body.writes().0;
        let mut renames: Vec<(BufferId, BufferId)> = Vec::new();
        for (to, loads, columns) in made {
            let free = loads.into_iter().find(|v| {
                let (a, b) = (&buffers[v.buffer.0 as usize], &buffers[to.0 as usize]);
                v.col == 0
                    && v.buffer != to
                    && v.buffer != *out
                    && (a.rows, a.times, a.width, a.layout, a.elem) == (b.rows, b.times, b.width, b.layout, Elem::F32)
                    && b.elem == Elem::F32
                    && columns == b.padded()
                    && !keep.contains(&v.buffer)
                    && !keep.contains(&to)
                    && reads.iter().filter(|r| **r == v.buffer).count() == 1
                    && !writes.contains(&v.buffer)
                    && regions[i + 1..].iter().all(|r| !r.body.reads().0.contains(&v.buffer) && !r.body.writes().0.contains(&v.buffer))
                    && regions.iter().enumerate().all(|(j, r)| j == i || !r.body.writes().0.contains(&to))
            });
            if let Some(v) = free {
                renames.push((to, v.buffer));
            }
        }
        for (from, to) in renames {
            regions.iter_mut().for_each(|r| r.body.rename(&mut |b| *b = if *b == from { to } else { *b }));
            *out = if *out == from { to } else { *out };
        }
    }
}

/// The buffer that a segment fills, what it loads of the same element, and how many columns it makes.
fn made(segment: &Segment) -> Option<(BufferId, Vec<View>, usize)> {
    let Sink::Store(to) = segment.sink else { return None };
    let mut loads = Vec::new();
    plain_loads(&segment.expr, &mut loads);
    Some((to, loads, segment.blocks * 16))
}

/// Loads whose element is read only where it is written.
fn plain_loads(expr: &Expr, out: &mut Vec<View>) {
    match expr {
        Expr::Acc(_) | Expr::Vector { .. } | Expr::Row(_) => {}
        Expr::Load(v) => out.push(*v),
        Expr::Add(a, b) | Expr::Mul(a, b) => {
            plain_loads(a, out);
            plain_loads(b, out);
        }
        Expr::Silu(x) | Expr::Round(x) | Expr::Keep { x, .. } | Expr::Rope { x, .. } => plain_loads(x, out),
    }
}

/// What regions have touched since the last barrier.
#[derive(Default)]
struct Touched {
    reads: Vec<(u64, u64)>,
    writes: Vec<(u64, u64)>,
    reads_cache: bool,
    writes_cache: bool,
}

/// Sets [`Region::barrier`]: needed before a region that reads what was written since the last one, or writes what was touched.
/// Places in the arena count, not names, because places are used again.
pub(super) fn place_barriers(program: &mut Program) {
    let ranges: Vec<(u64, u64)> = program.buffers.iter().map(|b| (b.offset, b.offset + b.bytes(&program.limits))).collect();
    let range = |ids: Vec<BufferId>| -> Vec<(u64, u64)> { ids.iter().map(|b| ranges[b.0 as usize]).collect() };
    let first = program.steps.first().copied();
    for (number, function) in program.functions.iter_mut().enumerate() {
        let mut since = Touched::default();
        for (i, region) in function.regions.iter_mut().enumerate() {
            let (reads, reads_cache) = region.body.reads();
            let (writes, writes_cache) = region.body.writes();
            let (reads, writes) = (range(reads), range(writes));
            let waits = meets(&reads, &since.writes)
                || meets(&writes, &since.writes)
                || meets(&writes, &since.reads)
                || (reads_cache && since.writes_cache)
                || (writes_cache && since.reads_cache);
            // What ran before the function is not known here, except that nothing runs before the first.
            let entry = i == 0 && first != Some(super::program::Step::Run(number));
            region.barrier = entry || waits;
            if region.barrier {
                since = Touched::default();
            }
            since.reads.extend(reads);
            since.writes.extend(writes);
            since.reads_cache |= reads_cache;
            since.writes_cache |= writes_cache;
        }
    }
}

fn meets(a: &[(u64, u64)], b: &[(u64, u64)]) -> bool {
    a.iter().any(|x| b.iter().any(|y| x.0 < y.1 && y.0 < x.1))
}
