//! Lowering of a whole module: the program while it grows, one compiled function per kind of layer and what its parameters are bound to, and
//! the places of caches in a page. What a function does is in `func`.

use std::collections::HashSet;

use llamac_ir::module::{Module, ValueId};
use llamac_runtime::artifact::meta::KvMeta;
use llamac_runtime::format::KvFormat;

use super::LowerError;
use super::func::{FuncLower, Index, Loc};
use super::layout::Layout;
use super::program::*;

/// The program while it grows.
pub(super) struct Builder<'m> {
    module: &'m Module,
    pub(super) program: Program,
    /// Symbols of the row sets.
    pub(super) symbols: [String; 2],
    /// Layer functions lowered so far, with what their parameters were bound to.
    instances: Vec<(String, Vec<Loc>, usize, Loc)>,
    /// Buffer names in use.
    names: HashSet<String>,
    /// Cache and chunk of each compiled function.
    caches: Vec<Option<(Cache, usize)>>,
}

/// Lowers a whole module, all but offsets and barriers.
pub(super) fn lower_module(module: &Module, limits: &Limits) -> Result<Program, LowerError> {
    let main = module.func("main").ok_or_else(|| LowerError::at("main", "the module has no such function"))?;
    let [ids, pos, seq, want] = main.params[..] else {
        return Err(LowerError::at("main", format!("found {} parameters, expected ids, pos, seq, want", main.params.len())));
    };
    let symbol = |v: ValueId| -> Result<String, LowerError> {
        let ty = &main.values[v.0 as usize].ty;
        match ty.shape.first().map(|d| (d.constant, &d.terms[..])) {
            Some((0, [(name, 1)])) => Ok(name.clone()),
            _ => Err(LowerError::new(main, v, format_args!("is {ty}, but must have one symbolic dimension"))),
        }
    };
    let program = Program {
        name: module.name.clone(),
        limits: *limits,
        buffers: Vec::new(),
        areas: Vec::new(),
        functions: Vec::new(),
        steps: Vec::new(),
        schedule: Vec::new(),
        layers: Vec::new(),
        kv: Vec::new(),
        logits: BufferId(0),
        arena_bytes: 0,
        weight_bytes: 0,
    };
    let symbols = [symbol(ids)?, symbol(want)?];
    let mut b = Builder { module, program, symbols, instances: Vec::new(), names: HashSet::new(), caches: Vec::new() };
    let args = [(ids, Index::Ids, 0), (pos, Index::Pos, 0), (seq, Index::Seq, 0), (want, Index::Want, 1)];
    let args: Vec<Loc> = args.iter().map(|(_, what, set)| Loc::Index(*what, *set)).collect();
    b.program.areas.push(Area { name: "main".to_owned(), weights: Vec::new(), bytes: 0 });
    let mut f = FuncLower::new(&mut b, main, 0, &args)?;
    f.walk()?;
    let logits = f.main_result()?;
    f.flush();
    b.program.logits = logits;
    b.program.buffers[logits.0 as usize].role = Role::Logits;
    b.place_caches()?;
    Ok(b.program)
}

impl<'m> Builder<'m> {
    pub(super) fn buffer(&mut self, name: &str, rows: usize, width: usize, layout: Layout, elem: Elem, role: Role) -> BufferId {
        let mut unique = name.to_owned();
        let mut n = 2;
        while !self.names.insert(unique.clone()) {
            unique = format!("{name}.{n}");
            n += 1;
        }
        self.program.buffers.push(Buffer { name: unique, rows, width, layout, elem, role, times: 1, extra: 0, offset: 0 });
        BufferId(self.program.buffers.len() as u32 - 1)
    }

    /// The compiled function for a layer function whose parameters are bound like this, and where its result is.
    pub(super) fn instance(&mut self, name: &str, args: &[Loc]) -> Result<(usize, Loc), LowerError> {
        if let Some((_, _, function, result)) = self.instances.iter().find(|i| i.0 == name && i.1 == args) {
            return Ok((*function, *result));
        }
        let func = self.module.func(name).ok_or_else(|| LowerError::at("main", format_args!("there is no @{name} to call")))?;
        // A second instance of a function reads the same kind of area.
        let area = self.program.areas.iter().position(|a| a.name == name).unwrap_or_else(|| {
            self.program.areas.push(Area { name: name.to_owned(), weights: Vec::new(), bytes: 0 });
            self.program.areas.len() - 1
        });
        let mut f = FuncLower::new(self, func, area, args)?;
        f.walk()?;
        let (result, cache) = f.layer_result(args)?;
        let regions = std::mem::take(&mut f.regions);
        let copies = self.instances.iter().filter(|i| i.0 == name).count();
        let name_here = if copies == 0 { name.to_owned() } else { format!("{name}.{}", copies + 1) };
        self.program.functions.push(Function { name: name_here, area, kv_group: 0, regions });
        let function = self.program.functions.len() - 1;
        self.caches.resize(function + 1, None);
        self.caches[function] = cache;
        self.instances.push((name.to_owned(), args.to_vec(), function, result));
        Ok((function, result))
    }

    /// Groups the caches of all calls and gives every call its place in a page.
    fn place_caches(&mut self) -> Result<(), LowerError> {
        self.caches.resize(self.program.functions.len(), None);
        // Full attention is group 0, chunked layers are group 1; with one kind only there is one group.
        let used: Vec<(Cache, usize)> = self.program.schedule.iter().filter_map(|e| self.caches[e.function as usize]).collect();
        let mut chunks: Vec<usize> = used.iter().map(|u| u.1).collect();
        chunks.sort_unstable();
        chunks.dedup();
        if chunks.len() > llamac_runtime::abi::KV_GROUPS {
            return Err(LowerError::at("main", format!("layers have {} different attention chunks, at most 2 can be", chunks.len())));
        }
        for &chunk in &chunks {
            let mut caches = used.iter().filter(|u| u.1 == chunk).map(|u| u.0);
            let Some(cache) = caches.next() else { continue };
            if caches.any(|c| c != cache) {
                return Err(LowerError::at("main", "layers of one group have different KV heads, head sizes or formats"));
            }
            let (heads, head_dim, format) = (cache.heads, cache.head_dim, kv_format(cache.elem));
            let name = format.name().to_owned();
            self.program.kv.push(KvMeta { layers: 0, format: name, kv_heads: heads, head_dim, page_bytes: 0, chunk });
        }
        for (i, cache) in self.caches.iter().enumerate() {
            if let Some((_, chunk)) = cache {
                self.program.functions[i].kv_group = chunks.iter().position(|c| c == chunk).unwrap_or(0);
            }
        }
        for entry in &mut self.program.schedule {
            if let Some((cache, _)) = self.caches[entry.function as usize] {
                let group = &mut self.program.kv[self.program.functions[entry.function as usize].kv_group];
                entry.kv = group.page_bytes;
                group.layers += 1;
                group.page_bytes += kv_format(cache.elem).layer_bytes(cache.heads, cache.head_dim) as u64;
            }
        }
        Ok(())
    }
}

/// The page format of a cache element.
pub(crate) fn kv_format(elem: Elem) -> KvFormat {
    match elem {
        // `cache_of` makes no caches of 4-byte whole numbers.
        Elem::F32 | Elem::I32 => KvFormat::F32,
        Elem::Bf16 => KvFormat::Bf16,
        Elem::I8 => KvFormat::I8,
    }
}
