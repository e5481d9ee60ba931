//! How Python writes values: `str`, `repr`, `json.dumps` and `%`.

use std::fmt::Write as _;

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// An error of an operation on values.
pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// `str(value)`.
pub(super) fn text(value: &Value) -> String {
    match value.kind() {
        ValueKind::Number | ValueKind::Seq | ValueKind::Map if !value.is_integer() => repr(value),
        _ => value.to_string(),
    }
}

/// `repr(value)`.
pub(super) fn repr(value: &Value) -> String {
    let list = |open: &str, close: &str| {
        let items: Vec<String> = value
            .try_iter()
            .into_iter()
            .flatten()
            .map(|item| repr(&item))
            .collect();
        format!("{open}{}{close}", items.join(", "))
    };
    match value.kind() {
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => {
            f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float)
        }
        ValueKind::Seq if value.is_tuple() && value.len() == Some(1) => list("(", ",)"),
        ValueKind::Seq if value.is_tuple() => list("(", ")"),
        // Objects such as `range` write themselves.
        ValueKind::Seq if value.to_string().starts_with('[') => list("[", "]"),
        ValueKind::Map if value.to_string().starts_with('{') => {
            let items: Vec<String> = pairs(value)
                .map(|(key, item)| format!("{}: {}", repr(&key), repr(&item)))
                .collect();
            format!("{{{}}}", items.join(", "))
        }
        _ => value.to_string(),
    }
}

/// The keys and values of a mapping.
pub(super) fn pairs(map: &Value) -> impl Iterator<Item = (Value, Value)> {
    let keys: Vec<Value> = map.try_iter().into_iter().flatten().collect();
    let item = |key: Value| {
        let item = map.get_item(&key).unwrap_or_default();
        (key, item)
    };
    keys.into_iter().map(item).collect::<Vec<_>>().into_iter()
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for character in text.chars() {
        let code = u32::from(character);
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character == quote => {
                out.push('\\');
                out.push(character);
            }
            ' ' => out.push(' '),
            _ if !is_printable(character) => {
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
            _ => out.push(character),
        }
    }
    out.push(quote);
    out
}

/// `str.isprintable` of one character: no controls, no separators but the space, no formats and
/// no private ones.
fn is_printable(character: char) -> bool {
    let formats = matches!(
        character,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}'
        | '\u{e0000}'..='\u{e007f}' | '\u{f0000}'..='\u{10ffff}'
    );
    !(character.is_control() || formats || character.is_whitespace())
}

/// `repr` of a float.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return format!("{value:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// The keyword arguments of `json.dumps`.
#[derive(Debug)]
pub(super) struct Json {
    pub(super) ensure_ascii: bool,
    /// What a level is indented by; without it all stands on one line.
    pub(super) indent: Option<String>,
    /// Between items, and between a key and its value.
    pub(super) separators: (String, String),
    pub(super) sort_keys: bool,
}

impl Json {
    /// `json.dumps(value)`.
    pub(super) fn dumps(&self, value: &Value) -> Result<String, Error> {
        let mut out = String::new();
        self.write(&mut out, value, 0)?;
        Ok(out)
    }

    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)),
            ValueKind::String => self.string(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq => {
                let items = value.try_iter()?.map(|item| (None, item)).collect();
                self.items(out, ['[', ']'], items, depth)?;
            }
            ValueKind::Map => {
                let mut items = Vec::new();
                for (key, item) in pairs(value) {
                    let key = match key.kind() {
                        ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
                        ValueKind::None => "null".to_owned(),
                        ValueKind::Bool => key.is_true().to_string(),
                        ValueKind::Number => number(&key),
                        kind => return Err(invalid(format!("tojson: a key cannot be {kind}"))),
                    };
                    items.push((Some(key), item));
                }
                if self.sort_keys {
                    items.sort_by(|left, right| left.0.cmp(&right.0));
                }
                self.items(out, ['{', '}'], items, depth)?;
            }
            kind => {
                let message = format!("tojson: a value of type {kind} cannot be written as JSON");
                return Err(invalid(message));
            }
        }
        Ok(())
    }

    fn items(
        &self,
        out: &mut String,
        [open, close]: [char; 2],
        items: Vec<(Option<String>, Value)>,
        depth: usize,
    ) -> Result<(), Error> {
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                out.push_str(&indent.repeat(depth));
            }
        };
        let is_empty = items.is_empty();
        out.push(open);
        for (at, (key, item)) in items.into_iter().enumerate() {
            if at > 0 {
                out.push_str(&self.separators.0);
            }
            line(out, depth + 1);
            if let Some(key) = key {
                self.string(out, &key);
                out.push_str(&self.separators.1);
            }
            self.write(out, &item, depth + 1)?;
        }
        if !is_empty {
            line(out, depth);
        }
        out.push(close);
        Ok(())
    }

    fn string(&self, out: &mut String, text: &str) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\0'..='\u{1f}' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(character));
                }
                _ if self.ensure_ascii && (character > '~') => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                _ => out.push(character),
            }
        }
        out.push('"');
    }
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(number) if number.is_nan() => "NaN".to_owned(),
        Ok(number) if number.is_infinite() && number > 0.0 => "Infinity".to_owned(),
        Ok(number) if number.is_infinite() => "-Infinity".to_owned(),
        Ok(number) => float(number),
        Err(_) => value.to_string(),
    }
}

/// `left % right`: the remainder of numbers, or a text with values put into it.
pub(super) fn modulo(state: &State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    match left.as_str() {
        Some(format) => printf(format, right).map(Value::from),
        None => operator(state, "left % right", left, right),
    }
}

/// `left + right`: of two texts of which one is safe, the other is escaped (`Markup` of Python's
/// markupsafe).
pub(super) fn add(state: &State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    let safe = |value: &Value| match value.is_safe() {
        true => value.to_string(),
        false => escape(&value.to_string()),
    };
    match (left.as_str(), right.as_str()) {
        (Some(_), Some(_)) if left.is_safe() || right.is_safe() => {
            Ok(Value::from_safe_string(safe(left) + &safe(right)))
        }
        _ => operator(state, "left + right", left, right),
    }
}

/// An operator of minijinja.
fn operator(
    state: &State<'_, '_>,
    expression: &str,
    left: &Value,
    right: &Value,
) -> Result<Value, Error> {
    let operands = minijinja::context! { left, right };
    state.env().compile_expression(expression)?.eval(operands)
}

/// A text for HTML, as markupsafe escapes it.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(character),
        }
    }
    out
}

/// `format % values`.
fn printf(format: &str, values: &Value) -> Result<String, Error> {
    let mut positional = match values.downcast_object_ref::<Tuple>() {
        Some(tuple) => tuple.clone().into_vec(),
        None => vec![values.clone()],
    }
    .into_iter();
    let mut next = move || {
        let missing = || invalid("not enough arguments for format string");
        positional.next().ok_or_else(missing)
    };
    let mut out = String::new();
    let mut used = 0;
    let mut named = false;
    let mut rest = format.chars().peekable();
    while let Some(character) = rest.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut value = None;
        if rest.next_if_eq(&'(').is_some() {
            let key: String = std::iter::from_fn(|| rest.next_if(|&next| next != ')')).collect();
            rest.next();
            let found = values.get_item(&Value::from(key.as_str()))?;
            if found.is_undefined() {
                return Err(invalid(format!("the format's key {key:?} is not there")));
            }
            value = Some(found);
            named = true;
        }
        let mut spec = Spec::default();
        while let Some(flag) = rest.next_if(|next| "#0- +".contains(*next)) {
            spec.flags.push(flag);
        }
        let mut number = |rest: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            if rest.next_if_eq(&'*').is_some() {
                used += 1;
                let given = next()?;
                return given
                    .as_usize()
                    .map(Some)
                    .ok_or_else(|| invalid("* wants int"));
            }
            let digits: String =
                std::iter::from_fn(|| rest.next_if(char::is_ascii_digit)).collect();
            Ok::<_, Error>(digits.parse().ok())
        };
        spec.width = number(&mut rest)?.unwrap_or(0);
        if rest.next_if_eq(&'.').is_some() {
            spec.precision = Some(number(&mut rest)?.unwrap_or(0));
        }
        if spec.width.max(spec.precision.unwrap_or(0)) > 10_000 {
            return Err(invalid("a width of more than 10,000 in a format"));
        }
        while rest.next_if(|next| "hlL".contains(*next)).is_some() {}
        let kind = rest.next().ok_or_else(|| invalid("incomplete format"))?;
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match value {
            Some(value) => value,
            None => {
                used += 1;
                next()?
            }
        };
        out.push_str(&spec.apply(kind, &value)?);
    }
    let given = values.downcast_object_ref::<Tuple>();
    let given = given.map(|tuple| tuple.clone().into_vec().len());
    let is_mapping = values.kind() == ValueKind::Map;
    let left_over = given.map_or(used == 0 && !is_mapping, |given| given > used);
    if left_over && !named {
        return Err(invalid(
            "not all arguments converted during string formatting",
        ));
    }
    Ok(out)
}

/// What stands between `%` and the letter of a conversion.
#[derive(Debug, Default)]
struct Spec {
    flags: String,
    width: usize,
    precision: Option<usize>,
}

impl Spec {
    fn apply(&self, kind: char, value: &Value) -> Result<String, Error> {
        let body = match kind {
            's' | 'r' | 'a' => {
                let whole = if kind == 's' {
                    text(value)
                } else {
                    repr(value)
                };
                let length = self.precision.unwrap_or(usize::MAX);
                return Ok(self.pad("", &whole.chars().take(length).collect::<String>(), ' '));
            }
            'c' => {
                let code = value.as_i64().and_then(|code| u32::try_from(code).ok());
                let character = match value.as_str() {
                    Some(text) if text.chars().count() == 1 => Some(text.to_owned()),
                    _ => code.and_then(char::from_u32).map(String::from),
                };
                let character = character.ok_or_else(|| invalid("%c requires int or char"))?;
                return Ok(self.pad("", &character, ' '));
            }
            _ => value,
        };
        let number = match body.kind() {
            ValueKind::Bool => f64::from(u8::from(body.is_true())),
            ValueKind::Number => f64::try_from(body.clone())?,
            other => {
                return Err(invalid(format!(
                    "%{kind} format: a number is required, not {other}"
                )));
            }
        };
        let whole = || match body.as_i64() {
            Some(exact) if body.is_integer() => i128::from(exact),
            #[expect(clippy::cast_possible_truncation, reason = "Python truncates as well")]
            _ => number.trunc() as i128,
        };
        let precision = self.precision.unwrap_or(6);
        let alternate = self.flags.contains('#');
        let prefix = |prefix: &'static str| if alternate { prefix } else { "" };
        let (prefix, digits, is_negative) = match kind {
            'd' | 'i' | 'u' => ("", whole().unsigned_abs().to_string(), whole() < 0),
            'x' => (
                prefix("0x"),
                format!("{:x}", whole().unsigned_abs()),
                whole() < 0,
            ),
            'X' => (
                prefix("0X"),
                format!("{:X}", whole().unsigned_abs()),
                whole() < 0,
            ),
            'o' => (
                prefix("0o"),
                format!("{:o}", whole().unsigned_abs()),
                whole() < 0,
            ),
            'f' | 'F' => (
                "",
                format!("{:.precision$}", number.abs()),
                number.is_sign_negative(),
            ),
            'e' | 'E' => (
                "",
                scientific(number.abs(), precision),
                number.is_sign_negative(),
            ),
            'g' | 'G' => (
                "",
                general(number.abs(), precision, alternate),
                number.is_sign_negative(),
            ),
            _ => return Err(invalid(format!("unsupported format character '{kind}'"))),
        };
        let digits = if kind.is_ascii_uppercase() {
            digits.to_uppercase()
        } else {
            digits
        };
        let digits = match self.precision {
            Some(least) if "diuxXo".contains(kind) => format!("{digits:0>least$}"),
            _ => digits,
        };
        let sign = match is_negative {
            true => "-",
            false if self.flags.contains('+') => "+",
            false if self.flags.contains(' ') => " ",
            false => "",
        };
        let fill = if self.flags.contains('0') { '0' } else { ' ' };
        Ok(self.pad(&format!("{sign}{prefix}"), &digits, fill))
    }

    fn pad(&self, sign: &str, body: &str, fill: char) -> String {
        let length = sign.chars().count() + body.chars().count();
        let missing = self.width.saturating_sub(length);
        let filling = |fill: char| String::from(fill).repeat(missing);
        if self.flags.contains('-') {
            format!("{sign}{body}{}", filling(' '))
        } else if fill == '0' {
            format!("{sign}{}{body}", filling('0'))
        } else {
            format!("{}{sign}{body}", filling(' '))
        }
    }
}

fn scientific(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn general(number: f64, precision: usize, keeps_zeros: bool) -> String {
    let precision = precision.max(1);
    let text = format!("{number:.*e}", precision - 1);
    let exponent: i32 = text
        .split_once('e')
        .and_then(|(_, end)| end.parse().ok())
        .unwrap_or(0);
    let significant = i32::try_from(precision).unwrap_or(i32::MAX);
    let strip = |digits: &str| match digits.contains('.') && !keeps_zeros {
        true => digits
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned(),
        false => digits.to_owned(),
    };
    if (-4..significant).contains(&exponent) {
        let decimals = usize::try_from(significant - 1 - exponent).unwrap_or(0);
        return strip(&format!("{number:.decimals$}"));
    }
    let whole = scientific(number, precision - 1);
    let (digits, exponent) = whole.split_once('e').unwrap_or((&whole, "+00"));
    format!("{}e{exponent}", strip(digits))
}
