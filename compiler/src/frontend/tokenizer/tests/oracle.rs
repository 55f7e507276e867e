//! The tokenizers of the fixtures, and variants of them, against the `tokenizers` crate on random text.

use super::*;

/// Words, marks and scripts that texts are made of.
const PIECES: &[&str] = &[
    "the",
    "The",
    " and",
    "king",
    "ROMEO:",
    " I'll",
    "don't",
    "'S",
    "’s",
    "12345",
    " 7",
    "½",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\n\n\n",
    "\t",
    "\u{a0}",
    "\u{3000}",
    ".",
    "...",
    "!?",
    "/",
    "//",
    "_",
    "<|",
    "|>",
    "<|eot_id|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|eot_id",
    "é",
    "e\u{301}",
    "ß",
    "Ǆ",
    "ſ",
    "日本語",
    "ไทย",
    "नमस्ते",
    "русский",
    "Ελλ",
    "עברית",
    "😀",
    "👩\u{200d}💻",
    "\u{200b}",
    "\0",
    "\u{10ffff}",
    "a",
    "b",
    "zz",
    "QQQ",
    "xyzzy",
];

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }

    fn text(&mut self) -> String {
        let any = |r: &mut Random| char::from_u32(r.below(0x11_0000) as u32).unwrap_or('\u{fffd}').to_string();
        (0..self.below(20)).map(|_| if self.below(8) == 0 { any(self) } else { PIECES[self.below(PIECES.len())].to_owned() }).collect()
    }
}

/// Compares encoding and decoding on `count` random texts.
fn compare(json: &Value, what: &str, count: usize) {
    let vocab = json["added_tokens"].as_array().unwrap().iter().map(|t| t["id"].as_u64().unwrap() as usize + 1).max().unwrap();
    let ours = compiled(json, vocab).unwrap();
    let mut theirs: tokenizers::Tokenizer = json.to_string().parse().unwrap();
    let mut random = Random(0x5eed_0001);
    for _ in 0..count {
        let text = random.text();
        for parse_special in [true, false] {
            theirs.set_encode_special_tokens(!parse_special);
            for add_bos in [true, false] {
                let expected = theirs.encode_fast(text.as_str(), add_bos).unwrap();
                assert_eq!(
                    ours.encode(&text, EncodeOptions { parse_special, add_bos }),
                    expected.get_ids(),
                    "{what}, special {parse_special}, bos {add_bos}: {text:?}"
                );
            }
        }
        // Random ids: their bytes need not be text.
        let ids: Vec<u32> = (0..random.below(12)).map(|_| random.below(vocab + 2) as u32).collect();
        for skip in [true, false] {
            assert_eq!(ours.decode(&ids, skip), theirs.decode(&ids, skip).unwrap(), "{what}, skip {skip}: {ids:?}");
        }
        assert_eq!(ours.decode(&ours.encode(&text, PLAIN), false), text);
    }
}

#[test]
fn fixtures_encode_and_decode_as_the_tokenizers_crate_does() {
    for name in ["tiny-llama3", "llama3-untied", "llama3-onnx"] {
        compare(&json_of(name), name, 1500);
    }
}

#[test]
fn merges_as_pairs_give_the_same_table_as_merges_as_text() {
    let mut json = json_of("llama3-onnx");
    let text = compile(json.to_string().as_bytes(), None, None, 626).unwrap().table;
    let pairs: Vec<Value> = json["model"]["merges"].as_array().unwrap().iter().map(|m| m.as_str().unwrap().split(' ').collect()).collect();
    json["model"]["merges"] = pairs.into();
    assert_eq!(compile(json.to_string().as_bytes(), None, None, 626).unwrap().table, text);
    compare(&json, "pairs", 200);
}

#[test]
fn variants_of_the_format_encode_as_the_tokenizers_crate_does() {
    let variant = |what: &str, change: &dyn Fn(&mut Value)| {
        let mut json = json_of("tiny-llama3");
        change(&mut json);
        compare(&json, what, 600);
    };
    let regex = |json: &mut Value, text: &str| json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!(text);
    variant("merges count", &|t| t["model"]["ignore_merges"] = json!(false));
    variant("GPT-2 splits", &|t| {
        t["pre_tokenizer"] = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true })
    });
    variant("another expression", &|t| regex(t, r"\p{L}+(?=\s)|\d| \S"));
    variant("Llama 4 splits", &|t| {
        let upper = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]";
        let lower = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]";
        let (first, end) = (r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?");
        let rest = r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        regex(t, &format!("{first}{upper}*{lower}+{end}|{first}{upper}+{lower}*{end}|{rest}"));
    });
    variant("no BOS", &|t| t["post_processor"] = Value::Null);
    variant("added text tokens", &|t| {
        let added = |id: u64, content: &str, normalized: bool| json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": normalized, "special": false });
        t["added_tokens"].as_array_mut().unwrap().extend([
            added(1924, "king<|", true),
            added(1925, "xyz", false),
            added(1926, "xyzz", false),
            added(1927, "ไท", true),
        ]);
    });
}
