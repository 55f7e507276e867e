//! Check vectors: prompts and the logits that the reference evaluator computed for them at compile time. Data and its bytes only;
//! running them is in `crate::verify`.

use serde::{Deserialize, Serialize};

/// The check section.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckVectors {
    /// What was computed and how close the artifact must come.
    pub head: CheckHead,
    /// Logits of the last rows of each case, `[case][row][vocab]`, f32.
    pub logits: Vec<f32>,
}

/// Description of the vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckHead {
    /// Token ids of each case.
    pub cases: Vec<Vec<u32>>,
    /// How many last rows of each case have logits.
    pub rows: usize,
    /// Logits per row.
    pub vocab: usize,
    /// Entries of the schedule that were run; empty: all of them.
    pub schedule: Vec<usize>,
    /// Bound on rms(difference) / std(reference).
    pub max_rms: f64,
}

impl CheckVectors {
    /// The section's bytes: length of the JSON head, head, padding to 8, f32 little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let head = serde_json::to_vec(&self.head).unwrap_or_default();
        let mut out = (head.len() as u64).to_le_bytes().to_vec();
        out.extend_from_slice(&head);
        out.resize(out.len().next_multiple_of(8), 0);
        out.extend(self.logits.iter().flat_map(|x| x.to_le_bytes()));
        out
    }

    /// Reads a section.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<CheckVectors, String> {
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or("shorter than its length word")?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|e| e.to_string())?;
        let head = rest.get(..length).ok_or("head longer than the section")?;
        let head: CheckHead = serde_json::from_slice(head).map_err(|e| e.to_string())?;
        let start = length.checked_next_multiple_of(8).ok_or("head longer than memory")?;
        let data = rest.get(start..).ok_or("no logits behind the head")?;
        let wanted = head.cases.len().checked_mul(head.rows).and_then(|n| n.checked_mul(head.vocab)).and_then(|n| n.checked_mul(4));
        if wanted != Some(data.len()) {
            return Err(format!("{} bytes of logits, but the head describes {wanted:?}", data.len()));
        }
        let logits = data.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
        Ok(CheckVectors { head, logits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_survive_their_bytes_and_damage_is_refused() {
        let head = CheckHead { cases: vec![vec![1, 2]], rows: 1, vocab: 3, schedule: vec![0], max_rms: 1e-5 };
        let vectors = CheckVectors { head, logits: vec![1.0, -2.0, 0.5] };
        let bytes = vectors.to_bytes();
        assert_eq!(CheckVectors::from_bytes(&bytes), Ok(vectors));
        for cut in 0..bytes.len() {
            assert!(CheckVectors::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
