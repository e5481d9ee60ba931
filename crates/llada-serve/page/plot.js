// Confidence over steps: a point for each token that a step revealed, a line for their means.

import { t } from "./i18n.js";
import { meanOf } from "./run.js";

const HEIGHT = 190;
const MARGIN = { top: 10, right: 12, bottom: 30, left: 38 };

function svg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Steps that are named below the plot: about `n` of them, at round numbers. */
function ticks(last, n) {
  const raw = Math.max(1, last / n);
  const magnitude = 10 ** Math.floor(Math.log10(raw));
  const by = [1, 2, 5, 10].map((m) => m * magnitude).find((step) => step >= raw);
  const found = [];
  for (let x = by; x <= last; x += by) found.push(Math.round(x));
  // The first step is named, unless its number would touch the next.
  return found[0] - 1 < 0.6 * by ? found : [1, ...found];
}

/** The confidences of what a step revealed. */
function confidences(frame) {
  return frame.map((revealed) => revealed.confidence).filter((confidence) => confidence !== null);
}

/** What the plot says in words. */
function describePlot(runs) {
  const sentences = runs.filter((run) => run.length > 0).map((run) => {
    const all = run.frames.flatMap(confidences);
    const fixed = (x) => (Number.isFinite(x) ? x.toFixed(2) : "–");
    const lowest = all.reduce((a, b) => Math.min(a, b), Infinity);
    return t("plot.run", run.label || "A", run.length, fixed(meanOf(all) ?? NaN), fixed(lowest));
  });
  return t("plot.about", sentences.join(" "));
}

/** Draws one or two runs into an element as wide as it is. `k` is the step that is shown. */
export function drawPlot(element, runs, k, onStep) {
  const width = Math.max(element.clientWidth, 240);
  const last = Math.max(...runs.map((run) => Math.max(run.length, run.isWhole ? 0 : run.steps)), 1);
  const inner = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  const x = (step) => MARGIN.left + (last === 1 ? 0.5 : (step - 1) / (last - 1)) * inner.width;
  const y = (confidence) => MARGIN.top + (1 - confidence) * inner.height;
  const picture = svg("svg", {
    viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": describePlot(runs),
  });
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    picture.append(
      svg("line", { class: "rule", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
      svg("text", { class: "end", x: MARGIN.left - 7, y: y(value) + 4 }, `${value}`),
    );
  }
  for (const step of ticks(last, Math.max(3, Math.floor(inner.width / 55)))) {
    picture.append(svg("text", { class: "middle", x: x(step), y: HEIGHT - 9 }, `${step}`));
  }
  if (k > 0) {
    const at = x(Math.min(k, last));
    picture.append(svg("line", { class: "now", x1: at, x2: at, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
  }
  runs.forEach((run, i) => picture.append(drawRun(run, i, k, x, y)));
  picture.addEventListener("pointerdown", (event) => {
    const left = picture.getBoundingClientRect().left;
    const share = (event.clientX - left - MARGIN.left) / inner.width;
    onStep(Math.round(1 + Math.min(1, Math.max(0, share)) * (last - 1)));
  });
  element.replaceChildren(picture);
}

function drawRun(run, number, k, x, y) {
  const group = svg("g", { class: `series series-${number}` });
  const means = [];
  run.frames.forEach((revealed, i) => {
    const state = i < k ? "seen" : "ahead";
    for (const confidence of confidences(revealed)) {
      const [cx, cy] = [x(i + 1), y(confidence)];
      group.append(number === 0
        ? svg("circle", { class: `token ${state}`, cx, cy, r: 3.5 })
        : svg("rect", { class: `token ${state}`, x: cx - 3, y: cy - 3, width: 6, height: 6 }));
    }
    const mean = meanOf(confidences(revealed));
    if (mean !== null) means.push(`${x(i + 1)},${y(mean)}`);
  });
  group.prepend(svg("polyline", { class: "mean", points: means.join(" ") }));
  return group;
}
