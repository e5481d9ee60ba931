//! `llada eval reversal`.

use anyhow::{Context as _, Result};
use llada::Llada;
use llada::diffusion::PredictorKind;
use llada::eval::{Figure, Gap, Recall, choose_first_lines, read_couplets, recall, reversal_svg};
use serde_json::{Value, json};

use super::super::jobs::note_unknown;
use super::{Progress, figure_json, percent, read};
use crate::args::{Format, ModelArgs, OpenArgs, ReversalArgs};
use crate::config::{Misuse, load};
use crate::output::{print, save};

/// What a model recalled.
struct Measured {
    kind: PredictorKind,
    couplets: usize,
    /// Whole lines, forward and in reversal.
    lines: [Option<Figure>; 2],
    /// Shares of right characters.
    characters: [Option<Figure>; 2],
    gap: Option<Gap>,
    /// The right first line among candidates.
    choice: Option<Figure>,
}

pub(super) fn run(args: &ReversalArgs) -> Result<()> {
    let text = read(&args.data)?;
    let llada = load(&args.model)?;
    let arm = args.arm.as_ref().map(|dir| {
        let model = Some(dir.clone());
        let arm = load(&ModelArgs {
            model,
            // Of the other model.
            adapter: Vec::new(),
            open: OpenArgs::default(),
            ..args.model.clone()
        })?;
        if !arm.info().is_autoregressive() {
            return Err(Misuse::of(format!(
                "--arm {}: this model is not autoregressive; train one with objective = \
                 \"autoregressive\"",
                dir.display()
            )));
        }
        Ok(arm)
    });
    let arm = arm.transpose()?;
    let progress = Progress::new()?;
    let model = measure(&llada, &text, args, &progress)?;
    let arm = match arm {
        Some(arm) if !progress.is_stopped() => Some(measure(&arm, &text, args, &progress)?),
        _ => None,
    };
    let result = json!({
        "couplets": model.couplets,
        "candidates": args.candidates,
        "model": model.json(),
        "arm": arm.as_ref().map(Measured::json),
        "interrupted": progress.is_stopped(),
        "seconds": progress.seconds(),
    });
    let measured: Vec<&Measured> = std::iter::once(&model).chain(&arm).collect();
    if let Some(folder) = &args.output {
        let bars: Vec<_> = measured.iter().filter_map(|model| model.bars()).collect();
        save(folder, "reversal.json", &format!("{result:#}\n"))?;
        save(folder, "reversal.svg", &reversal_svg(&bars)?)?;
    }
    match args.model.run.format {
        Format::Json => print(&format!("{result}\n")),
        Format::Text => print(&table(&measured, args.candidates)),
    }
}

fn measure(
    llada: &Llada,
    text: &str,
    args: &ReversalArgs,
    progress: &Progress,
) -> Result<Measured> {
    let subject = llada.subject();
    let kind = subject.kind();
    let couplets = read_couplets(text, args.limit.map(Into::into), &subject)
        .with_context(|| args.data.display().to_string())?;
    note_unknown(&subject.unknown(), "");
    let what = format!("couplets of the {} model", kind.name());
    let recalls = recall(&subject, &couplets, &mut progress.observe(what))?;
    let may_choose =
        kind == PredictorKind::Autoregressive && args.candidates > 1 && !progress.is_stopped();
    let choices = match may_choose {
        true => {
            let observer = &mut progress.observe("choices of a first line".to_owned());
            choose_first_lines(&subject, &couplets, args.candidates, observer)?
        }
        false => Vec::new(),
    };
    let forward: Vec<bool> = recalls.iter().map(Recall::is_forward).collect();
    let reversal: Vec<bool> = recalls.iter().map(Recall::is_reversal).collect();
    let share = |of: fn(&Recall) -> (usize, usize)| {
        #[expect(clippy::cast_precision_loss, reason = "the length of a line")]
        let shares = recalls
            .iter()
            .map(of)
            .map(|(right, n)| right as f64 / n as f64);
        Figure::mean(&shares.collect::<Vec<f64>>())
    };
    Ok(Measured {
        kind,
        couplets: couplets.len(),
        lines: [Figure::accuracy(&forward), Figure::accuracy(&reversal)],
        characters: [share(|x| x.forward), share(|x| x.reversal)],
        gap: Gap::paired(&forward, &reversal),
        choice: Figure::accuracy(&choices),
    })
}

impl Measured {
    fn json(&self) -> Value {
        let direction = |at: usize| {
            let mut value = figure_json(self.lines[at]);
            if let Some(characters) = self.characters[at] {
                value["character_accuracy"] = json!(characters.mean);
                value["character_standard_error"] = json!(characters.standard_error);
            }
            value
        };
        json!({
            "objective": self.kind.name(),
            "forward": direction(0),
            "reversal": direction(1),
            "gap": self.gap.map(|gap| json!({
                "mean": gap.mean, "standard_error": gap.standard_error,
            })),
            "choice": figure_json(self.choice),
        })
    }

    fn bars(&self) -> Option<(PredictorKind, [Figure; 2])> {
        let [forward, reversal] = self.lines;
        Some((self.kind, [forward?, reversal?]))
    }
}

fn table(models: &[&Measured], candidates: usize) -> String {
    let mut text = format!(
        "{:16}{:>18}{:>18}{:>18}{:>8}\n",
        "lines recalled", "forward", "reversal", "gap", "n"
    );
    for model in models {
        let gap = model.gap.map_or("-".to_owned(), |gap| {
            let [mean, error] = [gap.mean, gap.standard_error].map(|x| 100.0 * x);
            format!("{mean:.1} ± {error:.1}")
        });
        let [forward, reversal] = model.lines.map(percent);
        let n = model.lines[0].map_or(0, |figure| figure.n);
        let name = model.kind.name();
        text += &format!("{name:16}{forward:>18}{reversal:>18}{gap:>18}{n:>8}\n");
    }
    for model in models {
        let [forward, reversal] = model.characters.map(percent);
        let name = model.kind.name();
        text += &format!("{name:16}{forward:>18}{reversal:>18}  of the characters\n");
    }
    for model in models.iter().filter(|model| model.choice.is_some()) {
        let (name, choice) = (model.kind.name(), percent(model.choice));
        text += &format!(
            "{name:16}{:>18}{choice:>18}  of first lines chosen by likelihood out of {candidates}\n",
            ""
        );
    }
    text
}
