// A request as a program: curl, Python, Rust.

/** Where a task is asked for. */
export const PATHS = {
  infill: "/v1/infill",
  complete: "/v1/completions",
  chat: "/v1/chat/completions",
};

/** The body of a request, without what only a stream needs. */
export function bodyOf({ model, task, text, settings }) {
  const { gen_length, ...sampler } = settings;
  const what = {
    infill: { text },
    complete: { prompt: text },
    chat: { messages: [{ role: "user", content: text }] },
  }[task];
  const length = gen_length === undefined ? {} : { max_tokens: gen_length };
  return { model, ...what, ...length, ...sampler };
}

/** The program in a language: `curl`, `python` or `rust`. */
export function snippet(language, request, origin) {
  return { curl, python, rust }[language](request, origin);
}

function curl(request, origin) {
  const body = JSON.stringify(bodyOf(request)).replaceAll("'", "'\\''");
  return `curl ${origin}${PATHS[request.task]} \\
  -H 'Content-Type: application/json' \\
  -d '${body}'`;
}

function python(request, origin) {
  const body = bodyOf(request);
  if (request.task === "infill") {
    return [
      "import json",
      "import urllib.request",
      "",
      `body = ${pythonDict(body, "    ")}`,
      "request = urllib.request.Request(",
      `    "${origin}/v1/infill",`,
      "    data=json.dumps(body).encode(),",
      '    headers={"Content-Type": "application/json"},',
      ")",
      "with urllib.request.urlopen(request) as response:",
      '    print(json.load(response)["text"])',
    ].join("\n");
  }
  // The client knows these; the others go into extra_body.
  const known = ["model", "prompt", "messages", "max_tokens", "temperature", "seed"];
  const [own, extra] = [{}, {}];
  for (const [key, value] of Object.entries(body)) (known.includes(key) ? own : extra)[key] = value;
  const args = Object.entries(own).map(([key, value]) => `    ${key}=${JSON.stringify(value)},`);
  if (Object.keys(extra).length) args.push(`    extra_body=${pythonDict(extra, "        ", "    ")},`);
  const isChat = request.task === "chat";
  return `from openai import OpenAI

client = OpenAI(base_url="${origin}/v1", api_key="none")
answer = client.${isChat ? "chat.completions" : "completions"}.create(
${args.join("\n")}
)
print(answer.choices[0].${isChat ? "message.content" : "text"})`;
}

function pythonDict(object, indent, end = "") {
  const lines = Object.entries(object).map(([key, value]) => `${indent}"${key}": ${JSON.stringify(value)},`);
  return `{\n${lines.join("\n")}\n${end}}`;
}

function rust(request) {
  const { model, task, text, settings } = request;
  const { fields, uses } = overrides(settings);
  const isChat = task === "chat";
  const call = task === "infill" ? "infill" : "generate";
  const prompt = isChat
    ? `
    let message = Message::user(${rustString(text)});
    let prompt = checkpoint.template()?.render(&[message], true)?;`
    : `
    let prompt = ${rustString(text)};`;
  const imports = [
    ...(uses.length ? [`use llada::sample::{${uses.sort().join(", ")}};`.replace(/\{(\w+)\}/, "$1")] : []),
    ...(isChat ? ["use llada::text::Message;"] : []),
    "use llada::{Checkpoint, CpuConfig, Device, Overrides};",
  ];
  const changed = fields.length
    ? `Overrides {
${fields.map((field) => `        ${field},`).join("\n")}
        ..Overrides::default()
    }`
    : "Overrides::default()";
  return `${imports.join("\n")}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::cpu(CpuConfig::default())?;
    let checkpoint = ${checkpointOf(model)};${prompt}
    let precision = checkpoint.source().default_precision();
    let llada = checkpoint.frozen(&device, precision)?;
    let settings = ${changed};
    println!("{}", llada.${call}(prompt, &settings)?.text);
    Ok(())
}`;
}

/** The embedded model has a name of the server's; of others the name is the path. */
function checkpointOf(model) {
  if (model === "poems") return "Checkpoint::embedded()?";
  if (model === "poems-instruct") {
    return 'Checkpoint::embedded()?.with_adapter("path/to/adapter".as_ref(), 1.0)?';
  }
  return `Checkpoint::open(${rustString(model)}.as_ref())?`;
}

/** The fields of `Overrides`, and the types that they name. */
function overrides(settings) {
  const [fields, uses] = [[], []];
  const float = (x) => (Number.isInteger(x) ? `${x}.0` : `${x}`);
  const camel = (name) => name.replace(/(^|_)(\w)/g, (_, __, letter) => letter.toUpperCase());
  const variant = (type, name) => {
    uses.push(type);
    return `${type}::${camel(name)}`;
  };
  for (const [name, value] of Object.entries(settings)) {
    switch (name) {
      case "gen_length":
      case "steps":
      case "block_length":
      case "minimal_topk":
      case "max_post_steps":
      case "num_to_transfer":
        fields.push(`${name}: Some(${value})`);
        break;
      case "threshold":
      case "factor":
        fields.push(`process: Some(${variant("Process", name)}(${float(value)}))`);
        break;
      case "editing_threshold":
      case "alg_temp":
      case "eps":
        fields.push(`${name}: Some(${float(value)})`);
        break;
      case "alg":
        fields.push(`alg: Some(${variant("Alg", value)})`);
        break;
      case "remasking":
        fields.push(`remasking: ${variant("Remasking", value)}`);
        break;
      case "cache":
        fields.push(`cache: ${variant("CacheMode", value)}`);
        break;
      case "seed":
        fields.push(`seed: ${value}`);
        break;
      default:
        fields.push(`${name}: ${float(value)}`);
    }
  }
  return { fields, uses };
}

function rustString(text) {
  const escaped = text.replace(/[\\"]/g, "\\$&").replaceAll("\n", "\\n").replaceAll("\r", "\\r").replaceAll("\t", "\\t");
  return `"${escaped.replace(/\p{Cc}/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`)}"`;
}
