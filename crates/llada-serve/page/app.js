// The page: what is asked for, the runs that come of it, and how they are shown.

import { ApiError, events, models, setKey } from "./api.js";
import { CanvasView, showLegend } from "./canvas.js";
import { speak, t, usualLanguage } from "./i18n.js";
import { Player } from "./player.js";
import { drawPlot } from "./plot.js";
import { differing, showDifferences, showFigures, showReasoning, showSteps } from "./report.js";
import { TraceError, addDenoise, addEnd, runOfCanvas, runsOfLines, runsOfText, traceOf } from "./run.js";
import { FieldError, buildSettings, clearProblems, fieldOf, fillSettings, markDiffering, markProblem, settingsOf } from "./settings.js";
import { PATHS, bodyOf, snippet } from "./snippets.js";

const $ = (id) => document.getElementById(id);
const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;

const EXAMPLES = [
  { name: "acrostic", task: "infill", text: "春□□□□，夏□□□□。秋□□□□，冬□□□□。" },
  { name: "reversal", task: "infill", text: "□□□□□，低头思故乡。" },
  { name: "middle", task: "infill", text: "床前明月光，□□□□□。□□□□□，低头思故乡。" },
  { name: "completion", task: "complete", text: "床前明月光，", settings: { gen_length: 18 } },
  { name: "instruction", task: "chat", text: "五言藏头：春夏秋冬。", model: "poems-instruct" },
];

/** What is shown: runs, their views, positions that differ. What runs: how to stop it. */
const shown = { runs: [], views: [], differs: new Set(), traces: [] };
let running = null;
let known = [];

const player = new Player({
  onShow: show,
  describe: (k) => shown.runs.filter((run) => 0 < k && k <= run.length).flatMap((run) => [
    ...run.frames[k - 1].map((token) => token.text), ...run.edited(k),
  ]).join(" "),
});

// ---- The form ----

function request(side) {
  const task = chosen("task");
  const settings = settingsOf(side, task);
  return { model: $("model").value, task, text: $("text").value, settings };
}

function isCompared() {
  return $("compare").checked;
}

function showForm() {
  const task = chosen("task");
  $("text-label").textContent = t(`text.${task}`);
  $("text-hint").textContent = t(`hint.${task}`);
  $("insert").hidden = task !== "infill";
  const protocol = known.find(({ id }) => id === $("model").value)?.llada.protocol ?? "llada";
  buildSettings($("settings"), { task, compared: isCompared(), protocol });
  $("examples").replaceChildren(...EXAMPLES.filter(isPossible).map((example) => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: t(`example.${example.name}`) });
    button.dataset.example = example.name;
    button.addEventListener("click", () => fill(example));
    return button;
  }));
  showSnippet();
}

/** An example of a model of its own needs that model. */
function isPossible({ model }) {
  return model === undefined || known.some(({ id }) => id === model);
}

function fill({ task, text, model, settings = {} }) {
  if (model !== undefined) chooseModel(model);
  document.querySelector(`input[name=task][value=${task}]`).checked = true;
  $("text").value = text;
  showForm();
  fillSettings(settings);
  clearProblems($("form"));
  showSnippet();
}

function chooseModel(id) {
  $("model").value = id;
  const { llada } = known.find((model) => model.id === id) ?? {};
  const isPossible = {
    infill: llada?.kind !== "autoregressive",
    complete: true,
    chat: llada?.has_chat_template ?? false,
  };
  for (const radio of document.querySelectorAll("input[name=task]")) {
    radio.disabled = !isPossible[radio.value];
    if (radio.disabled && radio.checked) document.querySelector("input[value=complete]").checked = true;
  }
}

async function loadModels() {
  known = await models();
  $("model").replaceChildren(...known.map(({ id }) => new Option(id, id)));
  chooseModel(known[0].id);
  $("key-field").hidden = $("key").value === "";
  showForm();
}

function showSnippet() {
  const code = $("snippet").firstChild;
  try {
    code.textContent = snippet(chosen("code"), request(0), location.origin);
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    code.textContent = error.message;
  }
}

async function copySnippet() {
  try {
    await navigator.clipboard.writeText($("snippet").textContent);
    say(t("copied"));
  } catch {
    say(t("copy.failed"));
    getSelection().selectAllChildren($("snippet"));
  }
}

// ---- Errors ----

/** Says an error where it belongs: at its field, or on top of the form. */
function report(error, side) {
  let message = error.message;
  if (error instanceof ApiError) {
    message ||= t(error.key, error.status);
    if (error.retryAfter !== null) message = t("error.retry", message, error.retryAfter);
    if (error.status === 401) {
      $("key-field").hidden = false;
      markProblem($("key"), message);
      return $("key").focus();
    }
  }
  const field = error instanceof FieldError
    ? fieldOf(error.name, error.side)
    : fieldOf(error.param, side);
  if (field) {
    markProblem(field, message);
    return field.focus();
  }
  $("form-error").textContent = message;
  $("form-error").hidden = false;
}

// ---- Runs ----

async function start() {
  if (running) return;
  clearProblems($("form"));
  const sides = isCompared() ? [0, 1] : [0];
  let side = 0;
  running = new AbortController();
  let state = "running";
  setState(state, t("running"));
  $("stage").scrollIntoView({ block: "nearest" });
  try {
    setKey($("key").value);
    const requests = sides.map((side) => request(side));
    // A key that was missing when the page was opened.
    if (known.length === 0) {
      await loadModels();
      requests.forEach((asked) => { asked.model = $("model").value; });
    }
    forget();
    for (side of sides) {
      if (sides.length > 1) $("status").textContent = t("running.of", "AB"[side]);
      await run(requests[side], sides.length > 1 ? "AB"[side] : "");
    }
    state = "done";
  } catch (error) {
    state = error.name === "AbortError" ? "stopped" : "failed";
    if (state === "failed") report(error, side);
  }
  running = null;
  finish(state);
}

/** One request, shown as its events come. */
async function run(asked, label) {
  const body = { ...bodyOf(asked), stream: true, stream_mode: "denoise" };
  let run = null;
  for await (const { event, data } of events(PATHS[asked.task], body, running.signal)) {
    if (event === "canvas") {
      run = runOfCanvas(data, label, asked.settings);
      add(run);
    } else if (event === "denoise") {
      addDenoise(run, data);
      player.extend({ last: run.length, steps: run.steps, live: true });
      plot();
    } else if (event === "end") {
      addEnd(run, data);
      showFigures(shown.views.at(-1).figures, run);
      showReasoning(shown.views.at(-1).said, run);
    }
  }
  if (!run?.isWhole) throw new ApiError("error.cut");
}

/** What is over is shown whole: differences, figures, the table. */
function finish(state) {
  const { runs } = shown;
  if (runs.length > 0) {
    const last = Math.max(...runs.map((run) => run.length));
    shown.differs = runs.length === 2 && runs.every((run) => run.isWhole) ? differing(runs) : new Set();
    player.extend({ last, steps: last, live: false });
    describe();
    show(player.k);
  }
  const textOf = (run) => (run.reasoning === null ? run.text() : run.answer);
  const texts = runs.map((run) => (run.label ? `${run.label}: ${textOf(run)}` : textOf(run))).join(" ");
  const [status, spoken] = {
    done: ["", t("done", texts)],
    opened: ["", t("opened", player.last)],
    stopped: [t("stopped", runs.at(-1)?.length ?? 0), ""],
    failed: [t("failed"), ""],
  }[state];
  setState(state, status);
  if (spoken) say(spoken);
}

function setState(state, status) {
  $("stage").dataset.state = state;
  $("status").textContent = status;
  say(status);
  const isRunning = state === "running";
  $("run").disabled = isRunning;
  $("stop").disabled = !isRunning;
  $("download").disabled = isRunning || !shown.runs.some((run) => run.length > 0);
}

function say(text) {
  $("live").textContent = text;
}

// ---- The stage ----

function forget() {
  player.pause();
  Object.assign(shown, { runs: [], views: [], differs: new Set(), traces: [] });
  $("panes").replaceChildren();
  $("differences").hidden = true;
  $("trace-problem").hidden = true;
  $("request-field").hidden = true;
}

/** Adds a run beside those that are shown. */
function add(run) {
  const pane = document.createElement("section");
  pane.className = "pane";
  if (run.label) {
    const title = document.createElement("h3");
    title.textContent = run.label;
    pane.append(title);
    pane.setAttribute("aria-label", run.label);
  }
  const canvas = document.createElement("div");
  const frame = document.createElement("div");
  frame.className = "frame";
  frame.append(canvas);
  const figures = document.createElement("dl");
  figures.className = "figures";
  const said = document.createElement("div");
  said.className = "said";
  said.hidden = true;
  pane.append(frame, said, figures);
  $("panes").append(pane);
  $("panes").classList.toggle("two", shown.runs.length > 0);
  $("empty").hidden = true;
  $("result").hidden = false;
  shown.runs.push(run);
  shown.views.push({ canvas: new CanvasView(canvas, run), figures, said });
  // Of two runs both are shown from their start, side by side.
  player.reset({ last: run.length, steps: run.steps, live: running !== null, k: 0 });
  plot();
}

/** Draws frame `k` of every run; one that has fewer stays at its last. */
function show(k) {
  const color = chosen("color");
  for (const [i, { canvas }] of shown.views.entries()) {
    const { length } = shown.runs[i];
    canvas.show(Math.min(k, length), color, k >= length ? shown.differs : undefined);
  }
  const steps = Math.max(1, ...shown.runs.map((run) => (run.isWhole ? run.length : Math.max(run.steps, run.length))));
  const edited = shown.runs.some((run) => run.changes.some(({ edits }) => edits.length > 0));
  showLegend($("legend"), color, { steps, compared: shown.differs.size > 0, edited });
  plot();
}

function plot() {
  if (shown.runs.length > 0) drawPlot($("plot"), shown.runs, player.k, (step) => player.goBy(step));
}

/** The numbers, in the language of the page. */
function describe() {
  const { runs, views, differs } = shown;
  views.forEach(({ figures, said }, i) => {
    showFigures(figures, runs[i]);
    showReasoning(said, runs[i]);
  });
  showSteps($("steps-table"), runs);
  $("differences").hidden = runs.length < 2 || !runs.every((run) => run.isWhole);
  if (!$("differences").hidden) showDifferences($("differences"), runs, differs);
  const mark = (name, text) => {
    const span = document.createElement("span");
    span.className = `key ${name}`;
    span.textContent = text;
    return span;
  };
  const of = runs.length > 1 ? ["A: ", "B: "] : [""];
  $("plot-legend").replaceChildren(...of.flatMap((label, i) => [
    mark(`token-${i}`, label + t("plot.token")), mark(`mean-${i}`, label + t("plot.mean")),
  ]));
}

// ---- Traces ----

function openTraces(read, name) {
  try {
    const runs = read();
    running?.abort();
    forget();
    shown.traces = runs;
    $("request").replaceChildren(...runs.map((_, i) => new Option(`${i + 1}`, i)));
    const isPair = runs.length === 2 && runs[0].label === "A" && runs[1].label === "B";
    $("request-field").hidden = runs.length === 1 || isPair;
    showTrace(isPair ? runs : [runs[0]]);
  } catch (error) {
    if (!(error instanceof TraceError)) throw error;
    $("trace-problem").textContent = t("error.trace", name, error.line, t(error.key, ...error.values));
    $("trace-problem").hidden = false;
  }
}

function showTrace(runs) {
  const { traces } = shown;
  const isChoice = !$("request-field").hidden;
  forget();
  shown.traces = traces;
  $("request-field").hidden = !isChoice;
  runs.forEach(add);
  finish("opened");
  player.go(player.last);
}

async function openFile(file) {
  if (!file) return;
  const text = await file.text();
  openTraces(() => runsOfText(text), file.name);
}

function download() {
  const url = URL.createObjectURL(new Blob([traceOf(shown.runs)], { type: "application/jsonl" }));
  const link = document.createElement("a");
  Object.assign(link, { href: url, download: "trace.jsonl" });
  link.click();
  URL.revokeObjectURL(url);
}

// ---- Preferences ----

function recall(name) {
  try {
    return localStorage.getItem(`llada.${name}`);
  } catch {
    return null;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(`llada.${name}`, value);
  } catch {
    // A page that may keep nothing works all the same.
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").value = theme;
}

function setLanguage(language) {
  speak(language);
  $("language").value = language;
  showForm();
  player.label();
  if (shown.runs.length > 0) {
    describe();
    show(player.k);
  }
}

// ---- Events ----

function listen() {
  const on = (id, event, handler) => $(id).addEventListener(event, handler);
  on("form", "submit", (event) => {
    event.preventDefault();
    start();
  });
  on("stop", "click", () => running?.abort());
  on("model", "change", () => {
    chooseModel($("model").value);
    showForm();
  });
  on("compare", "change", showForm);
  on("form", "input", (event) => {
    // Its fields are not there yet.
    if (event.target === $("compare")) return;
    markDiffering(isCompared());
    showSnippet();
  });
  for (const radio of document.querySelectorAll("input[name=task]")) radio.addEventListener("change", showForm);
  on("insert", "click", () => {
    const text = $("text");
    text.setRangeText("□", text.selectionStart, text.selectionEnd, "end");
    text.focus();
    showSnippet();
  });
  for (const radio of document.querySelectorAll("input[name=color]")) radio.addEventListener("change", () => show(player.k));
  for (const radio of document.querySelectorAll("input[name=code]")) radio.addEventListener("change", showSnippet);
  on("copy", "click", copySnippet);
  on("open", "click", () => $("file").click());
  on("file", "change", (event) => {
    openFile(event.target.files[0]);
    // The same file can be chosen again.
    event.target.value = "";
  });
  on("download", "click", download);
  on("request", "change", (event) => showTrace([shown.traces[event.target.value]]));
  on("theme", "change", (event) => {
    setTheme(event.target.value);
    remember("theme", event.target.value);
  });
  on("language", "change", (event) => {
    setLanguage(event.target.value);
    remember("language", event.target.value);
  });
  on("help", "click", () => $("keys").showModal());
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    openFile(event.dataTransfer.files[0]);
  });
  addEventListener("resize", plot);
  addEventListener("keydown", press);
}

function press(event) {
  const isCommand = event.ctrlKey || event.metaKey;
  const keys = {
    Enter: () => isCommand && start(),
    Escape: () => running?.abort(),
    ".": () => isCommand && shown.runs.length > 0 && player.toggle(),
    "/": () => isCommand && $("keys").showModal(),
  };
  if (isCommand && event.key in keys) event.preventDefault();
  if (!$("keys").open && !document.body.classList.contains("replay")) keys[event.key]?.();
  else if (event.key === ".") keys["."]();
}

async function begin() {
  setTheme(recall("theme") ?? "system");
  listen();
  setLanguage(recall("language") ?? usualLanguage());
  // A page of `llada replay` has its trace in it, and no server.
  const trace = $("trace");
  if (trace) {
    document.body.classList.add("replay");
    const { name, lines } = JSON.parse(trace.textContent);
    document.title = `${name} – llada`;
    openTraces(() => runsOfLines(lines.map((line, i) => [i + 1, line])), name);
    return;
  }
  try {
    await loadModels();
    fill(EXAMPLES[0]);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    report(error, 0);
  }
  document.body.dataset.ready = "true";
}

begin();
