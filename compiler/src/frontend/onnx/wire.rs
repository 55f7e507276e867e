//! The protobuf wire format of an ONNX file, walked once: the data of large tensors is left out and replaced by where it stands in the file, so
//! that what is decoded is small whatever the model weighs. Files over 2 GB are no different.

use super::bad;
use crate::diag::Result;
use std::ops::Range;

/// Raw data of more bytes than this stays in the file.
const KEPT: usize = 256;

/// The key in `external_data` that marks data of the file itself; a file that has it already is refused.
pub(super) const INSIDE: &str = "llamac.inside";

/// Messages that hold tensors somewhere inside.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Function,
    Tensor,
}

impl Kind {
    /// The message in a field, if it may hold tensors.
    fn inside(self, field: u64) -> Option<Kind> {
        match (self, field) {
            (Kind::Model, 7) => Some(Kind::Graph),
            (Kind::Model, 25) => Some(Kind::Function),
            (Kind::Graph, 1) | (Kind::Function, 7) => Some(Kind::Node),
            (Kind::Graph, 5) => Some(Kind::Tensor),
            (Kind::Node, 5) => Some(Kind::Attribute),
            (Kind::Attribute, 5 | 10) => Some(Kind::Tensor),
            (Kind::Attribute, 6 | 11) => Some(Kind::Graph),
            _ => None,
        }
    }
}

const RAW_DATA: u64 = 9;
const EXTERNAL_DATA: u64 = 13;
const DATA_LOCATION: u64 = 14;
/// Graphs may nest, but not without end.
const DEPTH: usize = 32;

/// The same model with large raw data replaced by an entry `llamac.inside = START LENGTH` of its external data.
///
/// # Errors
/// The bytes are no protobuf message.
pub(super) fn without_data(file: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    copy(file, 0..file.len(), Kind::Model, DEPTH, &mut out)?;
    Ok(out)
}

fn broken(at: usize) -> crate::diag::Diag {
    bad("the file is no ONNX model, or is damaged").found(format_args!("no protobuf field at byte {at}")).expected("a complete model.onnx")
}

fn copy(file: &[u8], range: Range<usize>, kind: Kind, depth: usize, out: &mut Vec<u8>) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        let start = at;
        let tag = varint(file, &mut at, range.end)?;
        let (field, wire) = (tag >> 3, tag & 7);
        let body = match wire {
            0 => {
                varint(file, &mut at, range.end)?;
                continue_with(file, start..at, out);
                continue;
            }
            1 => at..at.saturating_add(8),
            5 => at..at.saturating_add(4),
            2 => {
                let len = usize::try_from(varint(file, &mut at, range.end)?).map_err(|_| broken(start))?;
                at..at.checked_add(len).ok_or_else(|| broken(start))?
            }
            _ => return Err(broken(start)),
        };
        if body.end > range.end {
            return Err(broken(start));
        }
        at = body.end;
        match kind.inside(field) {
            Some(inner) if wire == 2 => {
                let depth = depth.checked_sub(1).ok_or_else(|| broken(start))?;
                let mut message = Vec::new();
                copy(file, body, inner, depth, &mut message)?;
                put(field, &message, out);
            }
            _ if kind == Kind::Tensor && field == RAW_DATA && wire == 2 && body.len() > KEPT => {
                let mut entry = Vec::new();
                put(1, INSIDE.as_bytes(), &mut entry);
                put(2, format!("{} {}", body.start, body.len()).as_bytes(), &mut entry);
                put(EXTERNAL_DATA, &entry, out);
                number(DATA_LOCATION << 3, out);
                number(1, out);
            }
            _ => continue_with(file, start..at, out),
        }
    }
    Ok(())
}

fn continue_with(file: &[u8], range: Range<usize>, out: &mut Vec<u8>) {
    out.extend_from_slice(&file[range]);
}

fn varint(file: &[u8], at: &mut usize, end: usize) -> Result<u64> {
    let start = *at;
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *file[..end].get(*at).ok_or_else(|| broken(start))?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(broken(start))
}

fn number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put(field: u64, body: &[u8], out: &mut Vec<u8>) {
    number(field << 3 | 2, out);
    number(body.len() as u64, out);
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(len: usize) -> Vec<u8> {
        let mut tensor = Vec::new();
        put(8, b"w", &mut tensor);
        put(RAW_DATA, &vec![9; len], &mut tensor);
        let (mut graph, mut model) = (Vec::new(), Vec::new());
        put(5, &tensor, &mut graph);
        put(7, &graph, &mut model);
        model
    }

    #[test]
    fn large_data_is_left_out_and_its_place_is_said() {
        let file = tensor(1000);
        let small = without_data(&file).unwrap();
        assert!(small.len() < 100);
        let text = String::from_utf8_lossy(&small);
        let place = text.split(INSIDE).nth(1).unwrap().trim_start_matches(|c: char| !c.is_ascii_digit());
        let start: usize = place.split(' ').next().unwrap().parse().unwrap();
        assert!(place.contains(" 1000") && file[start..start + 1000].iter().all(|b| *b == 9) && file[start - 1] != 9);
    }

    #[test]
    fn small_data_stays_where_it_is() {
        let file = tensor(KEPT);
        assert_eq!(without_data(&file).unwrap(), file);
    }

    #[test]
    fn every_file_that_ends_early_is_refused_or_shorter() {
        let file = tensor(300);
        for end in 1..file.len() {
            assert!(without_data(&file[..end]).is_err(), "{end}");
        }
        assert!(without_data(b"\x0f").unwrap_err().to_string().contains("no ONNX model"));
    }

    #[test]
    fn graphs_without_end_are_refused() {
        let mut file = Vec::new();
        for _ in 0..100 {
            let (mut attribute, mut node, mut graph) = (Vec::new(), Vec::new(), Vec::new());
            put(6, &file, &mut attribute);
            put(5, &attribute, &mut node);
            put(1, &node, &mut graph);
            file = graph;
        }
        let mut model = Vec::new();
        put(7, &file, &mut model);
        assert!(without_data(&model).is_err());
    }
}
