// A grid of so many cells that only those in sight are made. What is asked for while scrolling is dropped once it has
// scrolled away; pictures that were seen are kept, up to a number.

import { dropped, h, settled } from "./dom.js";

const GAP_PX = 6;
const LABEL_PX = 20;
const KEPT = 600;
const WAIT_MS = 60;

export class Grid {
  /**
   * @param options `count` cells; `aspect` of their pictures; `load(from, to, signal)` gives
   *   [{at, url, label, title, damaged}] for cells from (inclusive) to (exclusive); `open(at)` a cell; `label`
   */
  constructor({ count, aspect, load, open, label, cell = 160, group = 30, signal }) {
    Object.assign(this, { count, aspect, load, cell, group, signal, opened: open });
    this.cells = new Map();
    this.kept = new Map();
    this.under = new Map();
    this.at = 0;
    this.sheet = h("div", { class: "sheet" });
    this.element = h("div", {
      class: "grid", role: "listbox", tabindex: 0, "aria-label": label, on: {
        scroll: () => this.scrolled(), keydown: (event) => this.key(event), focus: () => this.mark(this.at),
        click: (event) => { const hit = event.target.closest(".cell"); if (hit) { this.mark(Number(hit.dataset.at)); open(this.at); } },
      },
    }, this.sheet);
    this.later = settled(() => this.ask(), WAIT_MS);
    const seen = new ResizeObserver(() => this.lay());
    seen.observe(this.element);
    signal.addEventListener("abort", () => { seen.disconnect(); this.forget(() => true); });
  }

  /** Begin anew with other cells. */
  reset(count) {
    this.count = count;
    for (const one of this.under.values()) one.abort();
    this.under.clear();
    this.forget(() => true);
    this.at = 0;
    this.element.scrollTop = 0;
    this.lay();
  }

  lay() {
    if (!this.element.clientWidth) return;
    const first = this.first();
    this.columns = Math.max(1, Math.floor((this.element.clientWidth + GAP_PX) / (this.cell + GAP_PX)));
    this.wide = Math.floor((this.element.clientWidth - GAP_PX * (this.columns - 1)) / this.columns);
    this.high = Math.round(this.wide / this.aspect) + LABEL_PX + GAP_PX;
    this.sheet.style.height = `${Math.ceil(this.count / this.columns) * this.high}px`;
    for (const cell of this.cells.values()) cell.remove();
    this.cells.clear();
    this.element.scrollTop = Math.floor(first / this.columns) * this.high;
    this.draw();
    this.ask();
  }

  first() {
    return this.columns ? Math.floor(this.element.scrollTop / this.high) * this.columns : this.at;
  }

  /** Return the cells in sight, and a row before and behind: [from, to). */
  sight() {
    const rows = Math.ceil(this.element.clientHeight / this.high);
    const row = Math.floor(this.element.scrollTop / this.high);
    return [Math.max(0, (row - 1) * this.columns), Math.min(this.count, (row + rows + 2) * this.columns)];
  }

  scrolled() {
    this.draw();
    this.later();
  }

  draw() {
    const [from, to] = this.sight();
    for (const [at, cell] of this.cells) if (at < from || at >= to) { cell.remove(); this.cells.delete(at); }
    for (let at = from; at < to; at += 1) if (!this.cells.has(at)) this.make(at);
  }

  make(at) {
    const cell = h("div", {
      class: "cell", role: "option", id: `cell-${at}`, "aria-selected": String(at === this.at), "aria-label": `${at}`, data: { at },
      css: {
        transform: `translate(${(at % this.columns) * (this.wide + GAP_PX)}px, ${Math.floor(at / this.columns) * this.high}px)`,
        width: `${this.wide}px`, height: `${this.high - GAP_PX}px`,
      },
    }, h("div", { class: "picture", css: { height: `${this.high - GAP_PX - LABEL_PX}px` } }), h("span", { class: "caption", text: "" }));
    this.cells.set(at, cell);
    this.sheet.append(cell);
    const known = this.kept.get(at);
    if (known) this.show(cell, known);
  }

  show(cell, one) {
    const [picture, caption] = cell.children;
    if (one.url) picture.replaceChildren(h("img", { src: one.url, alt: "", decoding: "async", draggable: "false" }));
    else picture.textContent = one.damaged ?? "";
    cell.classList.toggle("damaged", Boolean(one.damaged));
    cell.classList.add("there");
    cell.title = one.title ?? "";
    cell.setAttribute("aria-label", one.title ?? one.label);
    caption.textContent = one.label;
  }

  /** Ask for what is in sight and not known, in groups; stop asking for what is out of sight. */
  ask() {
    if (this.signal.aborted || !this.columns) return;
    const [from, to] = this.sight();
    for (const [start, under] of this.under) {
      if (start + this.group <= from || start >= to) { under.abort(); this.under.delete(start); }
    }
    for (let start = Math.floor(from / this.group) * this.group; start < to; start += this.group) {
      const stop = Math.min(this.count, start + this.group);
      const missing = [];
      for (let at = start; at < stop; at += 1) if (!this.kept.has(at)) missing.push(at);
      const seen = missing.some((at) => at >= from && at < to);
      if (seen && !this.under.has(start)) this.bring(start, missing[0], missing.at(-1) + 1);
    }
  }

  async bring(group, start, stop) {
    const under = new AbortController();
    this.under.set(group, under);
    const signal = AbortSignal.any([under.signal, this.signal]);
    try {
      for (const one of await this.load(start, stop, signal)) {
        if (signal.aborted) return;
        this.keep(one);
      }
    } catch (error) {
      if (dropped(error) || signal.aborted) return;
      for (let at = start; at < stop; at += 1) {
        const cell = this.cells.get(at);
        if (cell && !this.kept.has(at)) this.show(cell, { label: `${at}`, damaged: error.code ?? "not reachable", title: error.message });
      }
    } finally {
      if (this.under.get(group) === under) this.under.delete(group);
    }
  }

  keep(one) {
    this.kept.set(one.at, one);
    const cell = this.cells.get(one.at);
    if (cell) this.show(cell, one);
    if (this.kept.size > KEPT && this.columns) {
      const [from, to] = this.sight();
      this.forget((at) => this.kept.size > KEPT && (at < from || at >= to));
    }
  }

  /** Let go of pictures, where `which` says so of their place. */
  forget(which) {
    for (const [at, { url }] of this.kept) if (which(at)) { URL.revokeObjectURL(url); this.kept.delete(at); }
  }

  /** Bring a cell into sight and mark it. */
  go(at) {
    const there = Math.min(this.count - 1, Math.max(0, at));
    const top = Math.floor(there / this.columns) * this.high;
    const { scrollTop, clientHeight } = this.element;
    const far = top < scrollTop - this.high || top > scrollTop + clientHeight;
    if (far) this.element.scrollTop = top - (clientHeight - this.high) / 2;
    else if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.high > scrollTop + clientHeight) this.element.scrollTop = top + this.high - clientHeight;
    this.draw();
    this.mark(there);
    this.later();
  }

  mark(at) {
    this.cells.get(this.at)?.setAttribute("aria-selected", "false");
    this.at = at;
    this.cells.get(at)?.setAttribute("aria-selected", "true");
    this.element.setAttribute("aria-activedescendant", `cell-${at}`);
    this.onmark?.(at);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const rows = Math.max(1, Math.floor(this.element.clientHeight / this.high));
    const by = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, Home: -this.count, End: this.count,
      PageUp: -rows * this.columns, PageDown: rows * this.columns,
    }[event.key];
    if (by) this.go(this.at + by);
    else if (event.key === "Enter" || event.key === " ") this.opened(this.at);
    else return;
    event.preventDefault();
  }
}
