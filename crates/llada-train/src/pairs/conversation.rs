//! A line of a data file as a conversation, whatever its format.

use llada_text::ChatInputs;
use serde_json::{Map, Value};

/// A message of a conversation, with the fields that chat templates read.
pub(super) type Message = Map<String, Value>;

/// A conversation, and which of its messages are answers to be learned.
#[derive(Debug, Clone)]
pub(super) struct Conversation {
    pub(super) turns: Vec<Turn>,
    /// What the template is given beside the messages, to open the turn of an answer.
    pub(super) inputs: ChatInputs,
    /// Whether it is one, and no bare prompt with its completion.
    pub(super) is_chat: bool,
}

/// A message, and whether it is learned.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    pub(super) message: Message,
    pub(super) is_learned: bool,
}

/// Flags of a message that say whether it is learned: of axolotl, of ms-swift, and of `OpenAI`, where
/// it is a number.
const FLAGS: [&str; 4] = ["train", "training", "loss", "weight"];

/// The conversation of a line; what was used is taken out of `fields`. `None` if the line has none
/// of the formats.
///
/// # Errors
/// What is wrong with it.
pub(super) fn of_line(fields: &mut Map<String, Value>) -> Result<Option<Conversation>, String> {
    fields.retain(|_, value| !value.is_null());
    let has = |names: &[&str]| names.iter().all(|name| fields.contains_key(*name));
    let listed = ["messages", "conversations"]
        .into_iter()
        .find(|name| has(&[name]));
    let (is_pair, is_alpaca) = (
        has(&["prompt", "completion"]),
        has(&["instruction", "output"]),
    );
    let turns = if let Some(name) = listed {
        turns(take(fields, name), name)?
    } else if is_pair {
        match (take(fields, "prompt"), take(fields, "completion")) {
            (Value::String(prompt), Value::String(completion)) => {
                let turns = vec![said("user", prompt), said("assistant", completion)];
                let inputs = ChatInputs {
                    add_generation_prompt: true,
                    ..ChatInputs::default()
                };
                return Ok(Some(Conversation {
                    turns,
                    inputs,
                    is_chat: false,
                }));
            }
            (prompt @ Value::Array(_), completion @ Value::Array(_)) => {
                let mut all = turns(prompt, "prompt")?;
                all.iter_mut().for_each(|turn| turn.is_learned = false);
                all.extend(turns(completion, "completion")?);
                all
            }
            _ => return Ok(None),
        }
    } else if is_alpaca {
        alpaca(fields)?
    } else {
        return Ok(None);
    };
    let turns = with_system(take(fields, "system"), turns)?;
    Ok(Some(Conversation {
        turns,
        inputs: inputs(fields)?,
        is_chat: true,
    }))
}

fn take(fields: &mut Map<String, Value>, name: &str) -> Value {
    fields.shift_remove(name).unwrap_or_default()
}

/// What TRL's columns `tools` and `chat_template_kwargs` give a template; tools may be written as a
/// text, as in LLaMA-Factory's data.
fn inputs(fields: &mut Map<String, Value>) -> Result<ChatInputs, String> {
    let mut found = ChatInputs {
        add_generation_prompt: true,
        ..ChatInputs::default()
    };
    let tools = match take(fields, "tools") {
        Value::String(text) if text.trim().is_empty() => Value::Null,
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        tools => tools,
    };
    match tools {
        Value::Null => {}
        Value::Array(tools) => found.tools = Some(tools).filter(|tools| !tools.is_empty()),
        other => return Err(format!("tools is {other}; expected a list")),
    }
    match take(fields, "chat_template_kwargs") {
        Value::Null => {}
        Value::Object(variables) => found.variables = variables,
        other => {
            return Err(format!(
                "chat_template_kwargs is {other}; expected an object"
            ));
        }
    }
    Ok(found)
}

/// Alpaca's columns, put together as LLaMA-Factory does it.
fn alpaca(fields: &mut Map<String, Value>) -> Result<Vec<Turn>, String> {
    let mut found = Vec::new();
    if let Value::Array(history) = take(fields, "history") {
        for turn in history {
            let [prompt, answer] = serde_json::from_value::<[String; 2]>(turn)
                .map_err(|_| "history is no list of pairs of texts".to_owned())?;
            found.extend([said("user", prompt), said("assistant", answer)]);
        }
    }
    let mut text = |name: &str| match take(fields, name) {
        Value::String(text) => Ok(text),
        Value::Null => Ok(String::new()),
        other => Err(format!("{name} is {other}; expected a text")),
    };
    let [instruction, input, output] = [text("instruction")?, text("input")?, text("output")?];
    let parts = [instruction, input];
    let given: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|x| !x.is_empty())
        .collect();
    found.extend([said("user", given.join("\n")), said("assistant", output)]);
    Ok(found)
}

/// The turns after a system prompt that stands beside them.
fn with_system(system: Value, mut turns: Vec<Turn>) -> Result<Vec<Turn>, String> {
    let system = match system {
        Value::Null => return Ok(turns),
        Value::String(text) if text.is_empty() => return Ok(turns),
        Value::String(text) => text,
        other => return Err(format!("system is {other}; expected a text")),
    };
    match turns.first().map(|turn| &turn.message) {
        Some(first) if role(first) == "system" => {
            if content(first) != system {
                return Err("two system prompts differ, in \"system\" and in the turns".to_owned());
            }
        }
        _ => turns.insert(0, said("system", system)),
    }
    Ok(turns)
}

fn said(role: &str, text: String) -> Turn {
    let mut message = Message::new();
    message.insert("role".to_owned(), role.into());
    message.insert("content".to_owned(), text.into());
    Turn {
        message,
        is_learned: role == "assistant",
    }
}

/// The role of a message.
pub(super) fn role(message: &Message) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or("")
}

/// The text of a message.
pub(super) fn content(message: &Message) -> &str {
    message.get("content").and_then(Value::as_str).unwrap_or("")
}

/// Fields with tool calls: of `OpenAI`'s current format, a list, and of the old one.
pub(super) const CALLS: [&str; 2] = ["tool_calls", "function_call"];

/// The tool calls of a message.
pub(super) fn tool_calls(message: &Message) -> Vec<&Value> {
    let calls = message.get(CALLS[0]).and_then(Value::as_array);
    let old = message.get(CALLS[1]).filter(|call| call.is_object());
    calls.into_iter().flatten().chain(old).collect()
}

/// A list of messages, in the names of `OpenAI` (`role`, `content`) or of `ShareGPT` (`from`,
/// `value`).
fn turns(list: Value, name: &str) -> Result<Vec<Turn>, String> {
    let Value::Array(list) = list else {
        return Err(format!("{name} is no list of messages"));
    };
    list.into_iter().map(turn).collect()
}

fn turn(value: Value) -> Result<Turn, String> {
    let Value::Object(mut message) = value else {
        return Err(format!(
            "a message is {value}; expected an object with role and content"
        ));
    };
    message.retain(|_, value| !value.is_null());
    if let Some(from) = message.shift_remove("from") {
        if message.contains_key("role") {
            return Err("a message has both \"role\" and \"from\"".to_owned());
        }
        let value = message.shift_remove("value").unwrap_or_default();
        named(&mut message, &from, value)?;
    }
    let role = role(&message).to_owned();
    if role.is_empty() {
        return Err("a message has no \"role\" (or, in ShareGPT, no \"from\")".to_owned());
    }
    if let Some(value) = message.shift_remove("content") {
        message.insert("content".to_owned(), text_of(value)?.into());
    }
    let mut is_learned = role == "assistant";
    for name in FLAGS {
        let Some(flag) = flag(&mut message, name)? else {
            continue;
        };
        if flag && role != "assistant" && name != "weight" {
            return Err(format!(
                "{name} is true in a message of {role:?}; only those of the assistant are learned"
            ));
        }
        is_learned &= flag;
    }
    Ok(Turn {
        message,
        is_learned,
    })
}

/// Takes a flag out of a message.
fn flag(message: &mut Message, name: &str) -> Result<Option<bool>, String> {
    let flag = match message.get(name) {
        None => return Ok(None),
        Some(Value::Bool(flag)) => *flag,
        // A measured loss may be a field of that name.
        Some(_) if name == "loss" => return Ok(None),
        Some(value) => match value.as_f64() {
            Some(0.0) => false,
            Some(1.0) => true,
            _ => return Err(format!("{name} of a message is {value}; expected 0 or 1")),
        },
    };
    message.shift_remove(name);
    Ok(Some(flag))
}

/// Gives a turn of `ShareGPT` the names of chat templates.
fn named(message: &mut Message, from: &Value, value: Value) -> Result<(), String> {
    let role = match from.as_str() {
        Some("human" | "user") => "user",
        Some("gpt" | "assistant" | "chatgpt" | "model" | "function_call") => "assistant",
        Some("system") => "system",
        Some("tool" | "observation" | "function_response") => "tool",
        _ => {
            return Err(format!(
                "a turn is from {from}; expected human, gpt, system, function_call or observation"
            ));
        }
    };
    message.insert("role".to_owned(), role.into());
    if from != "function_call" {
        message.insert("content".to_owned(), value);
        return Ok(());
    }
    let call: Option<Value> = value
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok());
    let calls = match call {
        Some(Value::Array(calls)) => calls,
        Some(call) => vec![call],
        None => Vec::new(),
    };
    if calls.is_empty() || calls.iter().any(|call| !call["name"].is_string()) {
        return Err(format!(
            "a tool call is {value}; expected the JSON of an object with name and arguments"
        ));
    }
    let call = |call| serde_json::json!({"type": "function", "function": call});
    let calls: Vec<Value> = calls.into_iter().map(call).collect();
    message.insert("tool_calls".to_owned(), calls.into());
    Ok(())
}

/// The text of a content: itself, or its parts one after the other.
fn text_of(content: Value) -> Result<String, String> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => {
            return Err(format!(
                "content is {other}; expected a text or a list of parts"
            ));
        }
    };
    let text = |part: Value| match part {
        Value::String(text) => Ok(text),
        Value::Object(part) => {
            if let Some(flag) = FLAGS.iter().find(|flag| part.contains_key(**flag)) {
                return Err(format!(
                    "a part of a content has {flag:?}; only whole messages can be left out"
                ));
            }
            match (part.get("type").and_then(Value::as_str), part.get("text")) {
                (Some("text") | None, Some(Value::String(text))) => Ok(text.clone()),
                (kind, _) => Err(format!(
                    "a part of a content has the type {:?}; only \"text\" can be learned",
                    kind.unwrap_or("")
                )),
            }
        }
        other => Err(format!(
            "a part of a content is {other}; expected an object with text"
        )),
    };
    parts.into_iter().map(text).collect()
}
