//! Headers, variables and registers.

use super::{Class, Result, Scope, Symbol};
use crate::inst::Variable;

/// Bytes of a type's name such as `.b32`.
pub(super) fn type_bytes(name: &str) -> Option<u64> {
    let digits: String = name.chars().filter(char::is_ascii_digit).collect();
    let bits: u64 = digits.parse().ok()?;
    (bits >= 8).then_some(bits / 8)
}

/// `.align 8 .b8 name[48] = {1, 2}`: a variable or a parameter.
pub(super) fn variable(text: &str) -> Result<Variable> {
    let (declaration, values) = match text.split_once('=') {
        Some((declaration, values)) => (declaration, Some(values)),
        None => (text, None),
    };
    let mut variable = Variable {
        name: String::new(),
        align: 0,
        bytes: 0,
        init: Vec::new(),
    };
    let mut element = 0;
    let mut words = declaration.split_whitespace().peekable();
    while let Some(word) = words.next() {
        match word {
            ".align" => {
                let align = words.next().and_then(|n| n.parse().ok());
                variable.align = align.ok_or("an alignment without a number")?;
            }
            ".visible" | ".extern" | ".weak" | ".global" | ".const" | ".shared" | ".local"
            | ".param" | ".managed" | ".common" => {}
            ".ptr" => {}
            _ if word.starts_with('.') => {
                if let Some(bytes) = type_bytes(word) {
                    element = bytes;
                }
            }
            _ => variable.name.push_str(word),
        }
    }
    let mut n = 1;
    if let Some((name, dimensions)) = variable.name.clone().split_once('[') {
        for dimension in dimensions.split('[') {
            let length = dimension.trim_end_matches(']').trim();
            n *= match length {
                "" => 0,
                length => length
                    .parse::<u64>()
                    .map_err(|_| "an array without a length")?,
            };
        }
        variable.name = name.to_owned();
    }
    if element == 0 || variable.name.is_empty() {
        return Err("a variable without a type or a name".into());
    }
    variable.bytes = n * element;
    variable.align = variable.align.max(element.min(16));
    for value in values
        .unwrap_or("")
        .trim()
        .trim_matches(['{', '}'])
        .split(',')
    {
        let value = value.trim();
        if value.is_empty() {
            continue;
        }
        let number = super::operands::integer(value).ok_or("an initial value is no number")?;
        variable
            .init
            .extend_from_slice(&number.to_le_bytes()[..element as usize]);
    }
    Ok(variable)
}

/// Name and parameters of `.entry name(...)`.
pub(super) fn header(text: &str) -> Result<(String, Vec<Variable>)> {
    let (_, rest) = text.split_once(".entry").ok_or("a kernel without a name")?;
    let Some((name, rest)) = rest.split_once('(') else {
        let name = rest.split_whitespace().next().unwrap_or("");
        return Ok((name.to_owned(), Vec::new()));
    };
    let list = rest.split_once(')').map_or(rest, |(list, _)| list);
    let parameters = list
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty());
    Ok((
        name.trim().to_owned(),
        parameters.map(variable).collect::<Result<_>>()?,
    ))
}

/// Threads of a block at most, by `.maxntid` or `.reqntid`.
pub(super) fn max_threads(text: &str) -> u32 {
    for directive in [".maxntid", ".reqntid"] {
        if let Some((_, list)) = text.split_once(directive) {
            let numbers = list.split(['.', '{']).next().unwrap_or("");
            return numbers
                .split(',')
                .filter_map(|n| n.trim().parse::<u32>().ok())
                .product();
        }
    }
    1024
}

/// `.reg .b32 %r<17>` or `.reg .pred p, q`.
pub(super) fn registers(text: &str, scope: &mut Scope) -> Result<()> {
    let mut words = text.splitn(3, char::is_whitespace);
    let (_, kind, names) = (words.next(), words.next(), words.next());
    let class = match kind {
        Some(".pred") => Class::Pred,
        Some(".b16" | ".u16" | ".s16" | ".f16" | ".b8" | ".u8" | ".s8") => Class::B16,
        Some(".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" | ".bf16x2") => Class::B32,
        Some(".b64" | ".u64" | ".s64" | ".f64") => Class::B64,
        _ => return Err("registers of an unknown type".into()),
    };
    for name in names.unwrap_or("").split(',') {
        let name = name.trim();
        let symbol = match name.split_once('<') {
            Some((family, count)) => {
                let count = count.trim_end_matches('>').parse::<u32>();
                let count = count.map_err(|_| "registers without a count")?;
                let first = scope.registers(class, count);
                scope.declare(family, Symbol::Family(class, first, count));
                continue;
            }
            None => Symbol::Register(class, scope.registers(class, 1)),
        };
        scope.declare(name, symbol);
    }
    Ok(())
}

/// File and line of `.loc 1 20 5, function_name ...`; line 0 means the last one.
pub(super) fn location(text: &str) -> Option<(u32, u32)> {
    let mut words = text.split_whitespace().skip(1);
    let file = words.next()?.parse().ok()?;
    let line = words.next()?.parse().ok()?;
    Some((file, line))
}
