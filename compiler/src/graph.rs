//! Graphs that are no decoder: an artifact with the graph in it, and running it on tensors. It is interpreted by the reference evaluator; no code is
//! made. Reading and importing the graph is in `frontend::onnx`.

use crate::decoder;
use crate::diag::{Diag, Result, Warning};
use crate::frontend::onnx::eager::{self, Value};
use crate::frontend::onnx::{import, parts};
use crate::pack::unwritable;
use llamac_ir::dtype::DType;
use llamac_runtime::artifact::layout::MAGIC;
use llamac_runtime::artifact::{Artifact, ArtifactError, ArtifactWriter, OpenOptions, SectionKind};
use safetensors::{Dtype, SafeTensors};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// What storing a graph did.
#[derive(Debug)]
pub struct Stored {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Worth telling the user.
    pub warnings: Vec<Warning>,
}

/// Writes the graph in `file` as an artifact that [`infer`] runs.
///
/// # Errors
/// The file, or one that it has tensors in, cannot be read or has what is not compiled; the artifact cannot be written.
pub fn store(file: &Path, out: &Path) -> Result<Stored> {
    eager::check(file)?;
    let mut warnings = vec![Warning(
        Diag::new("graph", "the graph is no decoder: the artifact holds it as it is, for `llamac infer`, which interprets it")
            .place(file.display()),
    )];
    if let Err(why) = import(file) {
        let what =
            "shapes of the graph follow from values of its inputs: `llamac infer` works them out, and may then find what is not compiled";
        let found = format!("{}: {}", why.place.as_deref().unwrap_or_default(), why.what);
        warnings.push(Warning(Diag::new("graph", what).found(found)));
    }
    let parts = parts(file)?;
    let mut writer = ArtifactWriter::create(out).map_err(|e| unwritable(&e))?;
    writer.reserve(parts.bytes()).map_err(|e| unwritable(&e))?;
    writer.put(SectionKind::Graph, parts.model()).map_err(|e| unwritable(&e))?;
    if parts.has_data() {
        let mut section = writer.section(SectionKind::GraphData).map_err(|e| unwritable(&e))?;
        parts.write(&mut section)?;
        section.finish().map_err(|e| unwritable(&e))?;
    }
    let file_bytes = writer.finish().map_err(|e| unwritable(&e))?;
    Ok(Stored { file_bytes, warnings })
}

/// Runs the graph in `file` (an artifact, or an ONNX model) on the tensors of `input` and writes its outputs to `output`, both safetensors.
///
/// # Errors
/// A file that cannot be read or written, tensors that the graph does not take, something that is not compiled.
pub fn infer(file: &Path, input: &Path, output: &Path) -> Result<Vec<String>> {
    let results = if is_compiled(file) { decoder::infer(file, input)? } else { eager::run(file, &read(file, input)?)? };
    let shown = results.iter().map(|(name, v)| format!("`{name}`: {}{:?}", v.dtype, v.tensor.shape())).collect();
    write(output, &results)?;
    Ok(shown)
}

/// Whether a file is an artifact with machine code.
fn is_compiled(file: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    let artifact = std::fs::File::open(file).and_then(|mut f| f.read_exact(&mut start)).is_ok() && start == MAGIC;
    // What is damaged is said by whoever opens it.
    artifact && !matches!(Artifact::open(file, &OpenOptions::default()), Err(ArtifactError::Missing { .. }))
}

/// Whether a file is an artifact with a graph and no code.
fn has_graph(file: &Path) -> bool {
    matches!(Artifact::open(file, &OpenOptions::default()), Err(ArtifactError::Missing { section }) if section == SectionKind::Code.name())
}

/// What is in an artifact of a graph, for people; `None` if the artifact has no graph.
///
/// # Errors
/// The file cannot be read or is damaged.
pub fn described(artifact: &Path) -> Result<Option<String>> {
    if !has_graph(artifact) {
        return Ok(None);
    }
    let bytes = std::fs::metadata(artifact).map_or(0, |m| m.len());
    let (outputs, nodes) = eager::outputs(artifact)?;
    let lines = |ports: &[eager::Port]| ports.iter().map(|p| format!("  {p}\n")).collect::<String>();
    Ok(Some(format!(
        "{}: a graph of {nodes} nodes, {} bytes, no machine code: `llamac infer` interprets it\ninputs:\n{}outputs:\n{}",
        artifact.display(),
        bytes,
        lines(&eager::inputs(artifact)?),
        lines(&outputs)
    )))
}

/// How a file of tensors holds an element type. What safetensors has no type for takes a byte: small integers their value, small floats their code.
pub(crate) fn stored_as(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::Bf16 => Dtype::BF16,
        DType::F8E4m3 => Dtype::F8_E4M3,
        DType::F8E5m2 => Dtype::F8_E5M2,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 | DType::I4 | DType::I2 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::Bool => Dtype::BOOL,
        _ => Dtype::U8,
    }
}

fn read(file: &Path, input: &Path) -> Result<BTreeMap<String, Value>> {
    let ports = eager::inputs(file)?;
    let bytes = std::fs::read(input).map_err(|e| Diag::io("cannot read the input tensors", input.display(), &e))?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|e| Diag::new("tensors", "the input is not a safetensors file").place(input.display()).found(e))?;
    let mut out = BTreeMap::new();
    for (name, view) in tensors.tensors() {
        let wrong = |what: &str| Diag::new("tensors", what).place(format_args!("{}: `{name}`", input.display()));
        let Some(port) = ports.iter().find(|p| p.name == name) else {
            let names: Vec<String> = ports.iter().map(ToString::to_string).collect();
            return Err(wrong("the graph has no input of that name").found(format_args!("`{name}`")).expected(names.join(", ")));
        };
        if view.dtype() != stored_as(port.dtype) {
            return Err(wrong("an input has another element type")
                .found(format_args!("{:?}", view.dtype()))
                .expected(format_args!("{:?} for {port}", stored_as(port.dtype))));
        }
        let tensor = eager::decode(port.dtype, view.shape(), view.data());
        let tensor = tensor.ok_or_else(|| wrong("the data is not as long as its shape says").found(format_args!("{:?}", view.shape())))?;
        out.insert(name, Value { dtype: port.dtype, tensor });
    }
    Ok(out)
}

/// An output as safetensors reads it.
struct View<'a>(Dtype, &'a [usize], Vec<u8>);

impl safetensors::View for &View<'_> {
    fn dtype(&self) -> Dtype {
        self.0
    }
    fn shape(&self) -> &[usize] {
        self.1
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.2.as_slice().into()
    }
    fn data_len(&self) -> usize {
        self.2.len()
    }
}

fn write(path: &Path, results: &[(String, Value)]) -> Result<()> {
    let views: Vec<(&str, View<'_>)> =
        results.iter().map(|(n, v)| (n.as_str(), View(stored_as(v.dtype), v.tensor.shape(), eager::encode(v.dtype, &v.tensor)))).collect();
    let fail = |e: &dyn std::fmt::Display| Diag::new("io", "cannot write the output tensors").place(path.display()).found(e);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let temp = tempfile::Builder::new().permissions(permissions).tempfile_in(folder).map_err(|e| fail(&e))?;
    safetensors::serialize_to_file(views.iter().map(|(n, v)| (*n, v)), None, temp.path()).map_err(|e| fail(&e))?;
    temp.persist(path).map_err(|e| fail(&e))?;
    Ok(())
}
