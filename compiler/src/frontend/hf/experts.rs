//! The feed-forward part of a layer in the plain words of its definition: a gated MLP, or a mixture of experts in which every expert sees every
//! token and the gates mask. Attention is in `build`.

use super::build::Writer;
use super::llama4::Llama4;
use llamac_ir::build::Result;
use llamac_ir::module::ValueId;
use llamac_ir::op::{Attr, OpKind};
use llamac_ir::recipe::Recipe;

impl Writer<'_> {
    /// `down(silu(gate(x)) * up(x))` with the weights under `part`.
    pub(super) fn mlp(&mut self, x: ValueId, part: &str, ffn: usize) -> Result<ValueId> {
        let (hidden, bias) = (self.b.config.hidden, self.b.config.mlp_bias);
        let gate = self.linear("gate", x, &format!("{part}.gate_proj"), [ffn, hidden], bias)?;
        let up = self.linear("up", x, &format!("{part}.up_proj"), [ffn, hidden], bias)?;
        let act = self.f.op(OpKind::Silu, "act", &[gate.into()], &[])?;
        let mid = self.f.op(OpKind::Mul, "mid", &[act.into(), up.into()], &[])?;
        self.linear("down", mid, &format!("{part}.down_proj"), [hidden, ffn], bias)
    }

    /// `h` plus the shared expert of `x` plus the sum of its chosen experts, whose gates multiply their input.
    pub(super) fn mixture(&mut self, x: ValueId, h: ValueId, l: &Llama4) -> Result<ValueId> {
        let ffn = self.b.config.ffn as i64;
        let shared = self.mlp(x, "feed_forward.shared_expert", self.b.config.ffn)?;
        let with_shared = self.f.op(OpKind::Add, "h_shared", &[h.into(), shared.into()], &[])?;

        let scores = self.linear("router", x, "feed_forward.router", [l.experts, self.b.config.hidden], false)?;
        let gates = self.f.op(OpKind::TopGates, "gates", &[scores.into()], &[("top_k", Attr::Int(l.top_k as i64))])?;
        let scaled = self.f.op(OpKind::ExpertScale, "scaled", &[x.into(), gates.into()], &[])?;
        let (gate_up, down) = (self.gate_up(l), self.down(l));
        let gate_up = self.f.weight("wexperts_gate_up", gate_up)?;
        let both = self.f.op(OpKind::ExpertLinear, "experts_gate_up", &[scaled.into(), gate_up.into()], &[])?;
        let half = |start| [("start", Attr::Int(start)), ("len", Attr::Int(ffn))];
        let gate = self.f.op(OpKind::SliceCols, "experts_gate", &[both.into()], &half(0))?;
        let up = self.f.op(OpKind::SliceCols, "experts_up", &[both.into()], &half(ffn))?;
        let act = self.f.op(OpKind::Silu, "experts_act", &[gate.into()], &[])?;
        let mid = self.f.op(OpKind::Mul, "experts_mid", &[act.into(), up.into()], &[])?;
        let down = self.f.weight("wexperts_down", down)?;
        let each = self.f.op(OpKind::ExpertLinear, "experts_down", &[mid.into(), down.into()], &[])?;
        let sum = self.f.op(OpKind::ExpertSum, "experts", &[each.into()], &[])?;
        self.f.op(OpKind::Add, "out", &[with_shared.into(), sum.into()], &[])
    }

    /// `[experts, 2 ffn, hidden]`, gate over up.
    fn gate_up(&self, l: &Llama4) -> Recipe {
        let (hidden, ffn) = (self.b.config.hidden, self.b.config.ffn);
        if !self.b.names.each_expert {
            return Recipe::Transpose(Box::new(self.in_layer("feed_forward.experts.gate_up_proj", &[l.experts, hidden, 2 * ffn])));
        }
        let part = |e, name: &str| self.in_layer(&format!("feed_forward.experts.{e}.{name}_proj.weight"), &[ffn, hidden]);
        Recipe::Stack((0..l.experts).map(|e| Recipe::Concat(vec![part(e, "gate"), part(e, "up")])).collect())
    }

    /// `[experts, hidden, ffn]`.
    fn down(&self, l: &Llama4) -> Recipe {
        let (hidden, ffn) = (self.b.config.hidden, self.b.config.ffn);
        if !self.b.names.each_expert {
            return Recipe::Transpose(Box::new(self.in_layer("feed_forward.experts.down_proj", &[l.experts, ffn, hidden])));
        }
        let part = |e| self.in_layer(&format!("feed_forward.experts.{e}.down_proj.weight"), &[hidden, ffn]);
        Recipe::Stack((0..l.experts).map(part).collect())
    }
}
