//! The tokenizer: text to ids and back, with the rules that masks need.

#[cfg(test)]
mod tests;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;
use tokenizers::AddedToken;
use tokenizers::models::ModelWrapper;

use crate::characters;
use crate::encoded::{Encoded, Unknown};
use crate::error::{Error, Result};
use crate::side_files::SideFiles;
use crate::vocabulary::Vocabulary;

/// Name of the file in a checkpoint folder.
const FILE_NAME: &str = "tokenizer.json";

/// White space in a row, in characters, up to which texts are split as in Python: well below the
/// million steps after which `fancy-regex` gives up.
const LONGEST_RUN: usize = 200_000;

/// Stands for a mask in a user's text, besides the mask token itself.
const MASK_CHARACTER: &str = "□";

/// Stands for a mask in a text that has no other.
const ASCII_MASK: &str = "_";

/// A tokenizer in the Hugging Face `tokenizer.json` format.
///
/// It is kept with the bytes that it was read from, so [`Tokenizer::save`] writes the same file
/// again.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    json: Vec<u8>,
    /// Text of the mask token, which a text may hold without meaning a mask.
    mask_token: Option<String>,
    /// The tokenizer without its mask token, made for the first text that holds it.
    without_mask: OnceLock<Box<tokenizers::Tokenizer>>,
}

impl Tokenizer {
    /// Texts under which published models keep their mask token.
    pub const MASK_TOKENS: [&str; 4] = [characters::MASK, "<|mdm_mask|>", "<|mask|>", "<mask>"];

    /// Texts under which published models keep their end-of-text token.
    pub const EOS_TOKENS: [&str; 4] = [characters::EOS, "<|endoftext|>", "</s>", "<eos>"];

    /// Reads the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Parse`] if it is not one.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        Self::parse(json.to_vec(), Path::new(FILE_NAME))
    }

    /// Reads `tokenizer.json` in the checkpoint folder `dir`, and what `tokenizer_config.json`,
    /// `special_tokens_map.json` and `added_tokens.json` beside it say of special tokens.
    ///
    /// # Errors
    /// [`Error::Missing`] if the folder has none, [`Error::Read`] if one cannot be read,
    /// [`Error::Parse`] or [`Error::Config`] if it is not what it should be,
    /// [`Error::TokenId`] if a token would get another id than the files say.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        let mut tokenizer = Self::from_file(&path)?;
        tokenizer.add(SideFiles::read(dir)?, &path)?;
        Ok(tokenizer)
    }

    /// The same tokenizer with another mask token, as the configuration of a model names it.
    #[must_use]
    pub fn with_mask_token_id(mut self, id: u32) -> Self {
        let token = self.token(id).filter(|token| !token.is_empty());
        if token != self.mask_token {
            self.mask_token = token;
            self.without_mask = OnceLock::new();
        }
        self
    }

    /// Reads a `tokenizer.json` under any name.
    ///
    /// # Errors
    /// As [`Tokenizer::from_dir`].
    pub fn from_file(path: &Path) -> Result<Self> {
        let json = fs::read(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::Missing {
                path: path.to_owned(),
            },
            _ => Error::Read {
                path: path.to_owned(),
                source,
            },
        })?;
        Self::parse(json, path)
    }

    /// Builds the tokenizer of a GGUF file's vocabulary; `path` names the file in messages.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] if it is not byte-level BPE, is split in an unknown way, or does not
    /// fit together.
    pub fn from_vocabulary(vocabulary: &Vocabulary<'_>, path: &Path) -> Result<Self> {
        Self::parse(vocabulary.tokenizer_json(path)?, path)
    }

    /// Builds a character-level tokenizer from a text: an id for each character that occurs at
    /// least `min_count` times, `[UNK]` for the others.
    ///
    /// Ids 0, 1, 2 are `[MASK]`, `[EOS]` (also the padding) and `[UNK]`.
    ///
    /// # Errors
    /// [`Error::EmptyVocabulary`] if no character occurs that often.
    pub fn character_level<'a>(
        texts: impl Iterator<Item = &'a str>,
        min_count: usize,
    ) -> Result<Self> {
        Self::character_level_folding(texts, min_count, std::iter::empty(), &[])
    }

    /// As [`Tokenizer::character_level`], with a table of characters that are read as others, such
    /// as (traditional, simplified).
    ///
    /// A pair counts if its first character is outside the vocabulary and its second inside. What
    /// depends on the characters around it is in `phrases`: regular expressions, and the character
    /// that their matches become, before the table. Both are stored in the file, as its normalizer.
    ///
    /// # Errors
    /// [`Error::EmptyVocabulary`] if no character occurs that often.
    pub fn character_level_folding<'a>(
        texts: impl Iterator<Item = &'a str>,
        min_count: usize,
        fold: impl Iterator<Item = (char, char)>,
        phrases: &[(String, char)],
    ) -> Result<Self> {
        let vocabulary = characters::vocabulary(texts, min_count);
        if vocabulary.is_empty() {
            return Err(Error::EmptyVocabulary { min_count });
        }
        Self::parse(
            characters::tokenizer_json(&vocabulary, fold, phrases),
            Path::new(FILE_NAME),
        )
    }

    /// Numbers in place of a text: token 5 is `5`. For models without a tokenizer, of which ids are
    /// asked and told.
    ///
    /// # Panics
    /// Never: the file is one of a tokenizer.
    #[must_use]
    pub fn of_numbers(vocab_size: usize) -> Self {
        let vocab: serde_json::Map<String, Value> = (0..vocab_size)
            .map(|id| (id.to_string(), id.into()))
            .collect();
        let file = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": { "type": "WhitespaceSplit" },
            "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "" },
        });
        Self::from_bytes(file.to_string().as_bytes()).expect("a tokenizer of words")
    }

    /// Whether it is a model of characters: an id for each, one for all that it does not know, and
    /// nothing that joins or splits them. `llada train` makes such tokenizers.
    #[must_use]
    pub fn is_character_level(&self) -> bool {
        if self.unk_token_id().is_none() || self.inner.get_pre_tokenizer().is_some() {
            return false;
        }
        let added = self.inner.get_added_vocabulary();
        let is_character = |token: &String| token.chars().nth(1).is_none();
        let mut tokens = self.inner.get_vocab(false).into_keys();
        tokens.all(|token| is_character(&token) || added.is_special_token(&token))
    }

    /// Writes `tokenizer.json` into the folder `dir`: to a temporary sibling, synced, renamed.
    ///
    /// # Errors
    /// [`Error::Write`] if the folder cannot be written; an older file is then untouched.
    pub fn save(&self, dir: &Path) -> Result<()> {
        write_file(dir, FILE_NAME, &self.json)
    }

    /// The content of the `tokenizer.json`.
    #[must_use]
    pub fn to_json(&self) -> &[u8] {
        &self.json
    }

    /// The ids of `text`; no special token is added, special tokens written out in it are found.
    ///
    /// A character outside the vocabulary becomes the unknown token where the tokenizer has one.
    ///
    /// # Errors
    /// [`Error::LongRun`] if white space goes on for too long, [`Error::Encode`] if the tokenizer
    /// rejects the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(&self.inner, text)
    }

    /// As [`Tokenizer::encode`], for what people write: the mask token written out is a text like
    /// any other, never a mask.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(self.for_text(text)?, text)
    }

    fn ids(&self, tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>> {
        self.check_runs(text)?;
        let encoding = tokenizer.encode_fast(text, false);
        let encoding = encoding.map_err(|source| Error::Encode { source })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// What encodes `text`: without the mask token if its text is there.
    fn for_text(&self, text: &str) -> Result<&tokenizers::Tokenizer> {
        let mask = self
            .mask_token
            .as_deref()
            .filter(|mask| text.contains(mask));
        let Some(mask) = mask else {
            return Ok(&self.inner);
        };
        if let Some(tokenizer) = self.without_mask.get() {
            return Ok(tokenizer);
        }
        let failed = |source: serde_json::Error| Error::Encode {
            source: source.into(),
        };
        let json = self.inner.to_string(false);
        let json = json.map_err(|source| Error::Encode { source })?;
        let mut file: Value = serde_json::from_str(&json).map_err(failed)?;
        // It keeps its place, as the ids of others depend on it, under a name that no text has.
        let tokens = file.get_mut("added_tokens").and_then(Value::as_array_mut);
        for token in tokens.into_iter().flatten() {
            if token.get("content").and_then(Value::as_str) == Some(mask) {
                token["content"] = "\u{10fffd}mask\u{10fffd}".into();
            }
        }
        let tokenizer = tokenizers::Tokenizer::from_bytes(file.to_string());
        let tokenizer = tokenizer.map_err(|source| Error::Encode { source })?;
        Ok(self.without_mask.get_or_init(|| Box::new(tokenizer)))
    }

    /// Refuses runs of white space at which `fancy-regex`, which splits texts for byte-level BPE,
    /// gives up after a million steps: the rest of the text would become one piece, and its ids
    /// others than in Python.
    fn check_runs(&self, text: &str) -> Result<()> {
        if text.len() < LONGEST_RUN || self.inner.get_pre_tokenizer().is_none() {
            return Ok(());
        }
        let (mut line, mut length) = (1, 0);
        for character in text.chars() {
            length = if character.is_whitespace() {
                length + 1
            } else {
                0
            };
            line += usize::from(character == '\n');
            if length > LONGEST_RUN {
                return Err(Error::LongRun {
                    length: LONGEST_RUN,
                    line,
                });
            }
        }
        Ok(())
    }

    /// As [`Tokenizer::encode_text`], but a character outside the vocabulary is an error.
    ///
    /// # Errors
    /// [`Error::UnknownCharacter`] with the first such character and its position,
    /// [`Error::Encode`] if the tokenizer rejects the text.
    pub fn encode_strict(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_keeping(text)?.strict()
    }

    /// As [`Tokenizer::encode_text`], with what of the text became the unknown token.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_keeping(&self, text: &str) -> Result<Encoded> {
        let mut encoded = Encoded::default();
        self.push_text(&mut encoded, text, 0)?;
        Ok(encoded)
    }

    /// The ids of a text with holes, each of which becomes `mask_token_id`; the text between them is
    /// encoded as by [`Tokenizer::encode_keeping`], each stretch by itself.
    ///
    /// A hole is every `mark`; without one every □ and every mask token written out, and in a text
    /// that has neither every `_`.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_keeping`].
    pub fn encode_with_masks(
        &self,
        text: &str,
        mask_token_id: u32,
        mark: Option<&str>,
    ) -> Result<Encoded> {
        let mask_token = self.token(mask_token_id).filter(|token| !token.is_empty());
        let mut marks: Vec<&str> = match mark {
            Some(mark) => vec![mark],
            None => std::iter::once(MASK_CHARACTER)
                .chain(mask_token.as_deref())
                .collect(),
        };
        if mark.is_none() && !marks.iter().any(|mark| text.contains(mark)) {
            marks = vec![ASCII_MASK];
        }
        marks.retain(|mark| !mark.is_empty());
        let mut encoded = Encoded::default();
        let (mut start, mut end) = (0, 0);
        while end < text.len() {
            let rest = &text[end..];
            match marks.iter().find(|mark| rest.starts_with(**mark)) {
                Some(mark) => {
                    let skipped = text[..start].chars().count();
                    self.push_text(&mut encoded, &text[start..end], skipped)?;
                    encoded.ids.push(mask_token_id);
                    end += mark.len();
                    start = end;
                }
                None => end += rest.chars().next().map_or(1, char::len_utf8),
            }
        }
        self.push_text(&mut encoded, &text[start..], text[..start].chars().count())?;
        Ok(encoded)
    }

    /// The text of `ids`; ids that the tokenizer lacks are dropped (a head may be padded), special
    /// tokens as well if `skip_special`.
    ///
    /// # Errors
    /// [`Error::Decode`] if the tokenizer rejects the ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|source| Error::Decode { source })
    }

    /// The ids of a context and of its continuation, for scoring: spaces at the context's end move
    /// to the continuation, whose ids are the tail of the two encoded together.
    ///
    /// # Errors
    /// [`Error::Encode`] if the tokenizer rejects a text.
    ///
    /// Source: `_encode_pair` of the reference's `eval_llada.py`.
    pub fn encode_pair(&self, context: &str, continuation: &str) -> Result<(Vec<u32>, Vec<u32>)> {
        let trimmed = context.trim_end();
        let whole = self.encode_text(&format!("{context}{continuation}"))?;
        let context = self.encode_text(trimmed)?;
        let tail = whole.get(context.len()..).unwrap_or(&[]).to_vec();
        Ok((context, tail))
    }

    /// The text of `ids` up to the first of the `stops`, without special tokens. A stop may be a
    /// special token written out.
    ///
    /// # Errors
    /// [`Error::Decode`] or [`Error::Encode`] if the tokenizer rejects the ids or their text.
    ///
    /// Source: `generate_until` of the reference's `eval_llada.py`.
    pub fn decode_until<S: AsRef<str>>(&self, ids: &[u32], stops: &[S]) -> Result<String> {
        let text = self.decode(ids, false)?;
        let ends = stops.iter().filter_map(|stop| text.find(stop.as_ref()));
        let end = ends.min().unwrap_or(text.len());
        self.decode(&self.encode(&text[..end])?, true)
    }

    /// The token with this id.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of this token.
    #[must_use]
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Number of tokens, the special ones included.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Id of the mask token: `mask_token` of the files beside the tokenizer, or the first of
    /// [`Self::MASK_TOKENS`] that is a special token; a model's config overrules it.
    #[must_use]
    pub fn mask_token_id(&self) -> Option<u32> {
        self.token_to_id(self.mask_token.as_deref()?)
    }

    /// Id of the end-of-text token, found by the names that published models use; a model's config
    /// overrules it.
    #[must_use]
    pub fn eos_token_id(&self) -> Option<u32> {
        self.first_special(&Self::EOS_TOKENS)
    }

    /// Id of the unknown token of the tokenizer's model, if it has one.
    #[must_use]
    pub fn unk_token_id(&self) -> Option<u32> {
        let token = match self.inner.get_model() {
            ModelWrapper::BPE(model) => model.unk_token.as_deref()?,
            ModelWrapper::WordLevel(model) => &model.unk_token,
            ModelWrapper::WordPiece(model) => &model.unk_token,
            ModelWrapper::Unigram(_) => "<unk>",
        };
        self.token_to_id(token)
    }

    fn parse(json: Vec<u8>, path: &Path) -> Result<Self> {
        let mut inner = tokenizers::Tokenizer::from_bytes(&json).map_err(|source| {
            let error = Error::Parse {
                path: path.to_owned(),
                source,
            };
            error.or_other(path, &json)
        })?;
        // As in a plain call in Python, where both are off whatever the file says.
        inner.with_padding(None);
        let _ = inner.with_truncation(None);
        let mut tokenizer = Self {
            inner,
            json,
            mask_token: None,
            without_mask: OnceLock::new(),
        };
        tokenizer.mask_token = tokenizer.usual_mask_token();
        Ok(tokenizer)
    }

    /// Adds the tokens that the files beside the tokenizer declare.
    fn add(&mut self, files: SideFiles, path: &Path) -> Result<()> {
        let failed = |source| Error::Parse {
            path: path.to_owned(),
            source,
        };
        let known = self.inner.get_added_tokens_decoder();
        let is_known = |token: &AddedToken| {
            let says_as_much = |other: &AddedToken| {
                other.content == token.content && (other.special || !token.special)
            };
            known.values().any(says_as_much)
        };
        let mut tokens = files.tokens;
        tokens.retain(|(token, _)| !is_known(token));
        for (token, id) in &tokens {
            match token.special {
                true => self.inner.add_special_tokens([token.clone()]),
                false => self.inner.add_tokens([token.clone()]),
            }
            .map_err(failed)?;
            let got = self.token_to_id(&token.content);
            if let (Some(expected), Some(got)) = (*id, got)
                && expected != got
            {
                return Err(Error::TokenId {
                    path: path.to_owned(),
                    token: token.content.clone(),
                    expected,
                    got,
                });
            }
        }
        if !tokens.is_empty() {
            self.json = self.inner.to_string(false).map_err(failed)?.into_bytes();
        }
        let named = files
            .named
            .into_iter()
            .find(|(name, _)| name == "mask_token");
        let named = named
            .map(|(_, token)| token)
            .filter(|token| self.token_to_id(token).is_some());
        self.mask_token = named.or_else(|| self.usual_mask_token());
        Ok(())
    }

    /// The first of [`Self::MASK_TOKENS`] that is a special token.
    fn usual_mask_token(&self) -> Option<String> {
        self.token(self.first_special(&Self::MASK_TOKENS)?)
    }

    /// Adds a stretch of a text that `skipped` characters precede.
    fn push_text(&self, encoded: &mut Encoded, text: &str, skipped: usize) -> Result<()> {
        self.check_runs(text)?;
        let tokenizer = self.for_text(text)?;
        let encoding = tokenizer.encode_char_offsets(text, false);
        let encoding = encoding.map_err(|source| Error::Encode { source })?;
        let first = encoded.ids.len();
        encoded.ids.extend(encoding.get_ids());
        let Some(unk) = self.unk_token_id() else {
            return Ok(());
        };
        let unk_token = self.token(unk).unwrap_or_default();
        for (at, &(start, end)) in encoding.get_offsets().iter().enumerate() {
            if encoding.get_ids()[at] != unk {
                continue;
            }
            let text: String = text.chars().skip(start).take(end - start).collect();
            // The unknown token itself may be written out in the text.
            if text != unk_token && !text.is_empty() {
                encoded.unknown.push(Unknown {
                    at: first + at,
                    position: skipped + start + 1,
                    text,
                });
            }
        }
        Ok(())
    }

    fn first_special(&self, names: &[&str]) -> Option<u32> {
        let added = self.inner.get_added_vocabulary();
        names
            .iter()
            .filter(|name| added.is_special_token(name))
            .find_map(|name| self.token_to_id(name))
    }
}

/// Writes the file `name` in the folder `dir`.
pub(crate) fn write_file(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = dir.join(name);
    llada_files::write(&path, bytes).map_err(|source| Error::Write { path, source })
}
