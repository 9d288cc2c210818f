//! T5's tokenizer from `spiece.model`, a SentencePiece model (a protocol buffer) of unigrams.

use super::nothing_to_read;
use super::settings::Settings;
use selvedge_ir::{Diagnostic, Diagnostics};
use std::path::Path;
use tokenizers::decoders::metaspace::Metaspace;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

/// What is read of a SentencePiece model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spiece {
    /// Pieces with their log probabilities, in the order of their ids.
    pub pieces: Vec<(String, f64)>,
    /// Ids of control pieces and of those that users defined: they are found in a text before it is cut.
    pub special: Vec<usize>,
    /// Id of unknown characters.
    pub unk_id: usize,
    /// The compiled normalisation of text, if there is one.
    pub charsmap: Vec<u8>,
}

/// Kinds of pieces (`ModelProto.SentencePiece.Type`).
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
/// `TrainerSpec.ModelType`.
const UNIGRAM: u64 = 1;

impl Spiece {
    /// Reads a model: fields 1 (pieces), 2 (how it was trained) and 3 (normalisation) of a `ModelProto`.
    ///
    /// # Errors
    /// Bytes that are no such message; another kind of model than unigrams.
    pub fn read(bytes: &[u8]) -> Result<Spiece, String> {
        let mut model = Spiece::default();
        let mut kind = UNIGRAM;
        for field in Fields(bytes) {
            match field? {
                (1, Wire::Bytes(piece)) => {
                    let (mut text, mut score, mut kind) = ("", 0.0, 1);
                    for field in Fields(piece) {
                        match field? {
                            (1, Wire::Bytes(bytes)) => text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?,
                            (2, Wire::Fixed32(bits)) => score = f64::from(f32::from_bits(bits)),
                            (3, Wire::Varint(n)) => kind = n,
                            _ => {}
                        }
                    }
                    if [CONTROL, USER_DEFINED].contains(&kind) {
                        model.special.push(model.pieces.len());
                    }
                    model.pieces.push((text.to_string(), score));
                }
                (2, Wire::Bytes(trainer)) => {
                    for field in Fields(trainer) {
                        match field? {
                            (3, Wire::Varint(n)) => kind = n,
                            (40, Wire::Varint(n)) => model.unk_id = n as usize,
                            _ => {}
                        }
                    }
                }
                (3, Wire::Bytes(normalizer)) => {
                    for field in Fields(normalizer) {
                        if let (2, Wire::Bytes(map)) = field? {
                            model.charsmap = map.to_vec();
                        }
                    }
                }
                _ => {}
            }
        }
        match (kind, model.pieces.len()) {
            (UNIGRAM, n) if n > model.unk_id => Ok(model),
            (UNIGRAM, n) => Err(format!("{n} pieces, and the unknown one is number {}", model.unk_id)),
            (other, _) => Err(format!("a model of kind {other}; only unigrams (1) are supported")),
        }
    }
}

/// Reads the model; text is normalised by the model's own table, cut at white space, and each word begins with `▁`.
pub fn open(folder: &Path, settings: &Settings) -> Result<Tokenizer, Diagnostics> {
    let path = folder.join("spiece.model");
    if !path.is_file() {
        return Err(nothing_to_read(folder, "tokenizer.json or spiece.model"));
    }
    let bad = |e: String| {
        Diagnostic::new("tokenizer", format!("`{}` is no SentencePiece model: {e}", path.display()))
            .help("fetch the file again")
    };
    let bytes = std::fs::read(&path).map_err(|e| bad(e.to_string()))?;
    if let Some(pointer) = crate::files::lfs_pointer(&path.display().to_string(), &bytes) {
        return Err(pointer.into());
    }
    let model = Spiece::read(&bytes).map_err(bad)?;
    tokenizer(model, settings).map_err(|e| bad(e.to_string()).into())
}

fn tokenizer(model: Spiece, settings: &Settings) -> tokenizers::Result<Tokenizer> {
    let Spiece { mut pieces, special, unk_id, charsmap } = model;
    let mut specials: Vec<String> = special.into_iter().map(|id| pieces[id].0.clone()).collect();
    specials.push(pieces[unk_id].0.clone());
    // Sentinels follow the vocabulary, the last first.
    let sentinels: Vec<String> = (0..settings.extra_ids).rev().map(|i| format!("<extra_id_{i}>")).collect();
    let known = pieces.iter().any(|(piece, _)| piece == "<extra_id_0>");
    pieces.extend(sentinels.iter().filter(|_| !known).map(|s| (s.clone(), 0.0)));
    specials.extend(sentinels);

    let mut tokenizer = Tokenizer::new(Unigram::from(pieces, Some(unk_id), false)?);
    if !charsmap.is_empty() {
        tokenizer.with_normalizer(Some(Precompiled::from(&charsmap)?))?;
    }
    let words = Metaspace::new('▁', PrependScheme::Always, true);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![WhitespaceSplit.into(), words.clone().into()])));
    tokenizer.with_decoder(Some(words));
    tokenizer.add_special_tokens(specials.into_iter().map(|s| AddedToken::from(s, true)))?;
    let end = &settings.eos_token;
    let id = tokenizer.token_to_id(end).ok_or_else(|| format!("there is no end token `{end}`"))?;
    let template = TemplateProcessing::builder()
        .try_single(vec!["$A".to_string(), end.clone()])?
        .special_tokens(vec![(end.clone(), id)])
        .build()
        .map_err(|e| e.to_string())?;
    tokenizer.with_post_processor(Some(template));
    Ok(tokenizer)
}

/// A field's value as it is stored.
enum Wire<'a> {
    Varint(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    /// Of a form that nothing here reads.
    Other,
}

/// The fields of a protocol buffer message: number and value.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), String>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| "a field ends early or is of an unknown form".to_string()))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => self.take(8).map(|_| Wire::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}
