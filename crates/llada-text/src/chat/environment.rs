//! What a template may use: the environment in which transformers renders chat templates, an
//! `ImmutableSandboxedEnvironment` of Jinja2.

use std::sync::Arc;

use jiff::Zoned;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Rest;
use minijinja::{AutoEscape, Environment, Error, Value};

use super::filters;
use super::methods;
use super::python::{self, invalid};
use super::source::{ADD, MODULO};

/// Steps that a template may take before it is stopped: a hundred times those of a long
/// conversation with a large template.
const FUEL: u64 = 20_000_000;

/// The delimiters of Jinja, with `trim_blocks` and `lstrip_blocks`.
pub(super) fn syntax() -> Result<SyntaxConfig, Error> {
    let mut builder = SyntaxConfig::builder();
    builder.trim_blocks(true).lstrip_blocks(true).build()
}

/// The environment, at the time `now`.
pub(super) fn environment(now: &Zoned) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(syntax()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(|out, _, value| {
        if value.is_undefined() {
            return Ok(());
        }
        out.write_str(&python::text(value)).map_err(Error::from)
    });
    filters::add(&mut environment);
    environment.add_function(MODULO, python::modulo);
    environment.add_function(ADD, python::add);
    environment.add_function("cycler", |items: Rest<Value>| {
        minijinja_contrib::globals::cycler(items.0)
    });
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    environment.add_function("dict", filters::dict);
    environment.add_function(
        "raise_exception",
        |message: &Value| -> Result<Value, Error> { Err(invalid(python::text(message))) },
    );
    let now = Arc::new(now.clone());
    environment.add_function(
        "strftime_now",
        move |format: &Value| -> Result<String, Error> {
            let format = python::text(format);
            jiff::fmt::strtime::format(&format, &*now)
                .map_err(|source| invalid(format!("strftime_now({format:?}): {source}")))
        },
    );
    Ok(environment)
}

/// A value of JSON as one of a template; the order of keys stays.
pub(super) fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => Value::from(number),
            (_, Some(number), _) => Value::from(number),
            (.., number) => Value::from(number.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(value).collect(),
        Json::Object(fields) => {
            let pairs = fields
                .iter()
                .map(|(key, field)| (key.as_str(), value(field)));
            Value::from_pairs(pairs)
        }
    }
}
