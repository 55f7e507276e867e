//! Data of tensors that stand in files beside the model: an artifact of a graph has a section for it, with a list of what stands where. The model itself
//! is kept as it was given; that it says `location`, `offset` and `length` is what the list is looked up by.
//!
//! ```text
//!  0  bytes of the list        u64, little-endian
//!  8  the list                 JSON: [[location, offset, bytes, place], ..]
//!  .. data                     each piece at its place behind the start of the section, a multiple of 64; gaps are zero
//! ```

use super::bad;
use super::import::read;
use super::weights::{OnnxWeights, Outside};
use super::wire::INSIDE;
use crate::diag::{Diag, Result};
use crate::pack::unwritable;
use llamac_runtime::artifact::writer::SectionWriter;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use tract_onnx::pb::{GraphProto, TensorProto};

/// Bytes that are copied at a time.
const STEP: usize = 1 << 20;

/// Data begins at multiples of this.
const ALIGN: usize = 64;

/// What the model calls a piece of a file: location, offset, bytes.
type Key = (String, usize, usize);

/// A model as an artifact keeps it.
pub struct Parts {
    weights: OnnxWeights,
    pieces: Vec<Outside>,
}

/// What an artifact of the model in a file is made of.
///
/// # Errors
/// The file cannot be read or is no model; data outside is not where the model says.
pub fn parts(path: &Path) -> Result<Parts> {
    let inside = |d: Diag| d.inside(path.display());
    let (model, mut weights) = read(path)?;
    let mut pieces: BTreeMap<Key, Outside> = BTreeMap::new();
    let mut tensors = Vec::new();
    model.graph.iter().for_each(|g| all_tensors(g, &mut tensors));
    let apart = |t: &&TensorProto| !t.external_data.is_empty() && t.external_data.iter().all(|e| e.key != INSIDE);
    for tensor in tensors.into_iter().filter(apart) {
        let piece = weights.outside(tensor).map_err(|d| inside(d.inside(format_args!("tensor `{}`", tensor.name))))?;
        pieces.insert((piece.location.clone(), piece.start, piece.bytes), piece);
    }
    Ok(Parts { weights, pieces: pieces.into_values().collect() })
}

/// All tensors of a graph, also those in attributes and in graphs inside.
fn all_tensors<'a>(graph: &'a GraphProto, out: &mut Vec<&'a TensorProto>) {
    out.extend(&graph.initializer);
    for attribute in graph.node.iter().flat_map(|n| &n.attribute) {
        out.extend(attribute.t.iter().chain(&attribute.tensors));
        attribute.g.iter().chain(&attribute.graphs).for_each(|g| all_tensors(g, out));
    }
}

impl Parts {
    /// The model's own file.
    pub fn model(&self) -> &[u8] {
        self.weights.model_bytes()
    }

    /// Whether there is data outside.
    pub fn has_data(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// Bytes of model and data, about.
    pub fn bytes(&self) -> u64 {
        let data: usize = self.pieces.iter().map(|p| p.bytes.next_multiple_of(ALIGN)).sum();
        (self.model().len() + data) as u64
    }

    /// Copies the data into its section, a part at a time.
    ///
    /// # Errors
    /// A file cannot be read any more, or the section cannot be written.
    pub fn write(&self, section: &mut SectionWriter<'_>) -> Result<()> {
        let (list, places) = self.list();
        let mut at = 0;
        let mut put = |section: &mut SectionWriter<'_>, bytes: &[u8]| {
            at += bytes.len();
            section.write_all(bytes).map(|()| at).map_err(|e| unwritable(&section.explain(e)))
        };
        put(section, &(list.len() as u64).to_le_bytes())?;
        let mut end = put(section, &list)?;
        let mut buffer = vec![0; STEP];
        for (piece, place) in self.pieces.iter().zip(places) {
            end = put(section, &vec![0; place.saturating_sub(end)])?;
            let fail = |e: &std::io::Error| Diag::io("cannot read a file of the model", piece.file.display(), e);
            let mut file = File::open(&piece.file).map_err(|e| fail(&e))?;
            file.seek(SeekFrom::Start(piece.start as u64)).map_err(|e| fail(&e))?;
            let mut left = piece.bytes;
            while left > 0 {
                let part = &mut buffer[..left.min(STEP)];
                file.read_exact(part).map_err(|e| fail(&e))?;
                end = put(section, part)?;
                left -= part.len();
            }
        }
        Ok(())
    }

    /// The list, filled up with blanks so that its own length moves nothing, and the places of the pieces.
    fn list(&self) -> (Vec<u8>, Vec<usize>) {
        let text = |places: &[usize]| {
            let lines: Vec<_> = self.pieces.iter().zip(places).map(|(p, at)| (&p.location, p.start, p.bytes, *at)).collect();
            serde_json::to_vec(&lines).unwrap_or_default()
        };
        // No number has more digits than this one.
        let room = (8 + text(&vec![usize::MAX; self.pieces.len()]).len()).next_multiple_of(ALIGN);
        let mut next = room;
        let place = |p: &Outside| {
            let at = next;
            next = (at + p.bytes).next_multiple_of(ALIGN);
            at
        };
        let places: Vec<usize> = self.pieces.iter().map(place).collect();
        let mut list = text(&places);
        list.resize(room - 8, b' ');
        (list, places)
    }
}

/// What is outside of a model in an artifact, and where the artifact has it.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<Key, usize>);

impl Kept {
    /// Reads the list of a section.
    ///
    /// # Errors
    /// It is damaged.
    pub(super) fn parse(section: &[u8]) -> Result<Kept> {
        let damaged = |found: &dyn std::fmt::Display| {
            bad("the list of the data in the artifact is damaged").found(found).help("compile the graph again")
        };
        let length = section.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)).and_then(|n| usize::try_from(n).ok());
        let list = length.and_then(|n| section.get(8..n.checked_add(8)?)).ok_or_else(|| damaged(&"no list"))?;
        let lines: Vec<(String, usize, usize, usize)> = serde_json::from_slice(list).map_err(|e| damaged(&e))?;
        let mut out = BTreeMap::new();
        for (location, start, bytes, at) in lines {
            if at.checked_add(bytes).is_none_or(|end| end > section.len()) {
                return Err(damaged(&format_args!("{bytes} bytes at {at} of {}", section.len())));
            }
            out.insert((location, start, bytes), at);
        }
        Ok(Kept(out))
    }

    /// Where a piece is behind the start of the section.
    pub(super) fn find(&self, location: &str, start: usize, bytes: usize) -> Option<usize> {
        self.0.get(&(location.to_owned(), start, bytes)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_list_is_refused() {
        let section = |text: &str, data: usize| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &vec![0; data]].concat();
        let whole = Kept::parse(&section(r#"[["w.bin",4,8,40]]  "#, 100)).unwrap();
        assert_eq!((whole.find("w.bin", 4, 8), whole.find("w.bin", 0, 8), whole.find("v.bin", 4, 8)), (Some(40), None, None));
        for (text, data) in
            [(r#"[["w.bin",4,8,40]]"#, 10), (r#"[["w.bin",4,8,18446744073709551615]]"#, 100), (r#"[["w.bin",4]]"#, 9), ("", 9)]
        {
            assert!(Kept::parse(&section(text, data)).unwrap_err().to_string().contains("damaged"), "{text}");
        }
        for short in [&[][..], &[255; 8], &[9, 0, 0, 0, 0, 0, 0, 0, b'[']] {
            assert!(Kept::parse(short).is_err());
        }
    }
}
