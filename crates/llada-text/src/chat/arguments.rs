//! Arguments of filters and methods, by place or by name as in Python.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, Value};

use super::python::invalid;

/// The arguments of a call for the parameters `names`.
///
/// # Errors
/// If there are too many of them, or one has another name.
pub(super) fn bind<const N: usize>(
    args: &[Value],
    names: [&str; N],
) -> Result<[Argument; N], Error> {
    match args.split_last() {
        Some((last, before)) if last.is_kwargs() => {
            bind_named(before, Some(&Kwargs::try_from(last.clone())?), names)
        }
        _ => bind_named(args, None, names),
    }
}

/// As [`bind`], for a filter, which is given its named arguments by themselves.
///
/// # Errors
/// As [`bind`].
pub(super) fn bind_named<const N: usize>(
    positional: &[Value],
    named: Option<&Kwargs>,
    names: [&str; N],
) -> Result<[Argument; N], Error> {
    if positional.len() > N {
        let message = format!("at most {N} arguments, but {} are given", positional.len());
        return Err(invalid(message));
    }
    let mut bound = std::array::from_fn(|at| Argument(positional.get(at).cloned()));
    if let Some(named) = named {
        for (at, name) in names.iter().enumerate() {
            if named.has(name) {
                bound[at] = Argument(Some(named.get(name)?));
            }
        }
        named.assert_all_used()?;
    }
    Ok(bound)
}

/// An argument that may be left out.
#[derive(Debug)]
pub(super) struct Argument(pub(super) Option<Value>);

impl Argument {
    /// The value, if one is given that is not none.
    pub(super) fn given(self) -> Option<Value> {
        self.0.filter(|value| !value.is_none())
    }

    pub(super) fn text(self) -> Result<Option<String>, Error> {
        let text = |value: Value| match value.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(invalid(format!("a text is needed, not {}", value.kind()))),
        };
        self.given().map(text).transpose()
    }

    pub(super) fn int(self) -> Result<Option<i64>, Error> {
        let int = |value: Value| match value.kind() {
            ValueKind::Bool => Ok(i64::from(value.is_true())),
            _ if value.is_integer() => value.as_i64().ok_or_else(|| invalid("too large")),
            kind => Err(invalid(format!("a whole number is needed, not {kind}"))),
        };
        self.given().map(int).transpose()
    }

    /// A length of something that is written.
    pub(super) fn length(self) -> Result<Option<usize>, Error> {
        let length = |length: i64| match usize::try_from(length.max(0)) {
            Ok(length) if length <= 100_000 => Ok(length),
            _ => Err(invalid(format!("a length of {length} is over 100,000"))),
        };
        self.int()?.map(length).transpose()
    }

    pub(super) fn truth(self) -> Option<bool> {
        self.0.map(|value| value.is_true())
    }
}
