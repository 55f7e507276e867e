//! Writes a checkpoint of random weights as a Hugging Face directory, streaming: memory stays at a few megabytes whatever its size.

use crate::random::{Bits, Float, Table};
use crate::{shapes, vocab};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that a thread makes before it writes them.
const PIECE: usize = 4 << 20;

/// What to write.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Element type of every tensor.
    pub dtype: Float,
    /// Files that the tensors are spread over.
    pub shards: usize,
    /// Same seed, same bytes.
    pub seed: u64,
}

/// A tensor and the place of its bytes.
struct Placed {
    tensor: shapes::Tensor,
    file: usize,
    offset: u64,
}

/// Writes the checkpoint into `out`, which is made if it is not there. Returns the bytes of all tensors.
///
/// # Errors
/// A config that is not complete, or a file that cannot be written; as text.
pub fn write(config: &Path, out: &Path, options: &Options) -> Result<u64, String> {
    let at = |path: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = fs::read(config).map_err(|e| at(config, &e))?;
    let mut config: Value = serde_json::from_slice(&text).map_err(|e| at(config, &e))?;
    let tensors = shapes::tensors(&config)?;
    let small = vocab::files(config.get("text_config").unwrap_or(&config))?;
    config["torch_dtype"] = json!(options.dtype.torch());

    fs::create_dir_all(out).map_err(|e| at(out, &e))?;
    for (name, value) in small.iter().map(|(n, v)| (*n, v)).chain([("config.json", &config)]) {
        let path = out.join(name);
        fs::write(&path, format!("{value:#}\n")).map_err(|e| at(&path, &e))?;
    }
    let total = tensors.iter().map(shapes::Tensor::elements).sum::<u64>() * options.dtype.bytes() as u64;
    write_tensors(tensors, out, options, total).map_err(|e| at(out, &e))?;
    Ok(total)
}

fn write_tensors(tensors: Vec<shapes::Tensor>, out: &Path, options: &Options, total: u64) -> io::Result<()> {
    let shards = options.shards.clamp(1, tensors.len());
    let size = options.dtype.bytes() as u64;
    let name = |i: usize| match shards {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{shards:05}.safetensors", i + 1),
    };
    // A tensor goes into the shard in which its first byte would lie if all shards had the same size.
    let mut placed = Vec::new();
    let mut ends = vec![0u64; shards];
    let mut before = 0;
    for tensor in tensors {
        let file = ((before * shards as u64) / total) as usize;
        let bytes = tensor.elements() * size;
        placed.push(Placed { offset: ends[file], tensor, file });
        ends[file] += bytes;
        before += bytes;
    }
    let mut files = Vec::new();
    let mut starts = Vec::new();
    for (i, end) in ends.iter().enumerate() {
        let header = header(placed.iter().filter(|p| p.file == i), options.dtype);
        let file = File::create(out.join(name(i)))?;
        file.write_all_at(&(header.len() as u64).to_le_bytes(), 0)?;
        file.write_all_at(header.as_bytes(), 8)?;
        starts.push(8 + header.len() as u64);
        file.set_len(starts[i] + end)?;
        files.push(file);
    }
    if shards > 1 {
        let map: Map<String, Value> = placed.iter().map(|p| (p.tensor.name.clone(), json!(name(p.file)))).collect();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
        fs::write(out.join("model.safetensors.index.json"), format!("{index:#}\n"))?;
    }

    let next = AtomicUsize::new(0);
    let work = || -> io::Result<()> {
        while let Some(p) = placed.get(next.fetch_add(1, Ordering::Relaxed)) {
            fill(&files[p.file], starts[p.file] + p.offset, &p.tensor, options)?;
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| Err(io::Error::other("a writing thread died"))))
    })
}

/// The header of one file, padded so that the data is aligned to 8 bytes.
fn header<'a>(tensors: impl Iterator<Item = &'a Placed>, dtype: Float) -> String {
    let mut entries = Map::new();
    entries.insert("__metadata__".into(), json!({ "format": "pt" }));
    for p in tensors {
        let end = p.offset + p.tensor.elements() * dtype.bytes() as u64;
        entries.insert(
            p.tensor.name.clone(),
            json!({ "dtype": dtype.safetensors(), "shape": p.tensor.shape, "data_offsets": [p.offset, end] }),
        );
    }
    let mut text = Value::Object(entries).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    text
}

fn fill(file: &File, start: u64, tensor: &shapes::Tensor, options: &Options) -> io::Result<()> {
    let table = Table::new(options.dtype, tensor.mean, tensor.std);
    let mut bits = Bits::new(options.seed, &tensor.name);
    let total = tensor.elements() * options.dtype.bytes() as u64;
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    while done < total {
        let bytes = (total - done).min(PIECE as u64) as usize;
        table.fill(&mut bits, &mut piece[..bytes]);
        file.write_all_at(&piece[..bytes], start + done)?;
        done += bytes as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn make(folder: &Path, shards: usize, seed: u64) {
        let config = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/llama3-untied/model/config.json");
        write(&config, folder, &Options { dtype: Float::Bf16, shards, seed }).expect("written");
    }

    fn tensor(folder: &Path, file: &str, name: &str) -> Vec<u8> {
        let bytes = fs::read(folder.join(file)).expect("the file");
        safetensors::SafeTensors::deserialize(&bytes).expect("a valid file").tensor(name).expect("the tensor").data().to_vec()
    }

    #[test]
    fn shards_hold_the_same_tensors_as_one_file() {
        let (one, three) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        make(one.path(), 1, 7);
        make(three.path(), 3, 7);
        let index: Value =
            serde_json::from_slice(&fs::read(three.path().join("model.safetensors.index.json")).expect("the index")).expect("JSON");
        let map = index["weight_map"].as_object().expect("a map");
        let files: std::collections::BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
        assert_eq!(files.len(), 3);
        for (name, file) in map {
            assert_eq!(tensor(three.path(), file.as_str().expect("a name"), name), tensor(one.path(), "model.safetensors", name), "{name}");
        }
    }

    #[test]
    fn the_seed_decides_the_bytes() {
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().expect("a folder")).collect();
        for (folder, seed) in folders.iter().zip([1, 1, 2]) {
            make(folder.path(), 1, seed);
        }
        let read = |i: usize| fs::read(folders[i].path().join("model.safetensors")).expect("the file");
        assert!(read(0) == read(1) && read(0) != read(2));
    }
}
