//! An ONNX model as a model to compile: imported, raised, described by what its graph says. Files beside it are read if they are there:
//! `config.json` and `genai_config.json` for the context and the ids that end a turn, tokenizer and chat template.

use super::{Graph, OnnxWeights, bad, eager, import};
use crate::decoder;
use crate::diag::{Diag, Result, Warning};
use crate::frontend::hf::architecture::ONNX;
use crate::frontend::hf::config::{LlamaConfig, parse_config};
use crate::frontend::hf::names::Names;
use crate::frontend::hf::rope::{Rope, RopeScaling};
use crate::frontend::model::{self, Model};
use llamac_ir::dtype::DType;
use llamac_ir::module::{Func, Inst, Module, Operand, WeightId};
use llamac_ir::op::OpKind;
use llamac_passes::pipeline::Options;
use llamac_passes::raise::{RaiseError, raise};
use llamac_runtime::artifact::meta::GenerationMeta;
use llamac_runtime::artifact::signature::Signature;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A raised graph and its tensors.
#[derive(Debug)]
pub struct OnnxModel {
    /// The decoder, at `imported`. Its dims are those of no step yet.
    pub module: Module,
    /// Tensors by the names that the decoder has for them.
    pub weights: OnnxWeights,
    /// The graph's inputs and outputs.
    pub signature: Signature,
    /// A mask may say more of longer sequences than it was tried for ([`llamac_passes::raise::LONGEST_ALONE`]).
    pub open: bool,
    /// The graph's file.
    pub file: PathBuf,
}

/// The longest context of a model that says nothing about it, tokens.
const CONTEXT: usize = 32768;

/// Where the graph is, if the path means an ONNX model: a file called `*.onnx`, or a folder with `model.onnx` and without safetensors.
pub fn graph_file(path: &Path) -> Option<PathBuf> {
    if path.extension().is_some_and(|e| e == "onnx") && !path.is_dir() {
        return Some(path.to_path_buf());
    }
    let graph = path.join("model.onnx");
    let checkpoint = ["model.safetensors", "model.safetensors.index.json"].iter().any(|f| path.join(f).exists());
    (graph.exists() && !checkpoint).then_some(graph)
}

/// Imports and raises a graph; `observer` sees the imported module and what raising makes of it.
///
/// # Errors
/// The file cannot be read or has what is not compiled, or the graph is no decoder.
pub fn raised(file: &Path, observer: &mut dyn FnMut(&str, &Module)) -> Result<OnnxModel> {
    let Graph { module, weights, producer, counted, .. } = import(file)?;
    observer("import", &module);
    let dims = vec![("s".to_owned(), 1, 512), ("r".to_owned(), 0, 64)];
    let raised = raise(&module, &weights, dims, &Options::default(), observer).map_err(|e| refused(&e, file, &producer))?;
    let mut weights = weights;
    weights.set_aliases(raised.aliases);
    let signature = decoder::of_graph(&eager::inputs(file)?, &eager::outputs(file)?.0, &raised.ports, &counted);
    Ok(OnnxModel { module: raised.module, weights, signature, open: raised.ports.open, file: file.to_path_buf() })
}

fn refused(error: &RaiseError, file: &Path, producer: &str) -> Diag {
    match error {
        RaiseError::Pass(e) => {
            Diag::new("internal", "a pass failed on the graph; this is a bug of llamac").found(e).help("please report it with the model")
        }
        RaiseError::NoDecoder(e) => bad("the graph is not recognised as a Llama")
            .place(format_args!("{}: {}", file.display(), e.at))
            .found(&e.why)
            .expected("token ids in, logits and the cache out; norms, rotary embedding, causal attention and gated MLPs between")
            .help(format_args!(
                "`llamac opt {0} --print-after raise` shows how far it was understood; `llamac infer {0}` runs it as it is; it was written by {producer}",
                file.display()
            )),
        RaiseError::NoLayers(e) => bad("no layers are found in the graph")
            .place(file.display())
            .found(e)
            .expected("layers with one attention each, one value between them")
            .help(format_args!("`llamac opt {} --print-after raise` shows how far it was understood", file.display())),
    }
}

/// Loads a model from a graph.
///
/// # Errors
/// As [`raised`], or a file beside it is damaged.
pub fn load(file: &Path) -> Result<Model> {
    let graph = raised(file, &mut |_, _| {})?;
    let folder = file.parent().unwrap_or(Path::new("")).to_path_buf();
    let mut warnings = Vec::new();
    let (config, generation) = described(&graph.module, &folder, &mut warnings)?;
    let tokenizer = match folder.join("tokenizer.json").exists() {
        true => Some(model::load_tokenizer(&folder, config.vocab)?),
        false => {
            let what = "there is no tokenizer.json beside the graph: the artifact takes token ids (`llamac logits`), no text";
            warnings.push(Warning(Diag::new("tokenizer", what).place(folder.display())));
            None
        }
    };
    warnings.extend(tokenizer.iter().flat_map(|t| t.warnings.clone()));
    Ok(Model {
        name: config.name.clone().unwrap_or_else(|| model::folder_name(&folder)),
        tied: config.tied.unwrap_or(false),
        config,
        names: Names::default(),
        generation,
        checkpoint: None,
        onnx: Some(graph),
        tokenizer,
        warnings,
    })
}

/// Sizes from the decoder, what it does not say from the files beside it.
fn described(module: &Module, folder: &Path, warnings: &mut Vec<Warning>) -> Result<(LlamaConfig, GenerationMeta)> {
    let beside = |name: &str| std::fs::read(folder.join(name)).ok();
    let hf = beside("config.json").map(|text| parse_config(&text)).and_then(std::result::Result::ok);
    let missing = |what: &str| bad(format!("the graph has no {what}"));
    let main = module.func("main").ok_or_else(|| missing("entry"))?;
    let all = || module.funcs.iter().flat_map(|f| f.body.iter().map(move |i| (f, i)));
    let width = |f: &Func, o: Operand, axis: usize| f.ty(o).shape.get(axis).and_then(|d| d.value()).unwrap_or(1);
    let first = |op: OpKind| all().find(|(_, i)| i.op == op);
    let (_, attention) = first(OpKind::Attention).ok_or_else(|| missing("attention"))?;
    let (f, embed) = first(OpKind::Embed).ok_or_else(|| missing("embedding"))?;
    let (embed_rows, hidden) = (width(f, embed.operands[1], 0), width(f, embed.operands[1], 1));
    let head = main.body.iter().rev().find(|i| i.op == OpKind::Linear).ok_or_else(|| missing("head"))?;
    let layers = main.body.iter().flat_map(|i| &i.calls).map(|c| c.count).sum();
    let silu = all().find(|(_, i)| i.op == OpKind::Silu).map_or(1, |(f, i)| width(f, i.operands[0], 1));
    let eps = all().find(|(_, i)| i.op == OpKind::RmsNorm).map_or(1e-5, |(_, i): (&Func, &Inst)| i.float("eps"));
    let genai = Genai::read(beside("genai_config.json"));
    let max_positions = hf.as_ref().map(|c| c.max_positions).or(genai.context).unwrap_or(CONTEXT);
    let mut config = LlamaConfig {
        architecture: &ONNX,
        name: hf.as_ref().and_then(|c| c.name.clone()),
        hidden,
        layers,
        heads: attention.int("heads"),
        kv_heads: attention.int("kv_heads"),
        head_dim: attention.int("head_dim"),
        ffn: silu,
        vocab: width(main, head.operands[1], 0),
        embed_rows,
        max_positions,
        eps,
        llama4: None,
        // The graph has its frequencies; these are not looked at.
        rope: Rope { theta: 10000.0, scaling: RopeScaling::None },
        tied: Some(embed.operands[1] == head.operands[1]),
        attention_bias: false,
        mlp_bias: false,
        dtype: Some(f.ty(embed.operands[1]).dtype),
        bos: None,
        eos: Vec::new(),
    };
    (config.bos, config.eos) = hf.as_ref().map_or((genai.bos, genai.eos), |c| (c.bos, c.eos.clone()));
    let (generation, odd) = crate::frontend::hf::generation::parse_generation(beside("generation_config.json").as_deref(), &config)?;
    warnings.extend(odd);
    Ok((config, generation))
}

/// What `genai_config.json` of ONNX Runtime GenAI says.
#[derive(Default)]
struct Genai {
    context: Option<usize>,
    bos: Option<u32>,
    eos: Vec<u32>,
}

impl Genai {
    fn read(text: Option<Vec<u8>>) -> Genai {
        let Some(value) = text.and_then(|t| serde_json::from_slice::<Value>(&t).ok()) else { return Genai::default() };
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let model = &value["model"];
        let eos = match &model["eos_token_id"] {
            Value::Array(list) => list.iter().filter_map(id).collect(),
            one => id(one).into_iter().collect(),
        };
        let context = model["context_length"].as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        Genai { context, bos: id(&model["bos_token_id"]), eos }
    }
}

impl OnnxModel {
    /// Elements of all weights.
    pub fn parameters(&self) -> u64 {
        let main = self.module.func("main");
        let runs = main.into_iter().flat_map(|f| &f.body).flat_map(|i| &i.calls);
        let mut total = main.map_or(0, weights_of);
        for run in runs {
            total += run.count as u64 * self.module.func(&run.func).map_or(0, weights_of);
        }
        total
    }

    /// Element type of the weights: that of the embedding.
    pub fn dtype(&self) -> DType {
        let main = self.module.func("main");
        let embed = main.and_then(|f| f.body.iter().find(|i| i.op == OpKind::Embed).map(|i| f.ty(i.operands[1]).dtype));
        embed.unwrap_or(DType::F32)
    }
}

/// Elements of the weights of one call; rotary frequencies are not learnt.
fn weights_of(func: &Func) -> u64 {
    let frequencies: Vec<Operand> = func.body.iter().filter(|i| i.op == OpKind::RopeAngles).map(|i| i.operands[1]).collect();
    let learnt = func.weights.iter().enumerate().filter(|(n, _)| !frequencies.contains(&Operand::Weight(WeightId(*n as u32))));
    learnt.filter_map(|(_, w)| w.ty.sizes()).map(|s| s.iter().product::<usize>() as u64).sum()
}
