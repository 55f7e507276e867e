//! The tables of the page: rewrites with what they gain, weights by format, rooflines of the operations.

use super::page::{bytes, escape, time};
use crate::driver::Planned;
use llamac_ir::module::{Func, Inst};
use llamac_passes::cost::{self, Machine, PROMPT};
use llamac_passes::summary;
use std::fmt::Write;

/// What fired in each function, with its gain, and what lost.
pub(super) fn rewrites(planned: &Planned) -> String {
    let mut out = String::new();
    for f in &planned.report.funcs {
        let _ = writeln!(out, "<h3>@{}</h3>", escape(&f.name));
        if let Some(before) = f.before {
            let cells = [
                ("decode", time(before.decode_ns), time(f.after.decode_ns)),
                ("prompt of 512", time(before.prefill_ns), time(f.after.prefill_ns)),
                ("regions", before.regions.to_string(), f.after.regions.to_string()),
            ];
            let cells: Vec<String> = cells.iter().map(|(name, a, b)| format!("{name} {a} → <strong>{b}</strong>")).collect();
            let _ = writeln!(out, "<p>Per call: {}.</p>", cells.join(", "));
        }
        out += "<div class=\"scroll\"><table><thead><tr><th>rule</th><th class=\"n\">times</th><th class=\"n\">gain per token</th></tr></thead><tbody>\n";
        let mut fired: Vec<(&String, &usize, f64)> =
            f.fired.iter().map(|(rule, n)| (rule, n, f.gains.get(rule).copied().unwrap_or(0.0))).collect();
        fired.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(b.0)));
        for (rule, n, gain) in fired {
            let gain = if gain > 0.0 { time(gain) } else { "<span class=\"soft\">–</span>".to_owned() };
            let _ = writeln!(out, "<tr><td class=\"m\">{}</td><td class=\"n\">{n}</td><td class=\"n\">{gain}</td></tr>", escape(rule));
        }
        out += "</tbody></table></div>\n";
        if !f.lost.is_empty() {
            let _ = writeln!(out, "<details><summary>{} not in the result</summary><table><tbody>", f.lost.len());
            for lost in &f.lost {
                let _ =
                    writeln!(out, "<tr><td class=\"m\">{}</td><td class=\"soft\">{}</td></tr>", escape(&lost.rule), escape(&lost.reason));
            }
            out += "</tbody></table></details>\n";
        }
    }
    out
}

/// Parameters and bytes by format, and the weights of each function.
pub(super) fn weights(planned: &Planned) -> String {
    let totals = summary::totals(&planned.module);
    let all: u64 = totals.bytes.values().sum::<u64>().max(1);
    let mut formats: Vec<(String, u64, u64)> =
        totals.bytes.iter().map(|(dtype, n)| (dtype.to_string(), totals.parameters.get(dtype).copied().unwrap_or(0), *n)).collect();
    formats.sort_by_key(|f| std::cmp::Reverse(f.2));
    let share = |n: u64| 100.0 * n as f64 / all as f64;
    let mut out = String::from("<div class=\"stack\" aria-hidden=\"true\">");
    for (i, (_, _, n)) in formats.iter().enumerate() {
        let _ = write!(out, "<span class=\"c{}\" style=\"width:{:.2}%\"></span>", i.min(4), share(*n));
    }
    out += "</div>\n<div class=\"scroll\"><table><thead><tr><th>format</th><th class=\"n\">parameters</th><th class=\"n\">bytes</th><th class=\"n\">share</th></tr></thead><tbody>\n";
    for (i, (name, parameters, n)) in formats.iter().enumerate() {
        let _ = writeln!(
            out,
            "<tr><td class=\"m\"><span class=\"dot c{}\"></span>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{:.1} %</td></tr>",
            i.min(4),
            escape(name),
            grouped(*parameters),
            bytes(*n),
            share(*n)
        );
    }
    let _ = writeln!(
        out,
        "</tbody></table></div>\n<p class=\"soft\">One decoded token reads {} of weights and leaves {} in the KV cache; layers that see one chunk keep {} per sequence.</p>",
        bytes(totals.decode_bytes),
        bytes(totals.kv_bytes),
        bytes(totals.ring_bytes)
    );
    for area in &planned.program.areas {
        let _ = writeln!(
            out,
            "<details><summary>Weights of @{}: {}</summary><div class=\"scroll\"><table><thead><tr><th>weight</th><th>type</th><th class=\"n\">bytes</th></tr></thead><tbody>",
            escape(&area.name),
            bytes(area.bytes)
        );
        for w in &area.weights {
            let (name, ty) = (escape(&w.weight.name), escape(&w.weight.ty.to_string()));
            let _ = writeln!(out, "<tr><td class=\"m\">@{name}</td><td class=\"m\">{ty}</td><td class=\"n\">{}</td></tr>", bytes(w.bytes));
        }
        out += "</tbody></table></div></details>\n";
    }
    out
}

/// Groups of three digits.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let parts: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|c| std::str::from_utf8(c).ok()).collect();
    parts.join("\u{202f}")
}

/// What bounds an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Data,
    Arithmetic,
    Waiting,
}

impl Bound {
    fn name(self) -> &'static str {
        match self {
            Bound::Data => "data",
            Bound::Arithmetic => "arithmetic",
            Bound::Waiting => "waiting",
        }
    }
}

/// Time of an instruction at `n` new tokens, and what bounds it.
fn roof(machine: &Machine, func: &Func, inst: &Inst, n: usize) -> (f64, Bound) {
    let operands: Vec<_> = inst.operands.iter().map(|o| func.ty(*o)).collect();
    let results: Vec<_> = inst.results.iter().map(|v| &func.values[v.0 as usize].ty).collect();
    let ns = |m: &Machine| m.op_ns(n, inst.op, &inst.attrs, &operands, &results);
    let fast = Machine { f32_gmacs: 1e12, bf16_gmacs: 1e12, i8_gmacs: 1e12, ..*machine };
    let (time, data) = (ns(machine), ns(&fast));
    let barriers = cost::regions(inst.op) as f64 * machine.barrier_ns;
    let bound = match () {
        () if barriers > time / 2.0 => Bound::Waiting,
        () if time > data * 1.001 => Bound::Arithmetic,
        () => Bound::Data,
    };
    (time, bound)
}

/// Operations of all functions with their times, as many as they are called.
pub(super) fn roofline(planned: &Planned) -> String {
    let machine = planned.target.machine();
    let total = machine.module_cost(&planned.module);
    let mut out = String::new();
    let calls = cost::calls(&planned.module);
    let most = calls.iter().filter_map(|(name, count)| Some((planned.module.func(name)?, *count)));
    let most = most.flat_map(|(f, count)| f.body.iter().map(move |i| roof(&machine, f, i, 1).0 * count as f64)).fold(1.0, f64::max);
    for (name, count) in &calls {
        let Some(func) = planned.module.func(name) else { continue };
        let times = if *count == 1 { "one call".to_owned() } else { format!("{count} calls") };
        let _ = writeln!(
            out,
            "<h3>@{} <span>{times}</span></h3>\n<div class=\"scroll\"><table><thead><tr><th>operation</th><th class=\"n opt\">regions</th><th class=\"n\">decode</th><th class=\"lane\">share of the slowest</th><th>bound by</th><th class=\"n\">prompt</th></tr></thead><tbody>",
            escape(name)
        );
        for inst in func.body.iter().filter(|i| cost::regions(i.op) > 0) {
            let ((one, bound), (prompt, _)) = (roof(&machine, func, inst, 1), roof(&machine, func, inst, PROMPT));
            let value = inst
                .results
                .first()
                .map_or(String::new(), |v| format!(" <span class=\"soft\">%{}</span>", escape(&func.values[v.0 as usize].name)));
            let decode = one * *count as f64;
            let _ = writeln!(
                out,
                "<tr><td class=\"m\">{}{value}</td><td class=\"n opt\">{}</td><td class=\"n\">{}</td><td class=\"lane\"><div><span class=\"bar {}\" style=\"width:{:.1}%\"></span></div></td><td>{}</td><td class=\"n\">{}</td></tr>",
                inst.op.name().replace('_', "_<wbr>"),
                cost::regions(inst.op) * count,
                time(decode),
                bound.name(),
                100.0 * decode / most,
                bound.name(),
                time(prompt * *count as f64)
            );
        }
        out += "</tbody></table></div>\n";
    }
    let _ = writeln!(
        out,
        "<p class=\"soft\">In all {} per decoded token with {} tokens in the cache, {} for a prompt of {PROMPT}; {} threads, {} GB/s from memory.</p>",
        time(total.decode_ns),
        cost::CONTEXT,
        time(total.prefill_ns),
        machine.threads,
        machine.read_gbs
    );
    out
}
