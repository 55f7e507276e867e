//! Tensors in and out of commands, as safetensors files.

use crate::diag::{Diag, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// A named i64 tensor.
pub(super) struct Ids {
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<i64>,
}

/// All i64 tensors of a file.
pub(super) fn read_ids(path: &Path) -> Result<BTreeMap<String, Ids>> {
    let bytes = std::fs::read(path).map_err(|e| Diag::new("io", "cannot read the input tensors").place(path.display()).found(e))?;
    let tensors = safetensors::SafeTensors::deserialize(&bytes)
        .map_err(|e| Diag::new("tensors", "the input is not a safetensors file").place(path.display()).found(e))?;
    let mut out = BTreeMap::new();
    for (name, view) in tensors.tensors() {
        if view.dtype() != safetensors::Dtype::I64 {
            continue;
        }
        let data = view.data().chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().unwrap_or_default())).collect();
        out.insert(name, Ids { shape: view.shape().to_vec(), data });
    }
    Ok(out)
}

/// A tensor to write.
pub(super) enum Out {
    F32(Vec<usize>, Vec<f32>),
    I64(Vec<usize>, Vec<i64>),
}

impl safetensors::View for &Out {
    fn dtype(&self) -> safetensors::Dtype {
        match self {
            Out::F32(..) => safetensors::Dtype::F32,
            Out::I64(..) => safetensors::Dtype::I64,
        }
    }
    fn shape(&self) -> &[usize] {
        match self {
            Out::F32(shape, _) | Out::I64(shape, _) => shape,
        }
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        match self {
            Out::F32(_, data) => data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into(),
            Out::I64(_, data) => data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into(),
        }
    }
    fn data_len(&self) -> usize {
        match self {
            Out::F32(_, data) => data.len() * 4,
            Out::I64(_, data) => data.len() * 8,
        }
    }
}

/// Writes tensors to a temporary file beside `path` and renames it.
pub(super) fn write(path: &Path, tensors: &BTreeMap<String, Out>) -> Result<()> {
    let fail = |e: &dyn std::fmt::Display| Diag::new("io", "cannot write the output tensors").place(path.display()).found(e);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // What the user's umask allows, as for any other output.
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let temp = tempfile::Builder::new().permissions(permissions).tempfile_in(folder).map_err(|e| fail(&e))?;
    safetensors::serialize_to_file(tensors.iter(), None, temp.path()).map_err(|e| fail(&e))?;
    temp.persist(path).map_err(|e| fail(&e))?;
    Ok(())
}
