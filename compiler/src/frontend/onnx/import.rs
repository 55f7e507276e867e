//! From a decoded model to a module: inputs, initializers, nodes in order. Each node goes to its line in `ops`, unless `shapes` knows its value.

use super::attributes::Attributes;
use super::eager::Eager;
use super::elements::dtype_of;
use super::known::{Known, MOST};
use super::ops;
use super::shapes;
use super::weights::OnnxWeights;
use super::{bad, wire};
use crate::diag::{Diag, Result};
use llamac_ir::build::FuncBuilder;
use llamac_ir::dtype::DType;
use llamac_ir::module::{Module, Operand, ValueId};
use llamac_ir::op::{Attr, OpKind, Stage, TensorOp};
use llamac_ir::recipe::Recipe;
use llamac_ir::types::{Dim, Type};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Length;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto};

/// An imported model.
#[derive(Debug)]
pub struct Graph {
    /// One function, `main`, of tensor ops, at [`Stage::Graph`].
    pub module: Module,
    /// Names of what `main` returns, in order.
    pub outputs: Vec<String>,
    /// Its tensors.
    pub weights: OnnxWeights,
    /// Inputs from which attention takes the number of tokens of a sequence (`GroupQueryAttention`).
    pub counted: BTreeSet<String>,
    /// Who wrote the file, for people.
    pub producer: String,
}

/// Largest size that a symbolic dimension is taken to have.
const MOST_TOKENS: usize = 1 << 24;

/// The oldest version of the standard ops that is read; ops that changed since have their first version in `ops`.
const OLDEST: i64 = 1;
/// The newest version of the standard ops that is read.
const NEWEST: i64 = 28;

/// Reads a model.
///
/// # Errors
/// A file that is not there or damaged; an op, attribute or type that is not compiled, with the node that has it.
pub fn import(path: &Path) -> Result<Graph> {
    let inside = |d: Diag| d.inside(path.display());
    let (model, weights) = read(path)?;
    let graph = model.graph.as_ref().ok_or_else(|| inside(no_graph()))?;
    let mut importer = Importer::new(&model, weights).map_err(inside)?;
    let outputs = importer.graph(graph).map_err(inside)?;
    let results = outputs.iter().map(|o| importer.operand(o)).collect::<Result<Vec<_>>>().map_err(inside)?;
    let dims = importer.symbols.iter().map(|s| (s.clone(), 0, MOST_TOKENS)).collect();
    let func = importer.f.finish(&results);
    let name = path.parent().and_then(Path::file_name).map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned());
    let producer = [model.producer_name.as_str(), model.producer_version.as_str()].join(" ").trim().to_owned();
    Ok(Graph {
        module: Module { name, stage: Stage::Graph, dims, funcs: vec![func] },
        outputs,
        weights: importer.weights,
        counted: counted(graph),
        producer,
    })
}

/// Inputs on which the lengths depend that `GroupQueryAttention` is given. Shapes of tensors tell no lengths of sequences.
fn counted(graph: &GraphProto) -> BTreeSet<String> {
    let attention = graph.node.iter().filter(|n| n.op_type == "GroupQueryAttention");
    let mut reached: BTreeSet<&str> = attention.flat_map(|n| [input(n, 5), input(n, 6)].into_iter().flatten()).collect();
    for node in graph.node.iter().rev().filter(|n| n.op_type != "Shape") {
        if node.output.iter().any(|o| reached.contains(o.as_str())) {
            reached.extend(node.input.iter().map(String::as_str));
        }
    }
    graph.input.iter().filter(|i| reached.contains(i.name.as_str())).map(|i| i.name.clone()).collect()
}

fn no_graph() -> Diag {
    bad("the file has no graph").expected("a complete model.onnx")
}

/// The messages of a model, and its tensors. An artifact may have a model in it.
pub(super) fn read(path: &Path) -> Result<(ModelProto, OnnxWeights)> {
    let mut weights = OnnxWeights::open(path)?;
    weights.look_inside_an_artifact()?;
    let inside = |d: Diag| d.inside(path.display());
    let small = wire::without_data(weights.model_bytes()).map_err(inside)?;
    let model = ModelProto::decode(small.as_slice())
        .map_err(|e| inside(bad("the file is no ONNX model, or is damaged").found(e).expected("a complete model.onnx")))?;
    for tensor in model.graph.iter().flat_map(|g| &g.initializer) {
        weights.add(&tensor.name, tensor).map_err(inside)?;
    }
    Ok((model, weights))
}

/// The version of each domain that the model names.
fn versions(model: &ModelProto) -> Result<BTreeMap<String, i64>> {
    let mut out = BTreeMap::new();
    for set in &model.opset_import {
        let domain = if set.domain == "ai.onnx" { "" } else { &set.domain };
        out.insert(domain.to_owned(), set.version);
    }
    if let Some(function) = model.functions.first() {
        return Err(bad("functions of the model itself are not compiled")
            .found(function.name.as_deref().unwrap_or("?"))
            .expected("plain nodes")
            .help("inline them with `onnx.inliner.inline_local_functions`"));
    }
    match out.get("") {
        Some(OLDEST..=NEWEST) => Ok(out),
        // A model may be of another domain only.
        None if !out.is_empty() => Ok(out),
        version => Err(bad("the version of the standard ops is not compiled")
            .found(version.map_or("none".to_owned(), ToString::to_string))
            .expected(format_args!("opset {OLDEST} to {NEWEST}"))
            .help("export the model again with one of these (`opset_version=18`)")),
    }
}

/// An import under way.
pub(super) struct Importer {
    pub(super) f: FuncBuilder,
    pub(super) weights: OnnxWeights,
    /// Values by their names in the graph.
    values: BTreeMap<String, Operand>,
    /// What is known, by name.
    pub(super) known: BTreeMap<String, Known>,
    symbols: BTreeSet<String>,
    versions: BTreeMap<String, i64>,
    /// Known values that became ops.
    materialised: BTreeMap<String, Operand>,
    /// Values computed while importing, if the inputs are given.
    pub(super) eager: Option<Eager>,
}

impl Importer {
    pub(super) fn new(model: &ModelProto, weights: OnnxWeights) -> Result<Importer> {
        Ok(Importer {
            f: FuncBuilder::new("main"),
            weights,
            values: BTreeMap::new(),
            known: BTreeMap::new(),
            symbols: BTreeSet::new(),
            versions: versions(model)?,
            materialised: BTreeMap::new(),
            eager: None,
        })
    }

    /// Whether a name already means a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// A value that stands outside the graph.
    pub(super) fn given(&mut self, name: &str, ty: Type) -> ValueId {
        let id = self.f.param(name, ty);
        self.values.insert(name.to_owned(), id.into());
        id
    }

    fn graph(&mut self, graph: &GraphProto) -> Result<Vec<String>> {
        if !graph.sparse_initializer.is_empty() {
            return Err(bad("sparse tensors are not compiled"));
        }
        for input in &graph.input {
            if self.weights.get(&input.name).is_some() {
                continue;
            }
            let ty = self.input_type(input).map_err(|d| d.inside(format_args!("input `{}`", input.name)))?;
            let id = self.f.param(&input.name, ty);
            self.values.insert(input.name.clone(), id.into());
        }
        for tensor in &graph.initializer {
            self.note(&tensor.name);
        }
        for node in &graph.node {
            self.node(node).map_err(|d| d.inside(self.describe(node)))?;
        }
        Ok(graph.output.iter().map(|o| o.name.clone()).collect())
    }

    /// Domain, op, version and name of a node, for people.
    pub(super) fn describe(&self, node: &NodeProto) -> String {
        let domain = domain(node);
        let version = self.versions.get(domain).map_or("?".to_owned(), ToString::to_string);
        let shown = if domain.is_empty() { "ai.onnx" } else { domain };
        let name = if node.name.is_empty() { node.output.first().map_or("", String::as_str) } else { &node.name };
        format!("node `{name}` ({} of {shown}, version {version})", node.op_type)
    }

    /// The version of the node's domain.
    pub(super) fn version(&self, node: &NodeProto) -> Result<i64> {
        let domain = domain(node);
        self.versions.get(domain).copied().ok_or_else(|| {
            bad("the model uses a domain that it does not import").found(format_args!("`{domain}`")).expected("an entry in opset_import")
        })
    }

    pub(super) fn node(&mut self, node: &NodeProto) -> Result<()> {
        let domain = domain(node);
        let version = self.version(node)?;
        if node.output.is_empty() {
            return Err(bad("the node has no output"));
        }
        if (domain, node.op_type.as_str()) == ("", "Constant") {
            return self.constant(node);
        }
        // Attributes that a shape does not need may still be ones that the op does not have.
        let attributes = Attributes::of(node);
        if let Some(known) = shapes::known(self, node, &attributes)? {
            attributes.done()?;
            self.known.insert(node.output[0].clone(), known);
            return Ok(());
        }
        let attributes = Attributes::of(node);
        let import = ops::find(domain, &node.op_type, version)?;
        let results = import(self, node, &attributes)?;
        attributes.done()?;
        let wanted = node.output.iter().filter(|o| !o.is_empty()).count();
        if wanted > results.len() {
            return Err(bad("an output is not compiled").found(format_args!("{wanted} outputs")).expected(results.len()));
        }
        for (name, value) in node.output.iter().zip(results).filter(|(n, _)| !n.is_empty()) {
            self.values.insert(name.clone(), value);
        }
        self.compute(node)
    }

    /// A `Constant`: a tensor that stands in the node.
    fn constant(&mut self, node: &NodeProto) -> Result<()> {
        let attributes = Attributes::of(node);
        let name = &node.output[0];
        let one = |dtype: DataType| TensorProto { data_type: dtype as i32, ..TensorProto::default() };
        let tensor = if let Some(tensor) = attributes.tensor("value")? {
            tensor.clone()
        } else if let Some(float) = attributes.raw_float("value_float")? {
            TensorProto { float_data: vec![float], ..one(DataType::Float) }
        } else if let Some(int) = attributes.int("value_int")? {
            TensorProto { int64_data: vec![int], ..one(DataType::Int64) }
        } else if let Some(floats) = attributes.floats("value_floats")? {
            TensorProto { float_data: floats.to_vec(), dims: vec![floats.len() as i64], ..one(DataType::Float) }
        } else if let Some(ints) = attributes.ints("value_ints")? {
            TensorProto { int64_data: ints.to_vec(), dims: vec![ints.len() as i64], ..one(DataType::Int64) }
        } else {
            attributes.done()?;
            return Err(bad("the constant has no value"));
        };
        attributes.done()?;
        self.weights.add(name, &tensor)?;
        if self.eager.is_some() {
            return self.note_small(name);
        }
        self.note(name);
        Ok(())
    }

    pub(super) fn input_type(&mut self, input: &ValueInfoProto) -> Result<Type> {
        let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
            return Err(bad("the input is no tensor"));
        };
        let shape =
            tensor.shape.as_ref().ok_or_else(|| bad("the shape of the input is not known").expected("a number or a name for each axis"))?;
        let mut dims = Vec::new();
        for (axis, dim) in shape.dim.iter().enumerate() {
            dims.push(match &dim.value {
                Some(Length::DimValue(n)) if *n >= 0 => Dim::int(*n),
                Some(Length::DimParam(text)) if !text.is_empty() => self.dim(text),
                _ => self.dim(&format!("{}_{axis}", input.name)),
            });
        }
        Ok(Type { dtype: dtype_of(tensor.elem_type)?, shape: dims })
    }

    /// `past + sequence` as a sum, any other text as one symbol.
    fn dim(&mut self, text: &str) -> Dim {
        let word = |t: &str| {
            let name: String = t.trim().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            if name.starts_with(|c: char| c.is_ascii_digit()) { format!("d{name}") } else { name }
        };
        let mut sum = Dim::default();
        for part in text.split('+') {
            sum = match part.trim().parse::<i64>() {
                Ok(n) => sum.add(&Dim::int(n)),
                Err(_) => {
                    let symbol = word(part);
                    self.symbols.insert(symbol.clone());
                    sum.add(&Dim::sym(&symbol))
                }
            };
        }
        sum
    }

    /// Remembers a stored tensor: its value if it is a small integer tensor, else as a weight.
    pub(super) fn note(&mut self, name: &str) {
        let Some(stored) = self.weights.get(name) else { return };
        let integers = matches!(stored.dtype, DType::I64 | DType::I32 | DType::Bool);
        if integers && let Some(values) = self.weights.integers(name, MOST) {
            let (dtype, shape) = (stored.dtype, stored.shape.clone());
            self.known.insert(name.to_owned(), Known { dtype, shape, values: values.into_iter().map(Dim::int).collect() });
        }
    }

    /// What a name means as an operand.
    pub(super) fn operand(&mut self, name: &str) -> Result<Operand> {
        if let Some(found) = self.values.get(name).or_else(|| self.materialised.get(name)) {
            return Ok(*found);
        }
        let made = if let Some(known) = self.known.get(name).cloned() {
            self.materialise(name, &known)?
        } else if self.weights.get(name).is_some() {
            self.weight(name)?
        } else {
            return Err(bad("a node reads a value that is not there")
                .found(format_args!("`{name}`"))
                .expected("an input, an initializer or an output above"));
        };
        self.materialised.insert(name.to_owned(), made);
        Ok(made)
    }

    fn weight(&mut self, name: &str) -> Result<Operand> {
        if self.eager.is_some() {
            return self.stored(name);
        }
        let stored = self.weights.get(name).ok_or_else(|| bad("there is no such tensor").found(name))?;
        let (dtype, shape) = (stored.dtype, stored.shape.clone());
        // One float stands in the text: rules look for it.
        let recipe = match self.weights.small(name, 1) {
            Some(one) if dtype.info().real && dtype != DType::F64 => {
                let literal = Recipe::Literal { shape, data: one.iter().map(|x| *x as f32).collect::<Vec<_>>().into() };
                if dtype == DType::F32 { literal } else { Recipe::Cast(dtype, Box::new(literal)) }
            }
            _ => Recipe::Source { name: name.to_owned(), ty: Type::fixed(dtype, &shape) },
        };
        let made = self.f.weight(name, recipe).map_err(|e| bad("a tensor has no size").found(e))?;
        Ok(made.into())
    }

    /// An op that makes known values.
    fn materialise(&mut self, name: &str, known: &Known) -> Result<Operand> {
        let shape = Attr::Dims(known.shape.iter().map(|&n| n.into()).collect());
        let made = self.tensor(TensorOp::Values, name, &[], &[("shape", shape), ("values", Attr::Dims(known.values.clone()))])?;
        if known.dtype == DType::I64 {
            return Ok(made.into());
        }
        Ok(self.tensor(TensorOp::Cast, name, &[made.into()], &[("to", Attr::Word(known.dtype.name().to_owned()))])?.into())
    }

    /// Adds a tensor op.
    pub(super) fn tensor(&mut self, op: TensorOp, name: &str, operands: &[Operand], attrs: &[(&str, Attr)]) -> Result<ValueId> {
        let made = self.f.op(OpKind::Tensor(op), name, operands, attrs);
        made.map_err(|e| bad("the operands do not fit the op").found(e))
    }

    /// Gives a symbol its one size: some exporters leave sizes open that an op fixes.
    pub(super) fn bind(&mut self, symbol: &str, size: usize) {
        self.f.bind(symbol, size);
        for known in self.known.values_mut().flat_map(|k| &mut k.values) {
            *known = known.bound(symbol, size);
        }
        self.symbols.remove(symbol);
    }

    pub(super) fn ty(&self, operand: Operand) -> Type {
        self.f.func().ty(operand).clone()
    }

    /// The shape of a name, if anything is known by it.
    pub(super) fn shape_of(&mut self, name: &str) -> Result<Vec<Dim>> {
        match self.known.get(name) {
            Some(known) => Ok(known.shape.iter().map(|&n| n.into()).collect()),
            None => {
                let operand = self.operand(name)?;
                Ok(self.ty(operand).shape)
            }
        }
    }
}

/// The domain of a node, empty for the standard one.
pub(super) fn domain(node: &NodeProto) -> &str {
    if node.domain == "ai.onnx" { "" } else { &node.domain }
}

/// The name of input `at` of a node, if it is there.
pub(super) fn input(node: &NodeProto, at: usize) -> Option<&str> {
    node.input.get(at).map(String::as_str).filter(|n| !n.is_empty())
}
