//! `--report`: one self-contained HTML page about a compile, for people. No script, no font, no image from elsewhere. `page` has the frame and
//! its style, `graph` draws functions, `timeline` the buffer plan, `tables` weights, rewrites and rooflines.

mod graph;
mod page;
mod tables;
mod timeline;

use crate::driver::Planned;
use llamac_passes::cost;
use llamac_runtime::artifact::meta::Meta;
use std::fmt::Write;

/// The page about a planned model.
pub fn page(planned: &Planned, meta: &Meta) -> String {
    let sections = [
        (
            "rewrites",
            "What fused",
            "What each rule does in one call of a function, and what a decoded token would cost more without it.",
            tables::rewrites(planned),
        ),
        (
            "graphs",
            "Graphs",
            "Each function as the front end wrote it and as it is compiled. Layers are functions that are called once per layer.",
            graphs(planned),
        ),
        (
            "roofline",
            "Predicted roofline",
            "Time of each operation on this machine, by the slower of data and arithmetic, all calls together.",
            tables::roofline(planned),
        ),
        ("weights", "Weights", "What is stored, by format, and what one decoded token reads.", tables::weights(planned)),
        (
            "buffers",
            "Buffer plan",
            "The activation arena over one step: each block is a buffer, as wide as it lives and placed where it lies.",
            timeline::section(planned),
        ),
    ];
    let mut body = header(planned, meta);
    body += "<nav aria-label=\"Sections\">";
    sections.iter().for_each(|(id, title, ..)| body += &format!("<a href=\"#{id}\">{title}</a>"));
    body += "</nav>\n";
    for (id, title, about, content) in sections {
        let _ = writeln!(body, "<section id=\"{id}\">\n<h2>{title}</h2>\n<p class=\"about\">{about}</p>\n{content}</section>");
    }
    page::frame(&format!("{} in {}", meta.model.name, meta.model.quant), &body)
}

fn header(planned: &Planned, meta: &Meta) -> String {
    let module = &planned.module;
    let total = planned.target.machine().module_cost(module);
    let regions: usize = total.regions;
    let machine = match planned.target.name.as_str() {
        "native" => format!("this machine ({})", meta.target.arch),
        name => name.to_owned(),
    };
    let facts = [
        ("weights", page::bytes(meta.plan.weight_bytes)),
        ("read per token", page::bytes(meta.plan.decode_bytes)),
        ("arena", page::bytes(meta.plan.arena_bytes)),
        ("decode, predicted", page::time(total.decode_ns)),
        ("prompt of 512", page::time(total.prefill_ns)),
        ("regions per step", regions.to_string()),
    ];
    let cells: String = facts.iter().map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", page::escape(value))).collect();
    format!(
        "<header>\n<p class=\"kind\">llamac {} · compile report</p>\n<h1>{}</h1>\n<p class=\"lead\">{} layers, {} weights, compiled for {}; up to {} sequences of {} tokens.</p>\n<dl class=\"facts\">{cells}</dl>\n</header>\n",
        page::escape(&meta.compiler),
        page::escape(&meta.model.name),
        meta.model.layers,
        page::escape(&meta.model.quant),
        page::escape(&machine),
        meta.plan.max_batch,
        meta.plan.max_step.max(planned.program.limits.max_context),
    )
}

fn graphs(planned: &Planned) -> String {
    let mut out = String::new();
    for (name, calls) in cost::calls(&planned.module) {
        let Some(after) = planned.module.func(&name) else { continue };
        // A function that a pass split off began as the one that it was split from.
        let before = planned.imported.func(&name).or_else(|| planned.imported.func(name.trim_end_matches(".last")));
        let times = if calls == 1 { "one call".to_owned() } else { format!("{calls} calls") };
        let _ = writeln!(out, "<h3>@{} <span>{times}</span></h3>\n<div class=\"pair\">", page::escape(&name));
        for (title, func) in [("before", before), ("after", Some(after))] {
            let Some(func) = func else { continue };
            let ops = func.body.len();
            let _ = writeln!(
                out,
                "<figure><figcaption>{title} <span>{ops} ops</span></figcaption>{}</figure>",
                graph::svg(func, &format!("@{name} {title}"))
            );
        }
        out += "</div>\n";
    }
    out + graph::LEGEND
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
