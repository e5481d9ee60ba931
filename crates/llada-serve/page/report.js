// What is said of runs in numbers: figures, differences, the table of steps.

import { t } from "./i18n.js";
import { settingNames, valueOf } from "./settings.js";

const fixed = (x, digits) => (x === null ? "–" : x.toFixed(digits));

function make(name, text = "", className = "") {
  const element = document.createElement(name);
  if (text !== "") element.textContent = text;
  if (className) element.className = className;
  return element;
}

function rateOf(run) {
  return run.seconds > 0 ? run.written.length / run.seconds : null;
}

/** The figures of a run: name, number, digits. */
function figures(run) {
  return [
    ["passes", run.nfe, 0],
    ["seconds", run.seconds, 3],
    ["rate", rateOf(run), 0],
    ["tokens", run.written.length, 0],
    ["mean", run.mean, 2],
  ];
}

/** Writes the figures of a run into a list. */
export function showFigures(list, run) {
  list.replaceChildren(...figures(run).map(([name, number, digits]) => {
    const group = make("div");
    const value = make("dd", fixed(number, digits));
    value.dataset.figure = name;
    group.append(make("dt", t(name)), value);
    return group;
  }));
}

/** Writes an answer that has reasoning into an element: the reasoning folded, then the rest. */
export function showReasoning(element, run) {
  element.hidden = run.reasoning === null;
  if (element.hidden) return;
  const isOpen = element.querySelector("details")?.open ?? false;
  const details = make("details");
  details.open = isOpen;
  details.append(make("summary", t("reasoning")), make("p", run.reasoning));
  element.replaceChildren(details, make("p", run.answer, "answer"));
}

/** The positions at which two runs have written different tokens. */
export function differing([a, b]) {
  const [cellsA, cellsB] = [a.at(a.length), b.at(b.length)];
  const positions = new Set();
  for (let i = 0; i < Math.max(cellsA.length, cellsB.length); i++) {
    if (cellsA[i]?.id !== cellsB[i]?.id) positions.add(i);
  }
  return positions;
}

/** Writes what differs between two runs into an element. */
export function showDifferences(element, [a, b], differs) {
  const table = make("table");
  const head = make("tr");
  head.append(...["", "A", "B", t("difference")].map((text) => (text ? make("th", text) : make("td"))));
  for (const cell of head.querySelectorAll("th")) cell.scope = "col";
  table.append(make("caption", t("differences")), head);
  const row = (name, ...cells) => {
    const tr = make("tr");
    const th = make("th", t(name));
    th.scope = "row";
    tr.dataset.row = name;
    tr.append(th, ...cells.map((cell) => make("td", cell)));
    table.append(tr);
  };
  for (const name of settingNames().filter((name) => a.settings[name] !== b.settings[name])) {
    row(name, valueOf(a.settings, name), valueOf(b.settings, name), "");
  }
  const ofB = figures(b);
  figures(a).forEach(([name, number, digits], i) => {
    const other = ofB[i][1];
    row(name, fixed(number, digits), fixed(other, digits), difference(name, number, other));
  });
  const all = Math.max(a.masks.length, b.masks.length);
  const sentence = make("p", differs.size
    ? `${t("differing")}: ${t("differing.of", differs.size, all)}`
    : t("identical"));
  sentence.id = "differing";
  element.replaceChildren(sentence, table);
}

/** B as a multiple of A; of a mean, what B has more. */
function difference(name, a, b) {
  if (a === null || b === null) return "–";
  if (name === "mean") {
    const more = (b - a).toFixed(2);
    return Number(more) === 0 ? "0" : Number(more) > 0 ? `+${more}` : more.replace("-", "−");
  }
  return a > 0 ? `× ${(b / a).toFixed(2)}` : "–";
}

/** Writes a table of the steps of runs into an element. */
export function showSteps(element, runs) {
  element.replaceChildren(...runs.map((run) => {
    const table = make("table");
    if (runs.length > 1) table.append(make("caption", run.label));
    const head = make("tr");
    const edits = run.changes.some((change) => change.edits.length > 0) ? ["table.edits"] : [];
    const keys = ["table.step", "table.tokens", "table.confidence", ...edits];
    head.append(...keys.map((key) => make("th", t(key))));
    for (const cell of head.children) cell.scope = "col";
    table.append(head, ...run.frames.map((frame, i) => {
      const tr = make("tr");
      const tokens = make("td", frame.map((token) => token.text.replaceAll("\n", "⏎")).join(" · "));
      const confidences = frame.map((token) => fixed(token.confidence, 3)).join(" · ");
      tr.append(make("td", `${i + 1}`), tokens, make("td", confidences));
      if (edits.length) tr.append(make("td", run.edited(i + 1).join(" · ").replaceAll("\n", "⏎")));
      return tr;
    }));
    return table;
  }));
}
