//! Experts under names of their own (`experts.3.gate_proj.weight`, as `[out, in]`) instead of fused ones (`[experts, in, out]`): the same model.

use crate::artifact_for;
use llamac_tests::fixture::{self, Fixture};
use llamac_tests::model::{self, Runner};
use llamac_tests::numbers::bits;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

/// A tensor of its own: name, shape, bytes.
type Owned = (String, Vec<usize>, Vec<u8>);

/// Rows `from..to` of the transpose of a `[rows, columns]` matrix of 2-byte elements.
fn transposed(data: &[u8], [rows, columns]: [usize; 2], from: usize, to: usize) -> Vec<u8> {
    (from..to).flat_map(|c| (0..rows).flat_map(move |r| data[2 * (r * columns + c)..][..2].iter().copied())).collect()
}

/// The tensors of a checkpoint file with fused experts taken apart.
fn apart(bytes: &[u8]) -> Vec<Owned> {
    let mut out = Vec::new();
    for (name, view) in SafeTensors::deserialize(bytes).expect("a safetensors file").tensors() {
        assert_eq!(view.dtype(), Dtype::BF16);
        let (shape, data) = (view.shape().to_vec(), view.data());
        let (Some((before, part)), [experts, rows, columns]) = (name.rsplit_once(".experts."), &shape[..]) else {
            out.push((name, shape, data.to_vec()));
            continue;
        };
        for (e, data) in data.chunks_exact(2 * rows * columns).enumerate() {
            let mut push = |name: &str, from, to| {
                out.push((
                    format!("{before}.experts.{e}.{name}.weight"),
                    vec![to - from, *rows],
                    transposed(data, [*rows, *columns], from, to),
                ));
            };
            match part {
                "gate_up_proj" => {
                    push("gate_proj", 0, columns / 2);
                    push("up_proj", columns / 2, *columns);
                }
                _ => push("down_proj", 0, *columns),
            }
        }
        assert!(*experts > 1);
    }
    out
}

/// Writes a fixture with its experts taken apart, into one file.
fn rewrite(fixture: &Fixture, to: &Path) {
    let mut tensors = Vec::new();
    for entry in std::fs::read_dir(&fixture.model).expect("the fixture").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let bytes = std::fs::read(&path).expect("readable");
        match name.as_str() {
            n if n.ends_with(".safetensors") => tensors.extend(apart(&bytes)),
            n if n.ends_with(".index.json") => {}
            _ => std::fs::write(to.join(name), bytes).expect("writable"),
        }
    }
    let views = tensors.iter().map(|(name, shape, data)| (name, TensorView::new(Dtype::BF16, shape.clone(), data).expect("a tensor")));
    std::fs::write(to.join("model.safetensors"), safetensors::serialize(views, None).expect("tensors")).expect("writable");
}

#[test]
fn experts_under_their_own_names_give_the_same_bits_as_fused_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["llama4-scout-like", "llama4-maverick-like"] {
        let fused = fixture::load(name);
        let model = folder.path().join(name);
        std::fs::create_dir(&model).expect("a folder");
        rewrite(&fused, &model);
        let own = Fixture { name: format!("{name}-own"), model, ..fused.clone() };
        let ids = fused.prompt("long").ids;
        for quant in ["f32", "bf16", "int4"] {
            let expected = bits(&Runner::open(&artifact_for(&fused, quant, "native"), 2).logits(&ids));
            let path = model::artifact(folder.path(), &own, quant, "native");
            assert!(bits(&Runner::open(&path, 2).logits(&ids)) == expected, "{name} {quant}");
        }
    }
}
