//! `generation_config.json`: defaults for generation, with the config's token ids where it says nothing. Sampling itself is in the runtime.

use super::config::LlamaConfig;
use super::keys::{Keys, parse};
use crate::diag::{Diag, Result, Warning};
use llamac_runtime::artifact::meta::GenerationMeta;

/// Reads the text of a `generation_config.json` (`None`: there is none). Ids outside the vocabulary are dropped with a warning.
///
/// # Errors
/// Text that is no JSON object, or a key with a value that cannot be.
pub fn parse_generation(text: Option<&[u8]>, config: &LlamaConfig) -> Result<(GenerationMeta, Vec<Warning>)> {
    let mut meta = GenerationMeta { bos: config.bos, eos: config.eos.clone(), ..GenerationMeta::default() };
    if let Some(text) = text {
        let value = parse(text)?;
        let keys = Keys::of(&value)?;
        meta.bos = keys.id("bos_token_id")?.or(meta.bos);
        meta.eos = keys.ids("eos_token_id")?.unwrap_or(meta.eos);
        meta.do_sample = keys.flag("do_sample")?;
        meta.temperature = keys.not_negative("temperature")?.map(|x| x as f32);
        meta.top_p = keys.not_negative("top_p")?.map(|x| x as f32);
        if meta.top_p.is_some_and(|p| p > 1.0) {
            return Err(keys.bad("top_p", "`top_p` is above 1").expected("a number from 0 to 1"));
        }
        // 0 switches top-k off.
        meta.top_k = keys.id("top_k")?.filter(|&k| k > 0);
        meta.repetition_penalty = keys.positive("repetition_penalty")?.map(|x| x as f32);
    }
    let mut warnings = Vec::new();
    let mut known = |id: u32| {
        let inside = (id as usize) < config.vocab;
        if !inside {
            let what = format!("token id {id} is outside the vocabulary of {} and is ignored", config.vocab);
            warnings.push(Warning(Diag::new("config", what).place("`bos_token_id` or `eos_token_id`")));
        }
        inside
    };
    meta.bos = meta.bos.filter(|&id| known(id));
    meta.eos.retain(|&id| known(id));
    Ok((meta, warnings))
}

#[cfg(test)]
mod tests {
    use super::super::config::parse_config;
    use super::*;

    fn config() -> LlamaConfig {
        let text = r#"{"model_type":"llama","hidden_size":8,"num_hidden_layers":1,"num_attention_heads":2,"intermediate_size":8,"vocab_size":50,
            "bos_token_id":1,"eos_token_id":2}"#;
        parse_config(text.as_bytes()).unwrap()
    }

    #[test]
    fn ids_come_from_the_config_where_the_generation_config_is_silent() {
        let (meta, _) = parse_generation(None, &config()).unwrap();
        assert_eq!((meta.bos, meta.eos, meta.temperature), (Some(1), vec![2], None));
        let (meta, _) = parse_generation(Some(br#"{"temperature":0.6,"top_p":0.9,"do_sample":true,"top_k":0}"#), &config()).unwrap();
        assert_eq!((meta.bos, meta.eos), (Some(1), vec![2]));
        assert_eq!((meta.temperature, meta.top_p, meta.do_sample, meta.top_k), (Some(0.6), Some(0.9), Some(true), None));
    }

    #[test]
    fn one_end_id_or_several_are_read() {
        assert_eq!(parse_generation(Some(br#"{"eos_token_id":7}"#), &config()).unwrap().0.eos, [7]);
        assert_eq!(parse_generation(Some(br#"{"eos_token_id":[7,8]}"#), &config()).unwrap().0.eos, [7, 8]);
    }

    #[test]
    fn ids_outside_the_vocabulary_are_dropped_with_a_warning() {
        let (meta, warnings) = parse_generation(Some(br#"{"eos_token_id":[7,50],"bos_token_id":99}"#), &config()).unwrap();
        assert_eq!((meta.bos, meta.eos, warnings.len()), (None, vec![7], 2));
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for text in [
            "[]",
            "x",
            r#"{"temperature":-1}"#,
            r#"{"top_p":1.5}"#,
            r#"{"top_k":-3}"#,
            r#"{"eos_token_id":"x"}"#,
            r#"{"repetition_penalty":0}"#,
        ] {
            assert!(parse_generation(Some(text.as_bytes()), &config()).is_err(), "{text}");
        }
    }
}
