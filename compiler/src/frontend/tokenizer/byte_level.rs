//! The byte-level alphabet of `tokenizer.json`: each byte is written as one visible character.

/// Bytes that stand for themselves.
fn visible(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The bytes that a token text of the alphabet stands for; `None` if it has other characters.
pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
    text.chars().map(byte).collect()
}

fn byte(c: char) -> Option<u8> {
    match u32::from(c) {
        // The others have the characters from U+0100 on, in order.
        code @ 0x100..=0x143 => (0..=255).filter(|&b| !visible(b)).nth((code - 0x100) as usize),
        code => u8::try_from(code).ok().filter(|&b| visible(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let mut found: Vec<u8> = ('\0'..='\u{200}').filter_map(byte).collect();
        found.sort_unstable();
        assert_eq!(found, (0..=255).collect::<Vec<u8>>());
        assert_eq!(bytes("ĠaĊÿ"), Some(vec![b' ', b'a', b'\n', 0xff]));
        assert_eq!((bytes("a b"), bytes("語")), (None, None));
    }
}
