//! Draws a function as a layered graph: each op stands below what it reads, edges that pass layers get a place in each of them (Sugiyama et al.,
//! 1981). Positions, sequences and angles are read everywhere and are not drawn.

use super::page::escape;
use llamac_ir::dtype::DType;
use llamac_ir::module::{Func, Inst, Operand, ValueId};
use llamac_ir::op::OpKind;
use llamac_ir::print;
use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 138.0;
const HEIGHT: f64 = 40.0;
const THREAD: f64 = 14.0;
const GAP: f64 = 12.0;
const RISE: f64 = 26.0;

/// What the colours mean.
pub(super) const LEGEND: &str = "<ul class=\"legend\"><li><span class=\"dot c0\"></span>product with a weight</li><li><span class=\"dot c2\"></span>norm</li><li><span class=\"dot c3\"></span>attention and cache</li><li><span class=\"dot c1\"></span>elementwise</li><li><span class=\"dot c4\"></span>input, rows, columns</li></ul>\n";

fn class(op: OpKind) -> &'static str {
    let info = op.info();
    match op {
        OpKind::Attention | OpKind::KvWrite | OpKind::RopeKvWrite => "cache",
        OpKind::RmsNorm | OpKind::RmsUnit => "norm",
        _ if info.attrs.iter().any(|(name, _)| *name == "act") => "product",
        OpKind::Layers => "product",
        OpKind::Silu
        | OpKind::Add
        | OpKind::Mul
        | OpKind::SwiGlu
        | OpKind::Rope
        | OpKind::RowScale
        | OpKind::ExpertScale
        | OpKind::ExpertSum => "point",
        _ => "move",
    }
}

/// A box, or the place where an edge passes a layer.
struct Item {
    /// Number of the box; `None`: an edge.
    node: Option<usize>,
    above: Vec<usize>,
    x: f64,
    rank: usize,
}

struct Node {
    title: String,
    what: String,
    class: &'static str,
    tip: String,
    reads: Vec<usize>,
    through_cache: Vec<usize>,
}

/// The drawing; `title` is for those who cannot see it.
pub(super) fn svg(func: &Func, title: &str) -> String {
    let nodes = nodes(func);
    let (items, boxes) = layered(&nodes);
    let half = |i: &Item| if i.node.is_some() { WIDTH / 2.0 } else { THREAD / 2.0 };
    let left = items.iter().map(|i| i.x - half(i)).fold(f64::INFINITY, f64::min) - 4.0;
    let right = items.iter().map(|i| i.x + half(i)).fold(0.0, f64::max) + 4.0;
    let ranks = items.iter().map(|i| i.rank).max().unwrap_or(0) + 1;
    let (width, height) = (right - left, ranks as f64 * (HEIGHT + RISE) - RISE + 8.0);
    let y = |rank: usize| 4.0 + rank as f64 * (HEIGHT + RISE);
    let mut out = format!(
        "<svg{} viewBox=\"{left:.0} 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" aria-label=\"{}\">",
        // Too wide for a phone to shrink: it scrolls there.
        if width > 520.0 { " class=\"big\"" } else { "" },
        escape(title)
    );
    for item in &items {
        for &above in &item.above {
            let from = &items[above];
            let (x1, x2) = (from.x, item.x);
            let bottom = y(from.rank) + HEIGHT;
            let top = y(item.rank);
            let middle = (bottom + top) / 2.0;
            let _ = write!(out, "<path class=\"edge\" d=\"M{x1:.1} {bottom:.1}C{x1:.1} {middle:.1} {x2:.1} {middle:.1} {x2:.1} {top:.1}");
            // An edge that only passes goes straight through its layer.
            let _ = if item.node.is_none() { write!(out, "V{:.1}\"/>", top + HEIGHT) } else { write!(out, "\"/>") };
        }
    }
    for (n, node) in nodes.iter().enumerate() {
        let item = &items[boxes[n]];
        for &from in &node.through_cache {
            let from = &items[boxes[from]];
            let (x1, y1, x2, y2) = (from.x, y(from.rank) + HEIGHT, item.x, y(item.rank));
            let _ = write!(
                out,
                "<path class=\"edge through\" d=\"M{x1:.1} {y1:.1}C{x1:.1} {:.1} {x2:.1} {:.1} {x2:.1} {y2:.1}\"/>",
                y1 + 18.0,
                y2 - 18.0
            );
        }
        let (x, top) = (item.x - WIDTH / 2.0, y(item.rank));
        let long = if node.title.len() > 16 { " long" } else { "" };
        let _ = write!(
            out,
            "<g><title>{}</title><rect class=\"box {}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"7\"/>",
            escape(&node.tip),
            node.class
        );
        let _ = write!(
            out,
            "<text class=\"op{long}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            item.x,
            top + 17.0,
            escape(&node.title)
        );
        let _ = write!(
            out,
            "<text class=\"what\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text></g>",
            item.x,
            top + 31.0,
            escape(&node.what)
        );
    }
    out + "</svg>"
}

fn nodes(func: &Func) -> Vec<Node> {
    let mut out: Vec<Node> = Vec::new();
    let mut made: BTreeMap<ValueId, usize> = BTreeMap::new();
    if let Some(p) = func.params.first() {
        let info = &func.values[p.0 as usize];
        made.insert(*p, 0);
        let tip = format!("%{}: {}", info.name, info.ty);
        out.push(Node {
            title: format!("%{}", info.name),
            what: info.ty.to_string(),
            class: "move",
            tip,
            reads: vec![],
            through_cache: vec![],
        });
    }
    let mut written = Vec::new();
    for inst in func.body.iter().filter(|i| !indices(func, i)) {
        let number = out.len();
        let values = inst.operands.iter().filter_map(|o| if let Operand::Value(v) = o { made.get(v).copied() } else { None });
        let mut reads: Vec<usize> = values.collect();
        reads.sort_unstable();
        reads.dedup();
        let through_cache = if inst.op == OpKind::Attention { written.clone() } else { vec![] };
        if matches!(inst.op, OpKind::KvWrite | OpKind::RopeKvWrite) {
            written = vec![number];
        }
        out.push(Node {
            title: inst.op.name().to_owned(),
            what: what(func, inst),
            class: class(inst.op),
            tip: print::inst(func, inst),
            reads,
            through_cache,
        });
        made.extend(inst.results.iter().map(|v| (*v, number)));
    }
    out
}

/// Whether an instruction only picks positions or sequences: they are not drawn.
fn indices(func: &Func, inst: &Inst) -> bool {
    inst.op == OpKind::GatherRows && inst.results.iter().all(|v| func.values[v.0 as usize].ty.dtype == DType::I32)
}

/// The second line of a box: the weight's size and format, or the value's name.
fn what(func: &Func, inst: &Inst) -> String {
    let weight = inst.operands.iter().filter_map(|o| if let Operand::Weight(w) = o { Some(&func.weights[w.0 as usize]) } else { None });
    let calls: usize = inst.calls.iter().map(|run| run.count).sum();
    let text = match weight.max_by_key(|w| w.ty.sizes().map_or(0, |s| s.iter().product::<usize>())) {
        _ if calls > 0 => format!("{calls} call{}", if calls == 1 { "" } else { "s" }),
        Some(w) => {
            let sizes: Vec<String> = w.ty.shape.iter().map(ToString::to_string).collect();
            format!("{} {}", sizes.join("×"), w.ty.dtype)
        }
        None => inst.results.first().map_or(String::new(), |v| format!("%{}", func.values[v.0 as usize].name)),
    };
    if text.chars().count() > 20 { text.chars().take(19).chain(['…']).collect() } else { text }
}

/// Places in layers; for each node the number of its item.
fn layered(nodes: &[Node]) -> (Vec<Item>, Vec<usize>) {
    let mut rank = vec![0usize; nodes.len()];
    for (n, node) in nodes.iter().enumerate() {
        rank[n] = node.reads.iter().chain(&node.through_cache).map(|r| rank[*r] + 1).max().unwrap_or(0);
    }
    // What reads nothing that is drawn stands right above its first reader.
    for n in (0..nodes.len()).filter(|n| nodes[*n].reads.is_empty()) {
        let readers = (0..nodes.len()).filter(|m| nodes[*m].reads.contains(&n));
        rank[n] = readers.map(|m| rank[m].saturating_sub(1)).min().unwrap_or(0);
    }
    let mut items: Vec<Item> = rank.iter().enumerate().map(|(n, r)| Item { node: Some(n), above: vec![], x: 0.0, rank: *r }).collect();
    for (n, node) in nodes.iter().enumerate() {
        for &read in &node.reads {
            let mut above = read;
            for r in rank[read] + 1..rank[n] {
                items.push(Item { node: None, above: vec![above], x: 0.0, rank: r });
                above = items.len() - 1;
            }
            items[n].above.push(above);
        }
    }
    let ranks = rank.iter().max().map_or(0, |r| r + 1);
    let mut layers: Vec<Vec<usize>> = (0..ranks).map(|r| (0..items.len()).filter(|i| items[*i].rank == r).collect()).collect();
    let mut below: Vec<Vec<usize>> = vec![Vec::new(); items.len()];
    for (i, item) in items.iter().enumerate() {
        item.above.iter().for_each(|a| below[*a].push(i));
    }
    for layer in &layers {
        spread(&mut items, layer);
    }
    // Each item moves to the mean of its neighbours, down and up, a few times.
    for sweep in 0..8 {
        let down = sweep % 2 == 0;
        let order: Vec<usize> = if down { (0..ranks).collect() } else { (0..ranks).rev().collect() };
        for r in order {
            let mean = |i: usize| {
                let near = if down { &items[i].above } else { &below[i] };
                if near.is_empty() { items[i].x } else { near.iter().map(|n| items[*n].x).sum::<f64>() / near.len() as f64 }
            };
            let wanted: BTreeMap<usize, f64> = layers[r].iter().map(|i| (*i, mean(*i))).collect();
            layers[r].sort_by(|a, b| wanted[a].total_cmp(&wanted[b]));
            wanted.into_iter().for_each(|(i, x)| items[i].x = x);
            apart(&mut items, &layers[r]);
        }
    }
    let boxes = (0..nodes.len()).collect();
    (items, boxes)
}

fn size(item: &Item) -> f64 {
    if item.node.is_some() { WIDTH } else { THREAD }
}

/// Side by side around 0.
fn spread(items: &mut [Item], layer: &[usize]) {
    let total: f64 = layer.iter().map(|i| size(&items[*i]) + GAP).sum::<f64>() - GAP;
    let mut at = -total / 2.0;
    for i in layer {
        items[*i].x = at + size(&items[*i]) / 2.0;
        at += size(&items[*i]) + GAP;
    }
}

/// Moves neighbours apart that overlap, around where they were on average.
fn apart(items: &mut [Item], layer: &[usize]) {
    let before: f64 = layer.iter().map(|i| items[*i].x).sum();
    for pair in layer.windows(2) {
        let least = items[pair[0]].x + (size(&items[pair[0]]) + size(&items[pair[1]])) / 2.0 + GAP;
        items[pair[1]].x = items[pair[1]].x.max(least);
    }
    let after: f64 = layer.iter().map(|i| items[*i].x).sum();
    let shift = (before - after) / layer.len().max(1) as f64;
    layer.iter().for_each(|i| items[*i].x += shift);
}
