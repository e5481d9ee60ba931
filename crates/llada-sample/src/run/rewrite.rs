//! Steps that change what was written before: LLaDA2.1 and 2.2.

use llada_diffusion::{Candidate, Noise};
use llada_tensor::ops::candidates::{CandidateRule, reduce_logits};

use super::Run;
use crate::edit::{EditTokens, Origin, Place, WrittenBlock, filled, length_before, scan};
use crate::{Edit, Process, Revealed};

/// Steps of a block at most, as in LLaDA2.2; LLaDA2.1 has no limit, and would go on for ever where
/// tokens and masks follow each other in a circle.
pub(crate) const MAX_BLOCK_STEPS: usize = 1000;

/// How often a step looks for tokens that the block has not had.
const ESCAPES: usize = 5;

impl Run {
    /// Writes and edits the block, and returns whether that was its last step.
    pub(super) fn rewrite(&mut self, process: Process) -> bool {
        let is_last = self.block_step + 1 >= MAX_BLOCK_STEPS;
        let is_over = match process {
            Process::Editing {
                threshold,
                editing_threshold,
                max_post_steps,
                num_to_transfer,
            } => self.edit(
                [threshold, editing_threshold],
                max_post_steps,
                num_to_transfer,
            ),
            Process::Rewriting {
                threshold,
                editing_threshold,
                max_post_steps,
                delete_token_id,
                split_token_id,
            } => {
                let ids = EditTokens {
                    mask: self.info.mask_token_id,
                    delete: delete_token_id,
                    split: split_token_id,
                };
                self.edit_and_move([threshold, editing_threshold], max_post_steps, ids)
            }
            _ => true,
        };
        is_over || is_last
    }

    /// A step of LLaDA2.1: masks are filled and tokens replaced by one prediction.
    fn edit(&mut self, [fill_bar, edit_bar]: [f32; 2], max_post_steps: usize, n: usize) -> bool {
        let block = self.blocks[self.block].range.clone();
        if !self.has_mask(block.clone()) {
            self.block_edits.post_steps += 1;
        }
        let masks = self.asked_masks();
        let mut taken = self.filled(&masks, fill_bar, n);
        taken.extend(self.replaced(edit_bar));
        let before = self.canvas[block.clone()].to_vec();
        let mut written = before.clone();
        for &i in &taken {
            written[self.positions[i] - block.start] = self.candidates[i].token;
        }
        let places: Vec<Place> = (written.iter().enumerate())
            .map(|(at, &token)| Place {
                token,
                is_original: false,
                origin: Origin::Place(at),
            })
            .collect();
        self.write(&before, &written, &places, &[]);
        // Without a mask nothing would change any more, and where the mask itself has won the same
        // would come again.
        let is_same = before == written;
        let is_full = !self.has_mask(block);
        is_same || (is_full && self.block_edits.post_steps >= max_post_steps)
    }

    /// A step of LLaDA2.2: as one of 2.1, but tokens ask for deletions and insertions, too.
    fn edit_and_move(
        &mut self,
        [fill_bar, edit_bar]: [f32; 2],
        max_post_steps: usize,
        ids: EditTokens,
    ) -> bool {
        let block = self.blocks[self.block].range.clone();
        let before = self.canvas[block.clone()].to_vec();
        let masks = self.asked_masks();
        let n_original = self.block_edits.original_masks(&before, ids.mask);
        let post_steps = match n_original {
            0 => self.block_edits.post_steps + 1,
            _ => 0,
        };
        self.block_edits.post_steps = post_steps;
        let mut fills = match self.quotas.get(self.block_step) {
            Some(quota) => self.filled(&masks, fill_bar, quota + masks.len() - n_original),
            None => masks.clone(),
        };
        let is_final = match max_post_steps {
            0 => n_original > 0 && self.fills_originals(&masks, &fills),
            most => post_steps >= most,
        };
        if is_final {
            fills = masks;
        }
        let mut written = before.clone();
        let mut other_choices = Vec::new();
        for i in fills.into_iter().chain(self.replaced(edit_bar)) {
            let mut candidate = self.candidates[i];
            if is_final && ids.is_edit(candidate.token) {
                candidate = self.other_choice(i, &[ids.delete, ids.split]);
                other_choices.push((i, candidate));
            }
            written[self.positions[i] - block.start] = candidate.token;
        }
        if !is_final {
            self.escape(&before, &mut written, &mut other_choices);
        }
        self.block_edits.seen.push(written.clone());
        let places = scan(
            &WrittenBlock {
                tokens: &written,
                before: &before,
                is_original: &self.block_edits.is_original,
                n_given: length_before(&block, self.answer.start),
            },
            ids,
        );
        self.write(&before, &written, &places, &other_choices);
        self.block_edits.is_original = places.iter().map(|place| place.is_original).collect();
        let is_full = !self.has_mask(block.clone());
        let is_same = self.canvas[block] == before;
        // A final step that changes nothing would come again.
        let is_stuck = is_same && (is_full || (is_final && n_original == 0));
        is_stuck || (is_full && self.block_edits.post_steps >= max_post_steps)
    }

    /// Indexes of the positions that are masks.
    fn asked_masks(&self) -> Vec<usize> {
        let mask = self.info.mask_token_id;
        let is_mask = |&i: &usize| self.canvas[self.positions[i]] == mask;
        (0..self.positions.len()).filter(is_mask).collect()
    }

    /// Those of the masks that are filled.
    fn filled(&self, masks: &[usize], threshold: f32, need: usize) -> Vec<usize> {
        let of = |&i: &usize| self.candidates[i].confidence;
        let confidences: Vec<f32> = masks.iter().map(of).collect();
        let filled = filled(&confidences, threshold, need);
        filled.into_iter().map(|i| masks[i]).collect()
    }

    /// Indexes of the tokens that others take the place of.
    fn replaced(&self, threshold: f32) -> Vec<usize> {
        let is_replaced = |&i: &usize| {
            let (old, candidate) = (self.canvas[self.positions[i]], &self.candidates[i]);
            let is_mask = old == self.info.mask_token_id;
            !is_mask && candidate.token != old && candidate.confidence > threshold
        };
        (0..self.positions.len()).filter(is_replaced).collect()
    }

    /// Whether no mask of the block's beginning is left.
    fn fills_originals(&self, masks: &[usize], fills: &[usize]) -> bool {
        let start = self.blocks[self.block].range.start;
        let is_original = |i: usize| self.block_edits.is_original[self.positions[i] - start];
        let mut originals = masks.iter().filter(|&&i| is_original(i));
        originals.all(|i| fills.contains(i))
    }

    /// Puts other tokens at changed places, drawn at random, while the block is one that it has
    /// been before.
    fn escape(
        &self,
        before: &[u32],
        written: &mut [u32],
        other_choices: &mut Vec<(usize, Candidate)>,
    ) {
        let start = self.blocks[self.block].range.start;
        let seen = &self.block_edits.seen;
        for attempt in 0..ESCAPES {
            let is_changed = |&at: &usize| written[at] != before[at];
            let changed: Vec<usize> = (0..written.len()).filter(is_changed).collect();
            if changed.is_empty() || !seen.iter().any(|block| block == written) {
                return;
            }
            let draw = self.key(0).remask_uniform(attempt);
            let at = changed[((draw * changed.len() as f32) as usize).min(changed.len() - 1)];
            let Ok(i) = self.positions.binary_search(&(start + at)) else {
                return;
            };
            let candidate = self.other_choice(i, &[written[at]]);
            written[at] = candidate.token;
            other_choices.push((i, candidate));
        }
    }

    /// The best token of a position but for some; its confidence is that among the others.
    fn other_choice(&self, i: usize, without: &[u32]) -> Candidate {
        let (config, vocab_size) = (&self.request.config, self.info.vocab_size);
        let mut suppress = config.logits_eos_inf.clone();
        suppress.extend(config.suppress_mask.then_some(self.info.mask_token_id));
        suppress.extend(without);
        let rule = CandidateRule {
            suppress: &suppress,
            ..CandidateRule::default()
        };
        let logits = &self.logits[i * vocab_size..][..vocab_size];
        reduce_logits(logits, 0, &rule, &Noise::None)
    }

    /// Puts a block into the canvas and notes what happened.
    fn write(
        &mut self,
        before: &[u32],
        written: &[u32],
        places: &[Place],
        other_choices: &[(usize, Candidate)],
    ) {
        let start = self.blocks[self.block].range.start;
        let mask = self.info.mask_token_id;
        for (to, place) in places.iter().enumerate() {
            let position = start + to;
            self.canvas[position] = place.token;
            let at = match place.origin {
                Origin::Place(at) => at,
                Origin::Inserted => {
                    self.edits.push(Edit::Inserted { position });
                    continue;
                }
                Origin::Padding => continue,
            };
            // A split restores what it was predicted for.
            if place.token != written[at] || written[at] == before[at] {
                continue;
            }
            let Ok(i) = self.positions.binary_search(&(start + at)) else {
                continue;
            };
            let other = other_choices.iter().rev().find(|(of, _)| *of == i);
            let confidence = other
                .map_or(self.candidates[i], |(_, other)| *other)
                .confidence;
            let (old, token) = (before[at], place.token);
            if old == mask {
                self.revealed_in[position] = self.refreshed.calls;
                self.revealed.push(Revealed {
                    position,
                    token,
                    confidence,
                });
            } else {
                self.edits.push(Edit::Replaced {
                    position,
                    old,
                    new: token,
                    confidence,
                });
            }
        }
        let Process::Rewriting {
            delete_token_id, ..
        } = self.request.config.process
        else {
            return;
        };
        let first = self.answer.start.saturating_sub(start);
        let deleted = (first..written.len()).filter(|&at| written[at] == delete_token_id);
        self.edits.extend(deleted.map(|at| Edit::Deleted {
            position: start + at,
            old: before[at],
        }));
    }
}
