//! Merges the linears of one input that make queries, keys and values into one: one region instead of three. The rule starts at the
//! attention and the cache writes of a function, never pairwise, so that it ends.
//!
//! Before:
//! ```text
//! func @f(%x: f32[s, 8], %pos: i32[s], %seq: i32[s]) {
//!   weight @wq = "q": f32[8, 8]
//!   weight @wk = "k": f32[4, 8]
//!   weight @wv = "v": f32[4, 8]
//!   %q = linear %x, @wq : f32[s, 8]
//!   %k = linear %x, @wk : f32[s, 4]
//!   %v = linear %x, @wv : f32[s, 4]
//!   kv_write %k, %v, %pos, %seq, head_dim=4
//!   %a = attention %q, %pos, %seq, heads=2, kv_heads=1, head_dim=4, scale=0.5 : f32[s, 8]
//!   return %a
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[s, 8], %pos: i32[s], %seq: i32[s]) {
//!   weight @wq_wk_wv: f32[16, 8] = concat("q": f32[8, 8], "k": f32[4, 8], "v": f32[4, 8])
//!   %q_k_v = linear %x, @wq_wk_wv : f32[s, 16]
//!   %k = slice_cols %q_k_v, start=8, len=4 : f32[s, 4]
//!   %v = slice_cols %q_k_v, start=12, len=4 : f32[s, 4]
//!   kv_write %k, %v, %pos, %seq, head_dim=4
//!   %q = slice_cols %q_k_v, start=0, len=8 : f32[s, 8]
//!   %a = attention %q, %pos, %seq, heads=2, kv_heads=1, head_dim=4, scale=0.5 : f32[s, 8]
//!   return %a
//! }
//! ```

use crate::egraph::{Graph, Rule, Union};
use crate::merge;
use crate::registry::{Exactness, Kind, Pass};
use egg::Id;
use llamac_ir::op::{OpKind, Stage};

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "merge-qkv",
    kind: Kind::Rewrite(&[Rule { name: "merge-qkv/readers", propose }]),
    exactness: Exactness::Exact,
    stage: Stage::Imported,
    source: include_str!("merge_qkv.rs"),
};

fn propose(graph: &mut Graph) -> Vec<Vec<Union>> {
    let anchors = graph.anchors.clone();
    let read = |kinds: &[OpKind], operand: usize| -> Vec<Id> {
        anchors.iter().filter(|(op, _)| kinds.contains(op)).map(|(_, operands)| operands[operand]).collect()
    };
    let writes = [OpKind::KvWrite, OpKind::RopeKvWrite];
    let read = [read(&[OpKind::Attention], 0), read(&writes, 0), read(&writes, 1)].concat();
    let parts = read.into_iter().flat_map(|class| behind(graph, class)).flat_map(|class| merge::parts(graph, class)).collect();
    merge::groups(graph, parts).iter().map(|group| merge::merge(graph, group)).collect()
}

/// A class and what it is made of by rotating, by norming heads and by scaling rows.
fn behind(graph: &Graph, class: Id) -> Vec<Id> {
    let mut out = vec![graph.egraph.find(class)];
    let mut at = 0;
    while at < out.len() {
        for op in [OpKind::Rope, OpKind::RmsUnit, OpKind::RowScale] {
            for (_, operands) in graph.ops_in(out[at], op) {
                if !out.contains(&operands[0]) {
                    out.push(operands[0]);
                }
            }
        }
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, fired};

    const ROPED: &str = "func @f(%x: f32[s, 8], %y: f32[s, 8], %angles: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
  weight @wq = \"q\": bf16[8, 8]
  weight @bq = \"bq\": bf16[8]
  weight @wk = \"k\": bf16[4, 8]
  weight @bk = \"bk\": bf16[4]
  weight @wv = \"v\": bf16[4, 8]
  weight @bv = \"bv\": bf16[4]
  %q = linear %x, @wq, @bq
  %k = linear %x, @wk, @bk
  %v = linear %x, @wv, @bv
  %qr = rope %q, %angles, head_dim=4, layout=interleaved
  %qn = rms_unit %qr, eps=1e-5, group=4
  %kr = rope %k, %angles, head_dim=4, layout=interleaved
  kv_write %kr, %v, %pos, %seq, head_dim=4
  %a = attention %qn, %pos, %seq, heads=2, kv_heads=1, head_dim=4, scale=0.5
  return %a
}";
    const RULE: &str = "merge-qkv/readers";

    #[test]
    fn linears_are_found_behind_rotations_and_norms_of_heads() {
        assert_eq!(fired("merge-qkv", ROPED)[RULE], 1);
        insta::assert_snapshot!(check("merge-qkv", ROPED), @r#"
        func @f(%x: f32[s, 8], %y: f32[s, 8], %angles: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
          weight @wq_wk_wv: bf16[16, 8] = concat("q": bf16[8, 8], "k": bf16[4, 8], "v": bf16[4, 8])
          weight @bq_bk_bv: bf16[16] = concat("bq": bf16[8], "bk": bf16[4], "bv": bf16[4])
          %q_k_v = linear %x, @wq_wk_wv, @bq_bk_bv                      : f32[s, 16]
          %k = slice_cols %q_k_v, start=8, len=4                        : f32[s, 4]
          %kr = rope %k, %angles, head_dim=4, layout=interleaved        : f32[s, 4]
          %v = slice_cols %q_k_v, start=12, len=4                       : f32[s, 4]
          kv_write %kr, %v, %pos, %seq, head_dim=4
          %q = slice_cols %q_k_v, start=0, len=8                        : f32[s, 8]
          %qr = rope %q, %angles, head_dim=4, layout=interleaved        : f32[s, 8]
          %qn = rms_unit %qr, eps=1e-5, group=4                         : f32[s, 8]
          %a = attention %qn, %pos, %seq, heads=2, kv_heads=1, head_dim=4, scale=0.5  : f32[s, 8]
          return %a
        }
        "#);
    }

    #[test]
    fn keys_and_values_merge_without_a_query_of_another_input() {
        let apart = ROPED.replace("%q = linear %x", "%q = linear %y");
        let text = check("merge-qkv", &apart);
        assert!(text.contains("%k_v = linear %x, @wk_wv, @bk_bv") && text.contains("%q = linear %y, @wq, @bq"), "{text}");
    }

    #[test]
    fn linears_that_differ_in_type_or_bias_stay_apart() {
        let types = ROPED.replace("\"k\": bf16", "\"k\": f32").replace("\"v\": bf16", "\"v\": f16");
        assert!(fired("merge-qkv", &types).is_empty());
        let biases = ROPED.replace("%x, @wk, @bk", "%x, @wk").replace("%x, @wq, @bq", "%x, @wq");
        let text = check("merge-qkv", &biases);
        assert!(text.contains("%q_k = linear %x, @wq_wk ") && text.contains("%v = linear %x, @wv, @bv"), "{text}");
    }

    #[test]
    fn linears_that_attention_does_not_read_stay_apart() {
        let pair = "func @f(%x: f32[s, 8]) {
  weight @a = \"a\": f32[4, 8]
  weight @b = \"b\": f32[4, 8]
  %y = linear %x, @a
  %z = linear %x, @b
  %o = add %y, %z
  return %o
}";
        assert!(fired("merge-qkv", pair).is_empty());
    }
}
