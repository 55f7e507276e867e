//! Headers of safetensors files and shard indexes: any bytes give a header that keeps its promises, or a diagnostic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llamac::frontend::safetensors::{parse_header, parse_index};

fuzz_target!(|data: &[u8]| {
    // As if the file ended here, and as if gigabytes followed.
    for file_len in [data.len() as u64, data.len() as u64 + (3 << 30)] {
        let Ok(header) = parse_header(data, file_len) else { continue };
        let mut ranges: Vec<_> = header.tensors.values().map(|e| (e.bytes.start as u64, e.bytes.end as u64)).collect();
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|w| w[0].1 <= w[1].0), "tensors overlap");
        assert!(ranges.iter().all(|r| r.0 <= r.1 && r.1 <= file_len), "a tensor leaves the file");
    }
    if let Ok(files) = parse_index(data) {
        assert!(files.values().all(|f| !f.starts_with('/') && !f.split('/').any(|part| part == "..")));
    }
});
