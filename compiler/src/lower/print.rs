//! The step program as text: buffers with their places, functions with their weights and regions, and the schedule.

use std::fmt;

use super::layout::Layout;
use super::program::*;

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let l = &self.limits;
        writeln!(f, "program {} (step {}, rows {}, batch {}, context {})", self.name, l.max_step, l.max_rows, l.max_batch, l.max_context)?;
        writeln!(f, "arena {} bytes, weights {} bytes", self.arena_bytes, self.weight_bytes)?;
        for kv in &self.kv {
            let chunk = if kv.chunk > 0 { format!(", chunk {}", kv.chunk) } else { String::new() };
            writeln!(
                f,
                "kv {} layers, {} heads x {} {}, page {} bytes{chunk}",
                kv.layers, kv.kv_heads, kv.head_dim, kv.format, kv.page_bytes
            )?;
        }
        writeln!(f)?;
        for b in self.live_buffers() {
            let (rows, shape) = (times(b.rows, b.times), shape(b.width, b.layout));
            writeln!(f, "buffer {}: {}[{rows}, {shape}] {} at {}", b.name, b.elem.name(), role(b.role), b.offset)?;
        }
        let mut printed = Vec::new();
        for function in &self.functions {
            let area = &self.areas[function.area];
            if !printed.contains(&function.area) {
                printed.push(function.area);
                writeln!(f, "\nweights {} ({} bytes)", area.name, area.bytes)?;
                for w in &area.weights {
                    writeln!(f, "  @{}: {} at {}", w.weight.name, Form(&w.form), w.offset)?;
                }
            }
            writeln!(f, "\nfunction {}", function.name)?;
            for region in &function.regions {
                if region.barrier {
                    writeln!(f, "  barrier")?;
                }
                self.region(f, area, region)?;
            }
        }
        writeln!(f)?;
        for step in &self.steps {
            match *step {
                Step::Run(i) => writeln!(f, "run {}", self.functions[i].name)?,
                Step::Layers { first, count } => self.runs(f, first, count)?,
            }
        }
        writeln!(f, "result {}", self.buffer(self.logits).name)
    }
}

impl Program {
    /// Calls of one function in a row are one line.
    fn runs(&self, f: &mut fmt::Formatter<'_>, first: usize, count: usize) -> fmt::Result {
        let mut at = first;
        while at < first + count {
            let function = self.schedule[at].function;
            let n = self.schedule[at..first + count].iter().take_while(|e| e.function == function).count();
            let name = &self.functions[function as usize].name;
            writeln!(f, "layers {}..{} {name}", self.layers[at], self.layers[at] + n)?;
            at += n;
        }
        Ok(())
    }

    fn view(&self, v: View) -> String {
        let name = &self.buffer(v.buffer).name;
        if v.col == 0 { name.clone() } else { format!("{name}[{}..]", v.col) }
    }

    fn region(&self, f: &mut fmt::Formatter<'_>, area: &Area, region: &Region) -> fmt::Result {
        let weight = |i: &usize| format!("@{}", area.weights[*i].weight.name);
        let name = |b: &BufferId| self.buffer(*b).name.clone();
        write!(f, "  %{} {}: ", region.name, times(region.rows, region.times))?;
        match &region.body {
            Body::Gather { table, out } => writeln!(f, "gather {} -> {}", weight(table), name(out)),
            Body::RopeAngles { inv_freq, out } => writeln!(f, "rope_angles {} -> {}", weight(inv_freq), name(out)),
            Body::RowGather { x, out } => writeln!(f, "row_gather {} -> {}", name(x), name(out)),
            Body::Norm { x, gamma, eps, groups, width, out } => {
                let gamma = gamma.map_or_else(String::new, |g| format!(" * {}", weight(&g)));
                writeln!(f, "norm {}{gamma} eps={eps:?} {groups}x{width} -> {}", self.view(*x), name(out))
            }
            Body::Quantize { x, out } => writeln!(f, "quantize {} -> {}", self.view(*x), name(out)),
            Body::Dot { weight: w, x, segments } => {
                writeln!(f, "dot {} * {}", weight(w), self.view(*x))?;
                segments.iter().try_for_each(|s| self.segment(f, area, s))
            }
            Body::Route { scores, experts, top_k, ids, gates } => {
                writeln!(f, "route {} top {top_k} of {experts} -> {}, {}", self.view(*scores), name(ids), name(gates))
            }
            Body::Group { ids, list, .. } => writeln!(f, "group {} -> {}", name(ids), name(list)),
            Body::ExpertRows { x, gates, list, out, .. } => {
                writeln!(f, "expert_rows {} * {} by {} -> {}", self.view(*x), name(gates), name(list), name(out))
            }
            Body::ExpertDot { weight: w, list, x, segments } => {
                writeln!(f, "expert_dot {} * {} by {}", weight(w), self.view(*x), name(list))?;
                segments.iter().try_for_each(|s| self.segment(f, area, s))
            }
            Body::Combine { rows, list, residual, out, .. } => {
                writeln!(f, "combine {} + {} by {} -> {}", self.view(*residual), name(rows), name(list), name(out))
            }
            Body::AttnTemperature { floor_scale, attn_scale, out } => {
                writeln!(f, "attn_temperature floor_scale={floor_scale:?} attn_scale={attn_scale:?} -> {}", name(out))
            }
            Body::Map { segments } => {
                writeln!(f, "map")?;
                segments.iter().try_for_each(|s| self.segment(f, area, s))
            }
            Body::RopeHalf { x, angles, heads, head_dim, out } => {
                writeln!(f, "rope_half {} by {} {heads}x{head_dim} -> {}", self.view(*x), self.view(*angles), name(out))
            }
            Body::KvWrite { k, v, cache } => {
                writeln!(f, "kv_write {} {}x{} {}, {}", cache.elem.name(), cache.heads, cache.head_dim, self.view(*k), self.view(*v))
            }
            Body::Attention { q, kv, group, scale, chunk, out } => {
                let (heads, d) = (kv.heads, kv.head_dim);
                let chunk = if *chunk > 0 { format!(" chunk={chunk}") } else { String::new() };
                writeln!(f, "attention {} {heads}x{group}x{d} {} scale={scale:?}{chunk} -> {}", self.view(*q), kv.elem.name(), name(out))
            }
        }
    }

    fn segment(&self, f: &mut fmt::Formatter<'_>, area: &Area, s: &Segment) -> fmt::Result {
        let sink = match s.sink {
            Sink::Store(b) => self.buffer(b).name.clone(),
            Sink::CacheK(_) => "cache K".to_owned(),
            Sink::CacheV(_) => "cache V".to_owned(),
        };
        let lanes = if s.lanes > 1 { format!(" x{}", s.lanes) } else { String::new() };
        writeln!(f, "    {}..{}{lanes}: {} -> {sink}", s.first, s.first + s.blocks * s.lanes, self.expr(area, &s.expr))
    }

    fn expr(&self, area: &Area, e: &Expr) -> String {
        match e {
            Expr::Acc(0) => "acc".to_owned(),
            Expr::Acc(n) => format!("acc{n}"),
            Expr::Load(v) => self.view(*v),
            Expr::Row(v) => format!("row({})", self.view(*v)),
            Expr::Vector { weight, start, stride } => {
                let name = &area.weights[*weight].weight.name;
                if (*start, *stride) == (0, 16) { format!("@{name}") } else { format!("@{name}[{start}+{stride}b]") }
            }
            Expr::Add(a, b) => format!("({} + {})", self.expr(area, a), self.expr(area, b)),
            Expr::Mul(a, b) => format!("({} * {})", self.expr(area, a), self.expr(area, b)),
            Expr::Silu(x) => format!("silu({})", self.expr(area, x)),
            Expr::Rope { x, angles, head_dim } => format!("rope({}, {}, {head_dim})", self.expr(area, x), self.view(*angles)),
            Expr::Keep { x, width } => format!("keep({}, {width})", self.expr(area, x)),
            Expr::Round(x) => format!("round({})", self.expr(area, x)),
        }
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Scratch => "scratch",
        Role::Carried => "carried",
        Role::Shared => "shared",
        Role::Logits => "logits",
    }
}

fn times(rows: usize, times: usize) -> String {
    if times > 1 { format!("rows{rows} x {times}") } else { format!("rows{rows}") }
}

fn shape(width: usize, layout: Layout) -> String {
    let padded = layout.padded(width);
    match layout {
        Layout::Plain if padded == width => format!("{width}"),
        Layout::Plain => format!("{width} of {padded}"),
        Layout::Heads(d) => format!("{width} of {padded} by {d}"),
    }
}

struct Form<'a>(&'a WeightForm);

impl fmt::Display for Form<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = |rows: &RowOrder, n: usize| match rows {
            RowOrder::Plain(l) => shape(n, *l),
            RowOrder::GateUp(l) => format!("2 x {}", shape(n / 2, *l)),
        };
        match self.0 {
            WeightForm::Matrix { format, rows, cols, n, k, experts } => {
                let experts = if *experts > 1 { format!("{experts} x ") } else { String::new() };
                write!(f, "{experts}{}[{}, {}]", format.name, order(rows, *n), shape(*k, *cols))
            }
            WeightForm::Vector { rows, n } => write!(f, "vector[{}]", order(rows, *n)),
        }
    }
}
