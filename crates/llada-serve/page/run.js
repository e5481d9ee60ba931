// A run: the canvas at its start, and what each step revealed and edited. It comes out of the events of a
// stream or out of a trace, and is written as one.

/**
 * Frame k of a run is its canvas after k steps; frame 0 is its start.
 * `start` has a `{id, text, masked}` for each position, `frames` the revealed
 * `{position, token, text, confidence}` of each step, `changes` its `{edits, window}`: what it did to
 * tokens that were written before, and the block in which that moved others.
 */
export class Run {
  constructor({ start, promptTokens = null, steps = 0, label = "", settings = {} }) {
    Object.assign(this, { start, promptTokens, steps, label, settings });
    this.frames = [];
    this.changes = [];
    this.seconds = null;
    this.nfe = null;
    this.reasoning = null;
    this.answer = "";
    this.isWhole = false;
  }

  get length() {
    return this.frames.length;
  }

  /**
   * The canvas after `k` steps: `{id, text, masked, given, frame, confidence, before}` for each
   * position; `before` is the text that was replaced, or null.
   */
  at(k) {
    const cells = this.start.map((cell) => ({
      ...cell, given: !cell.masked, frame: 0, confidence: null, before: null,
    }));
    for (let frame = 1; frame <= Math.min(k, this.length); frame++) {
      this.edit(cells, frame);
      for (const { position, token, text, confidence } of this.frames[frame - 1]) {
        // A mask may win; it is then asked again.
        const masked = token === this.maskId;
        cells[position] = {
          id: token, text, confidence, frame, masked, given: false, before: null,
        };
      }
    }
    return cells;
  }

  /** Moves and replaces what the step of a frame has edited. */
  edit(cells, frame) {
    const { edits, window: [start, end] } = this.changes[frame - 1];
    const mask = {
      id: this.maskId, text: "□", confidence: null, frame: 0, masked: true, given: false, before: null,
    };
    const block = cells.slice(start, end);
    const places = (kind) => edits.filter((edit) => edit.kind === kind)
      .map(({ position }) => position - start).sort((a, b) => a - b);
    for (const at of places("deleted").reverse()) block.splice(at, 1);
    // The place of a mask that was put in is that after the step.
    for (const at of places("inserted")) block.splice(at, 0, { ...mask, frame });
    block.push(...Array.from({ length: Math.max(0, end - start - block.length) }, () => ({ ...mask })));
    cells.splice(start, end - start, ...block.slice(0, end - start));
    for (const { kind, position, to, to_text: text, confidence, from_text: before } of edits) {
      if (kind !== "replaced") continue;
      cells[position] = {
        id: to, text, confidence, frame, masked: to === this.maskId, given: false, before,
      };
    }
  }

  /** What a step has edited, a text for each edit. */
  edited(frame) {
    const signs = {
      replaced: ({ from_text: from, to_text: to }) => `${from}→${to}`,
      deleted: ({ from_text: from }) => `−${from}`,
      inserted: () => "+□",
    };
    return this.changes[frame - 1].edits.map((edit) => signs[edit.kind](edit));
  }

  get maskId() {
    return this.start.find((cell) => cell.masked)?.id ?? null;
  }

  /** Positions that were masks at the start. */
  get masks() {
    return this.start.flatMap((cell, position) => (cell.masked ? [position] : []));
  }

  /** Tokens that were written. */
  get written() {
    return this.at(this.length).filter((cell) => !cell.given && !cell.masked);
  }

  /** Mean confidence of what was written, or null. */
  get mean() {
    return meanOf(this.written.map((cell) => cell.confidence).filter((c) => c !== null));
  }

  /** The text after `k` steps. */
  text(k = this.length) {
    return this.at(k).map((cell) => (cell.masked ? "□" : isSpecial(cell.text) ? "" : cell.text)).join("");
  }
}

/** The mean of numbers, or null of none. */
export function meanOf(numbers) {
  return numbers.length ? numbers.reduce((a, b) => a + b, 0) / numbers.length : null;
}

/** Whether a text is the name of a special token, such as <eos> or [EOS]. */
export function isSpecial(text) {
  return /^(<[^\s<>]+>|\[[A-Z_]+\])$/.test(text);
}

/** A run out of the event `canvas` of a stream. */
export function runOfCanvas(event, label, settings) {
  const masked = new Set(event.masked);
  const start = event.tokens.map((id, i) => ({
    id, text: masked.has(i) ? "□" : event.texts[i], masked: masked.has(i),
  }));
  return new Run({ start, promptTokens: event.prompt_tokens, steps: event.steps, label, settings });
}

/** Adds an event `denoise` of a stream. */
export function addDenoise(run, event) {
  run.steps = event.steps;
  run.frames.push(event.positions.map((position, i) => ({
    position,
    token: event.tokens[i],
    text: event.texts[i],
    confidence: event.confidences[i],
  })));
  run.changes.push(changesOf(event));
}

/** What a step of a stream or of a trace has edited. */
function changesOf({ edits = [], window = [0, 0] }) {
  return { edits, window };
}

/** Adds the event `end` of a stream. */
export function addEnd(run, event) {
  fillAfterEnd(run, run.frames.at(-1), event.tokens);
  const { nfe, seconds, text: answer, reasoning_content: reasoning = null } = event;
  Object.assign(run, { nfe, seconds, answer, reasoning, isWhole: true });
}

/**
 * Adds to a frame what is no mask in `canvas` any more though no step revealed it: an answer that
 * ended early is filled with its end token, which has no confidence.
 */
function fillAfterEnd(run, frame, canvas) {
  if (!frame || canvas?.length !== run.start.length) return;
  const ends = run.frames.flat();
  run.at(run.length).forEach((cell, position) => {
    const token = canvas[position];
    if (!cell.masked || token === cell.id) return;
    const text = ends.find((revealed) => revealed.token === token)?.text ?? `#${token}`;
    frame.push({ position, token, text, confidence: null });
  });
}

/** What is wrong with a line of a trace: a key of i18n.js with its values. */
export class TraceError extends Error {
  constructor(line, key, ...values) {
    super(`line ${line}: ${key} ${values.join(" ")}`);
    Object.assign(this, { line, key, values });
  }
}

/** The runs in the text of a trace, one for each request. Throws a TraceError. */
export function runsOfText(text) {
  const lines = [];
  text.replace(/^\uFEFF/, "").split("\n").forEach((line, i) => {
    if (line.trim() === "") return;
    let value = null;
    try {
      value = JSON.parse(line);
    } catch {
      // Said below.
    }
    if (value === null || typeof value !== "object") throw new TraceError(i + 1, "trace.json");
    lines.push([i + 1, value]);
  });
  return runsOfLines(lines);
}

/** The runs of the lines of a trace, each with its number. Throws a TraceError. */
export function runsOfLines(lines) {
  const requests = new Map();
  for (const [number, line] of lines) {
    checkLine(number, line);
    const before = requests.get(line.request) ?? [];
    if (line.step !== before.length) {
      throw new TraceError(number, "trace.order", line.step, before.length);
    }
    const canvas = before[0]?.canvas ?? line.canvas;
    if (!Array.isArray(canvas)) throw new TraceError(number, "trace.field", "canvas");
    if (line.canvas && line.canvas.length !== canvas.length) {
      throw new TraceError(number, "trace.canvas", line.canvas.length, canvas.length);
    }
    for (const { position } of line.revealed) {
      if (position >= canvas.length) {
        throw new TraceError(number, "trace.position", position, canvas.length);
      }
    }
    if ((line.window ?? [0, 0])[1] > canvas.length) {
      throw new TraceError(number, "trace.position", line.window[1], canvas.length);
    }
    requests.set(line.request, before);
    before.push(line);
  }
  if (requests.size === 0) throw new TraceError(1, "trace.empty");
  return [...requests.values()].map(runOfLines);
}

function checkLine(number, line) {
  const isCount = (n) => Number.isSafeInteger(n) && n >= 0;
  for (const field of ["request", "step", "steps"]) {
    if (!isCount(line[field])) throw new TraceError(number, "trace.field", field);
  }
  const isRevealed = (r) => isCount(r?.position) && isCount(r.token)
    && (typeof r.confidence === "number" || r.confidence === null);
  if (!Array.isArray(line.revealed) || !line.revealed.every(isRevealed)) {
    throw new TraceError(number, "trace.field", "revealed");
  }
  const { edits, window: [start, end] = [] } = changesOf(line);
  const isInside = (at) => isCount(at) && start <= at && at < end;
  const isEdit = (edit) => isInside(edit?.position)
    && (["deleted", "inserted"].includes(edit.kind) || (edit.kind === "replaced" && isCount(edit.to)));
  if (!Array.isArray(edits) || !isCount(start) || !isCount(end) || !edits.every(isEdit)) {
    throw new TraceError(number, "trace.field", "edits");
  }
}

function runOfLines(lines) {
  const [first] = lines;
  const texts = textsOf(lines);
  const revealed = new Set(lines.flatMap((line) => line.revealed.map(({ position }) => position)));
  const later = new Set(lines.slice(1).flatMap((line) => line.revealed.map(({ position }) => position)));
  first.revealed.forEach(({ position }) => later.delete(position));
  const isMask = (id, i) => later.has(i) || texts[i] === "□";
  const maskId = first.canvas.find(isMask) ?? null;
  const start = first.canvas.map((id, i) => {
    const masked = revealed.has(i) || id === maskId;
    return { id: masked ? maskId ?? -1 : id, text: masked ? "□" : texts[i], masked };
  });
  const run = new Run({
    start,
    promptTokens: first.prompt_tokens ?? null,
    steps: first.steps,
    label: first.label ?? "",
    settings: first.settings ?? {},
  });
  run.frames = lines.map((line) => line.revealed.map(({ position, token, text, confidence }) => ({
    position, token, text: text ?? `#${token}`, confidence,
  })));
  run.changes = lines.map(changesOf);
  const last = lines.at(-1);
  fillAfterEnd(run, run.frames.at(-1), last.canvas);
  run.nfe = last.nfe ?? null;
  run.seconds = last.seconds ?? null;
  run.isWhole = last.masked === 0;
  return run;
}

/**
 * The text of each position of the first canvas. A trace of before `texts` has the text of the
 * canvas as a whole: of characters it is one for each position, else a token that no step revealed
 * is shown as its number.
 */
function textsOf(lines) {
  const [first] = lines;
  const { canvas } = first;
  if (Array.isArray(first.texts) && first.texts.length === canvas.length) return first.texts.map(String);
  const characters = [...(first.text ?? "")];
  // A text of whole documents ends with its end token, which has no text.
  if ([0, 1].includes(canvas.length - characters.length)) {
    return canvas.map((_, i) => characters[i] ?? "<eos>");
  }
  const known = new Map(lines.flatMap((line) => line.revealed.map((r) => [r.token, r.text])));
  return canvas.map((id) => known.get(id) ?? `#${id}`);
}

/** A trace of runs, as `--trace` writes it: a JSON object a line. */
export function traceOf(runs) {
  const lines = runs.flatMap((run, request) => run.frames.map((revealed, step) => {
    const cells = run.at(step + 1);
    const isLast = step + 1 === run.length;
    return JSON.stringify({
      request,
      step,
      steps: run.steps,
      masked: cells.filter((cell) => cell.masked).length,
      revealed,
      canvas: cells.map((cell) => cell.id),
      text: run.text(step + 1),
      ...(run.changes[step].edits.length > 0 && run.changes[step]),
      ...(step === 0 && {
        prompt_tokens: run.promptTokens,
        texts: cells.map((cell) => cell.text),
        label: run.label,
        settings: run.settings,
      }),
      ...(isLast && run.nfe !== null && { nfe: run.nfe, seconds: run.seconds }),
    });
  }));
  return lines.join("\n") + "\n";
}
