//! The buffer plan as a picture: time runs to the right over the regions of a step, the arena from top to bottom.

use super::page::{bytes, escape};
use crate::driver::Planned;
use crate::lower::program::{Program, Role, Step};
use std::fmt::Write;

/// The picture, and the buffers as a table.
pub(super) fn section(planned: &Planned) -> String {
    let program = &planned.program;
    format!("<div class=\"wide\">{}</div>\n{LEGEND}{}", svg(program), table(program))
}

const LEGEND: &str = "<ul class=\"legend\"><li><span class=\"dot c0\"></span>lives in one function</li><li><span class=\"dot c2\"></span>carried from layer to layer</li><li><span class=\"dot c1\"></span>shared by all layers</li><li><span class=\"dot c3\"></span>logits</li><li>Heights grow with the square root of bytes; a repeated layer is drawn once.</li></ul>\n";

fn class(role: Role) -> &'static str {
    match role {
        Role::Scratch => "product",
        Role::Carried => "norm",
        Role::Shared => "point",
        Role::Logits => "cache",
    }
}

/// Functions in the order of the step, each kind of layer once: name and number of regions.
fn spans(program: &Program) -> Vec<(String, usize)> {
    let mut out = Vec::new();
    for step in &program.steps {
        match *step {
            Step::Run(f) => out.push((program.functions[f].name.clone(), program.functions[f].regions.len())),
            Step::Layers { first, count } => {
                let entries = &program.schedule[first..first + count];
                let mut seen = Vec::new();
                for entry in entries {
                    let f = entry.function as usize;
                    if !seen.contains(&f) {
                        seen.push(f);
                        let times = entries.iter().filter(|e| e.function == entry.function).count();
                        let name =
                            if times > 1 { format!("{} ×{times}", program.functions[f].name) } else { program.functions[f].name.clone() };
                        out.push((name, program.functions[f].regions.len()));
                    }
                }
            }
        }
    }
    out
}

fn svg(program: &Program) -> String {
    let lives = program.lifetimes();
    let spans = spans(program);
    let moments = spans.iter().map(|s| s.1).sum::<usize>().max(1) + 1;
    let placed: Vec<(usize, (usize, usize))> = lives.iter().enumerate().filter_map(|(i, life)| Some((i, (*life)?))).collect();
    // Offsets where anything begins or ends, and how far down each is drawn.
    let end = |i: usize| program.buffers[i].offset + program.buffers[i].bytes(&program.limits);
    let mut edges: Vec<u64> = placed.iter().flat_map(|(i, _)| [program.buffers[*i].offset, end(*i)]).collect();
    edges.sort_unstable();
    edges.dedup();
    let whole: f64 = edges.windows(2).map(|e| ((e[1] - e[0]) as f64).sqrt()).sum::<f64>().max(1.0);
    let mut down = vec![0.0];
    for pair in edges.windows(2) {
        let part = (pair[1] - pair[0]) as f64;
        // Gaps of alignment are no place for a label.
        let least = if part < 256.0 { 0.0 } else { 12.0 };
        down.push(down[down.len() - 1] + least + 260.0 * part.sqrt() / whole);
    }
    let (width, top, left) = (1000.0, 30.0, 4.0);
    let height = top + down[down.len() - 1] + 8.0;
    let x = |moment: usize| left + (width - 2.0 * left) * moment as f64 / moments as f64;
    let y = |offset: u64| top + down[edges.binary_search(&offset).unwrap_or(0)];
    let mut out = format!("<svg viewBox=\"0 0 {width} {height:.0}\" role=\"img\" aria-label=\"Buffers over one step\">");
    let mut at = 0;
    for (n, (name, regions)) in spans.iter().enumerate() {
        let (from, to) = (x(at), x(at + regions));
        if n % 2 == 0 {
            let _ = write!(out, "<rect class=\"band\" x=\"{from:.1}\" y=\"0\" width=\"{:.1}\" height=\"{height:.0}\"/>", to - from);
        }
        let fits = ((to - from) / 7.0) as usize;
        let short: String =
            if name.chars().count() > fits { name.chars().take(fits.saturating_sub(1)).chain(['…']).collect() } else { name.clone() };
        let _ = write!(out, "<text x=\"{:.1}\" y=\"18\"><title>{}</title>{}</text>", from + 6.0, escape(name), escape(&short));
        at += regions;
    }
    for (i, (from, to)) in placed {
        let buffer = &program.buffers[i];
        let (x1, x2, y1, y2) = (x(from), x((to + 1).min(moments)), y(buffer.offset), y(end(i)));
        let size = bytes(buffer.bytes(&program.limits));
        let _ = write!(
            out,
            "<g><title>{}: {} at {}, regions {from} to {to}</title><rect class=\"box {}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\"/>",
            escape(&buffer.name),
            size,
            buffer.offset,
            class(buffer.role),
            x1 + 1.0,
            y1 + 1.0,
            (x2 - x1 - 2.0).max(2.0),
            (y2 - y1 - 2.0).max(2.0)
        );
        let room = ((x2 - x1 - 8.0) / 6.6).max(0.0) as usize;
        let full = format!("{}  {size}", buffer.name);
        let label = if full.chars().count() <= room { full } else { buffer.name.clone() };
        if label.chars().count() <= room && y2 - y1 >= 13.0 {
            let _ = write!(out, "<text class=\"what\" x=\"{:.1}\" y=\"{:.1}\">{}</text>", x1 + 6.0, (y1 + y2) / 2.0 + 4.0, escape(&label));
        }
        out += "</g>";
    }
    out + "</svg>"
}

fn table(program: &Program) -> String {
    let mut out = String::from(
        "<details><summary>Every buffer</summary><div class=\"scroll\"><table><thead><tr><th>buffer</th><th>element</th><th class=\"n\">columns</th><th class=\"n\">bytes</th><th class=\"n\">offset</th></tr></thead><tbody>\n",
    );
    for b in program.live_buffers() {
        let size = bytes(b.bytes(&program.limits));
        let _ = writeln!(
            out,
            "<tr><td class=\"m\">{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{size}</td><td class=\"n\">{}</td></tr>",
            escape(&b.name),
            b.elem.name(),
            b.width,
            b.offset
        );
    }
    out + "</tbody></table></div></details>\n"
}
