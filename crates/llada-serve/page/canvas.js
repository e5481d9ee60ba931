// The canvas of a run: a cell for each token, colored by confidence or by step.

import { t } from "./i18n.js";
import { isSpecial } from "./run.js";

/** Bounds of the colors of confidence, from below. */
const CONFIDENCE = [0.2, 0.4, 0.6, 0.8];
/** Colors of steps. */
const STEP_COLORS = 6;

/** The class of a cell's color. `frames` is how many steps the run has. */
function colorOf(cell, color, frames) {
  // What fills an answer after its end was not predicted.
  if (cell.confidence === null) return "given";
  if (color === "confidence") {
    return `c${CONFIDENCE.filter((bound) => cell.confidence >= bound).length}`;
  }
  return `s${Math.min(STEP_COLORS - 1, Math.floor(((cell.frame - 1) * STEP_COLORS) / frames))}`;
}

/** Whether a text is the name of the token at the end of a text or a turn. */
function isEnd(text) {
  return isSpecial(text) && /eos|eot|end/i.test(text);
}

/** What a cell shows. */
function glyphOf(cell) {
  if (cell.masked) return "□";
  if (isEnd(cell.text)) return "∎";
  if (cell.text === "") return "·";
  return cell.text.replaceAll("\n", "⏎");
}

function titleOf(cell, position) {
  const state = cell.masked ? t("token.masked")
    : cell.confidence === null ? t("token.given")
    : t(cell.before === null ? "token.revealed" : "token.edited", cell.frame, cell.confidence.toFixed(3), cell.before);
  return `${t("token", cell.text, position)} · ${state}`;
}

/**
 * Cells of a line, or 0 where lines are as wide as they can be. A verse is set in lines of two
 * clauses if its first clause, to its punctuation, has 4 to 9 characters.
 */
function lineLength(cells) {
  const clause = cells.findIndex((cell) => /[，。？！；,.?!;]/.test(cell.text)) + 1;
  return clause >= 4 && clause <= 9 ? 2 * clause : 0;
}

/** Draws one run into an element. */
export class CanvasView {
  constructor(element, run) {
    this.element = element;
    this.run = run;
    const ofCharacters = run.start.every((cell) => [...cell.text].length <= 1 || isSpecial(cell.text));
    const line = ofCharacters ? lineLength(run.start) : 0;
    element.classList.add("canvas");
    element.classList.toggle("grid", ofCharacters);
    element.style.setProperty("--cells", line || 16);
    element.classList.toggle("verse", line > 0);
    element.lang = /\p{Script=Han}/u.test(run.text()) ? "zh-CN" : "";
    this.spans = run.start.map(() => document.createElement("span"));
    element.replaceChildren(...this.spans);
  }

  /** Shows the canvas after `k` steps; `differs` has the positions that are marked. */
  show(k, color, differs = new Set()) {
    const frames = Math.max(this.run.length, this.run.isWhole ? 1 : this.run.steps, 1);
    this.run.at(k).forEach((cell, position) => {
      const span = this.spans[position];
      const glyph = glyphOf(cell);
      if (span.firstChild?.data !== glyph) {
        span.replaceChildren(glyph, ...(cell.text.includes("\n") ? [document.createElement("br")] : []));
      }
      const classes = ["t"];
      if (cell.masked) classes.push("mask");
      else if (cell.given) classes.push("given");
      else classes.push(colorOf(cell, color, frames));
      if (cell.frame === k && k > 0) classes.push("new");
      if (cell.before !== null) classes.push("edited");
      if (isSpecial(cell.text)) classes.push("special");
      if (isEnd(cell.text)) classes.push("end");
      if (differs.has(position)) classes.push("differs");
      span.className = classes.join(" ");
      span.title = titleOf(cell, position);
    });
  }
}

/** Fills the legend of a way of coloring. */
export function showLegend(list, color, { steps, compared, edited }) {
  const item = (name, text) => {
    const li = document.createElement("li");
    const swatch = document.createElement("span");
    swatch.className = `swatch ${name}`;
    swatch.ariaHidden = "true";
    li.append(swatch, text);
    return li;
  };
  const bounds = [0, ...CONFIDENCE, 1];
  const last = Math.min(STEP_COLORS, Math.max(steps, 1));
  const ofSteps = Array.from({ length: last }, (_, i) => {
    // The first and the last step of the color.
    const at = (color) => Math.ceil((color * steps) / STEP_COLORS) + 1;
    const color = steps >= STEP_COLORS ? i : Math.floor((i * STEP_COLORS) / last);
    const [from, to] = steps >= STEP_COLORS ? [at(i), at(i + 1) - 1] : [i + 1, i + 1];
    return item(`s${color}`, from === to ? `${from}` : `${from}–${to}`);
  });
  const items = color === "confidence"
    ? CONFIDENCE.concat(1).map((to, i) => item(`c${i}`, `${bounds[i]}–${to}`))
    : ofSteps;
  items.push(item("given", t("legend.given")), item("mask", t("legend.mask")));
  if (edited) items.push(item("edited", t("legend.edited")));
  if (compared) items.push(item("differs", t("legend.differs")));
  list.replaceChildren(...items);
}
