// Pictures beside each other, each drawn from its own frames at the one playhead.

import { ICONS, dropped, h, icon } from "./dom.js";

const REST_MS = 160;

/** One picture; `source` has its frames. */
export class Pane {
  constructor({ name, title, note, source, aspect, onBig }) {
    Object.assign(this, { name, source, said: note ?? "", shown: -1, frame: 0 });
    this.canvas = h("canvas", { role: "img", "aria-label": `${title}, no frame yet` });
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.note = h("small");
    this.button = h("button", {
      type: "button", class: "enlarge", "aria-label": `Enlarge ${title}`, "aria-pressed": "false",
      title: `Enlarge ${title}`, on: { click: onBig },
    }, icon(ICONS.big, 14));
    this.title = title;
    this.element = h("figure", { class: "pane", data: { pane: name }, css: { "--aspect": aspect }, on: { dblclick: onBig } },
      this.canvas, h("figcaption", {}, h("b", { text: title }), this.note), this.button);
    source.tell = (frame) => { if (frame === this.frame || source.error) this.draw(this.frame); this.onload?.(); };
  }

  /** Show a frame, or wait for it: what was shown stays until then. */
  draw(frame) {
    this.frame = frame;
    this.source.want(frame);
    const picture = this.source.at(frame);
    this.element.classList.toggle("waiting", !picture && !this.source.error);
    this.element.classList.toggle("broken", Boolean(this.source.error));
    this.note.textContent = this.source.error?.message ?? this.said;
    if (!picture) {
      const never = this.source.has && !this.source.has(frame);
      this.element.classList.toggle("none", Boolean(never));
      if (never) this.element.classList.remove("waiting");
      return;
    }
    this.element.classList.remove("none");
    this.paint(picture);
    this.shown = frame;
    this.element.dataset.shown = frame;
    this.canvas.setAttribute("aria-label", `${this.title}, frame ${frame}`);
  }

  paint(picture) {
    if (this.canvas.width !== picture.width || this.canvas.height !== picture.height) {
      this.canvas.width = picture.width;
      this.canvas.height = picture.height;
    }
    this.context.drawImage(picture, 0, 0);
  }

  /** Show the frame at the video's own size, where the playhead rests and what is kept is smaller. */
  async sharpen(signal) {
    const { frame } = this;
    if (!this.source.whole || this.shown !== frame) return;
    if (this.canvas.clientWidth * devicePixelRatio <= this.canvas.width * 1.05) return;
    try {
      const picture = await this.source.whole(frame, signal);
      if (!picture) return;
      if (!signal.aborted && this.frame === frame) this.paint(picture);
      picture.close();
    } catch (error) {
      if (!dropped(error)) this.source.failed(error);
    }
  }
}

/** The same picture of two jobs, one over the other, with an edge between them that moves. */
export class Wipe extends Pane {
  /** `group` has all wipes that move together. */
  constructor(options, other, names, group) {
    super(options);
    this.other = other;
    this.at = 0.5;
    this.group = group;
    group.push(this);
    other.tell = () => this.draw(this.frame);
    this.edge = h("div", {
      class: "edge", role: "slider", tabindex: 0, "aria-label": `Edge between ${names[0]} and ${names[1]}`,
      "aria-valuemin": 0, "aria-valuemax": 100, on: { keydown: (event) => this.key(event) },
    });
    this.element.classList.add("wipe");
    this.element.append(h("div", { class: "frame-of" }, this.edge,
      h("span", { class: "side a", text: names[0] }), h("span", { class: "side b", text: names[1] })));
    this.element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.target.closest("button")) return;
      this.element.setPointerCapture(event.pointerId);
      this.drag(event);
    });
    this.element.addEventListener("pointermove", (event) => this.element.hasPointerCapture(event.pointerId) && this.drag(event));
    this.place();
  }

  key(event) {
    const by = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    this.move(this.at + by * (event.shiftKey ? 5 : 1));
  }

  drag(event) {
    const box = this.canvas.getBoundingClientRect();
    this.move((event.clientX - box.left) / box.width);
  }

  move(at) {
    for (const one of this.group) {
      one.at = Math.min(1, Math.max(0, at));
      one.place();
      one.draw(this.frame);
    }
  }

  place() {
    this.element.style.setProperty("--edge", `${100 * this.at}%`);
    this.edge.setAttribute("aria-valuenow", Math.round(100 * this.at));
  }

  draw(frame) {
    this.other?.want(frame);
    super.draw(frame);
  }

  paint(picture) {
    super.paint(picture);
    const second = this.other?.at(this.frame);
    const { width, height } = this.canvas;
    const from = Math.round(this.at * width);
    if (second && from < width) {
      const scale = second.width / width;
      this.context.drawImage(second, from * scale, 0, second.width - from * scale, second.height, from, 0, width - from, height);
    }
    this.element.dataset.both = second ? this.frame : "";
  }

  async sharpen() {
    // both halves stay at the size that is kept: one sharper than the other would mislead
  }
}

/** The grid of panes: as many columns as make the pictures largest. */
export class Wall {
  constructor(signal) {
    this.element = h("div", { class: "wall" });
    this.panes = [];
    this.big = null;
    this.rest = null;
    const seen = new ResizeObserver(() => this.lay());
    seen.observe(this.element);
    signal.addEventListener("abort", () => { seen.disconnect(); this.rest?.abort(); clearTimeout(this.timer); });
  }

  set(panes) {
    this.panes = panes;
    this.element.replaceChildren(...panes.map((pane) => pane.element));
    this.enlarge(panes.some((pane) => pane.name === this.big) ? this.big : null);
  }

  enlarge(name) {
    this.big = name;
    for (const pane of this.panes) {
      pane.element.hidden = name !== null && pane.name !== name;
      pane.button.setAttribute("aria-pressed", String(pane.name === name));
    }
    this.lay();
    this.settle();
  }

  draw(frame) {
    for (const pane of this.panes) if (!pane.element.hidden) pane.draw(frame);
    this.frame = frame;
    this.settle();
  }

  settle() {
    this.rest?.abort();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.rest = new AbortController();
      const { signal } = this.rest;
      for (const pane of this.panes) if (!pane.element.hidden) pane.sharpen(signal);
    }, REST_MS);
  }

  lay() {
    const seen = this.panes.filter((pane) => !pane.element.hidden);
    if (!seen.length) return;
    const { clientWidth: width, clientHeight: height } = this.element;
    const aspect = Math.max(...seen.map((pane) => Number(pane.element.style.getPropertyValue("--aspect"))));
    let best = { columns: 1, wide: 0 };
    for (let columns = 1; columns <= seen.length; columns += 1) {
      const rows = Math.ceil(seen.length / columns);
      const wide = Math.min((width - 8 * (columns - 1)) / columns, (height - 8 * (rows - 1)) / rows * aspect);
      if (wide > best.wide + 1) best = { columns, wide };
    }
    this.element.style.setProperty("--columns", best.columns);
    this.element.style.setProperty("--wide", `${Math.floor(best.wide)}px`);
    for (const pane of seen) pane.draw(this.frame ?? 0);
  }
}
