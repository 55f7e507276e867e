//! Bytes of tokens to text, streaming: characters that are split over tokens are held back until they are whole.

/// Turns the bytes of successive tokens into text. What it returns is never part of a character.
#[derive(Debug, Default, Clone)]
pub struct Detokenizer {
    /// The beginning of a character, at most 3 bytes.
    held: Vec<u8>,
}

impl Detokenizer {
    /// Adds the bytes of a token; returns the text that is complete. Bytes that cannot be UTF-8 become U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut rest = self.held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    self.held.clear();
                    return text;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(bad) = error.error_len() else {
                        self.held = after.to_vec();
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[bad..];
                }
            }
        }
    }

    /// Ends the text: a character that never became whole is shown as U+FFFD.
    pub fn flush(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_split_over_tokens_comes_out_whole() {
        let text = "aé€😀z";
        for size in 1..5 {
            let mut detok = Detokenizer::default();
            let mut shown = String::new();
            for bytes in text.as_bytes().chunks(size) {
                let piece = detok.push(bytes);
                assert!(!piece.contains(char::REPLACEMENT_CHARACTER));
                shown.push_str(&piece);
            }
            assert_eq!((shown.as_str(), detok.flush().as_str()), (text, ""));
        }
    }

    #[test]
    fn impossible_bytes_are_replaced_as_the_standard_library_does() {
        let bytes = [0x61, 0xff, 0xe2, 0x82, 0x62, 0xf0, 0x9f, 0x98, 0xc3];
        for cut in 0..bytes.len() {
            let mut detok = Detokenizer::default();
            let mut shown = detok.push(&bytes[..cut]);
            shown += &detok.push(&bytes[cut..]);
            shown += &detok.flush();
            assert_eq!(shown, String::from_utf8_lossy(&bytes), "cut at {cut}");
        }
    }
}
