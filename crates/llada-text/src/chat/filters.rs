//! Filters and tests of Jinja2 that minijinja lacks or has with another meaning.
#![expect(
    clippy::needless_pass_by_value,
    reason = "minijinja hands arguments to filters by value"
)]

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, Value};

use super::arguments::bind_named;
use super::methods;
use super::python::{self, Json, invalid};

/// Adds them to the environment.
pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", |value: &Value| python::text(value));
    environment.add_filter("pprint", |value: &Value| python::repr(value));
    environment.add_filter("int", to_int);
    environment.add_filter("wordcount", |text: &Value| {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let text = python::text(text);
        text.split(|c| !is_word(c))
            .filter(|word| !word.is_empty())
            .count()
    });
    environment.add_filter(
        "center",
        |text: &Value, args: Rest<Value>, named: Kwargs| {
            let [width] = bind_named(&args, Some(&named), ["width"])?;
            let width = width.length()?.unwrap_or(80);
            Ok::<_, Error>(methods::pad(&python::text(text), "center", width, " "))
        },
    );
    environment.add_filter("truncate", truncate);
    environment.add_filter("wordwrap", word_wrap);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("urlencode", url_encode);
    environment.add_filter("forceescape", |text: &Value| {
        Value::from_safe_string(python::escape(&python::text(text)))
    });
    environment.add_filter("list", |value: &Value| match value.is_undefined() {
        true => Ok(Vec::new()),
        false => Ok::<_, Error>(iterate(value)?.collect()),
    });
    environment.add_filter("random", |list: &Value| -> Result<Value, Error> {
        // A prompt must not depend on chance.
        Err(invalid(format!(
            "random of {list}: a prompt must not depend on chance"
        )))
    });
    environment.add_filter("filesizeformat", minijinja_contrib::filters::filesizeformat);
    environment.add_filter("striptags", minijinja_contrib::filters::striptags);
    environment.add_filter("attr", |value: &Value, name: &str| value.get_attr(name));
    environment.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::String | ValueKind::Map
        )
    });
    environment.add_test("iterable", |value: &Value| match value.kind() {
        ValueKind::Undefined => true,
        ValueKind::None => false,
        _ => value.try_iter().is_ok(),
    });
    environment.add_test("callable", |value: &Value| {
        value.kind() == ValueKind::Plain
            && value
                .as_object()
                .is_some_and(|object| object.type_name().contains("Function"))
    });
}

/// The items of a value; none and numbers have none.
fn iterate(value: &Value) -> Result<impl Iterator<Item = Value>, Error> {
    match value.kind() {
        ValueKind::None => Err(invalid("none has no items")),
        _ => value.try_iter(),
    }
}

/// `json.dumps(value, ensure_ascii=False)` and its keyword arguments, as transformers has it.
fn to_json(value: &Value, args: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ensure_ascii, indent, separators, sort_keys] = bind_named(&args, Some(&named), names)?;
    let indent = match indent.given() {
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        Some(width) => {
            let width = super::arguments::Argument(Some(width)).length()?;
            width.map(|width| " ".repeat(width))
        }
        None => None,
    };
    let given = separators
        .given()
        .map(|pair| pair.try_iter().map(Iterator::collect::<Vec<_>>));
    let separators = match given.transpose()?.as_deref() {
        Some([items, keys]) => (python::text(items), python::text(keys)),
        Some(_) => return Err(invalid("tojson: separators are a pair of texts")),
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let json = Json {
        ensure_ascii: ensure_ascii.truth().unwrap_or(false),
        indent,
        separators,
        sort_keys: sort_keys.truth().unwrap_or(false),
    };
    json.dumps(value)
}

/// `int(value, default=0, base=10)`: the default in place of an error.
fn to_int(value: &Value, args: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let [default, base] = bind_named(&args, Some(&named), ["default", "base"])?;
    let base = u32::try_from(base.int()?.unwrap_or(10)).unwrap_or(10);
    let default = default.0.unwrap_or_else(|| Value::from(0));
    let number = match value.kind() {
        ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        ValueKind::Number if value.is_integer() => Some(value.clone()),
        ValueKind::Number => f64::try_from(value.clone()).ok().and_then(truncated),
        ValueKind::String => parse_int(value.as_str().unwrap_or_default(), base),
        _ => None,
    };
    Ok(number.unwrap_or(default))
}

fn truncated(number: f64) -> Option<Value> {
    #[expect(clippy::cast_possible_truncation, reason = "Python truncates as well")]
    number
        .is_finite()
        .then(|| Value::from(number.trunc() as i128))
}

fn parse_int(text: &str, base: u32) -> Option<Value> {
    let trimmed = text.trim().replace('_', "");
    let (sign, digits) = match trimmed.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, trimmed.strip_prefix('+').unwrap_or(&trimmed)),
    };
    let lower = digits.to_lowercase();
    let (base, digits) = match (base, lower.get(..2)) {
        (16, Some("0x")) => (16, &lower[2..]),
        (8, Some("0o")) => (8, &lower[2..]),
        (2, Some("0b")) => (2, &lower[2..]),
        _ => (base, lower.as_str()),
    };
    if !(2..=36).contains(&base) {
        return None;
    }
    match i128::from_str_radix(digits, base) {
        Ok(number) => Some(Value::from(sign * number)),
        // Jinja tries it as a float.
        Err(_) => trimmed.parse().ok().and_then(truncated),
    }
}

/// `truncate(text, length=255, killwords=False, end='...', leeway=5)`.
fn truncate(value: &Value, args: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let [length, cuts_words, end, leeway] = bind_named(
        &args,
        Some(&named),
        ["length", "killwords", "end", "leeway"],
    )?;
    let length = length.length()?.unwrap_or(255);
    let end = end.text()?.unwrap_or_else(|| "...".to_owned());
    let leeway = leeway.length()?.unwrap_or(5);
    let text = python::text(value);
    if text.chars().count() <= length + leeway {
        return Ok(text);
    }
    let Some(kept) = length.checked_sub(end.chars().count()) else {
        return Err(invalid("truncate: the length is less than that of its end"));
    };
    let kept: String = text.chars().take(kept).collect();
    let kept = match cuts_words.truth().unwrap_or(false) {
        true => &kept,
        false => kept.rsplit_once(' ').map_or(&*kept, |(before, _)| before),
    };
    Ok(format!("{kept}{end}"))
}

/// `wordwrap(text, width=79, break_long_words=True, wrapstring='\n', break_on_hyphens=True)`.
fn word_wrap(value: &Value, args: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let names = [
        "width",
        "break_long_words",
        "wrapstring",
        "break_on_hyphens",
    ];
    let [width, breaks, joint, hyphens] = bind_named(&args, Some(&named), names)?;
    let width = width.length()?.unwrap_or(79).max(1);
    let breaks = breaks.truth().unwrap_or(true);
    let hyphens = hyphens.truth().unwrap_or(true);
    let joint = joint.text()?.unwrap_or_else(|| "\n".to_owned());
    let text = python::text(value);
    let wrapped = text
        .lines()
        .map(|line| wrap_line(line, width, breaks, hyphens).join(&joint));
    Ok(wrapped.collect::<Vec<_>>().join(&joint))
}

fn wrap_line(line: &str, width: usize, breaks: bool, hyphens: bool) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for character in line.chars() {
        let is_space = character.is_whitespace();
        match pieces.last_mut() {
            Some(piece)
                if piece.ends_with(char::is_whitespace) == is_space
                    && !(hyphens && piece.len() > 1 && piece.ends_with('-')) =>
            {
                piece.push(character);
            }
            _ => pieces.push(String::from(character)),
        }
    }
    let length = |text: &str| text.chars().count();
    let mut lines: Vec<String> = Vec::new();
    let mut current = String::new();
    for mut piece in pieces {
        if length(&current) + length(&piece) > width && !current.is_empty() {
            lines.push(current.trim_end().to_owned());
            current.clear();
        }
        if current.is_empty() && !lines.is_empty() && piece.trim().is_empty() {
            continue;
        }
        while breaks && length(&piece) > width {
            lines.push(piece.chars().take(width).collect());
            piece = piece.chars().skip(width).collect();
        }
        current.push_str(&piece);
    }
    if !current.trim_end().is_empty() {
        lines.push(current.trim_end().to_owned());
    }
    lines
}

/// `default(value, default_value='', boolean=False)`.
fn default(value: &Value, args: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let [other, boolean] = bind_named(&args, Some(&named), ["default_value", "boolean"])?;
    let replaces = match boolean.truth().unwrap_or(false) {
        true => !value.is_true(),
        false => value.is_undefined(),
    };
    let other = || other.0.unwrap_or_else(|| Value::from(""));
    Ok(if replaces { other() } else { value.clone() })
}

/// `urlencode`: a text, whose slashes stay, or the pairs of a query.
fn url_encode(value: &Value) -> Result<String, Error> {
    let quoted = |value: &Value, keeps_slash: bool| {
        let mut out = String::new();
        for byte in python::text(value).bytes() {
            let is_safe = byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte);
            match byte {
                _ if is_safe || (byte == b'/' && keeps_slash) => out.push(char::from(byte)),
                b' ' if !keeps_slash => out.push('+'),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
        out
    };
    let pair = |(key, value)| format!("{}={}", quoted(&key, false), quoted(&value, false));
    match value.kind() {
        ValueKind::Map => Ok(python::pairs(value).map(pair).collect::<Vec<_>>().join("&")),
        ValueKind::Seq => {
            let mut pairs = Vec::new();
            for item in value.try_iter()? {
                let mut halves = item.try_iter()?;
                pairs.push(pair((
                    halves.next().unwrap_or_default(),
                    halves.next().unwrap_or_default(),
                )));
            }
            Ok(pairs.join("&"))
        }
        _ => Ok(quoted(value, true)),
    }
}

/// `dict(mapping or pairs, **more)`.
pub(super) fn dict(args: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let mut entries: Vec<(Value, Value)> = Vec::new();
    let mut insert =
        |key: Value, value: Value| match entries.iter_mut().find(|entry| entry.0 == key) {
            Some(entry) => entry.1 = value,
            None => entries.push((key, value)),
        };
    for argument in args.iter() {
        if argument.kind() == ValueKind::Map {
            python::pairs(argument).for_each(|(key, value)| insert(key, value));
        } else {
            for pair in argument.try_iter()? {
                let pair: Vec<Value> = pair.try_iter()?.collect();
                let [key, value] = <[Value; 2]>::try_from(pair)
                    .map_err(|_| invalid("dict: an entry is not a pair"))?;
                insert(key, value);
            }
        }
    }
    for name in named.args() {
        insert(Value::from(name), named.get(name)?);
    }
    Ok(Value::from_pairs(entries))
}
