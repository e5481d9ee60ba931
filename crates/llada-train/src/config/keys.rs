//! How a key of the configuration is stated once: name, type, default, range and help.

use std::fmt::Display;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// A key of the configuration.
#[derive(Debug)]
pub(crate) struct Key {
    /// Section, empty for the top level.
    pub(crate) section: &'static str,
    /// Name in the section.
    pub(crate) name: &'static str,
    /// Default as it would be written; empty if the key must be given or has none.
    pub(crate) default: &'static str,
    /// What it does.
    pub(crate) help: &'static str,
}

pub(crate) const fn key(
    section: &'static str,
    name: &'static str,
    default: &'static str,
    help: &'static str,
) -> Key {
    Key {
        section,
        name,
        default,
        help,
    }
}

/// Values that a key may have.
pub(crate) struct Range {
    expected: &'static str,
    holds: fn(f64) -> bool,
}

pub(crate) const POSITIVE: Range = Range {
    expected: "positive",
    holds: |x| x > 0.0 && x.is_finite(),
};
pub(crate) const AT_LEAST_0: Range = Range {
    expected: "finite and at least 0",
    holds: |x| x >= 0.0 && x.is_finite(),
};
pub(crate) const SHARE: Range = Range {
    expected: "in [0, 1]",
    holds: |x| (0.0..=1.0).contains(&x),
};
pub(crate) const BELOW_1: Range = Range {
    expected: "in [0, 1)",
    holds: |x| (0.0..1.0).contains(&x),
};
pub(crate) const STEPS: Range = Range {
    expected: "in 1..=4294967295",
    holds: |x| (1.0..=4_294_967_295.0).contains(&x),
};

/// Values that may be compared with a [`Range`]; a key that was not given has none.
pub(crate) trait Number: Copy {
    fn number(self) -> Option<f64>;
}

impl Number for f64 {
    fn number(self) -> Option<f64> {
        Some(self)
    }
}

#[expect(clippy::cast_precision_loss, reason = "no range has so large an end")]
impl Number for u64 {
    fn number(self) -> Option<f64> {
        Some(self as f64)
    }
}

impl Number for usize {
    fn number(self) -> Option<f64> {
        (self as u64).number()
    }
}

impl<T: Number> Number for Option<T> {
    fn number(self) -> Option<f64> {
        self?.number()
    }
}

/// Checks that a value is in the range of its key.
pub(crate) fn check_range(key: &'static str, value: impl Number, range: &Range) -> Result<()> {
    let Some(x) = value.number() else {
        return Ok(());
    };
    require((range.holds)(x), key, range.expected, &x)
}

pub(crate) fn require(
    holds: bool,
    key: &'static str,
    expected: &'static str,
    got: &dyn Display,
) -> Result<()> {
    if holds {
        return Ok(());
    }
    let got = got.to_string();
    Err(Error::ConfigValue { key, expected, got })
}

/// The value of a default as it would be written; of an empty one, that of a key without a default.
pub(crate) fn value<T: DeserializeOwned>(default: &str) -> T {
    #[derive(Deserialize)]
    struct Line<T> {
        value: T,
    }
    let line = match default {
        "" => String::new(),
        default => format!("value = {default}"),
    };
    let Line { value } = toml::from_str(&line).expect("a default has the type of its key");
    value
}

/// A section of the configuration, each key in one line: `name: Type = "default" where RANGE,
/// "help";`. The help is the documentation of the field as well; a key without a default must be
/// given, or is an [`Option`].
///
/// Makes the section (`pub struct $name`) and the same as a file has it (`$given`), where every key
/// with a default is an [`Option`]; `$title` is what messages of the parser call it.
macro_rules! section {
    ($(#[$meta:meta])* $title:literal $name:ident, $given:ident, $section:literal {
        $($key:ident: $type:ty $(= $default:literal)? $(where $range:ident)?, $help:literal;)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize)]
        pub struct $name {
            $(#[doc = $help] pub $key: $type,)*
        }

        /// The section as a file has it.
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, expecting = $title)]
        pub(crate) struct $given {
            $(pub(crate) $key: $crate::config::keys::given!($type $(, $default)?),)*
        }

        impl $name {
            /// Every key, in the order of the help text.
            pub(crate) const KEYS: &[$crate::config::keys::Key] = &[$(
                $crate::config::keys::key($section, stringify!($key), concat!($($default)?), $help),
            )*];

            /// Checks the values of keys that have a range.
            pub(crate) fn check_ranges(&self) -> $crate::Result<()> {
                $($(
                    let key = concat!($section, ".", stringify!($key));
                    $crate::config::keys::check_range(
                        key,
                        self.$key,
                        &$crate::config::keys::$range,
                    )?;
                )?)*
                Ok(())
            }
        }

        impl $given {
            /// Fills in the defaults, of which those of `other` come first.
            pub(crate) fn resolve(self, other: &[$crate::config::keys::Key]) -> $name {
                $name {
                    $($key: $crate::config::keys::resolved!(
                        self.$key, other, $section, $key $(, $default)?
                    ),)*
                }
            }
        }
    };
}

/// The type of a key as a file has it: a default makes it optional.
macro_rules! given {
    ($type:ty) => { $type };
    ($type:ty, $default:literal) => { Option<$type> };
}

/// The value of a key.
macro_rules! resolved {
    ($given:expr, $other:ident, $section:literal, $key:ident) => {
        $given
    };
    ($given:expr, $other:ident, $section:literal, $key:ident, $default:literal) => {
        $given.unwrap_or_else(|| {
            let is_this = |key: &&$crate::config::keys::Key| {
                key.section == $section && key.name == stringify!($key)
            };
            let other = $other.iter().find(is_this);
            $crate::config::keys::value(other.map_or($default, |key| key.default))
        })
    };
}

pub(crate) use {given, resolved, section};
