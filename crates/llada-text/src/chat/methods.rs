//! Methods of Python's texts, lists and dictionaries that templates call.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

use super::arguments::{Argument, bind};
use super::python::{self, invalid};

/// Calls the method `name` of `value`; what is not here is looked up in minijinja's own
/// compatibility layer.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let result = match value.kind() {
        ValueKind::String => of_text(value.as_str().unwrap_or_default(), name, args)?,
        ValueKind::Map => of_map(value, name, args)?,
        ValueKind::Seq => of_list(value, name, args)?,
        _ => None,
    };
    if let Some(result) = result {
        return Ok(result);
    }
    pycompat::unknown_method_callback(state, value, name, args).map_err(|error| {
        if error.kind() != ErrorKind::UnknownMethod {
            return error;
        }
        invalid(format!(
            "a value of type {} has no method {name}",
            value.kind()
        ))
    })
}

fn of_list(list: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    if name != "index" {
        return Ok(None);
    }
    let [item] = bind(args, ["value"])?;
    let item = item.0.unwrap_or_default();
    let at = list.try_iter()?.position(|candidate| candidate == item);
    let at = at.ok_or_else(|| invalid(format!("{} is not in the list", python::repr(&item))))?;
    Ok(Some(Value::from(at)))
}

fn of_map(map: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let pairs = python::pairs(map);
    let view = |name, values: Vec<Value>| Value::from_object(View { name, values });
    let result = match name {
        "keys" => view("dict_keys", pairs.map(|(key, _)| key).collect()),
        "values" => view("dict_values", pairs.map(|(_, value)| value).collect()),
        "items" => {
            let pair = |(key, value)| Value::from_object(Tuple::new(vec![key, value]));
            view("dict_items", pairs.map(pair).collect())
        }
        "copy" => map.clone(),
        _ => return Ok(None),
    };
    let [] = bind(args, [])?;
    Ok(Some(result))
}

/// What `keys`, `values` and `items` of a dictionary return.
#[derive(Debug)]
struct View {
    name: &'static str,
    values: Vec<Value>,
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.values.clone())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = Value::from(self.values.clone());
        write!(f, "{}({})", self.name, python::repr(&values))
    }
}

fn of_text(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let chars = || text.chars();
    let result = match name {
        "rsplit" | "split" => {
            let [separator, most] = bind(args, ["sep", "maxsplit"])?;
            let most = most.int()?.and_then(|most| usize::try_from(most).ok());
            Value::from(split(
                text,
                separator.text()?.as_deref(),
                most,
                name == "rsplit",
            )?)
        }
        "splitlines" => {
            let [keeps] = bind(args, ["keepends"])?;
            Value::from(lines(text, keeps.truth().unwrap_or(false)))
        }
        "partition" | "rpartition" => {
            let [separator] = bind(args, ["sep"])?;
            partition(text, &needed(separator.text()?)?, name == "rpartition")?
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [part, start, end] = bind(args, ["sub", "start", "end"])?;
            search(text, name, &needed(part.text()?)?, start.int()?, end.int()?)?
        }
        "startswith" | "endswith" => {
            let [affix, start, end] = bind(args, ["prefix", "start", "end"])?;
            let (_, part) = window(text, start.int()?, end.int()?);
            let affix = affix.0.unwrap_or_default();
            let affixes = match affix.downcast_object_ref::<Tuple>() {
                Some(tuple) => tuple.clone().into_vec(),
                None => vec![affix],
            };
            let mut found = false;
            for affix in affixes {
                let affix = needed(Argument(Some(affix)).text()?)?;
                found |= match name {
                    "startswith" => part.starts_with(&affix),
                    _ => part.ends_with(&affix),
                };
            }
            Value::from(found)
        }
        "zfill" => {
            let [width] = bind(args, ["width"])?;
            let sign = usize::from(text.starts_with(['+', '-']));
            let missing = needed(width.length()?)?.saturating_sub(chars().count());
            Value::from(format!(
                "{}{}{}",
                &text[..sign],
                "0".repeat(missing),
                &text[sign..]
            ))
        }
        "center" | "ljust" | "rjust" => {
            let [width, fill] = bind(args, ["width", "fillchar"])?;
            let width = needed(width.length()?)?;
            let fill = fill.text()?.unwrap_or_else(|| " ".to_owned());
            Value::from(pad(text, name, width, &fill))
        }
        "removeprefix" => {
            let [prefix] = bind(args, ["prefix"])?;
            let prefix = needed(prefix.text()?)?;
            Value::from(text.strip_prefix(&*prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let [suffix] = bind(args, ["suffix"])?;
            let suffix = needed(suffix.text()?)?;
            Value::from(text.strip_suffix(&*suffix).unwrap_or(text))
        }
        "expandtabs" => {
            let [size] = bind(args, ["tabsize"])?;
            Value::from(expand_tabs(text, size.length()?.unwrap_or(8)))
        }
        "title" => Value::from(title(text)),
        "swapcase" => Value::from(chars().map(swap_case).collect::<String>()),
        "casefold" => Value::from(text.to_lowercase().replace('ß', "ss").replace('ς', "σ")),
        "istitle" => Value::from(chars().any(char::is_alphabetic) && title(text) == text),
        "isdecimal" => Value::from(!text.is_empty() && chars().all(|c| c.is_ascii_digit())),
        "isprintable" => {
            let shown = python::repr(&Value::from(text.replace(['\\', '\'', '"'], "")));
            Value::from(!shown.contains('\\'))
        }
        "isidentifier" => {
            let is_start = |c: char| c == '_' || c.is_alphabetic();
            let rest = chars().skip(1).all(|c| is_start(c) || c.is_numeric());
            Value::from(chars().next().is_some_and(is_start) && rest)
        }
        _ => return Ok(None),
    };
    Ok(Some(result))
}

fn needed<T>(argument: Option<T>) -> Result<T, Error> {
    argument.ok_or_else(|| invalid("an argument is missing"))
}

/// The part of `text` between two places, which count from the end if they are negative, and the
/// number of the character that it begins with.
fn window(text: &str, start: Option<i64>, end: Option<i64>) -> (usize, String) {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let place = |at: i64| {
        let at = if at < 0 { at + length } else { at };
        usize::try_from(at.clamp(0, length)).unwrap_or(0)
    };
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(length)));
    let part = text.chars().skip(start).take(end.saturating_sub(start));
    (start, part.collect())
}

fn search(
    text: &str,
    name: &str,
    part: &str,
    start: Option<i64>,
    end: Option<i64>,
) -> Result<Value, Error> {
    let (skipped, text) = window(text, start, end);
    if name == "count" {
        return Ok(Value::from(text.matches(part).count()));
    }
    let found = match name.starts_with('r') {
        true => text.rfind(part),
        false => text.find(part),
    };
    match found {
        Some(at) => Ok(Value::from(skipped + text[..at].chars().count())),
        None if name.ends_with("find") => Ok(Value::from(-1)),
        None => Err(invalid("substring not found")),
    }
}

/// `str.split` and `str.rsplit`: without a separator at runs of white space.
fn split(
    text: &str,
    separator: Option<&str>,
    most: Option<usize>,
    from_right: bool,
) -> Result<Vec<String>, Error> {
    let limit = most.map_or(usize::MAX, |most| most.saturating_add(1));
    if separator == Some("") {
        return Err(invalid("empty separator"));
    }
    let mut parts: Vec<String> = match (separator, from_right) {
        (Some(separator), false) => text.splitn(limit, separator).map(str::to_owned).collect(),
        (Some(separator), true) => text.rsplitn(limit, separator).map(str::to_owned).collect(),
        (None, _) => {
            let mut parts = Vec::new();
            let mut rest = text.trim();
            while !rest.is_empty() {
                let cut = match from_right {
                    _ if parts.len() + 1 >= limit => None,
                    false => rest.find(char::is_whitespace).map(|at| rest.split_at(at)),
                    true => rest.rfind(char::is_whitespace).map(|at| {
                        let next = rest[at..].chars().next().map_or(1, char::len_utf8);
                        (&rest[at + next..], &rest[..at])
                    }),
                };
                let (part, others) = cut.unwrap_or((rest, ""));
                parts.push(part.to_owned());
                rest = others.trim();
            }
            parts
        }
    };
    if from_right {
        parts.reverse();
    }
    Ok(parts)
}

/// `str.splitlines`.
fn lines(text: &str, keeps_ends: bool) -> Vec<String> {
    let is_end = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(at) = rest.find(is_end) else {
            lines.push(rest.to_owned());
            break;
        };
        let length = match rest[at..].starts_with("\r\n") {
            true => 2,
            false => rest[at..].chars().next().map_or(1, char::len_utf8),
        };
        let kept = if keeps_ends { at + length } else { at };
        lines.push(rest[..kept].to_owned());
        rest = &rest[at + length..];
    }
    lines
}

fn partition(text: &str, separator: &str, from_right: bool) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(invalid("empty separator"));
    }
    let parts = match from_right {
        false => text.split_once(separator),
        true => text.rsplit_once(separator),
    };
    let parts = match parts {
        Some((before, after)) => [before, separator, after],
        None if from_right => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::from_object(Tuple::new(
        parts.map(Value::from).to_vec(),
    )))
}

/// `str.center`, `ljust` and `rjust`.
pub(super) fn pad(text: &str, name: &str, width: usize, fill: &str) -> String {
    let length = text.chars().count();
    let missing = width.saturating_sub(length);
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        // As CPython rounds it.
        _ => missing / 2 + (missing & width & 1),
    };
    format!("{}{text}{}", fill.repeat(left), fill.repeat(missing - left))
}

fn expand_tabs(text: &str, size: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for character in text.chars() {
        match character {
            '\t' => {
                let width = if size == 0 { 0 } else { size - column % size };
                out.push_str(&" ".repeat(width));
                column += width;
            }
            _ => {
                column = if matches!(character, '\n' | '\r') {
                    0
                } else {
                    column + 1
                };
                out.push(character);
            }
        }
    }
    out
}

/// `str.title`: a capital after everything that is no letter.
fn title(text: &str) -> String {
    let mut out = String::new();
    let mut in_word = false;
    for character in text.chars() {
        match in_word {
            true => out.extend(character.to_lowercase()),
            false => out.extend(character.to_uppercase()),
        }
        in_word = character.is_alphabetic();
    }
    out
}

fn swap_case(character: char) -> String {
    match character.is_uppercase() {
        true => character.to_lowercase().collect(),
        false => character.to_uppercase().collect(),
    }
}
