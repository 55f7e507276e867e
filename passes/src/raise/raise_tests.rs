//! Raising whole graphs: what a graph of primitive ops becomes, and that the work grows with the number of layers and no faster.

use super::*;
use crate::check::Seeded;
use crate::testing;
use llamac_ir::parse::parse;
use std::fmt::Write;

/// A decoder of `layers` layers in primitive ops: two query heads of size 4, one for keys and values.
pub(crate) fn graph(layers: usize) -> String {
    let mut text =
        "module deep stage=graph\ndim b = 0..64\ndim p = 0..64\ndim s = 0..64\nfunc @main(%ids: i64[b, s], %pos: i64[b, s]".to_owned();
    for i in 0..layers {
        write!(text, ", %pk{i}: f32[b, 1, p, 4], %pv{i}: f32[b, 1, p, 4]").unwrap();
    }
    text += ") {
  weight @embed = \"embed\": f32[7, 8]
  weight @freq = literal([1, 1, 2], 1.0, 0.1)
  weight @two = literal([], 2.0)
  weight @eps = literal([], 1e-5)
  weight @scale = literal([], 0.5)
  weight @seen = literal([], 0.0)
  weight @hidden = literal([], -1e30)
";
    for i in 0..layers {
        for (name, shape) in [("g", "8"), ("q", "8, 8"), ("k", "8, 4"), ("v", "8, 4"), ("o", "8, 8")] {
            writeln!(text, "  weight @{name}{i} = \"{name}{i}\": f32[{shape}]").unwrap();
        }
        for (name, shape) in [("h", "8"), ("gate", "8, 12"), ("up", "8, 12"), ("down", "12, 8")] {
            writeln!(text, "  weight @{name}{i} = \"{name}{i}\": f32[{shape}]").unwrap();
        }
    }
    text += "  weight @end = \"end\": f32[8]
  weight @head = \"head\": f32[8, 7]
  %x0 = tensor.gather @embed, %ids, axis=0
  %real = tensor.cast %pos, to=f32
  %column = tensor.reshape %real, shape=[b, s, 1]
  %angle = tensor.mul %column, @freq
  %cos = tensor.cos %angle
  %sin = tensor.sin %angle
  %new = tensor.range start=[p], len=[s]
  %queries = tensor.reshape %new, shape=[1, 1, s, 1]
  %all = tensor.range start=[0], len=[p+s]
  %keys = tensor.reshape %all, shape=[1, 1, 1, p+s]
  %causal = tensor.less_or_equal %keys, %queries
  %mask = tensor.where %causal, @seen, @hidden
";
    let mut results = Vec::new();
    for i in 0..layers {
        text += &LAYER.replace("#+", &(i + 1).to_string()).replace('#', &i.to_string());
        results.extend([format!("%kc{i}"), format!("%vc{i}")]);
    }
    text += &NORM.replace("%in", &format!("%x{layers}")).replace("@gamma", "@end").replace('#', "end");
    write!(text, "  %logits = tensor.matmul %nend, @head\n  return %logits, {}\n}}\n", results.join(", ")).unwrap();
    text
}

/// `%n#` of `%in`.
const NORM: &str = "  %sq# = tensor.pow %in, @two
  %me# = tensor.reduce_mean %sq#, axes=[-1]
  %su# = tensor.add %me#, @eps
  %ro# = tensor.sqrt %su#
  %re# = tensor.reciprocal %ro#
  %un# = tensor.mul %in, %re#
  %n# = tensor.mul @gamma, %un#
";

const LAYER: &str = "  %sqa# = tensor.pow %x#, @two
  %mea# = tensor.reduce_mean %sqa#, axes=[-1]
  %sua# = tensor.add %mea#, @eps
  %roa# = tensor.sqrt %sua#
  %rea# = tensor.reciprocal %roa#
  %una# = tensor.mul %x#, %rea#
  %na# = tensor.mul @g#, %una#
  %q# = tensor.matmul %na#, @q#
  %k# = tensor.matmul %na#, @k#
  %v# = tensor.matmul %na#, @v#
  %qs# = tensor.reshape %q#, shape=[b, s, 2, 4]
  %ks# = tensor.reshape %k#, shape=[b, s, 1, 4]
  %vs# = tensor.reshape %v#, shape=[b, s, 1, 4]
  %qt# = tensor.transpose %qs#, perm=[0, 2, 1, 3]
  %kt# = tensor.transpose %ks#, perm=[0, 2, 1, 3]
  %vt# = tensor.transpose %vs#, perm=[0, 2, 1, 3]
  %qr# = tensor.rotary %qt#, %cos, %sin
  %kr# = tensor.rotary %kt#, %cos, %sin
  %kc# = tensor.concat %pk#, %kr#, axis=2
  %vc# = tensor.concat %pv#, %vt#, axis=2
  %k5# = tensor.reshape %kc#, shape=[b, 1, 1, p+s, 4]
  %kx# = tensor.expand %k5#, shape=[b, 1, 2, p+s, 4]
  %k4# = tensor.reshape %kx#, shape=[b, 2, p+s, 4]
  %v5# = tensor.reshape %vc#, shape=[b, 1, 1, p+s, 4]
  %vx# = tensor.expand %v5#, shape=[b, 1, 2, p+s, 4]
  %v4# = tensor.reshape %vx#, shape=[b, 2, p+s, 4]
  %kk# = tensor.transpose %k4#, perm=[0, 1, 3, 2]
  %qk# = tensor.matmul %qr#, %kk#
  %sc# = tensor.mul %qk#, @scale
  %ma# = tensor.add %sc#, %mask
  %so# = tensor.softmax %ma#, axis=-1
  %at# = tensor.matmul %so#, %v4#
  %tt# = tensor.transpose %at#, perm=[0, 2, 1, 3]
  %fl# = tensor.reshape %tt#, shape=[b, s, 8]
  %o# = tensor.matmul %fl#, @o#
  %y# = tensor.add %x#, %o#
  %sqb# = tensor.mul %y#, %y#
  %meb# = tensor.reduce_mean %sqb#, axes=[-1]
  %sub# = tensor.add %meb#, @eps
  %rob# = tensor.sqrt %sub#
  %unb# = tensor.div %y#, %rob#
  %nb# = tensor.mul %unb#, @h#
  %ga# = tensor.matmul %nb#, @gate#
  %up# = tensor.matmul %nb#, @up#
  %si# = tensor.sigmoid %ga#
  %ac# = tensor.mul %ga#, %si#
  %mu# = tensor.mul %ac#, %up#
  %do# = tensor.matmul %mu#, @down#
  %x#+ = tensor.add %y#, %do#
";

fn raised(layers: usize) -> Raised {
    raised_text(&graph(layers))
}

fn raised_text(text: &str) -> Raised {
    let module = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let source = Seeded::new(&module, 0);
    let dims = vec![("s".to_owned(), 1, 64), ("r".to_owned(), 0, 64)];
    raise(&module, &source, dims, &Options::default(), &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn a_graph_of_primitive_ops_is_a_layer_called_so_many_times() {
    let raised = raised(3);
    assert_eq!(raised.layers, 3);
    insta::assert_snapshot!(raised.module.to_string(), @r#"
    module deep stage=imported
    dim s = 1..64
    dim r = 0..64

    func @layer(%x: f32[s, 8], %angles: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
      weight @w0: f32[8] = "layer.{layer}.0.1": f32[8]
      weight @w1: f32[8, 8] = transpose("layer.{layer}.1.1": f32[8, 8])
      weight @w2: f32[4, 8] = transpose("layer.{layer}.2.1": f32[8, 4])
      weight @w3: f32[4, 8] = transpose("layer.{layer}.3.1": f32[8, 4])
      weight @w4: f32[8, 8] = transpose("layer.{layer}.4.1": f32[8, 8])
      weight @w5: f32[8] = "layer.{layer}.5.1": f32[8]
      weight @w6: f32[12, 8] = transpose("layer.{layer}.6.1": f32[8, 12])
      weight @w7: f32[12, 8] = transpose("layer.{layer}.7.1": f32[8, 12])
      weight @w8: f32[8, 12] = transpose("layer.{layer}.8.1": f32[12, 8])
      %na0 = rms_norm %x, @w0, eps=1e-5                             : f32[s, 8]
      %q0 = linear %na0, @w1                                        : f32[s, 8]
      %qr0 = rope %q0, %angles, head_dim=4, layout=half             : f32[s, 8]
      %k0 = linear %na0, @w2                                        : f32[s, 4]
      %kr0 = rope %k0, %angles, head_dim=4, layout=half             : f32[s, 4]
      %v0 = linear %na0, @w3                                        : f32[s, 4]
      kv_write %kr0, %v0, %pos, %seq, head_dim=4
      %at0 = attention %qr0, %pos, %seq, heads=2, kv_heads=1, head_dim=4, scale=0.5  : f32[s, 8]
      %o0 = linear %at0, @w4                                        : f32[s, 8]
      %y0 = add %x, %o0                                             : f32[s, 8]
      %nb0 = rms_norm %y0, @w5, eps=1e-5                            : f32[s, 8]
      %ga0 = linear %nb0, @w6                                       : f32[s, 12]
      %ac0 = silu %ga0                                              : f32[s, 12]
      %up0 = linear %nb0, @w7                                       : f32[s, 12]
      %mu0 = mul %ac0, %up0                                         : f32[s, 12]
      %do0 = linear %mu0, @w8                                       : f32[s, 8]
      %x1 = add %y0, %do0                                           : f32[s, 8]
      return %x1
    }

    func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
      weight @embed: f32[7, 8] = "embed": f32[7, 8]
      weight @inv_freq: f32[2] = literal([2], 1.0, 0.1)
      weight @end: f32[8] = "end": f32[8]
      weight @head: f32[7, 8] = transpose("head": f32[8, 7])
      %x0 = embed %ids, @embed                            : f32[s, 8]
      %angles = rope_angles %pos, @inv_freq               : f32[s, 4]
      %y = layers %x0, %angles, %pos, %seq [@layer 0..3]  : f32[s, 8]
      %nend = rms_norm %y, @end, eps=1e-5                 : f32[s, 8]
      %logits = linear %nend, @head                       : f32[s, 7]
      %logits.1 = gather_rows %logits, %want              : f32[r, 7]
      return %logits.1
    }
    "#);
}

#[test]
fn the_work_grows_as_the_layers_do() {
    let depths = [2, 8, 32];
    let all = depths.map(raised);
    let [two, eight, many] = [0, 1, 2].map(|i| &all[i].saturation);
    assert!(two.saturated && many.saturated);
    // As many rounds for any depth, and each layer adds as many nodes as the one before.
    assert_eq!([two.iterations, eight.iterations], [many.iterations; 2]);
    assert_eq!((eight.nodes - two.nodes) * 4, many.nodes - eight.nodes);
    for (raised, layers) in all.iter().zip(depths) {
        assert_eq!(raised.layers, layers);
        // One function, whatever the depth.
        let text = |r: &Raised| testing::text(&r.module).split("func @main").next().unwrap_or_default().to_owned();
        assert_eq!(text(raised), text(&all[0]));
    }
}

/// The graph as exporters write it for models in 16 bits: norms and softmax in f32, casts around them.
fn narrow(layers: usize, dtype: &str) -> String {
    let mut text = String::new();
    for line in graph(layers).lines() {
        let mut line = line.replace("f32[b, 1, p, 4]", &format!("{dtype}[b, 1, p, 4]"));
        if line.contains("weight") && line.contains("\": f32") {
            line = line.replace("\": f32", &format!("\": {dtype}"));
        }
        if ["@scale", "@seen", "@hidden"].iter().any(|w| line.contains(&format!("weight {w} "))) {
            line = line.replace("= literal", &format!("= cast({dtype}, literal")) + ")";
            line = line.replace("-1e30", "-60000.0");
        }
        // `%un.. = .. * rsqrt` and the softmax get a cast before and one behind; tables one behind.
        let (name, rest) = line.trim().split_once(" = ").map_or_else(Default::default, |(n, r)| (n.to_owned(), r.to_owned()));
        let of = rest.split([' ', ',']).nth(1).unwrap_or("").to_owned();
        let behind = ["%una", "%unb", "%so", "%unend"].iter().any(|p| name.starts_with(p)) || ["%cos", "%sin"].contains(&name.as_str());
        let first = ["%sqa", "%sqb", "%so", "%sqend"].iter().any(|p| name.starts_with(p));
        if first {
            text += &format!("  {of}.f = tensor.cast {of}, to=f32\n");
        }
        if first || ["%una", "%unb", "%unend"].iter().any(|p| name.starts_with(p)) {
            line = line.replace(&format!("{of},"), &format!("{of}.f,")).replace(&format!(" {of} "), &format!(" {of}.f "));
            if line.ends_with(&of) {
                line += ".f";
            }
        }
        if behind {
            line = line.replacen(&name, &format!("{name}.f"), 1);
        }
        text += &line;
        text += "\n";
        if behind {
            text += &format!("  {name} = tensor.cast {name}.f, to={dtype}\n");
        }
    }
    text
}

#[test]
fn a_graph_of_16_bits_is_the_same_decoder_with_weights_as_they_are_stored() {
    let wide = raised(2).module.to_string();
    for dtype in ["f16", "bf16"] {
        let found = raised_text(&narrow(2, dtype)).module.to_string();
        let stored = |text: &str| -> String {
            let line = |l: &str| if l.contains("weight") && !l.contains("literal") { l.replace("f32", dtype) } else { l.to_owned() };
            text.lines().map(|l| line(l).split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
        };
        assert_eq!(stored(&found), stored(&wide), "{dtype}");
        assert!(found.contains(&format!("\"layer.{{layer}}.1.1\": {dtype}[8, 8]")), "{found}");
    }
}
