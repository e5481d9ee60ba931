//! A predictor that knows some texts by heart.

use llada_diffusion::{
    Candidates, Choice, MaskPredictor, PredictorInfo, PredictorKind, Query, Result,
    losses_by_logits,
};
use llada_eval::Subject;
use llada_sample::Policy;
use llada_text::Tokenizer;

/// What it knows.
pub(crate) const POEMS: [&str; 4] = [
    "春风夏雨，秋月冬山。",
    "天日水花，山月风云。",
    "雨雪山天，日月春秋。",
    "冬花秋水，雪月天云？",
];

/// Logit of a token that it knows; that of all others is 0.
pub(crate) const SURE: f32 = 8.0;

/// Fills in the masks of a known text, or continues the beginning of one; of other texts it
/// knows nothing. Its autoregressive calls take caches, which it does not need.
pub(crate) struct Poet {
    pub(crate) tokenizer: Tokenizer,
    kind: PredictorKind,
    texts: Vec<Vec<u32>>,
}

impl Poet {
    pub(crate) fn new(kind: PredictorKind) -> Self {
        let tokenizer = Tokenizer::character_level(POEMS.into_iter(), 1).unwrap();
        let eos = tokenizer.eos_token_id().unwrap();
        let ids = |text: &str| {
            let mut ids = tokenizer.encode(text).unwrap();
            ids.push(eos);
            ids
        };
        let texts = POEMS.into_iter().map(ids).collect();
        Self {
            tokenizer,
            kind,
            texts,
        }
    }

    pub(crate) fn subject(&self) -> Subject<'_> {
        let policy = Policy {
            unk_token_id: self.tokenizer.unk_token_id(),
            whole_documents: true,
            ..Policy::new(self.info())
        };
        Subject::new(self, &self.tokenizer, policy)
    }

    /// The token that it knows for a position of a sequence.
    fn known(&self, sequence: &[u32], position: usize) -> Option<u32> {
        let mask = self.info().mask_token_id;
        match self.kind {
            PredictorKind::Diffusion => {
                let fits = |text: &&Vec<u32>| {
                    let mut pairs = sequence.iter().zip(*text);
                    text.len() >= sequence.len() && pairs.all(|(a, b)| a == b || *a == mask)
                };
                self.texts.iter().find(fits).map(|text| text[position])
            }
            PredictorKind::Autoregressive => {
                let prefix = &sequence[..=position];
                let fits = |text: &&Vec<u32>| text.starts_with(prefix);
                let text = self.texts.iter().find(fits);
                text.and_then(|text| text.get(position + 1).copied())
            }
        }
    }
}

impl MaskPredictor for Poet {
    fn info(&self) -> PredictorInfo {
        let [mask, eos] = [
            self.tokenizer.mask_token_id(),
            self.tokenizer.eos_token_id(),
        ];
        let vocab_size = self.tokenizer.vocab_size();
        let info = PredictorInfo::new(vocab_size, mask.unwrap(), eos.unwrap(), 24);
        match self.kind {
            PredictorKind::Diffusion => info,
            PredictorKind::Autoregressive => info.autoregressive(),
        }
    }

    fn logits(&self, query: Query<'_>) -> Result<Vec<f32>> {
        let (batch, mut logits) = (query.batch, Vec::new());
        for &at in query.positions {
            let row = batch.offsets().partition_point(|&offset| offset <= at) - 1;
            let known = self.known(batch.sequence(row), at - batch.offsets()[row]);
            let of = |id: usize| if known == Some(id as u32) { SURE } else { 0.0 };
            logits.extend((0..self.info().vocab_size).map(of));
        }
        Ok(logits)
    }

    fn candidates(&self, query: Query<'_>, choice: &Choice<'_>) -> Result<Candidates> {
        choice.by_logits(self, query)
    }

    fn token_losses(&self, query: Query<'_>, targets: &[u32]) -> Result<Vec<f32>> {
        losses_by_logits(self, query, targets)
    }
}
