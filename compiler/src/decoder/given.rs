//! The tensors that come in, by what they are: checked against the signature, and put together to a batch of sequences (`rows` says which columns are
//! tokens). Nothing runs here.

use super::rows::{Row, Told};
use crate::diag::{Diag, Result};
use crate::frontend::onnx::eager::decode;
use crate::graph::stored_as;
use llamac_ir::dtype::DType;
use llamac_ir::eval::Tensor;
use llamac_runtime::artifact::signature::{Port, Role, Signature};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::Path;

/// Tensors by what they are.
pub(super) struct Given<'a> {
    signature: &'a Signature,
    input: &'a Path,
    tensors: BTreeMap<&'a str, (&'a Port, Tensor)>,
}

/// A batch whose rows are understood.
pub(super) struct Batch {
    pub(super) rows: Vec<Row>,
    /// Columns of the past, and of the new tokens.
    pub(super) past: usize,
    pub(super) new: usize,
    /// Tokens of each row, without padding.
    pub(super) ids: Vec<Vec<u32>>,
    /// Past keys and values of each layer, `[batch, heads, past, d]`; empty: there is no past.
    pub(super) pasts: Vec<[Tensor; 2]>,
}

impl<'a> Given<'a> {
    pub(super) fn read(signature: &'a Signature, input: &'a Path) -> Result<Given<'a>> {
        let bytes = std::fs::read(input).map_err(|e| Diag::io("cannot read the input tensors", input.display(), &e))?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|e| Diag::new("tensors", "the input is not a safetensors file").place(input.display()).found(e))?;
        let show = |p: &Port| format!("`{}`: {}[{}]", p.name, p.dtype, p.shape.join(", "));
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let wrong = |what: &str| Diag::new("tensors", what).place(format_args!("{}: `{name}`", input.display()));
            let Some(port) = signature.inputs.iter().find(|p| p.name == name) else {
                let names: Vec<String> = signature.inputs.iter().map(show).collect();
                return Err(wrong("the graph has no input of that name").found(format_args!("`{name}`")).expected(names.join(", ")));
            };
            let dtype = DType::from_name(&port.dtype).ok_or_else(|| wrong("an input of an unknown element type").found(&port.dtype))?;
            if view.dtype() != stored_as(dtype) {
                return Err(wrong("an input has another element type").found(format_args!("{:?}", view.dtype())).expected(format_args!(
                    "{:?} for {}",
                    stored_as(dtype),
                    show(port)
                )));
            }
            let fixed = port.shape.iter().zip(view.shape()).all(|(want, have)| want.parse::<usize>().map_or(true, |n| n == *have));
            if port.shape.len() != view.shape().len() || !fixed {
                return Err(wrong("an input has another shape").found(format_args!("{:?}", view.shape())).expected(show(port)));
            }
            let tensor = decode(dtype, view.shape(), view.data());
            let tensor =
                tensor.ok_or_else(|| wrong("the data is not as long as its shape says").found(format_args!("{:?}", view.shape())))?;
            tensors.insert(port.name.as_str(), (port, tensor));
        }
        if let Some(missing) = signature.inputs.iter().find(|p| !p.optional && !tensors.contains_key(p.name.as_str())) {
            return Err(Diag::new("tensors", "an input is missing").place(input.display()).expected(show(missing)));
        }
        Ok(Given { signature, input, tensors })
    }

    fn find(&self, role: impl Fn(Role) -> bool) -> Option<(&str, &Tensor)> {
        self.tensors.iter().find(|(_, (port, _))| role(port.role)).map(|(name, (_, tensor))| (*name, tensor))
    }

    fn wrong(&self, name: &str, what: &str) -> Diag {
        Diag::new("tensors", what).place(format_args!("{}: `{name}`", self.input.display()))
    }

    /// Whole numbers of that shape.
    fn whole(&self, role: impl Fn(Role) -> bool, shape: &[usize]) -> Result<Option<(&str, Vec<i64>)>> {
        let Some((name, tensor)) = self.find(role) else { return Ok(None) };
        if tensor.shape().iter().product::<usize>() != shape.iter().product::<usize>()
            || tensor.shape().first() != shape.first() && shape.len() > 1
        {
            let found = format!("{:?}", tensor.shape());
            return Err(self.wrong(name, "an input does not fit the ids and the past").found(found).expected(format_args!("{shape:?}")));
        }
        Ok(Some((name, integers(tensor))))
    }

    pub(super) fn batch(&self) -> Result<Batch> {
        let (name, ids) = self.find(|r| r == Role::Ids).ok_or_else(|| Diag::new("tensors", "there are no token ids"))?;
        let &[batch, new] = ids.shape() else { return Err(self.wrong(name, "token ids are no matrix").expected("[batch, sequence]")) };
        if let Some((other, _)) = self.find(|r| r == Role::Other) {
            return Err(self
                .wrong(other, "what the graph does with this input is not known to the compiled code")
                .help("`llamac infer` of the ONNX file itself interprets it"));
        }
        let layer = |p: &Port| if let Role::Key(n) | Role::Value(n) = p.role { n.saturating_add(1) } else { 0 };
        let layers = self.signature.outputs.iter().chain(&self.signature.inputs).map(layer).max().unwrap_or(0);
        let past = self.find(|r| matches!(r, Role::Key(_) | Role::Value(_))).map_or(0, |(_, t)| t.shape().get(2).copied().unwrap_or(0));
        let mut pasts = Vec::new();
        for layer in (0..layers).filter(|_| past > 0) {
            let one = |role: Role| -> Result<Tensor> {
                let (name, tensor) = self.find(|r| r == role).ok_or_else(|| {
                    Diag::new("tensors", "the past of a layer is missing").place(self.input.display()).expected(format_args!("{role:?}"))
                })?;
                let shape = tensor.shape();
                if shape.len() != 4 || shape[0] != batch || shape[2] != past {
                    return Err(self
                        .wrong(name, "the past does not fit the others")
                        .found(format_args!("{shape:?}"))
                        .expected(format_args!("a batch of {batch} and {past} tokens")));
                }
                Ok(tensor.clone())
            };
            pasts.push([one(Role::Key(layer))?, one(Role::Value(layer))?]);
        }
        let total = past + new;
        let mask = self.whole(|r| matches!(r, Role::Mask { .. }), &[batch, total])?;
        let padding = self.signature.inputs.iter().any(|p| p.role == Role::Mask { padding: true });
        let (last, positions) = (self.whole(|r| r == Role::Last, &[batch])?, self.whole(|r| r == Role::Positions, &[batch, new])?);
        if let Some((name, found)) = self.whole(|r| r == Role::Total, &[1])?
            && found[0] != total as i64
        {
            return Err(self.wrong(name, "the number of past and new tokens is another").found(found[0]).expected(total));
        }
        // Without positions as an input a graph counts its columns; ours, of a checkpoint, counts tokens.
        let known = self.signature.inputs.iter().any(|p| p.role == Role::Positions);
        let told = Told {
            batch,
            past,
            new,
            mask: mask.as_ref().map(|(name, m)| (*name, m.as_slice(), padding && known)),
            last: last.as_ref().map(|(name, l)| (*name, l.as_slice())),
            positions: positions.as_ref().map(|(name, p)| (*name, p.as_slice())),
            counts: self.signature.counts,
        };
        let rows = told.rows().map_err(|d| d.inside(self.input.display()))?;
        let all = integers(ids);
        let of_row = |(b, row): (usize, &Row)| -> Result<Vec<u32>> {
            let tokens = &all[b * new..(b + 1) * new][row.new.clone()];
            let token = |t: &i64| u32::try_from(*t).map_err(|_| self.wrong(name, "a token id is not in the vocabulary").found(*t));
            tokens.iter().map(token).collect()
        };
        let ids = rows.iter().enumerate().map(of_row).collect::<Result<_>>()?;
        Ok(Batch { rows, past, new, ids, pasts })
    }
}

fn integers(tensor: &Tensor) -> Vec<i64> {
    let narrow = || tensor.as_i32().map(|v| v.iter().map(|x| i64::from(*x)).collect());
    tensor.as_i64().map(<[i64]>::to_vec).or_else(narrow).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::{Dtype, TensorView};

    fn port(name: &str, dtype: &str, shape: &[&str], role: Role) -> Port {
        Port { name: name.into(), dtype: dtype.into(), shape: shape.iter().map(|d| (*d).to_owned()).collect(), role, optional: true }
    }

    /// What is said of token ids `[1, 2]` and a past of that shape, by a signature that has this port beside the ids.
    fn said(other: Port, shape: &[usize]) -> String {
        let ids = port("ids", "i64", &["b", "s"], Role::Ids);
        let signature = Signature { inputs: vec![ids, other.clone()], outputs: vec![], counts: false };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("in.safetensors");
        let (ids, floats) = ([0; 16], vec![0; 4 * shape.iter().product::<usize>()]);
        let views = [
            ("ids", TensorView::new(Dtype::I64, vec![1, 2], &ids).unwrap()),
            (other.name.as_str(), TensorView::new(Dtype::F32, shape.to_vec(), &floats).unwrap()),
        ];
        safetensors::serialize_to_file(views, None, &file).unwrap();
        let batch = Given::read(&signature, &file).and_then(|given| given.batch());
        batch.map(|b| format!("{} past", b.past)).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn signatures_that_no_compiler_writes_are_refused_and_no_panic() {
        assert!(said(port("k", "f32", &["n"], Role::Key(0)), &[3]).contains("0 past"));
        assert!(
            said(port("k", "f32", &["1", "1", "n", "4"], Role::Key(usize::MAX)), &[1, 1, 3, 4]).contains("the past of a layer is missing")
        );
        assert!(said(port("k", "f32", &["n", "1", "p", "4"], Role::Key(0)), &[2, 1, 3, 4]).contains("the past does not fit the others"));
        assert!(said(port("k", "f32", &["1", "1", "p", "4"], Role::Value(0)), &[1, 1, 3, 4]).contains("the past of a layer is missing"));
        assert!(said(port("mask", "f32", &["n"], Role::Mask { padding: true }), &[7]).contains("does not fit the ids"));
        assert!(said(port("x", "f32", &["n"], Role::Other), &[7]).contains("what the graph does with this input is not known"));
        assert!(said(port("x", "q9", &["n"], Role::Other), &[7]).contains("unknown element type"));
        assert!(said(port("x", "f32", &["8"], Role::Unread), &[7]).contains("another shape"));
    }
}
