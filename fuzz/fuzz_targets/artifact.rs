//! Artifacts: header, section table, metadata and check vectors of any bytes give checked data or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llamac_runtime::artifact::check::CheckVectors;
use llamac_runtime::artifact::layout::{ENTRY_BYTES, HEADER_BYTES, Layout, MAX_SECTIONS, SectionKind};
use llamac_runtime::artifact::reader::{parse, parse_unhashed};

/// Larger files are not built.
const MOST: u64 = 8 << 20;

fuzz_target!(|data: &[u8]| {
    let _ = parse(data);
    let _ = CheckVectors::from_bytes(data);
    if let Some(file) = expand(data) {
        let _ = parse_unhashed(&file);
    }
});

/// An input is header, section table and metadata, without what lies between them: makes the file of it, with the header's hash set right,
/// so that the fuzzer reaches what lies behind.
fn expand(data: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| data.get(at..at + 8).map(|b| u64::from_le_bytes(b.try_into().unwrap_or_default()));
    let sections = data.get(24..28).map(|b| u32::from_le_bytes(b.try_into().unwrap_or_default()))? as usize;
    let head = HEADER_BYTES + sections.min(MAX_SECTIONS) * ENTRY_BYTES;
    let bytes = word(16)?;
    if bytes > MOST || data.len() < head || bytes < head as u64 {
        return None;
    }
    let mut file = vec![0; bytes as usize];
    file[..head].copy_from_slice(&data[..head]);
    let hash = blake3::Hasher::new().update(&file[..32]).update(&file[HEADER_BYTES..head]).finalize();
    file[32..64].copy_from_slice(hash.as_bytes());
    let layout = Layout::decode(&file).ok()?;
    let meta = layout.find(SectionKind::Meta)?;
    let json = &data[head..];
    let room = file.get_mut(meta.offset as usize..(meta.offset + meta.bytes) as usize)?;
    // JSON takes blanks at its end.
    room.fill(b' ');
    let length = json.len().min(room.len());
    room[..length].copy_from_slice(&json[..length]);
    Some(file)
}
