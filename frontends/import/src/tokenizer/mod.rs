//! Tokenizers of text-to-image pipelines: prompts to token ids of a fixed length, as the reference pipelines make them.
//!
//! A folder holds a tokenizer as `tokenizer.json`, as `vocab.json` with `merges.txt` (CLIP), or as `spiece.model` (T5). All become
//! one form, the text of a `tokenizer.json`, which a compiled program carries with it.

mod clip;
mod settings;
mod spiece;

pub use spiece::Spiece;

use selvedge_ir::{Diagnostic, Diagnostics};
use settings::Settings;
use std::path::Path;
use std::str::FromStr;
use tokenizers::{PostProcessor, Tokenizer, TruncationDirection};

/// Whose texts are tokenized; what is not in a tokenizer's files follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerKind {
    /// Byte-level pairs with an end-of-word mark; start and end tokens.
    Clip,
    /// SentencePiece unigrams; an end token.
    T5,
}

/// A tokenizer that is ready.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    /// Fills a text up to its length.
    pub pad_id: u32,
    /// Most tokens of a text, start and end counted, if the folder says so.
    pub model_max_length: Option<usize>,
}

/// A text as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Ids, as many as were asked for.
    pub ids: Vec<i32>,
    /// 1 for tokens of the text (start and end counted), 0 for padding.
    pub mask: Vec<i32>,
    /// The part of the text that did not fit, as far as tokens tell.
    pub lost: Option<String>,
}

impl std::fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextTokenizer")
            .field("vocab_size", &self.inner.get_vocab_size(true))
            .field("pad_id", &self.pad_id)
            .field("model_max_length", &self.model_max_length)
            .finish()
    }
}

impl TextTokenizer {
    /// Reads a pipeline's tokenizer folder: `tokenizer.json` if it is there, else the files of the kind.
    ///
    /// # Errors
    /// The folder or its files are missing (names what a folder of this kind holds), or damaged.
    pub fn open(folder: &Path, kind: TokenizerKind) -> Result<TextTokenizer, Diagnostics> {
        let shown = folder.display();
        if !folder.is_dir() {
            return Err(Diagnostic::new("tokenizer", format!("the component folder `{shown}` is missing"))
                .expected_found("a tokenizer's files", "no folder")
                .help("fetch it: a text prompt cannot be read without")
                .into());
        }
        let settings = Settings::read(folder, kind)?;
        let whole = folder.join("tokenizer.json");
        let inner = if whole.is_file() {
            parse(&whole.display().to_string(), &read_text(&whole)?)?
        } else {
            match kind {
                TokenizerKind::Clip => clip::open(folder, &settings)?,
                TokenizerKind::T5 => spiece::open(folder, &settings)?,
            }
        };
        let pad_id = inner.token_to_id(&settings.pad_token).ok_or_else(|| {
            Diagnostic::new("tokenizer", format!("the padding token of `{shown}` is not in its vocabulary"))
                .expected_found("a token of the vocabulary", format!("`{}`", settings.pad_token))
        })?;
        Ok(TextTokenizer { inner: plain(inner)?, pad_id, model_max_length: settings.model_max_length })
    }
    /// A tokenizer from its text ([`TextTokenizer::to_json`]); `origin` is its name for messages.
    ///
    /// # Errors
    /// The text is no tokenizer.
    pub fn from_json(origin: &str, text: &str, pad_id: u32) -> Result<TextTokenizer, Diagnostic> {
        Ok(TextTokenizer { inner: plain(parse(origin, text)?)?, pad_id, model_max_length: None })
    }
    /// The tokenizer as a `tokenizer.json`.
    ///
    /// # Errors
    /// The library cannot write it (a part without a text form).
    pub fn to_json(&self) -> Result<String, Diagnostic> {
        self.inner
            .to_string(false)
            .map_err(|e| Diagnostic::new("tokenizer", format!("a tokenizer cannot be written: {e}")))
    }
    /// A text as `length` tokens: cut so that start and end fit, then padded on the right.
    ///
    /// # Errors
    /// A length without room for start and end; a text that the tokenizer refuses.
    pub fn encode(&self, text: &str, length: usize) -> Result<Tokens, Diagnostic> {
        let refused = |e| Diagnostic::new("tokenizer", format!("the text cannot be tokenized: {e}"));
        let mut encoding = self.inner.encode(text, false).map_err(refused)?;
        let around = self.inner.get_post_processor().map_or(0, |p| p.added_tokens(false));
        let room = length.checked_sub(around).ok_or_else(|| {
            Diagnostic::new("tokenizer", "the text's length leaves no room for its start and end")
                .expected_found(format!("{around} tokens or more"), length)
        })?;
        let lost = match encoding.get_ids().get(room..) {
            None | Some([]) => None,
            Some(lost) => Some(self.decode(lost)?),
        };
        encoding.truncate(room, 0, TruncationDirection::Right);
        let encoding = self.inner.post_process(encoding, None, true).map_err(refused)?;
        let mut ids: Vec<i32> = encoding.get_ids().iter().map(|&id| id as i32).collect();
        let mut mask = vec![1; ids.len()];
        ids.resize(length, self.pad_id as i32);
        mask.resize(length, 0);
        Ok(Tokens { ids, mask, lost })
    }
    /// Tokens as text. The library leaves CLIP's end-of-word marks, which are spaces.
    fn decode(&self, ids: &[u32]) -> Result<String, Diagnostic> {
        let text = self.inner.decode(ids, false);
        let text = text.map_err(|e| Diagnostic::new("tokenizer", format!("tokens cannot be read back: {e}")))?;
        Ok(text.replace(clip::END_OF_WORD, " ").trim().to_string())
    }
}

/// Files may have been saved with a padding and a truncation of their own; a pipeline's lengths replace them.
fn plain(mut inner: Tokenizer) -> Result<Tokenizer, Diagnostic> {
    inner.with_padding(None);
    match inner.with_truncation(None) {
        Ok(_) => Ok(inner),
        Err(e) => {
            Err(Diagnostic::new("tokenizer", format!("a tokenizer with a truncation that cannot be removed: {e}")))
        }
    }
}

fn parse(origin: &str, text: &str) -> Result<Tokenizer, Diagnostic> {
    if let Some(pointer) = crate::files::lfs_pointer(origin, text.as_bytes()) {
        return Err(pointer);
    }
    Tokenizer::from_str(text).map_err(|e| {
        Diagnostic::new("tokenizer", format!("`{origin}` is no tokenizer: {e}")).help("fetch the file again")
    })
}

fn read_text(path: &Path) -> Result<String, Diagnostic> {
    std::fs::read_to_string(path)
        .map_err(|e| Diagnostic::new("tokenizer", format!("cannot read `{}`: {e}", path.display())))
}

/// A folder without what its kind of tokenizer is read from.
fn nothing_to_read(folder: &Path, expected: &str) -> Diagnostics {
    match crate::files::list(folder) {
        Ok(names) => Diagnostic::new("tokenizer", format!("no tokenizer in `{}`", folder.display()))
            .expected_found(expected, crate::files::found(&names))
            .help("fetch the folder again")
            .into(),
        Err(e) => e.into(),
    }
}
