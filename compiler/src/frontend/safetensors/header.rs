//! The header of a safetensors file: length word, JSON, and what both claim about the bytes behind them. Every claim is checked
//! here, so that the rest of the compiler may index without fear. A pure function of bytes: no file is opened.

use super::dtype::{self, FileDType};
use super::json::{Entries, shown};
use crate::diag::{Diag, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;

/// Longer headers are refused, as every reader of the format does.
pub const MAX_HEADER: u64 = 100_000_000;

/// A checked header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Tensors by name.
    pub tensors: BTreeMap<String, Entry>,
    /// The free-form strings under `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Element type.
    pub dtype: FileDType,
    /// Shape; empty: a scalar.
    pub shape: Vec<usize>,
    /// Its bytes, counted from the start of the file; inside the file.
    pub bytes: Range<usize>,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Member {
    Tensor(RawEntry),
    Metadata(BTreeMap<String, String>),
}

fn bad(what: impl Into<String>) -> Diag {
    Diag::new("safetensors", what).help("download the file again: it is damaged or not a safetensors file")
}

/// Reads and checks a header. `start` holds the first bytes of the file (all of it, or at least the header), `file_len` is its length.
///
/// # Errors
/// Says which claim of the header is wrong, for which tensor. Never panics, whatever the bytes are.
pub fn parse_header(start: &[u8], file_len: u64) -> Result<Header> {
    let Some((word, rest)) = start.split_first_chunk::<8>() else {
        return Err(bad("the file is too short for a safetensors header")
            .found(format_args!("{file_len} bytes"))
            .expected("at least 8 bytes"));
    };
    let length = u64::from_le_bytes(*word);
    if length > MAX_HEADER {
        return Err(bad("the header is too long")
            .found(format_args!("a header length of {length} bytes"))
            .expected(format_args!("at most {MAX_HEADER}")));
    }
    let header = usize::try_from(length).ok().and_then(|n| rest.get(..n)).filter(|_| length + 8 <= file_len).ok_or_else(|| {
        bad("the file ends inside its header")
            .found(format_args!("a file of {file_len} bytes"))
            .expected(format_args!("a header of {length} bytes behind 8"))
    })?;
    let members: Entries<Member> = serde_json::from_slice(header).map_err(|e| {
        let text = e.to_string();
        let what = if text.contains("duplicate name") {
            "a name comes twice in the header"
        } else {
            "the header is not what a safetensors header is"
        };
        bad(what).found(text).expected("a JSON object of {\"dtype\", \"shape\", \"data_offsets\"} by tensor name")
    })?;
    let data = 8 + length;
    let mut tensors = BTreeMap::new();
    let mut metadata = BTreeMap::new();
    for (name, member) in members.0 {
        match member {
            Member::Metadata(strings) if name == "__metadata__" => metadata = strings,
            Member::Tensor(raw) if name != "__metadata__" => {
                let entry = check_entry(&raw, data, file_len).map_err(|d| d.inside(format_args!("tensor `{}`", shown(&name))))?;
                tensors.insert(name, entry);
            }
            _ => return Err(bad("a member of the header is neither a tensor nor metadata").place(format_args!("`{}`", shown(&name)))),
        }
    }
    check_cover(&tensors, data, file_len)?;
    Ok(Header { tensors, metadata })
}

/// Checks one tensor by itself: type, and that its shape and its bytes agree and lie in the file.
fn check_entry(raw: &RawEntry, data: u64, file_len: u64) -> Result<Entry> {
    let dtype = dtype::by_name(&raw.dtype)
        .ok_or_else(|| bad("unknown element type").found(shown(&raw.dtype)).expected(format_args!("one of {}", dtype::names())))?;
    let (start, end) = raw.data_offsets;
    let limit = file_len - data;
    if start > end {
        return Err(bad("a tensor ends before it starts").found(format_args!("data_offsets [{start}, {end}]")).expected("start <= end"));
    }
    if end > limit {
        return Err(bad("a tensor lies outside the file: it was cut off, or its header lies")
            .found(format_args!("data_offsets [{start}, {end}] in {limit} bytes of data ({file_len} in the file)"))
            .expected(format_args!("a file of at least {} bytes", end.saturating_add(data))));
    }
    let size = raw
        .shape
        .iter()
        .try_fold(1u64, |n, &d| n.checked_mul(d))
        .and_then(|n| n.checked_mul(u64::from(dtype.bits)))
        .filter(|bits| bits % 8 == 0);
    if size.map(|bits| bits / 8) != Some(end - start) {
        let wanted = size.map_or_else(|| "a size that cannot be".to_owned(), |bits| format!("{} bytes", bits / 8));
        return Err(bad("size and shape of a tensor disagree")
            .found(format_args!("{} bytes at data_offsets [{start}, {end}]", end - start))
            .expected(format_args!("{wanted} for {} {}", dtype.name, shape_text(&raw.shape))));
    }
    let narrow = |n: u64| usize::try_from(n).map_err(|_| bad("a tensor is larger than this machine can address").found(n));
    let shape = raw.shape.iter().map(|&d| narrow(d)).collect::<Result<Vec<usize>>>()?;
    Ok(Entry { dtype, shape, bytes: narrow(data + start)?..narrow(data + end)? })
}

fn shape_text(shape: &[u64]) -> String {
    let mut text = format!("{:?}", &shape[..shape.len().min(8)]);
    if shape.len() > 8 {
        text.push_str("...");
    }
    text
}

/// Checks all tensors together: each byte of the data belongs to exactly one tensor.
fn check_cover(tensors: &BTreeMap<String, Entry>, data: u64, file_len: u64) -> Result<()> {
    let mut order: Vec<(&String, &Range<usize>)> = tensors.iter().map(|(name, entry)| (name, &entry.bytes)).collect();
    order.sort_by_key(|(_, bytes)| (bytes.start, bytes.end));
    let data = usize::try_from(data).unwrap_or(usize::MAX);
    let mut end = data;
    let mut before = "the header".to_owned();
    for (name, bytes) in order {
        if bytes.start < end {
            return Err(bad("two tensors overlap").place(format_args!("tensors {before} and `{}`", shown(name))).found(format_args!(
                "`{}` starts at {}, {} bytes before the other ends",
                shown(name),
                bytes.start - data,
                end - bytes.start
            )));
        }
        if bytes.start > end {
            return Err(bad("bytes that belong to no tensor")
                .place(format_args!("between {before} and tensor `{}`", shown(name)))
                .found(format_args!("{} bytes", bytes.start - end))
                .expected("tensors that follow each other without gaps"));
        }
        end = bytes.end;
        before = format!("`{}`", shown(name));
    }
    let len = usize::try_from(file_len).unwrap_or(usize::MAX);
    if end != len {
        return Err(bad("bytes behind the last tensor")
            .found(format_args!("a file of {file_len} bytes"))
            .expected(format_args!("{end} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 7);
        bytes
    }
    fn parse(header: &str, data: usize) -> Result<Header> {
        let bytes = file(header, data);
        parse_header(&bytes, bytes.len() as u64)
    }
    fn refused(header: &str, data: usize, words: &[&str]) {
        let said = parse(header, data).unwrap_err().to_string();
        assert!(words.iter().all(|w| said.contains(w)) && said.contains("help:"), "{words:?} not all in: {said}");
    }

    #[test]
    fn a_good_header_is_read() {
        let header = parse(
            r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[],"data_offsets":[12,16]},"none":{"dtype":"F32","shape":[0,9],"data_offsets":[12,12]}}"#,
            16,
        )
        .unwrap();
        assert_eq!(header.metadata["format"], "pt");
        assert_eq!((header.tensors["a"].shape.as_slice(), header.tensors["a"].bytes.len()), (&[2, 3][..], 12));
        assert_eq!(header.tensors["b"].bytes.len(), 4);
        assert!(parse("{}", 0).unwrap().tensors.is_empty());
    }

    #[test]
    fn every_prefix_of_a_file_is_refused() {
        let bytes = file(r#"{"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}"#, 12);
        for cut in 0..bytes.len() {
            let said = parse_header(&bytes[..cut], cut as u64).unwrap_err().to_string();
            assert!(said.contains("found:") && said.contains("expected:"), "cut at {cut}: {said}");
        }
    }

    #[test]
    fn a_header_length_that_lies_is_refused() {
        for length in [u64::MAX, MAX_HEADER + 1] {
            let bytes = length.to_le_bytes();
            assert!(parse_header(&bytes, u64::MAX).unwrap_err().to_string().contains("too long"));
        }
        let bytes = 99u64.to_le_bytes();
        assert!(parse_header(&bytes, 8).unwrap_err().to_string().contains("ends inside its header"));
    }

    #[test]
    fn a_header_that_is_no_json_object_is_refused() {
        for text in ["", "{", "[]", "3", "{\"a\":}", "\u{0}", "{} x"] {
            refused(text, 0, &["JSON"]);
        }
        refused(&"[".repeat(100_000), 0, &["JSON"]);
        refused(r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4, &["`a`"]);
        refused(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}"#, 4, &["`a`"]);
        refused(r#"{"a":{"dtype":"F32","shape":[1]}}"#, 4, &["`a`"]);
        refused(r#"{"a":{"x":"F32"}}"#, 0, &["`a`", "neither"]);
    }

    #[test]
    fn a_name_that_comes_twice_is_refused() {
        let one = r#""a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        refused(&format!("{{{one},{one}}}"), 4, &["twice", "`a`"]);
    }

    #[test]
    fn tensors_that_overlap_leave_gaps_or_leave_the_file_are_refused() {
        let two = |a: &str, b: &str| {
            format!(r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{a}}},"b":{{"dtype":"F32","shape":[2],"data_offsets":{b}}}}}"#)
        };
        assert!(parse(&two("[0,8]", "[8,16]"), 16).is_ok());
        refused(&two("[0,8]", "[4,12]"), 12, &["overlap", "`a`", "`b`"]);
        refused(&two("[0,8]", "[0,8]"), 8, &["overlap"]);
        refused(&two("[0,8]", "[12,20]"), 20, &["no tensor", "4 bytes"]);
        refused(&two("[4,12]", "[12,20]"), 20, &["no tensor"]);
        refused(&two("[0,8]", "[8,16]"), 20, &["behind the last tensor"]);
        refused(&two("[0,8]", "[8,16]"), 12, &["outside the file", "`b`"]);
        refused(&two("[0,8]", "[16,8]"), 16, &["ends before it starts", "`b`"]);
    }

    #[test]
    fn a_shape_that_disagrees_with_the_size_is_refused() {
        refused(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8, &["disagree", "12 bytes", "8 bytes"]);
        refused(r#"{"a":{"dtype":"F32","shape":[18446744073709551615,3],"data_offsets":[0,8]}}"#, 8, &["disagree", "`a`"]);
        refused(r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#, 2, &["disagree"]);
    }

    #[test]
    fn an_unknown_element_type_lists_the_known_ones() {
        refused(r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#, 8, &["F33", "BF16"]);
    }
}
