//! The settings that are tried.

use llada_sample::{Alg, CacheMode, MarginExit, Overrides, Process, Protocol, Remasking};

/// A way to sample: flags of the command line and what they change of a request, a rule and a
/// cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    rule: Part,
    cache: Part,
}

/// Flags, and what they change; of the baseline nothing.
#[derive(Debug, Clone, PartialEq, Default)]
struct Part {
    flags: String,
    changes: Overrides,
}

impl Part {
    fn new(flags: impl Into<String>, changes: Overrides) -> Self {
        let flags = flags.into();
        Self { flags, changes }
    }
}

impl Setting {
    fn of_rule(flags: impl Into<String>, changes: Overrides) -> Self {
        Self {
            rule: Part::new(flags, changes),
            cache: Part::default(),
        }
    }

    fn of_cache(flags: impl Into<String>, changes: Overrides) -> Self {
        Self {
            rule: Part::default(),
            cache: Part::new(flags, changes),
        }
    }

    pub(crate) fn with_cache(self, cache: &Self) -> Self {
        Self {
            rule: self.rule,
            cache: cache.cache.clone(),
        }
    }

    pub(crate) fn is_rule_alone(&self) -> bool {
        !self.rule.flags.is_empty() && self.cache.flags.is_empty()
    }

    pub(crate) fn is_cache_alone(&self) -> bool {
        self.rule.flags.is_empty() && self.cache.changes.cache.is_some()
    }

    /// The flags of the command line; none for a baseline that is the default.
    #[must_use]
    pub fn flags(&self) -> String {
        let both = [&*self.rule.flags, &self.cache.flags];
        let given: Vec<&str> = both.into_iter().filter(|flags| !flags.is_empty()).collect();
        given.join(" ")
    }

    /// What a request is with the setting, where `base` says the rest.
    #[must_use]
    pub fn overrides(&self, base: &Overrides) -> Overrides {
        let (rule, cache) = (&self.rule.changes, &self.cache.changes);
        Overrides {
            steps: rule.steps.or(base.steps),
            process: rule.process.or(base.process),
            overlap: rule.overlap.or(base.overlap),
            margin_exit: rule.margin_exit.or(base.margin_exit),
            remasking: match self.rule.flags.is_empty() {
                true => base.remasking,
                false => rule.remasking,
            },
            editing_threshold: rule.editing_threshold.or(base.editing_threshold),
            alg: rule.alg.or(base.alg),
            cache: cache.cache.or(base.cache),
            suffix_window: cache.suffix_window.or(base.suffix_window),
            prompt_interval: cache.prompt_interval.or(base.prompt_interval),
            vicinity: cache.vicinity.or(base.vicinity),
            refresh_interval: cache.refresh_interval.or(base.refresh_interval),
            keep_active: cache.keep_active.or(base.keep_active),
            ..base.clone()
        }
    }
}

fn by(process: Process) -> Overrides {
    Overrides {
        process: Some(process),
        ..Overrides::default()
    }
}

/// What the others are compared with: one token a step where the protocol counts steps by tokens,
/// otherwise the loop as it was published; of Dream's algorithms the one that draws nothing.
#[must_use]
pub(crate) fn baseline(protocol: Protocol) -> Setting {
    match protocol {
        Protocol::BlockDiffusion => Setting::of_rule("--threshold 2", by(Process::Threshold(2.0))),
        Protocol::Dream => Setting::of_rule(
            "--alg entropy",
            Overrides {
                alg: Some(Alg::Entropy),
                ..Overrides::default()
            },
        ),
        _ => Setting::of_rule("", Overrides::default()),
    }
}

/// The rules that are tried of a protocol.
#[must_use]
pub fn rules(protocol: Protocol) -> Vec<Setting> {
    match protocol {
        Protocol::Llada | Protocol::VariableLength => of_llada(),
        Protocol::BlockDiffusion => thresholds(&[0.95, 0.9, 0.8, 0.7, 0.5]),
        Protocol::Editing => {
            let mut settings = thresholds(&[0.9, 0.8, 0.7, 0.5]);
            settings.extend([(0.7, 0.5), (0.5, 0.0)].map(|(threshold, editing)| {
                let flags = format!("--threshold {threshold} --editing-threshold {editing}");
                let changes = Overrides {
                    editing_threshold: Some(editing),
                    ..by(Process::Threshold(threshold))
                };
                Setting::of_rule(flags, changes)
            }));
            settings
        }
        Protocol::Rewriting { .. } => thresholds(&[0.9, 0.7, 0.4, 0.3]),
        Protocol::Dream => of_dream(),
    }
}

fn thresholds(bars: &[f32]) -> Vec<Setting> {
    let of =
        |&bar: &f32| Setting::of_rule(format!("--threshold {bar}"), by(Process::Threshold(bar)));
    bars.iter().map(of).collect()
}

fn of_llada() -> Vec<Setting> {
    let mut settings = thresholds(&[0.95, 0.9, 0.8, 0.7]);
    let rule = |flags: &str, process| Setting::of_rule(flags, by(process));
    settings.extend([
        rule("--factor 0.5", Process::Factor(0.5)),
        rule("--factor 1", Process::Factor(1.0)),
        rule("--eb-gamma 0", Process::EntropyBound(0.0)),
        rule("--eb-gamma 0.1", Process::EntropyBound(0.1)),
        rule("--eb-gamma 0.5", Process::EntropyBound(0.5)),
        rule("--entropy-exit 0.5", Process::EntropyExit(0.5)),
        rule("--entropy-exit 1.5", Process::EntropyExit(1.5)),
        rule(
            "--threshold 0.9 --relaxed-threshold 0.75",
            Process::LocalLeap {
                threshold: 0.9,
                relaxed: 0.75,
                radius: 4,
            },
        ),
        rule(
            "--threshold 0.9 --low-threshold 0.4",
            Process::Hierarchical {
                high: 0.9,
                low: 0.4,
            },
        ),
        rule(
            "--threshold 0.9 --threshold-fall 0.4",
            Process::FallingThreshold {
                threshold: 0.9,
                fall: 0.4,
            },
        ),
    ]);
    for (threshold, margin, fall) in [(0.9, 0.9, 0.0), (0.9, 0.8, 0.2), (0.8, 0.7, 0.2)] {
        let changes = Overrides {
            margin_exit: Some(MarginExit { margin, fall }),
            ..by(Process::Threshold(threshold))
        };
        let of_fall = match fall > 0.0 {
            true => format!(" --margin-exit-fall {fall}"),
            false => String::new(),
        };
        let flags = format!("--threshold {threshold} --margin-exit {margin}{of_fall}");
        settings.push(Setting::of_rule(flags, changes));
    }
    for (bar, share) in [
        (0.9, 0.1),
        (0.9, 0.5),
        (0.95, 0.67),
        (0.9, 0.67),
        (0.85, 0.67),
    ] {
        let changes = Overrides {
            overlap: Some(share),
            ..by(Process::Threshold(bar))
        };
        let flags = format!("--threshold {bar} --overlap {share}");
        settings.push(Setting::of_rule(flags, changes));
    }
    for threshold in [None, Some(0.9)] {
        let changes = Overrides {
            remasking: Remasking::RunningConfidence,
            process: threshold.map(Process::Threshold),
            ..Overrides::default()
        };
        let bar = threshold.map(|bar| format!("--threshold {bar} "));
        let flags = format!("{}--remasking running_confidence", bar.unwrap_or_default());
        settings.push(Setting::of_rule(flags, changes));
    }
    settings
}

fn of_dream() -> Vec<Setting> {
    let mut settings = Vec::new();
    for alg in [Alg::Entropy, Alg::MaskgitPlus, Alg::TopkMargin] {
        for steps in [256, 128, 64, 32] {
            let changes = Overrides {
                steps: Some(steps),
                alg: Some(alg),
                ..Overrides::default()
            };
            let flags = format!("--alg {} --steps {steps}", alg.name());
            settings.push(Setting::of_rule(flags, changes));
        }
    }
    settings
}

/// The caches and windows that are tried with blocks of so many tokens.
#[must_use]
pub fn caches(block_length: usize) -> Vec<Setting> {
    let cache = |cache| Overrides {
        cache: Some(cache),
        ..Overrides::default()
    };
    let window = |window| {
        let changes = Overrides {
            suffix_window: Some(window),
            ..Overrides::default()
        };
        Setting::of_cache(format!("--suffix-window {window}"), changes)
    };
    let refreshed = |mode: CacheMode, n| {
        let changes = Overrides {
            refresh_interval: Some(n),
            ..cache(mode)
        };
        let flags = format!("--cache {} --refresh-interval {n}", mode.name());
        Setting::of_cache(flags, changes)
    };
    let plain =
        |mode: CacheMode| Setting::of_cache(format!("--cache {}", mode.name()), cache(mode));
    let vicinity = (block_length / 2).max(1);
    let mut settings = vec![window(block_length)];
    if block_length < 64 {
        settings.insert(0, window(64));
    }
    settings.extend([
        plain(CacheMode::Prefix),
        plain(CacheMode::Dual),
        Setting::of_cache(
            format!("--cache dual --vicinity {vicinity}"),
            Overrides {
                vicinity: Some(vicinity),
                ..cache(CacheMode::Dual)
            },
        ),
        refreshed(CacheMode::Dual, 3),
        Setting::of_cache(
            "--cache dual --prompt-interval 3",
            Overrides {
                prompt_interval: Some(3),
                ..cache(CacheMode::Dual)
            },
        ),
        Setting::of_cache(
            format!("--cache dual --suffix-window {block_length}"),
            Overrides {
                suffix_window: Some(block_length),
                ..cache(CacheMode::Dual)
            },
        ),
        plain(CacheMode::Activity),
        refreshed(CacheMode::Activity, 3),
    ]);
    settings
}
