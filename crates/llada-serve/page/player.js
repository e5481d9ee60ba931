// The replay: a slider, buttons, and a clock that goes on by itself.

import { t } from "./i18n.js";

const element = (id) => document.getElementById(id);

/**
 * Goes through the frames 0 to `last`. While `live`, it waits at the last one for those that are
 * still to come.
 */
export class Player {
  /** `onShow` draws a frame; `describe` says in words what is new in it. */
  constructor({ onShow, describe }) {
    Object.assign(this, { onShow, describe, k: 0, last: 0, steps: 0, live: false, timer: null });
    element("slider").addEventListener("input", (event) => this.goBy(Number(event.target.value)));
    element("first").addEventListener("click", () => this.goBy(0));
    element("back").addEventListener("click", () => this.goBy(this.k - 1));
    element("forward").addEventListener("click", () => this.goBy(this.k + 1));
    element("last").addEventListener("click", () => this.goBy(this.last));
    element("play").addEventListener("click", () => this.toggle());
  }

  /** Starts over with another run, at its frame `k`. */
  reset({ last, steps, live, k }) {
    this.pause();
    Object.assign(this, { last, steps, live });
    this.go(k);
    if (live) this.play();
  }

  /** More frames have come, or the last of them. */
  extend({ last, steps, live }) {
    Object.assign(this, { last, steps, live });
    // Who wants no motion sees what there is.
    if (this.timer !== null && matchMedia("(prefers-reduced-motion: reduce)").matches) this.go(last);
    else this.label();
  }

  /** Shows a frame that the user asked for. */
  goBy(k) {
    this.pause();
    this.go(k);
  }

  go(k) {
    this.k = Math.min(Math.max(k, 0), this.last);
    this.label();
    this.onShow(this.k);
  }

  toggle() {
    if (this.timer !== null) return this.pause();
    if (this.k >= this.last && !this.live) this.go(0);
    this.play();
  }

  play() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.tick(), Number(element("speed").value));
    this.label();
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = null;
    this.label();
  }

  tick() {
    if (this.k < this.last) this.go(this.k + 1);
    if (this.k < this.last || this.live) this.play();
    else this.pause();
  }

  label() {
    const isPlaying = this.timer !== null;
    const steps = this.live ? Math.max(this.steps, this.last) : this.last;
    const position = t(this.k === 0 ? "position.start" : "position", this.k, steps);
    const slider = element("slider");
    slider.max = this.last;
    slider.value = this.k;
    slider.setAttribute("aria-valuetext", `${position}: ${this.describe(this.k)}`);
    element("position").textContent = position;
    const play = element("play");
    play.classList.toggle("playing", isPlaying);
    play.setAttribute("aria-label", t(isPlaying ? "pause" : "play"));
    play.dataset.i18nLabel = isPlaying ? "pause" : "play";
    element("player").dataset.playing = isPlaying;
  }
}
