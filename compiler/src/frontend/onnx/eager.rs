//! Running a graph on tensors: each node is imported and its ops are evaluated at once, by the reference evaluator. So every shape is a number, also
//! where it follows from values of inputs, and a graph means what its import means. No code is made; see `driver` for what compiles.

use super::elements;
use super::elements::dtype_of;
use super::import::{Importer, read};
use super::{bad, ops};
use crate::diag::{Diag, Result};
use llamac_ir::dtype::DType;
use llamac_ir::eval::{Tensor, eval_tensor_op};
use llamac_ir::module::{Operand, ValueId};
use llamac_ir::recipe::{Prepared, Source};
use llamac_ir::types::{Dim, Type};
use std::collections::BTreeMap;
use std::path::Path;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Length;
use tract_onnx::pb::{GraphProto, NodeProto, ValueInfoProto, type_proto};

pub use super::elements::{decode, encode};

/// Integer tensors of so many elements may be shapes, axes or the like.
const MOST: usize = 4096;

/// A tensor and its element type.
#[derive(Debug, Clone)]
pub struct Value {
    /// Element type.
    pub dtype: DType,
    /// Elements, as the evaluator holds them.
    pub tensor: Tensor,
}

/// What is computed so far.
#[derive(Debug, Default)]
pub(super) struct Eager {
    tensors: BTreeMap<ValueId, Tensor>,
    /// Instructions that have been evaluated.
    done: usize,
}

/// An input or output of a graph.
#[derive(Debug, Clone)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its lengths: numbers, or names of those that differ from run to run; `None`: any number of axes.
    pub shape: Option<Vec<std::result::Result<usize, String>>>,
    /// Whether it need not be given: an initializer has its name.
    pub default: bool,
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dim = |d: &std::result::Result<usize, String>| d.as_ref().map_or_else(Clone::clone, ToString::to_string);
        let shape = self.shape.as_ref().map_or("..".to_owned(), |s| s.iter().map(dim).collect::<Vec<_>>().join(", "));
        write!(f, "`{}`: {}[{shape}]", self.name, self.dtype)
    }
}

fn port(info: &ValueInfoProto, default: bool) -> Result<Port> {
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(bad("the value is no tensor").found(&info.name).expected("a tensor: sequences and optional values are not run"));
    };
    let shape = tensor.shape.as_ref().map(|shape| {
        let length = |(axis, dim): (usize, &tract_onnx::pb::tensor_shape_proto::Dimension)| match &dim.value {
            Some(Length::DimValue(n)) if *n >= 0 => Ok(*n as usize),
            Some(Length::DimParam(text)) if !text.is_empty() => Err(text.clone()),
            _ => Err(format!("{}_{axis}", info.name)),
        };
        shape.dim.iter().enumerate().map(length).collect()
    });
    Ok(Port { name: info.name.clone(), dtype: dtype_of(tensor.elem_type)?, shape, default })
}

/// The inputs of a graph.
///
/// # Errors
/// An input that is no tensor or of a type that is not compiled.
pub fn inputs(path: &Path) -> Result<Vec<Port>> {
    let (model, weights) = read(path)?;
    let all = model.graph.iter().flat_map(|g| &g.input);
    all.map(|i| port(i, weights.get(&i.name).is_some()).map_err(|d| d.inside(path.display()))).collect()
}

/// Whether a graph says that it is a decoder: it has an input `input_ids` or an output `logits`.
///
/// # Errors
/// The file cannot be read or is no model.
pub fn means_a_decoder(path: &Path) -> Result<bool> {
    let (model, _) = read(path)?;
    Ok(model.graph.iter().any(|g| g.input.iter().any(|i| i.name == "input_ids") || g.output.iter().any(|o| o.name == "logits")))
}

/// The outputs of a graph, and how many nodes it has.
///
/// # Errors
/// As [`inputs`].
pub fn outputs(path: &Path) -> Result<(Vec<Port>, usize)> {
    let (model, _) = read(path)?;
    let all = model.graph.iter().flat_map(|g| &g.output).map(|o| port(o, false).map_err(|d| d.inside(path.display())));
    Ok((all.collect::<Result<_>>()?, model.graph.as_ref().map_or(0, |g| g.node.len())))
}

/// Checks what can be known of a graph without its inputs: each op is one that is read at its version, inputs and outputs are tensors.
///
/// # Errors
/// What is not compiled, by its name.
pub fn check(path: &Path) -> Result<()> {
    let inside = |d: Diag| d.inside(path.display());
    let (model, weights) = read(path)?;
    let importer = Importer::new(&model, weights).map_err(inside)?;
    let graph = model.graph.unwrap_or_default();
    for info in graph.input.iter().chain(&graph.output) {
        port(info, false).map_err(inside)?;
    }
    for node in &graph.node {
        let known = ["Constant", "Shape", "Size"].contains(&node.op_type.as_str()) && super::import::domain(node).is_empty();
        let version = importer.version(node).map_err(inside)?;
        if !known {
            ops::find(super::import::domain(node), &node.op_type, version).map_err(|d| inside(d.inside(importer.describe(node))))?;
        }
    }
    Ok(())
}

/// Runs a graph on inputs by name; outputs come in the graph's order.
///
/// # Errors
/// An input is missing, not one of the graph, or of another type; something in the graph is not compiled, or its values do not fit.
pub fn run(path: &Path, given: &BTreeMap<String, Value>) -> Result<Vec<(String, Value)>> {
    let inside = |d: Diag| d.inside(path.display());
    let (model, weights) = read(path)?;
    weights.check_data()?;
    let graph = model.graph.as_ref().ok_or_else(|| inside(bad("the file has no graph").expected("a complete model.onnx")))?;
    let mut importer = Importer::new(&model, weights).map_err(inside)?;
    importer.eager = Some(Eager::default());
    let names: Vec<&str> = graph.input.iter().map(|i| i.name.as_str()).collect();
    if let Some(other) = given.keys().find(|n| !names.contains(&n.as_str())) {
        return Err(inside(bad("the graph has no such input").found(format_args!("`{other}`")).expected(names.join(", "))));
    }
    let mut lengths = BTreeMap::new();
    for input in &graph.input {
        let port = port(input, importer.weights.get(&input.name).is_some()).map_err(inside)?;
        match given.get(&input.name) {
            Some(value) => {
                fits(&port, value, &mut lengths).map_err(inside)?;
                importer.give(&port.name, value.clone());
            }
            None if port.default => {}
            None => {
                return Err(inside(
                    bad("an input of the graph is not given").found("nothing").expected(&port).help("add a tensor of that name"),
                ));
            }
        }
    }
    importer.evaluate(graph).map_err(inside)
}

/// Whether a tensor is what an input wants; `lengths` are those of names.
fn fits(port: &Port, value: &Value, lengths: &mut BTreeMap<String, usize>) -> Result<()> {
    let wrong = |what: &str, lengths: &BTreeMap<String, usize>| {
        let known: Vec<String> = lengths.iter().map(|(name, n)| format!("{name} = {n}")).collect();
        let with = if known.is_empty() { String::new() } else { format!(" with {}", known.join(", ")) };
        bad(what).found(format_args!("{}{:?}", value.dtype, value.tensor.shape())).expected(format_args!("{port}{with}"))
    };
    if value.dtype != port.dtype {
        return Err(wrong("an input has another element type", lengths));
    }
    let Some(shape) = &port.shape else { return Ok(()) };
    if shape.len() != value.tensor.shape().len() {
        return Err(wrong("an input has another number of axes", lengths));
    }
    for (dim, &size) in shape.iter().zip(value.tensor.shape()) {
        let wanted = match dim {
            Ok(n) => *n,
            Err(name) => *lengths.entry(name.clone()).or_insert(size),
        };
        if wanted != size {
            return Err(wrong("an input has another shape", lengths));
        }
    }
    Ok(())
}

impl Importer {
    /// Makes a tensor a value of the graph.
    fn give(&mut self, name: &str, value: Value) -> Operand {
        let id = self.given(name, Type::fixed(value.dtype, value.tensor.shape()));
        if let Some(eager) = &mut self.eager {
            eager.tensors.insert(id, value.tensor);
        }
        self.remember(name, id.into());
        id.into()
    }

    /// A stored tensor as a value.
    pub(super) fn stored(&mut self, name: &str) -> Result<Operand> {
        let missing = || bad("there is no such tensor").found(name);
        let stored = self.weights.get(name).ok_or_else(missing)?;
        let shape = stored.shape.clone();
        let count: usize = shape.iter().product();
        let (dtype, tensor) = match (self.weights.bytes(stored), stored.packed) {
            (Some(bytes), true) => {
                let dtype = if stored.dtype == DType::I8 { DType::I4 } else { DType::U4 };
                (dtype, elements::decode(dtype, &shape, &elements::unpacked(dtype, count, bytes)))
            }
            (Some(bytes), false) => (stored.dtype, elements::decode(stored.dtype, &shape, bytes)),
            (None, _) => {
                let mut data = vec![0.0; count];
                self.weights.row(name, 0, &mut data).map_err(|e| bad("a tensor cannot be read").found(e))?;
                (DType::F32, Some(Tensor::f32(&shape, data)))
            }
        };
        let tensor = tensor.ok_or_else(missing)?;
        Ok(self.give(name, Value { dtype, tensor }))
    }

    fn evaluate(&mut self, graph: &GraphProto) -> Result<Vec<(String, Value)>> {
        if !graph.sparse_initializer.is_empty() {
            return Err(bad("sparse tensors are not compiled"));
        }
        for tensor in &graph.initializer {
            self.note_small(&tensor.name)?;
        }
        for node in &graph.node {
            self.node(node).map_err(|d| d.inside(self.describe(node)))?;
        }
        let mut out = Vec::new();
        for output in &graph.output {
            let operand = self.operand(&output.name)?;
            self.catch_up()?;
            let (dtype, tensor) = (self.ty(operand).dtype, self.value_of(operand)?);
            if let Ok(declared) = port(output, false)
                && declared.dtype != dtype
            {
                return Err(bad("an output has another element type than the graph says").found(dtype).expected(declared));
            }
            out.push((output.name.clone(), Value { dtype, tensor }));
        }
        Ok(out)
    }

    /// Loads a stored tensor that may be a shape or the like.
    pub(super) fn note_small(&mut self, name: &str) -> Result<()> {
        let small = self.weights.get(name).is_some_and(|s| !s.dtype.info().real && s.shape.iter().product::<usize>() <= MOST);
        if small && !self.has(name) {
            self.stored(name)?;
        }
        Ok(())
    }

    /// Evaluates what a node became.
    pub(super) fn compute(&mut self, node: &NodeProto) -> Result<()> {
        if self.eager.is_none() {
            return Ok(());
        }
        self.catch_up()?;
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            let operand = self.operand(name)?;
            self.remember(name, operand);
        }
        Ok(())
    }

    /// Evaluates instructions that have not been.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        let Some(mut eager) = self.eager.take() else { return Ok(()) };
        let done = self.pending(&mut eager);
        self.eager = Some(eager);
        done
    }

    fn pending(&self, eager: &mut Eager) -> Result<()> {
        let func = self.f.func();
        while let Some(inst) = func.body.get(eager.done) {
            let weights = inst.operands.iter().map(|o| self.literal(*o)).collect::<Result<Vec<_>>>()?;
            let missing = || bad("a value is read before it is made; this is a bug of llamac");
            let args = inst.operands.iter().zip(&weights).map(|(operand, weight)| match operand {
                Operand::Value(v) => eager.tensors.get(v).ok_or_else(missing),
                Operand::Weight(_) => weight.as_ref().ok_or_else(missing),
            });
            let args = args.collect::<Result<Vec<_>>>()?;
            let results = eval_tensor_op(func, inst, &args).map_err(|e| bad("the values do not fit the op").found(e.message))?;
            eager.tensors.extend(inst.results.iter().copied().zip(results));
            eager.done += 1;
        }
        Ok(())
    }

    /// A weight: a number that importing made up.
    fn literal(&self, operand: Operand) -> Result<Option<Tensor>> {
        let Operand::Weight(w) = operand else { return Ok(None) };
        let weight = &self.f.func().weights[w.0 as usize];
        let shape = weight.ty.sizes().unwrap_or_default();
        let all = Prepared::new(&weight.recipe, &self.weights).and_then(|p| p.read_all());
        all.map(|data| Some(Tensor::f32(&shape, data))).map_err(|e| bad("a number has no value").found(e))
    }

    /// The elements of a value, where values are computed.
    pub(super) fn value_of(&self, operand: Operand) -> Result<Tensor> {
        let computed = match operand {
            Operand::Value(v) => self.eager.as_ref().and_then(|e| e.tensors.get(&v)).cloned(),
            Operand::Weight(_) => self.literal(operand)?,
        };
        computed.ok_or_else(|| {
            bad("a shape follows from the values of inputs")
                .expected("shapes that follow from sizes")
                .help("`llamac infer` runs the graph with given inputs")
        })
    }

    /// Makes small integers known: they may be a shape.
    fn remember(&mut self, name: &str, operand: Operand) {
        let ty = self.ty(operand);
        let Some(shape) = ty.sizes().filter(|s| s.iter().product::<usize>() <= MOST && !ty.dtype.info().real) else { return };
        let Ok(tensor) = self.value_of(operand) else { return };
        let values: Vec<Dim> = match (tensor.as_i64(), tensor.as_i32()) {
            (Some(all), _) => all.iter().map(|n| Dim::int(*n)).collect(),
            (_, Some(all)) => all.iter().map(|n| Dim::int(i64::from(*n))).collect(),
            _ => return,
        };
        self.known.insert(name.to_owned(), super::known::Known { dtype: ty.dtype, shape, values });
    }
}
