//! A model with what belongs to its text, wherever it comes from.

use std::path::{Path, PathBuf};

use llada_model::config::EditTokens;
use llada_model::convert::{Report, convert, convert_to_gguf};
use llada_model::{Family, GgufType, LladaModel, ModelConfig, ModelSource, OpenOptions, Origin};
use llada_sample::{AnswerLength, Protocol};
use llada_tensor::{Device, Precision};
use llada_text::{ChatTemplate, Error as TextError, Tokenizer};

use crate::{Llada, LoadError, gguf};

const CONFIG: &[u8] = include_bytes!("../../../assets/poems/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../../assets/poems/model.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../../../assets/poems/tokenizer.json");

/// The instruction adapter of the poem model (`assets/README.md`).
const ADAPTER_CONFIG: &[u8] = include_bytes!("../../../assets/poems/adapter/adapter_config.json");
const ADAPTER: &[u8] = include_bytes!("../../../assets/poems/adapter/adapter_model.safetensors");
/// It was taught single instructions as they are, with nothing before or after them: so the last
/// message of the user is its prompt, and a system message and earlier turns are no part of it.
const TEMPLATE: &str = "\
{%- set asked = messages | selectattr('role', 'equalto', 'user') | list -%}
{%- if not asked -%}
{{- raise_exception('the embedded model answers the last message of the user, and there is none') -}}
{%- endif -%}
{{- asked[-1].content -}}";
/// Room for the longest of its answers: eight lines of seven characters and a mark, and an EOS.
const ANSWER: AnswerLength = AnswerLength::Tokens(72);

/// A model that was opened: its configuration is read and its weights are known to fit. What is
/// large is read by the methods that make something of it.
#[derive(Debug)]
pub struct Checkpoint {
    source: ModelSource,
    /// Whether it is the embedded model with its instruction adapter.
    is_instruct: bool,
}

impl Checkpoint {
    /// Opens a folder in the HF layout (`config.json`, safetensors and `tokenizer.json`) or a GGUF
    /// file.
    ///
    /// # Errors
    /// One that names the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Self::open_with(path, OpenOptions::default())
    }

    /// As [`Self::open`], with what the files do not say.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(path: &Path, options: OpenOptions) -> Result<Self, LoadError> {
        Ok(ModelSource::open_with(path, options)?.into())
    }

    /// The embedded poem model: a character-level LLaDA trained on Tang poems.
    ///
    /// # Errors
    /// As [`Self::open`]; not with the model of this repository.
    pub fn embedded() -> Result<Self, LoadError> {
        Ok(ModelSource::from_bytes(CONFIG, WEIGHTS)?.into())
    }

    /// The embedded poem model with its instruction adapter, merged while the weights are read: it
    /// writes acrostics (`五言藏头：春夏秋冬。`, `七言藏头：`) and the line before or after a line
    /// (`上句：`, `下句：`), and ends its answers. It has a chat template, which writes the last
    /// message of the user and nothing else.
    ///
    /// # Errors
    /// As [`Self::open`]; not with the model of this repository.
    pub fn embedded_instruct() -> Result<Self, LoadError> {
        let source = ModelSource::from_bytes(CONFIG, WEIGHTS)?;
        let source = source.with_adapter_bytes(ADAPTER_CONFIG, ADAPTER, 1.0)?;
        let is_instruct = true;
        Ok(Self {
            source,
            is_instruct,
        })
    }

    /// Lays a `LoRA` adapter of PEFT on the weights, see [`ModelSource::with_adapter`].
    ///
    /// # Errors
    /// As there.
    pub fn with_adapter(self, dir: &Path, scale: f64) -> Result<Self, LoadError> {
        let source = self.source.with_adapter(dir, scale)?;
        Ok(Self { source, ..self })
    }

    /// The configuration, with the fields of `config.json`.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        self.source.config()
    }

    /// The weights without what belongs to their text.
    #[must_use]
    pub fn source(&self) -> &ModelSource {
        &self.source
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// One that names the file, if it is not there or not supported.
    pub fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        match self.source.origin() {
            Origin::Folder { path, .. } => Ok(Tokenizer::from_dir(path)?),
            Origin::Gguf(file) => gguf::tokenizer(file),
            Origin::Memory(_) => Ok(Tokenizer::from_bytes(TOKENIZER)?),
        }
    }

    /// A model with a tokenizer, and what its requests are by default.
    fn with<M>(&self, model: M, tokenizer: Tokenizer) -> Llada<M> {
        let tokenizer = tokenizer.with_mask_token_id(self.config().mask_token_id);
        let is_character_level = tokenizer.is_character_level();
        let said = self.config().other.get("whole_documents");
        Llada {
            model,
            further_eos_token_ids: self.source.further_eos_token_ids().to_vec(),
            answer_length: match is_character_level {
                true if self.is_instruct => ANSWER,
                // The first line of a quatrain has three more.
                true => AnswerLength::Prompts(3),
                false => AnswerLength::default(),
            },
            // What `llada train` makes of characters has seen the ends of its documents.
            whole_documents: said
                .and_then(|said| said.as_bool())
                .unwrap_or(is_character_level),
            protocol: protocol(self.config()),
            tokenizer,
        }
    }

    /// The chat template.
    ///
    /// # Errors
    /// [`TextError::NoChatTemplate`] if there is none, as in the embedded model without its
    /// instruction adapter; others that name the file.
    pub fn template(&self) -> Result<ChatTemplate, LoadError> {
        match self.source.origin() {
            Origin::Folder { path, .. } => Ok(ChatTemplate::from_dir(path)?),
            Origin::Gguf(file) => gguf::chat_template(file),
            Origin::Memory(_) if self.is_instruct => {
                let path = PathBuf::from("the embedded poem model");
                Ok(ChatTemplate::new(TEMPLATE, Vec::new(), &path))
            }
            Origin::Memory(_) => {
                let path = "the embedded poem model".into();
                Err(TextError::NoChatTemplate { path }.into())
            }
        }
    }

    /// The chat template of this name, of several in a folder.
    ///
    /// # Errors
    /// As [`Self::template`]; if there is none of this name.
    pub fn named_template(&self, name: &str) -> Result<ChatTemplate, LoadError> {
        match self.source.origin() {
            Origin::Folder { path, .. } => Ok(ChatTemplate::named(path, name)?),
            _ => Err(TextError::NoSuchTemplate {
                path: self.name(),
                name: name.to_owned(),
                names: "one without a name at most".to_owned(),
            }
            .into()),
        }
    }

    /// The chat template in a file, with the special tokens of this model.
    ///
    /// # Errors
    /// One that names the file.
    pub fn template_file(&self, file: &Path) -> Result<ChatTemplate, LoadError> {
        let special = match self.source.origin() {
            Origin::Folder { path, .. } => ChatTemplate::special_tokens(path)?,
            Origin::Gguf(file) => gguf::special_tokens(file)?,
            Origin::Memory(_) => Vec::new(),
        };
        Ok(ChatTemplate::from_file(file, special)?)
    }

    /// What the model is called in messages.
    fn name(&self) -> PathBuf {
        match self.source.origin() {
            Origin::Folder { path, .. } => path.clone(),
            Origin::Gguf(file) => file.path().to_owned(),
            Origin::Memory(_) => "the embedded poem model".into(),
        }
    }

    /// The model for inference, with its tokenizer.
    ///
    /// # Errors
    /// As [`Self::tokenizer`] and [`ModelSource::frozen`].
    pub fn frozen(&self, device: &Device, precision: Precision) -> Result<Llada, LoadError> {
        // The vocabulary first: it is quick to fail.
        self.frozen_with(self.tokenizer()?, device, precision)
    }

    /// The model for inference, with a tokenizer that is not its own, such as
    /// [`Tokenizer::of_numbers`].
    ///
    /// # Errors
    /// As [`ModelSource::frozen`].
    pub fn frozen_with(
        &self,
        tokenizer: Tokenizer,
        device: &Device,
        precision: Precision,
    ) -> Result<Llada, LoadError> {
        let model = self.source.frozen(device, precision)?;
        Ok(self.with(model, tokenizer))
    }

    /// The model to be trained, with its tokenizer.
    ///
    /// # Errors
    /// As [`Self::tokenizer`] and [`ModelSource::trainable`].
    pub fn trainable(
        &self,
        device: &Device,
        precision: Precision,
    ) -> Result<Llada<LladaModel>, LoadError> {
        let tokenizer = self.tokenizer()?;
        let model = self.source.trainable(device, precision)?;
        Ok(self.with(model, tokenizer))
    }

    /// Writes the model in another type into the folder `target` in the HF layout, see
    /// [`llada_model::convert::convert`]. The vocabulary of a GGUF file becomes a
    /// `tokenizer.json`, its chat template a `tokenizer_config.json`.
    ///
    /// # Errors
    /// As [`Self::frozen`]; if `target` holds a model already.
    pub fn convert(
        &self,
        target: &Path,
        precision: Precision,
        device: &Device,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Report, LoadError> {
        // The files of a folder are copied as they are.
        let is_folder = matches!(self.source.origin(), Origin::Folder { .. });
        let (tokenizer, template) = match is_folder {
            true => (None, None),
            false => self.text()?,
        };
        let report = convert(&self.source, target, precision, device, progress)?;
        if let Some(tokenizer) = tokenizer {
            tokenizer.save(target)?;
        }
        if let Some(template) = template {
            template.save(target)?;
        }
        Ok(report)
    }

    /// Writes the model as the GGUF file `target`, with its tokenizer and chat template, see
    /// [`llada_model::convert::convert_to_gguf`].
    ///
    /// # Errors
    /// As [`Self::tokenizer`] and [`llada_model::convert::convert_to_gguf`].
    pub fn convert_to_gguf(
        &self,
        target: &Path,
        kind: GgufType,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Report, LoadError> {
        let (tokenizer, template) = self.text()?;
        let rows = self.config().embedding_rows();
        let keys = gguf::keys(tokenizer.as_ref(), template.as_ref(), rows);
        Ok(convert_to_gguf(
            &self.source,
            target,
            kind,
            &keys,
            progress,
        )?)
    }

    /// The tokenizer and the chat template, where they are there: weights can do without.
    fn text(&self) -> Result<(Option<Tokenizer>, Option<ChatTemplate>), LoadError> {
        let tokenizer = match self.source.origin() {
            Origin::Gguf(file) if !gguf::has_tokenizer(file)? => return Ok((None, None)),
            _ => match self.tokenizer() {
                Err(LoadError::Text(TextError::Missing { .. })) => None,
                other => Some(other?),
            },
        };
        let template = match self.template() {
            Err(LoadError::Text(TextError::NoChatTemplate { .. })) => None,
            other => Some(other?),
        };
        Ok((tokenizer, template))
    }
}

/// The loop that the models of a family were published with. Nothing in the files of LLaDA2.1 tells
/// it from LLaDA2.0: its loop is that of a request with an `editing_threshold`.
#[must_use]
pub fn protocol(config: &ModelConfig) -> Protocol {
    match (config.family, config.extras.edit_tokens) {
        (Family::Llada | Family::LladaMoe, _) => Protocol::Llada,
        (Family::Illada, _) => Protocol::VariableLength,
        (Family::Llada2, None) => Protocol::BlockDiffusion,
        (Family::Llada2, Some(EditTokens { delete, split })) => Protocol::Rewriting {
            delete_token_id: delete,
            split_token_id: split,
        },
        (Family::Dream, _) => Protocol::Dream,
    }
}

impl From<ModelSource> for Checkpoint {
    fn from(source: ModelSource) -> Self {
        let is_instruct = false;
        Self {
            source,
            is_instruct,
        }
    }
}
