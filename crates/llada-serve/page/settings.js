// The settings of the sampler: one column of fields, or two to be compared.

import { t } from "./i18n.js";

/**
 * Fields in the order of the form, with the names of the server; `loops` are those of the models that
 * have it, where not all do.
 */
const FIELDS = [
  { name: "gen_length", usual: "default.gen_length", notOf: "infill" },
  { name: "steps", usual: "default.steps" },
  { name: "block_length", usual: "default.block_length" },
  { name: "remasking", options: ["low_confidence", "random", "margin", "entropy", "running_confidence"] },
  { name: "threshold", usual: "default.off" },
  { name: "factor", usual: "default.off" },
  { name: "minimal_topk", usual: "1", loops: ["block_diffusion"] },
  { name: "editing_threshold", usual: "default.model", loops: ["block_diffusion", "rewriting"] },
  { name: "max_post_steps", usual: "16", loops: ["block_diffusion", "rewriting"] },
  { name: "num_to_transfer", usual: "1", loops: ["block_diffusion"] },
  { name: "alg", options: ["origin", "maskgit_plus", "topk_margin", "entropy"], loops: ["dream"] },
  { name: "alg_temp", usual: "0", loops: ["dream"] },
  { name: "eps", usual: "0.001", loops: ["dream"] },
  { name: "cache", options: ["none", "prefix", "dual", "activity"] },
  { name: "cfg_scale", usual: "default.off" },
  { name: "temperature", usual: "0" },
  { name: "seed", usual: "0" },
];

/** The loop of the model that is chosen. */
let ofModel = "llada";

/** Whether a field is there for a task and the model. */
function isThere({ notOf, loops }, task) {
  return notOf !== task && (loops?.includes(ofModel) ?? true);
}

/** Other names by which the server may call a field. */
const ALIASES = { max_tokens: "gen_length", max_completion_tokens: "gen_length" };

/** A field that holds no number. */
export class FieldError extends Error {
  constructor(side, name, value) {
    super(t("error.number", t(name), value));
    Object.assign(this, { side, name });
  }
}

/** The element of a field: side 0 is A, side 1 is B. */
function input(side, name) {
  return document.getElementById(`${name}-${"ab"[side]}`);
}

function control({ name, options, usual }, side) {
  const element = document.createElement(options ? "select" : "input");
  element.id = `${name}-${"ab"[side]}`;
  element.dataset.side = side;
  element.setAttribute("aria-describedby", `${element.id}-problem`);
  if (options) {
    element.append(...options.map((option) => new Option(t(option), option)));
  } else {
    Object.assign(element, { type: "text", inputMode: "decimal", autocomplete: "off" });
    element.placeholder = valueOf({}, name);
  }
  return element;
}

/** Builds the fields anew, in the language of the page, with the values that they had. */
export function buildSettings(container, { task, compared, protocol }) {
  ofModel = protocol;
  const values = [0, 1].map((side) => FIELDS.map(({ name }) => input(side, name)?.value));
  container.classList.toggle("compared", compared);
  const head = ["", "A", "B"].map((text, i) => {
    const span = document.createElement("span");
    span.textContent = text;
    if (i > 0) span.id = `side-${"ab"[i - 1]}`;
    span.className = "side";
    return span;
  });
  const rows = FIELDS.map((field, i) => {
    const row = document.createElement("div");
    row.className = "setting";
    row.hidden = !isThere(field, task);
    const label = document.createElement("label");
    Object.assign(label, { htmlFor: `${field.name}-a`, id: `${field.name}-label`, textContent: t(field.name) });
    row.append(label);
    for (const side of compared ? [0, 1] : [0]) {
      const element = control(field, side);
      // A second column starts as a copy of the first.
      const value = values[side][i] ?? values[0][i];
      if (value !== undefined) element.value = value;
      if (compared) element.setAttribute("aria-labelledby", `${field.name}-label side-${"ab"[side]}`);
      const problem = document.createElement("p");
      Object.assign(problem, { id: `${element.id}-problem`, className: "problem", hidden: true });
      row.append(element, problem);
    }
    return row;
  });
  const header = document.createElement("div");
  header.className = "setting head";
  header.append(...head);
  container.replaceChildren(...(compared ? [header] : []), ...rows);
  markDiffering(compared);
}

/** Marks the fields of B that are not as in A. */
export function markDiffering(compared) {
  if (!compared) return;
  for (const { name } of FIELDS) {
    const [a, b] = [input(0, name), input(1, name)];
    b.classList.toggle("other", a.value.trim() !== b.value.trim());
  }
}

/** Sets fields of side A, and empties all others. */
export function fillSettings(values) {
  for (const { name, options } of FIELDS) {
    input(0, name).value = values[name] ?? (options ? options[0] : "");
  }
}

/** What a side asks for, without what is as usual. Throws a FieldError. */
export function settingsOf(side, task) {
  const settings = {};
  for (const field of FIELDS) {
    const { name, options } = field;
    const value = input(side, name).value.trim();
    if (!isThere(field, task) || value === "" || value === options?.[0]) continue;
    if (!options && !Number.isFinite(Number(value))) throw new FieldError(side, name, value);
    settings[name] = options ? value : Number(value);
  }
  return settings;
}

/** The names of all settings. */
export function settingNames() {
  return FIELDS.map(({ name }) => name);
}

/** What a setting is, in words: the usual where it is not given. */
export function valueOf(settings, name) {
  const { options, usual } = FIELDS.find((field) => field.name === name);
  const value = settings[name] ?? options?.[0] ?? usual;
  return typeof value === "string" && (options || value.startsWith("default.")) ? t(value) : `${value}`;
}

/** The field that the server means by `param`, as an element, or null. */
export function fieldOf(param, side) {
  const name = /^[a-z_]*/.exec(param ?? "")[0];
  if (["text", "prompt", "messages", "tokens"].includes(name)) return document.getElementById("text");
  if (name === "model") return document.getElementById("model");
  const field = input(side, ALIASES[name] ?? name);
  return field?.closest("[hidden]") ? null : field;
}

/** Says at a field what is wrong with it. */
export function markProblem(element, message) {
  const problem = document.getElementById(`${element.id}-problem`);
  element.setAttribute("aria-invalid", "true");
  problem.textContent = message;
  problem.hidden = false;
}

/** Takes back what was said of fields. */
export function clearProblems(form) {
  for (const element of form.querySelectorAll("[aria-invalid]")) element.removeAttribute("aria-invalid");
  for (const problem of form.querySelectorAll(".problem")) problem.hidden = true;
}
