//! What `llada tune` prints.

use std::fmt::Write as _;

use llada::eval::{Bars, Measured, recommend};
use serde_json::{Value, json};

/// A setting that does not go with the model, and why.
#[derive(Debug)]
pub(super) struct Skipped {
    pub(super) flags: String,
    pub(super) reason: String,
}

#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) measured: &'a [Measured],
    pub(super) skipped: &'a [Skipped],
    pub(super) bars: Bars,
    /// What all settings have in common.
    pub(super) base_flags: String,
    pub(super) n_prompts: usize,
}

fn shown(row: &Measured) -> String {
    match row.setting.flags() {
        flags if flags.is_empty() => "(one token a step)".to_owned(),
        flags => flags,
    }
}

impl Report<'_> {
    /// All flags of a setting.
    fn flags(&self, row: &Measured) -> String {
        let flags = format!("{} {}", self.base_flags, row.setting.flags());
        flags.trim().to_owned()
    }

    pub(super) fn json(&self) -> Value {
        let setting = |row: &Measured| {
            json!({
                "flags": row.setting.flags(),
                "seconds": row.seconds,
                "forwards": row.forwards,
                "rows": row.rows,
                "same_texts": row.agreement.texts.mean,
                "same_texts_standard_error": row.agreement.texts.standard_error,
                "same_tokens": row.agreement.tokens,
                "first_difference": row.agreement.first_difference,
                "nats_per_token": row.nats_per_token,
            })
        };
        let skipped = |skipped: &Skipped| json!({"flags": skipped.flags, "reason": skipped.reason});
        let best = recommend(self.measured, self.bars);
        let flags = |row: Option<&Measured>| row.map(|row| self.flags(row));
        json!({
            "prompts": self.n_prompts,
            "common_flags": self.base_flags,
            "settings": self.measured.iter().map(setting).collect::<Vec<_>>(),
            "skipped": self.skipped.iter().map(skipped).collect::<Vec<_>>(),
            "recommended": {
                "same_texts": self.bars.agreement,
                "by_same_texts": flags(best.by_agreement),
                "nats": self.bars.nats,
                "by_nats": flags(best.by_nats),
            },
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("{} prompts", self.n_prompts);
        if !self.base_flags.is_empty() {
            let _ = write!(text, ", all settings with {}", self.base_flags);
        }
        let _ = writeln!(
            text,
            "\n{:>3}{:>10}{:>9}{:>9}{:>8}{:>9}{:>8}{:>9}  flags",
            "#", "seconds", "passes", "rows", "texts %", "tokens %", "first", "nats"
        );
        for (at, row) in self.measured.iter().enumerate() {
            let dash = || "-".to_owned();
            let first = row.agreement.first_difference;
            let first = first.map_or_else(dash, |at| format!("{at:.1}"));
            let nats = row.nats_per_token;
            let nats = nats.map_or_else(dash, |nats| format!("{nats:.3}"));
            let _ = writeln!(
                text,
                "{:>3}{:>10.4}{:>9.1}{:>9.0}{:>8.1}{:>9.1}{first:>8}{nats:>9}  {}",
                at + 1,
                row.seconds,
                row.forwards,
                row.rows,
                100.0 * row.agreement.texts.mean,
                100.0 * row.agreement.tokens,
                shown(row)
            );
        }
        text += "seconds, passes and rows are means of an answer; texts, tokens and first (the offset of \
                 the first difference) compare with setting 1; nats: the likelihood bound a token\n";
        for Skipped { flags, reason } in self.skipped {
            let _ = writeln!(text, "skipped {flags}: {reason}");
        }
        let best = recommend(self.measured, self.bars);
        let base = self.measured.first().map_or(0.0, |row| row.seconds);
        let percent = 100.0 * self.bars.agreement;
        let mut say = |what: String, row: Option<&Measured>| {
            let Some(row) = row else { return };
            let (times, flags) = (base / row.seconds, self.flags(row));
            let _ = writeln!(text, "{what}: {flags} ({times:.2} times as fast)");
        };
        say(
            format!("fastest with {percent} % equal answers"),
            best.by_agreement,
        );
        say(
            format!("fastest within {} nats a token", self.bars.nats),
            best.by_nats,
        );
        text
    }
}
