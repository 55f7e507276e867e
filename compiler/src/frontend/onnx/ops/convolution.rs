//! Convolutions that cut an image into patches: windows beside each other, as the first layer of a vision encoder has them. Each patch is a row of a
//! product. Windows that overlap, stand apart or reach over the edge are refused.

use super::super::attributes::Attributes;
use super::super::bad;
use super::super::import::{Importer, input};
use super::moving::reshaped;
use crate::diag::Result;
use llamac_ir::module::Operand;
use llamac_ir::op::Attr;
use llamac_ir::op::TensorOp as T;
use llamac_ir::types::Dim;
use tract_onnx::pb::NodeProto;

/// `[n, c, h, w]` by `[o, c, kh, kw]` to `[n, o, h/kh, w/kw]`; any number of axes behind the second.
pub(super) fn patches(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Result<Vec<Operand>> {
    i.at_most(node, 3)?;
    let name = &node.output[0];
    let (mut x, w) = (i.read(node, 0)?, i.read(node, 1)?);
    let (shape, kernel) = (i.ty(x).shape, i.ty(w).shape);
    let space = kernel.len().saturating_sub(2);
    let window: Option<Vec<i64>> = kernel.iter().skip(2).map(Dim::number).collect();
    let sizes: Option<Vec<i64>> = shape.iter().skip(2).map(Dim::number).collect();
    let (Some(window), Some(sizes), true) = (window, sizes, space > 0 && shape.len() == kernel.len()) else {
        return Err(bad("a convolution of images of unknown size").found(i.ty(x)).expected("[n, channels, height, width]"));
    };
    let list = |name: &'static str, default: i64, wanted: &[i64], why: &str| -> Result<()> {
        let found = a.ints(name)?.map_or_else(|| vec![default; wanted.len()], <[i64]>::to_vec);
        if found == wanted {
            return Ok(());
        }
        Err(bad(format!("attribute `{name}` has a value that is not compiled: {why}"))
            .found(Attr::ints(&found))
            .expected(Attr::ints(wanted)))
    };
    list("strides", 1, &window, "windows do not stand side by side")?;
    list("dilations", 1, &vec![1; space], "windows have gaps")?;
    list("pads", 0, &vec![0; 2 * space], "windows reach over the edge")?;
    if a.ints("kernel_shape")?.is_some_and(|k| *k != window) {
        return Err(bad("`kernel_shape` is not the shape of the weight").expected(Attr::ints(&window)));
    }
    a.only("group", 1)?;
    if let Some(other) = a.text("auto_pad")?.filter(|p| !["NOTSET", "VALID"].contains(&p.as_str())) {
        return Err(bad("attribute `auto_pad` has a value that is not compiled").found(other).expected("NOTSET or VALID"));
    }
    let counts: Vec<i64> = sizes.iter().zip(&window).map(|(n, k)| n / (*k).max(1)).collect();
    // What is left over at the end is in no window.
    for (axis, (count, k)) in counts.iter().zip(&window).enumerate().filter(|(axis, (count, k))| *count * *k != sizes[*axis]) {
        let attrs = [("axis", Attr::Int(axis as i64 + 2)), ("start", Attr::ints(&[0])), ("len", Attr::ints(&[count * k]))];
        x = i.tensor(T::Slice, name, &[x], &attrs)?.into();
    }
    let (n, channels, outputs) = (shape[0].clone(), shape[1].clone(), kernel[0].clone());
    let whole = |list: &[i64]| Dim::int(list.iter().product());
    // Each axis of the image is windows and places in a window; windows first, then what one window holds.
    let apart = counts.iter().zip(&window).flat_map(|(count, k)| [Dim::int(*count), Dim::int(*k)]);
    let apart: Vec<Dim> = [n.clone(), channels.clone()].into_iter().chain(apart).collect();
    let windows = (0..space as i64).map(|s| 2 + 2 * s);
    let places = (0..space as i64).map(|s| 3 + 2 * s);
    let order: Vec<i64> = std::iter::once(0).chain(windows).chain([1]).chain(places).collect();
    let width = channels.mul(&whole(&window));
    let mut rows = reshaped(i, name, x, apart)?;
    rows = i.tensor(T::Transpose, name, &[rows], &[("perm", Attr::ints(&order))])?.into();
    rows = reshaped(i, name, rows, vec![n.clone(), whole(&counts), width.clone()])?;
    let flat = reshaped(i, name, w, vec![outputs.clone(), width])?;
    let turned = i.tensor(T::Transpose, name, &[flat], &[("perm", Attr::ints(&[1, 0]))])?;
    let mut value: Operand = i.tensor(T::MatMul, name, &[rows, turned.into()], &[])?.into();
    if input(node, 2).is_some() {
        let bias = i.read(node, 2)?;
        value = i.tensor(T::Add, name, &[value, bias], &[])?.into();
    }
    value = i.tensor(T::Transpose, name, &[value], &[("perm", Attr::ints(&[0, 2, 1]))])?.into();
    let shape = [n, outputs].into_iter().chain(counts.iter().map(|c| Dim::int(*c))).collect();
    Ok(vec![reshaped(i, name, value, shape)?])
}
