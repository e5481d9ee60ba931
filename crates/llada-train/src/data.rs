//! Training text: read, tokenized once, cut into sequences.

mod layout;
mod lines;
mod token_file;

use std::borrow::Cow;
use std::collections::BTreeMap;

use llada_text::Tokenizer;

use crate::durable::Crc32;
use crate::{Error, Packing, Result, TrainConfig};

use self::lines::{Format, for_each_document};
pub(crate) use self::lines::{HOLDS_MASK, bad_line, for_each_line};
use self::token_file::TokenFile;

/// Ids with a meaning for training; a model's configuration has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialIds {
    /// Ends a document.
    pub eos_token_id: u32,
    /// The mask, which no document may hold.
    pub mask_token_id: u32,
}

impl SpecialIds {
    /// The ids as the tokenizer names them.
    ///
    /// # Errors
    /// [`Error::MissingSpecial`] if it names none.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        Self::given(tokenizer, None, None)
    }

    /// The ids that are given, and as the tokenizer names them where none is.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn given(tokenizer: &Tokenizer, eos: Option<u32>, mask: Option<u32>) -> Result<Self> {
        let missing = |what, key, names: &[&str]| Error::MissingSpecial {
            what,
            key,
            names: names.join(", "),
        };
        let no_eos = || missing("end-of-text", "eos_token_id", &Tokenizer::EOS_TOKENS);
        let no_mask = || missing("mask", "mask_token_id", &Tokenizer::MASK_TOKENS);
        Ok(Self {
            eos_token_id: eos.or(tokenizer.eos_token_id()).ok_or_else(no_eos)?,
            mask_token_id: mask.or(tokenizer.mask_token_id()).ok_or_else(no_mask)?,
        })
    }
}

/// How documents become sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Joined or each by itself.
    pub packing: Packing,
    /// Longest sequence.
    pub sequence_length: usize,
    /// Ends a document.
    pub eos_token_id: u32,
}

/// The text of a run as tokens.
#[derive(Debug)]
pub struct Data {
    /// Training files, in the order of the configuration.
    pub train: Vec<Source>,
    /// Held-out sequences, of all files.
    pub validation: Vec<Source>,
    /// Content of the `tokenizer.json` that made the tokens.
    pub tokenizer_json: Vec<u8>,
}

/// A file as sequences of tokens.
#[derive(Debug)]
pub struct Source {
    /// Path as the configuration writes it, without the weight.
    pub name: String,
    /// Share of sequences that are drawn from it, if the configuration says so.
    pub weight: Option<f64>,
    /// Documents read.
    pub n_documents: usize,
    /// Tokens that the tokenizer does not know.
    pub n_unknown: usize,
    /// Pairs of fine-tuning that were too long and lost the end of their answer.
    pub n_cut: usize,
    /// Pairs of fine-tuning that were too long and left out.
    pub n_dropped: usize,
    /// Lines of fine-tuning of which every answer is marked as not to be learned.
    pub n_unlearned: usize,
    /// Fields that are not used, and how many lines have each.
    pub unused: BTreeMap<String, usize>,
    ids: Vec<u32>,
    /// Has the ids in the place of `ids`.
    file: Option<TokenFile>,
    /// Sequence `i` is `ids[offsets[i]..offsets[i + 1]]`.
    offsets: Vec<usize>,
    /// Length of the prompt of each sequence; empty in pre-training, which has none.
    prompt_lens: Vec<usize>,
}

impl Source {
    /// Sequences from tokenized documents.
    #[must_use]
    pub fn new<D: AsRef<[u32]>>(
        name: &str,
        weight: Option<f64>,
        documents: impl Iterator<Item = D>,
        cut: Cut,
    ) -> Self {
        let mut source = Self::empty(name, weight);
        for document in documents {
            source.push(document.as_ref(), cut);
        }
        source.close();
        source
    }

    /// A prompt and its answer, EOS included.
    pub(crate) fn push_pair(&mut self, prompt: &[u32], answer: &[u32]) {
        self.n_documents += 1;
        self.ids.extend_from_slice(prompt);
        self.ids.extend_from_slice(answer);
        self.offsets.push(self.ids.len());
        self.prompt_lens.push(prompt.len());
    }

    pub(crate) fn empty(name: &str, weight: Option<f64>) -> Self {
        Self {
            name: name.to_owned(),
            weight,
            n_documents: 0,
            n_unknown: 0,
            n_cut: 0,
            n_dropped: 0,
            n_unlearned: 0,
            unused: BTreeMap::new(),
            ids: Vec::new(),
            file: None,
            offsets: vec![0],
            prompt_lens: Vec::new(),
        }
    }

    /// Takes note that lines have a field that is not used.
    pub(crate) fn unused(&mut self, field: String, n_lines: usize) {
        *self.unused.entry(field).or_default() += n_lines;
    }

    /// Adds a document and its EOS.
    fn push(&mut self, document: &[u32], cut: Cut) {
        self.n_documents += 1;
        self.ids.extend_from_slice(document);
        self.ids.push(cut.eos_token_id);
        let mut begin = *self.offsets.last().expect("begins with 0");
        while self.ids.len() - begin >= cut.sequence_length {
            begin += cut.sequence_length;
            self.offsets.push(begin);
        }
        if cut.packing == Packing::Documents {
            self.close();
        }
    }

    /// Makes what is left over a sequence.
    fn close(&mut self) {
        if self.offsets.last() != Some(&self.ids.len()) {
            self.offsets.push(self.ids.len());
        }
    }

    /// Number of sequences.
    #[must_use]
    pub fn n_sequences(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of tokens, EOS counted.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.file.as_ref().map_or(self.ids.len(), TokenFile::len)
    }

    /// Length of a sequence.
    #[must_use]
    pub fn sequence_len(&self, index: usize) -> usize {
        self.offsets[index + 1] - self.offsets[index]
    }

    /// A sequence.
    ///
    /// # Errors
    /// If it is in a pre-tokenized file that can't be read, or holds an id that no text has.
    pub fn sequence(&self, index: usize) -> Result<Cow<'_, [u32]>> {
        let range = self.offsets[index]..self.offsets[index + 1];
        match &self.file {
            None => Ok(Cow::Borrowed(&self.ids[range])),
            Some(file) => file.read(range).map(Cow::Owned),
        }
    }

    /// Length of the prompt of a sequence, which is not learned; `None` in pre-training.
    #[must_use]
    pub fn prompt_len(&self, index: usize) -> Option<usize> {
        self.prompt_lens.get(index).copied()
    }

    /// The largest id; of a pre-tokenized file, whose ids are checked when they are read, 0.
    #[must_use]
    pub fn max_id(&self) -> u32 {
        self.ids.iter().copied().max().unwrap_or(0)
    }

    /// Checksum of the tokens and their cuts.
    pub(crate) fn fingerprint(&self) -> Result<u32> {
        let mut crc = Crc32::new();
        crc.update(bytemuck::cast_slice(&self.ids));
        if let Some(file) = &self.file {
            crc.update(&file.fingerprint()?.to_le_bytes());
        }
        for cut in self.offsets.iter().chain(&self.prompt_lens) {
            crc.update(&(*cut as u64).to_le_bytes());
        }
        Ok(crc.value())
    }

    /// Sequences of a pre-tokenized file.
    fn of_tokens(name: &str, weight: Option<f64>, file: TokenFile, cut: Cut) -> Result<Self> {
        let mut source = Self::empty(name, weight);
        let ends = match cut.packing {
            // One stream: only its end matters.
            Packing::Packed => vec![file.len()],
            Packing::Documents => file.document_ends(cut.eos_token_id)?,
        };
        source.n_documents = ends.len();
        for end in ends {
            let mut begin = *source.offsets.last().expect("begins with 0");
            while begin < end {
                begin = end.min(begin + cut.sequence_length);
                source.offsets.push(begin);
            }
        }
        source.file = Some(file);
        Ok(source)
    }
}

/// The tokenizer that a configuration asks for; `"char"` builds it from the training files.
///
/// # Errors
/// If a file cannot be read or is malformed.
pub fn tokenizer_for(config: &TrainConfig) -> Result<Tokenizer> {
    if config.data.tokenizer != "char" {
        let path = config.resolve(&config.data.tokenizer);
        return Ok(match path.is_dir() {
            true => Tokenizer::from_dir(&path)?,
            false => Tokenizer::from_file(&path)?,
        });
    }
    let mut documents = Vec::new();
    for file in config.train_files() {
        let path = config.resolve(&file.name);
        let before = documents.len();
        for_each_document(&path, |document| {
            documents.push(document.text.to_owned());
            Ok(())
        })?;
        if documents.len() == before {
            return Err(Error::NoDocuments { path });
        }
    }
    let texts = documents.iter().map(String::as_str);
    let min_count = config.data.min_character_count;
    Ok(Tokenizer::character_level(texts, min_count)?)
}

impl Data {
    /// Reads and tokenizes the files of a configuration.
    ///
    /// # Errors
    /// If a file cannot be read, is malformed or empty, or holds the mask token.
    pub fn load(config: &TrainConfig, tokenizer: &Tokenizer, special: SpecialIds) -> Result<Self> {
        let load = |name: &str, weight| load_file(config, name, weight, tokenizer, special);
        Self::load_files(config, tokenizer, load)
    }

    /// Calls `load` with the name and the weight of each file of a configuration.
    pub(crate) fn load_files(
        config: &TrainConfig,
        tokenizer: &Tokenizer,
        load: impl Fn(&str, Option<f64>) -> Result<Source>,
    ) -> Result<Self> {
        let train = config.train_files();
        let train = train.iter().map(|file| load(&file.name, file.weight));
        let validation = config.data.validation.iter();
        let validation = validation.map(|name| load(name, None));
        let data = Self {
            train: train.collect::<Result<_>>()?,
            validation: validation.collect::<Result<_>>()?,
            tokenizer_json: tokenizer.to_json().to_vec(),
        };
        let mut sources = data.train.iter().chain(&data.validation);
        let is_foreign = |source: &&Source| 2 * source.n_unknown > source.n_tokens();
        match sources.find(is_foreign) {
            Some(source) => Err(Error::MostlyUnknown {
                path: config.resolve(&source.name),
                n_unknown: source.n_unknown,
                n_tokens: source.n_tokens(),
            }),
            None => Ok(data),
        }
    }
}

fn load_file(
    config: &TrainConfig,
    name: &str,
    weight: Option<f64>,
    tokenizer: &Tokenizer,
    special: SpecialIds,
) -> Result<Source> {
    let path = config.resolve(name);
    let cut = Cut {
        packing: config.data.packing,
        sequence_length: config.data.sequence_length,
        eos_token_id: special.eos_token_id,
    };
    if let Format::Tokens = Format::of(&path)? {
        let file = TokenFile::open(
            &path,
            config.data.token_dtype,
            tokenizer.vocab_size(),
            special,
        )?;
        return Source::of_tokens(name, weight, file, cut);
    }
    let unknown = tokenizer.unk_token_id();
    let mut source = Source::empty(name, weight);
    for_each_document(&path, |document| {
        let ids = tokenizer.encode_text(document.text)?;
        if ids.contains(&special.mask_token_id) {
            return Err(bad_line(&path, document.line, HOLDS_MASK, None));
        }
        for field in document.unused {
            source.unused(field, 1);
        }
        source.n_unknown += ids.iter().filter(|&&id| Some(id) == unknown).count();
        source.push(&ids, cut);
        Ok(())
    })?;
    source.close();
    if source.n_documents == 0 {
        return Err(Error::NoDocuments { path });
    }
    Ok(source)
}

#[cfg(test)]
mod tests;
