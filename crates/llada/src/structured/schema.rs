//! A JSON schema as the text that satisfies it, with values to be written.

use serde_json::{Map, Value};

use super::number::{Bound, NumberRule};
use super::{Result, StructuredError};

/// A part of a text of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Fixed text.
    Text(String),
    /// One of several texts.
    Choice(Vec<String>),
    /// The inside of a string.
    String {
        /// Characters at least.
        min: usize,
        /// Characters at most.
        max: Option<usize>,
    },
    /// A number.
    Number(NumberRule),
}

/// Keywords that say nothing of what satisfies a schema.
const ANNOTATIONS: [&str; 14] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "example",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "type",
];

/// The pieces of a text that satisfies `schema`, with `max_values` values at most, those of arrays
/// and objects and these themselves.
pub(super) fn pieces(schema: &Value, max_values: usize) -> Result<Vec<Piece>> {
    let mut compiler = Compiler {
        root: schema,
        max_values,
        n_values: 0,
        references: Vec::new(),
        pieces: Vec::new(),
    };
    compiler.value(schema, "", "")?;
    Ok(compiler.pieces)
}

struct Compiler<'s> {
    root: &'s Value,
    max_values: usize,
    n_values: usize,
    /// Those that lead to the current schema.
    references: Vec<&'s str>,
    pieces: Vec<Piece>,
}

impl<'s> Compiler<'s> {
    /// Adds a value of the schema at the pointer `at`, after the text `lead`.
    fn value(&mut self, schema: &'s Value, at: &str, lead: &str) -> Result<()> {
        self.n_values += 1;
        if self.n_values > self.max_values {
            let max_values = self.max_values;
            return Err(StructuredError::TooManyValues { max_values });
        }
        let Value::Object(schema) = schema else {
            return Err(fault(at, "a schema must be an object"));
        };
        if let Some(reference) = schema.get("$ref") {
            return self.reference(schema, reference, at, lead);
        }
        if schema.contains_key("enum") || schema.contains_key("const") {
            let choices = choices(schema, at)?;
            self.choice(lead, choices.iter().map(ToString::to_string));
            return Ok(());
        }
        match kind(schema, at)? {
            "object" => self.object(schema, at, lead),
            "array" => self.array(schema, at, lead),
            "string" => self.string(schema, at, lead),
            number @ ("integer" | "number") => self.number(schema, number, at, lead),
            "boolean" => {
                check_keywords(schema, at, &[])?;
                self.choice(lead, ["true", "false"].into_iter().map(ToOwned::to_owned));
                Ok(())
            }
            "null" => {
                check_keywords(schema, at, &[])?;
                self.text(&format!("{lead}null"));
                Ok(())
            }
            other => Err(fault(
                &under(at, "type"),
                &format!("there is no type {other:?}"),
            )),
        }
    }

    fn reference(
        &mut self,
        schema: &Map<String, Value>,
        reference: &'s Value,
        at: &str,
        lead: &str,
    ) -> Result<()> {
        check_keywords(schema, at, &["$ref"])?;
        let at = under(at, "$ref");
        let pointer = reference.as_str().and_then(|text| text.strip_prefix('#'));
        let found = pointer.and_then(|pointer| Some((pointer, self.root.pointer(pointer)?)));
        let Some((pointer, target)) = found else {
            let what = "it must be # and the JSON pointer of a part of this schema";
            return Err(fault(&at, what));
        };
        if self.references.contains(&pointer) {
            return Err(fault(&at, "a schema that contains itself has no end"));
        }
        self.references.push(pointer);
        self.value(target, pointer, lead)?;
        self.references.pop();
        Ok(())
    }

    fn object(&mut self, schema: &'s Map<String, Value>, at: &str, lead: &str) -> Result<()> {
        check_keywords(
            schema,
            at,
            &["properties", "required", "additionalProperties"],
        )?;
        let none = Map::new();
        let properties = match schema.get("properties") {
            None => None,
            Some(Value::Object(properties)) => Some(properties),
            Some(_) => return Err(fault(&under(at, "properties"), "it must be an object")),
        };
        let required = schema.get("required").map(|names| {
            let names = names.as_array()?.iter();
            names.map(Value::as_str).collect::<Option<Vec<&str>>>()
        });
        let names = match required {
            None => Vec::new(),
            Some(Some(names)) => names,
            Some(None) => {
                let what = "it must be a list of names";
                return Err(fault(&under(at, "required"), what));
            }
        };
        let is_missing = |name: &&&str| !properties.unwrap_or(&none).contains_key(**name);
        if let Some(name) = names.iter().find(is_missing) {
            let what = format!("the property {name:?} has no schema in `properties`");
            return Err(fault(&under(at, "required"), &what));
        }
        self.text(&format!("{lead}{{"));
        let at = under(at, "properties");
        for (index, (name, schema)) in properties.into_iter().flatten().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            self.text(&format!("{comma}{}:", Value::from(&**name)));
            self.value(schema, &under(&at, name), " ")?;
        }
        self.text("}");
        Ok(())
    }

    fn array(&mut self, schema: &'s Map<String, Value>, at: &str, lead: &str) -> Result<()> {
        let keywords = ["items", "prefixItems", "minItems", "maxItems"];
        check_keywords(schema, at, &keywords)?;
        let first = match schema.get("prefixItems") {
            None => &[][..],
            Some(Value::Array(items)) => items,
            Some(_) => return Err(fault(&under(at, "prefixItems"), "it must be a list")),
        };
        let (min, max) = (
            count(schema, "minItems", at)?,
            count(schema, "maxItems", at)?,
        );
        let length = match (min, max) {
            (Some(min), Some(max)) if min == max => min,
            _ if !first.is_empty()
                && (min.unwrap_or(0)..=max.unwrap_or(usize::MAX)).contains(&first.len()) =>
            {
                first.len()
            }
            _ => {
                let what = "the length of an array must be known: give minItems and maxItems of \
                            the same number, or prefixItems";
                return Err(fault(at, what));
            }
        };
        self.text(&format!("{lead}["));
        for index in 0..length {
            let (schema, at) = match (first.get(index), schema.get("items")) {
                (Some(schema), _) => (schema, under(&under(at, "prefixItems"), &index.to_string())),
                (None, Some(schema)) => (schema, under(at, "items")),
                (None, None) => {
                    let what = "an array needs `items`, the schema of its elements";
                    return Err(fault(at, what));
                }
            };
            let lead = if index > 0 { " " } else { "" };
            self.text(if index > 0 { "," } else { "" });
            self.value(schema, &at, lead)?;
        }
        self.text("]");
        Ok(())
    }

    fn string(&mut self, schema: &Map<String, Value>, at: &str, lead: &str) -> Result<()> {
        check_keywords(schema, at, &["minLength", "maxLength"])?;
        let min = count(schema, "minLength", at)?.unwrap_or(0);
        let max = count(schema, "maxLength", at)?;
        if max.is_some_and(|max| max < min) {
            return Err(fault(&under(at, "maxLength"), "it is less than minLength"));
        }
        self.text(&format!("{lead}\""));
        if max != Some(0) {
            self.pieces.push(Piece::String { min, max });
        }
        self.text("\"");
        Ok(())
    }

    fn number(
        &mut self,
        schema: &Map<String, Value>,
        kind: &str,
        at: &str,
        lead: &str,
    ) -> Result<()> {
        let least = ["minimum", "exclusiveMinimum"];
        let most = ["maximum", "exclusiveMaximum"];
        check_keywords(schema, at, &[least, most].concat())?;
        let bounds = |keywords: [&str; 2]| -> Result<Vec<Bound>> {
            let mut bounds = Vec::new();
            for keyword in keywords {
                match schema.get(keyword) {
                    None => {}
                    Some(Value::Number(number)) => bounds.push(Bound {
                        number: number.clone(),
                        is_exclusive: keyword.starts_with("exclusive"),
                    }),
                    Some(_) => return Err(fault(&under(at, keyword), "it must be a number")),
                }
            }
            Ok(bounds)
        };
        let rule = NumberRule::new(kind == "integer", &bounds(least)?, &bounds(most)?);
        let Some(rule) = rule else {
            let what = "between these bounds there is no number of at most 15 digits, and 3 after \
                        the point";
            return Err(fault(at, what));
        };
        self.text(lead);
        self.pieces.push(Piece::Number(rule));
        Ok(())
    }

    /// Adds fixed text to that before it.
    fn text(&mut self, text: &str) {
        match self.pieces.last_mut() {
            Some(Piece::Text(before)) => before.push_str(text),
            _ if text.is_empty() => {}
            _ => self.pieces.push(Piece::Text(text.to_owned())),
        }
    }

    /// Adds one of several texts, which are different.
    fn choice(&mut self, lead: &str, texts: impl Iterator<Item = String>) {
        let mut texts: Vec<String> = texts.map(|text| format!("{lead}{text}")).collect();
        match texts.len() {
            1 => self.text(&texts.remove(0)),
            _ => self.pieces.push(Piece::Choice(texts)),
        }
    }
}

/// The values of `enum` or `const` that have the schema's type.
fn choices<'s>(schema: &'s Map<String, Value>, at: &str) -> Result<Vec<&'s Value>> {
    check_keywords(schema, at, &["enum", "const"])?;
    let mut values: Vec<&Value> = match schema.get("enum") {
        None => Vec::new(),
        Some(Value::Array(values)) => values.iter().collect(),
        Some(_) => return Err(fault(&under(at, "enum"), "it must be a list")),
    };
    if let Some(value) = schema.get("const") {
        let is_in = !schema.contains_key("enum") || values.contains(&value);
        values = Some(value).filter(|_| is_in).into_iter().collect();
    }
    if schema.contains_key("type") {
        let kind = kind(schema, at)?;
        values.retain(|value| is_of(value, kind));
    }
    let mut different: Vec<&Value> = Vec::new();
    for value in values {
        if !different.contains(&value) {
            different.push(value);
        }
    }
    match different.is_empty() {
        true => Err(fault(at, "there is no value that satisfies it")),
        false => Ok(different),
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}

/// The type of a schema.
fn kind<'s>(schema: &'s Map<String, Value>, at: &str) -> Result<&'s str> {
    match schema.get("type") {
        Some(Value::String(kind)) => Ok(kind),
        Some(Value::Array(kinds)) if kinds.len() == 1 && kinds[0].is_string() => {
            Ok(kinds[0].as_str().unwrap_or_default())
        }
        Some(_) => Err(fault(&under(at, "type"), "it must be one name of a type")),
        None if schema.contains_key("properties") => Ok("object"),
        None => {
            check_keywords(schema, at, &[])?;
            Err(fault(at, "a schema needs a type, an enum or a const"))
        }
    }
}

/// A keyword that counts something.
fn count(schema: &Map<String, Value>, keyword: &str, at: &str) -> Result<Option<usize>> {
    let Some(value) = schema.get(keyword) else {
        return Ok(None);
    };
    let n = value.as_u64().and_then(|n| usize::try_from(n).ok());
    match n {
        Some(n) => Ok(Some(n)),
        None => Err(fault(
            &under(at, keyword),
            "it must be a whole number, 0 or more",
        )),
    }
}

/// Refuses keywords that nothing is done about.
fn check_keywords(schema: &Map<String, Value>, at: &str, known: &[&str]) -> Result<()> {
    let is_known = |keyword: &&String| {
        ANNOTATIONS.contains(&keyword.as_str()) || known.contains(&keyword.as_str())
    };
    match schema.keys().find(|keyword| !is_known(keyword)) {
        Some(keyword) => Err(fault(at, &format!("`{keyword}` is not supported here"))),
        None => Ok(()),
    }
}

/// The pointer of a part.
fn under(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn fault(at: &str, what: &str) -> StructuredError {
    StructuredError::Schema {
        pointer: at.to_owned(),
        what: what.to_owned(),
    }
}
