//! The frame of the page: its style, and how text, bytes and times are written. The style knows light and dark, wide and narrow.

/// Text in HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// `1.23 GB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut x = n as f64;
    let mut unit = 0;
    while x >= 999.5 && unit + 1 < UNITS.len() {
        x /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{} {}", digits(x), UNITS[unit]) }
}

/// Nanoseconds as `1.23 ms`.
pub(super) fn time(ns: f64) -> String {
    match ns {
        _ if ns < 999.5 => format!("{ns:.0} ns"),
        _ if ns < 999.5e3 => format!("{} µs", digits(ns / 1e3)),
        _ if ns < 999.5e6 => format!("{} ms", digits(ns / 1e6)),
        _ => format!("{} s", digits(ns / 1e9)),
    }
}

/// Three significant digits of a number below 1000.
fn digits(x: f64) -> String {
    match x {
        _ if x < 9.995 => format!("{x:.2}"),
        _ if x < 99.95 => format!("{x:.1}"),
        _ => format!("{x:.0}"),
    }
}

/// The whole page.
pub(super) fn frame(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

const STYLE: &str = "
:root { --bg: #fcfcfa; --card: #ffffff; --ink: #1c2128; --soft: #5d6773; --line: #e2e4e8; --accent: #1f56c3;
  --product: #2563c9; --norm: #a8690a; --cache: #7d3cc4; --point: #1e7f4f; --move: #6b7580; --track: #eceef1; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171b; --card: #1b1f25; --ink: #e4e7eb; --soft: #9aa4b0; --line: #2c333c; --accent: #82aaff;
  --product: #78a6ff; --norm: #e3b052; --cache: #c294ff; --point: #62c794; --move: #9aa5b1; --track: #272d35; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, \"Segoe UI\", Roboto, \"Helvetica Neue\", \"Liberation Sans\", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 56px 32px 96px; }
h1 { font-size: 40px; line-height: 1.12; letter-spacing: -0.02em; margin: 4px 0 12px; overflow-wrap: anywhere; }
h2 { font-size: 25px; line-height: 1.25; letter-spacing: -0.012em; margin: 0 0 4px; }
h3 { font-size: 17px; margin: 32px 0 12px; font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, \"Liberation Mono\", monospace; font-weight: 600; }
h3 span, figcaption span { font: 400 14px system-ui, sans-serif; color: var(--soft); margin-left: 8px; }
p { margin: 0 0 12px; max-width: 76ch; text-wrap: pretty; }
.kind { color: var(--soft); font-size: 14px; margin: 0; }
.lead { font-size: 18px; color: var(--soft); }
.about { color: var(--soft); margin-bottom: 20px; }
.facts { display: grid; grid-template-columns: repeat(6, 1fr); gap: 1px; background: var(--line); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; margin: 28px 0 0; }
.facts div { background: var(--card); padding: 14px 16px; }
.facts dt { font-size: 13px; color: var(--soft); }
.facts dd { margin: 2px 0 0; font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; }
nav { display: flex; flex-wrap: wrap; gap: 4px 22px; padding: 18px 0; margin-bottom: 20px; border-bottom: 1px solid var(--line); font-size: 15px; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { padding-top: 36px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: 13px; padding: 6px 16px 6px 0; border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: bottom; }
td { padding: 7px 16px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.n:last-child, th.n:last-child { padding-right: 0; }
code, .m { font: 13.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, \"Liberation Mono\", monospace; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.bar { display: block; height: 8px; min-width: 2px; border-radius: 2px; background: var(--product); }
.bar.arithmetic { background: var(--cache); }
.bar.waiting { background: var(--move); }
.lane { width: 30%; min-width: 90px; }
.lane > div { background: var(--track); border-radius: 2px; margin-top: 7px; }
.stack { display: flex; height: 22px; border-radius: 5px; overflow: hidden; gap: 2px; margin: 4px 0 16px; }
.stack span { display: block; min-width: 3px; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 8px; }
.c0 { background: var(--product); } .c1 { background: var(--point); } .c2 { background: var(--norm); } .c3 { background: var(--cache); } .c4 { background: var(--move); }
details { border-top: 1px solid var(--line); padding: 10px 0; }
summary { cursor: pointer; color: var(--accent); font-size: 15px; }
details[open] summary { margin-bottom: 8px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 20px; align-items: start; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 12px; overflow-x: auto; }
figcaption { font-weight: 600; font-size: 15px; padding: 0 4px 8px; }
svg { display: block; margin: 0 auto; max-width: 100%; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, -apple-system, \"Segoe UI\", Roboto, \"Liberation Sans\", sans-serif; }
svg .op { font-weight: 600; font-size: 12.5px; }
svg .long { font-size: 11px; }
svg .what { fill: var(--soft); font-size: 11px; }
svg .edge { fill: none; stroke: var(--soft); stroke-opacity: 0.55; stroke-width: 1.3; }
svg .edge.through { stroke-dasharray: 4 3; stroke: var(--cache); stroke-opacity: 0.9; }
svg .box { fill-opacity: 0.11; stroke-width: 1.3; }
.product { fill: var(--product); stroke: var(--product); } .norm { fill: var(--norm); stroke: var(--norm); } .cache { fill: var(--cache); stroke: var(--cache); }
.point { fill: var(--point); stroke: var(--point); } .move { fill: var(--move); stroke: var(--move); }
svg .band { fill: var(--track); } svg .grid { stroke: var(--line); stroke-width: 1; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; list-style: none; padding: 0; margin: 18px 0 0; font-size: 14px; color: var(--soft); }
.wide { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 14px; overflow-x: auto; margin-bottom: 12px; }
.wide svg { min-width: 680px; width: 100%; max-width: none; }
@media (max-width: 900px) { .facts { grid-template-columns: repeat(3, 1fr); } .pair { grid-template-columns: 1fr; } }
@media (max-width: 560px) { main { padding: 28px 18px 64px; } h1 { font-size: 30px; } .lead { font-size: 16.5px; } .facts { grid-template-columns: repeat(2, 1fr); }
  .facts dd { font-size: 18px; } td, th { padding-right: 10px; }   .lane, .opt { display: none; } svg.big { max-width: none; } section { padding-top: 28px; } }
@media print { nav { display: none; } figure, .wide { break-inside: avoid; } }
";
