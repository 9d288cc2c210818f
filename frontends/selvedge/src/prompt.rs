//! Prompts as the tokens that a text program reads.

use crate::error::Error;
use selvedge_import::tokenizer::{TextTokenizer, Tokens};
use selvedge_ir::Diagnostic;
use selvedge_zoo::program::{Conditioning, PipelineInfo, TokenRows};
use std::collections::BTreeMap;

/// Tokenizers by the name of the pipeline's component; empty for models without text.
#[derive(Clone, Debug, Default)]
pub struct Tokenizers(pub BTreeMap<String, TextTokenizer>);

impl Tokenizers {
    /// Tokens of texts, a row each, for every text encoder of a program. What is cut from a text is told to `warn`.
    ///
    /// # Errors
    /// A tokenizer that is not there, or refuses a text.
    pub fn rows(
        &self,
        info: &PipelineInfo,
        texts: &[&str],
        warn: &mut dyn FnMut(String),
    ) -> Result<Vec<TokenRows>, Error> {
        let Conditioning::Text { inputs, preparation, .. } = &info.conditioning else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for input in inputs {
            let tokenizer = self.0.get(&input.tokenizer).ok_or_else(|| {
                Diagnostic::new("tokenizer", format!("`{}` has no tokenizer `{}`", info.name, input.tokenizer))
            })?;
            let mut known: BTreeMap<&str, Tokens> = BTreeMap::new();
            let mut rows = TokenRows::default();
            for &text in texts {
                if !known.contains_key(text) {
                    let tokens = tokenizer.encode(&preparation.apply(text), input.length)?;
                    if let Some(lost) = &tokens.lost {
                        warn(format!(
                            "the prompt is longer than the {} tokens that `{}` takes; this part has no effect on it: {lost}",
                            input.length, input.tokenizer
                        ));
                    }
                    known.insert(text, tokens);
                }
                rows.ids.extend(&known[text].ids);
                rows.mask.extend(&known[text].mask);
            }
            all.push(rows);
        }
        Ok(all)
    }
    /// Each tokenizer as a file that a compiled program carries.
    ///
    /// # Errors
    /// A tokenizer that has no text form.
    pub fn files(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let file =
            |(name, tokenizer): (&String, &TextTokenizer)| Ok((file_name(name), tokenizer.to_json()?.into_bytes()));
        self.0.iter().map(file).collect()
    }
    /// The tokenizers of a compiled program; `file` gives its files.
    ///
    /// # Errors
    /// A file that is missing or no tokenizer.
    pub fn read<'b>(info: &PipelineInfo, file: impl Fn(&str) -> Option<&'b [u8]>) -> Result<Tokenizers, Error> {
        let Conditioning::Text { inputs, .. } = &info.conditioning else { return Ok(Tokenizers::default()) };
        let mut all = BTreeMap::new();
        for input in inputs {
            let name = file_name(&input.tokenizer);
            let text = file(&name).and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or_else(|| {
                Diagnostic::new("tokenizer", format!("the compiled file of `{}` has no `{name}`", info.name))
                    .help("compile the model again")
            })?;
            all.insert(input.tokenizer.clone(), TextTokenizer::from_json(&name, text, input.pad_id)?);
        }
        Ok(Tokenizers(all))
    }
}

fn file_name(component: &str) -> String {
    format!("{component}.json")
}
