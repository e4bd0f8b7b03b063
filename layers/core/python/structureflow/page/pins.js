// Images on a timeline of segments: each is a pin that is dragged, or moved by keys.

import { h, soft, takes } from "./dom.js";

const SNAP = 0.018;

export class Pins {
  /**
   * @param changed called when a pin has moved or gone
   * @param dropped called with files that were dropped, and the frame
   */
  constructor(changed, dropped) {
    Object.assign(this, { changed, images: [], segments: 1, frames: 81, unguided: [] });
    this.element = h("div", { class: "pins", role: "group", "aria-label": "Images on the timeline" });
    takes(this.element, (files, event) => dropped(files, this.frameAt(event.clientX)));
  }

  get total() { return this.segments * this.frames; }

  /** The border between segments that a frame is at; null elsewhere. The last one is behind the last frame. */
  border(at) { return at % this.frames === 0 ? at / this.frames : null; }

  frameAt(x) {
    const box = this.element.getBoundingClientRect();
    return this.snapped((x - box.left) / box.width * this.total);
  }

  snapped(at) {
    const near = Math.round(at / this.frames) * this.frames;
    const there = Math.abs(near - at) < SNAP * this.total ? near : Math.round(at);
    return Math.min(this.total, Math.max(0, there));
  }

  /** Put all images on the borders of segments, as many as that takes. */
  spread() {
    this.segments = Math.max(1, this.images.length - 1);
    this.images.forEach((image, index) => { image.at = index * this.frames; });
  }

  /** Say where an image is. */
  where(image) {
    const border = this.border(image.at);
    if (border === 0) return "start of segment 0";
    if (border === this.segments) return `end of segment ${border - 1}`;
    if (border !== null) return `end of segment ${border - 1}, start of segment ${border}`;
    return `segment ${Math.floor(image.at / this.frames)}, frame ${image.at % this.frames}`;
  }

  draw() {
    const share = (at) => `${(100 * at / this.total).toFixed(3)}%`;
    const lanes = Array.from({ length: this.segments }, (_, index) => h("div", {
      class: "pin-segment", css: { left: share(index * this.frames), width: share(this.frames) } },
    h("span", { text: index }),
    (this.unguided[index] ?? []).map(([first, last]) => h("i", { class: "filled", title: `filled by motion: ${first}–${last}`,
      css: { left: `${100 * first / this.frames}%`, width: `${100 * (last - first + 1) / this.frames}%` } }))));
    this.images.sort((a, b) => a.at - b.at);
    // a pin that stays is not taken out: it may be held by a pointer, or have the focus
    const stay = new Set(this.images.map((image) => image.pin ??= this.pin(image)));
    for (const child of [...this.element.children]) if (!stay.has(child)) child.remove();
    this.element.prepend(...lanes, ...(this.images.length ? [] : [soft("Drop images here")]));
    for (const [index, image] of this.images.entries()) {
      const before = index ? this.images[index - 1].pin : lanes.at(-1);
      if (before.nextSibling !== image.pin) before.after(image.pin);
      this.show(image);
    }
  }

  /** Let a pin say where its image is, and how far it is sent. */
  show(image) {
    const { pin } = image;
    pin.style.left = `${(100 * image.at / this.total).toFixed(3)}%`;
    pin.title = `${image.name}: ${this.where(image)}`;
    pin.ariaValueMax = this.total;
    pin.ariaValueNow = image.at;
    pin.ariaValueText = this.where(image);
    const bar = pin.querySelector("progress");
    if (image.share >= 1) bar?.remove();
    else bar.value = image.share;
  }

  pin(image) {
    const move = (at) => {
      image.at = Math.min(this.total, Math.max(0, at));
      this.show(image);
    };
    const pin = h("div", {
      class: "pin", role: "slider", tabindex: 0, "aria-label": `Image ${image.name}`, "aria-valuemin": 0, on: {
        pointerdown: (event) => { if (event.button === 0) { pin.setPointerCapture(event.pointerId); pin.focus(); } },
        pointermove: (event) => pin.hasPointerCapture(event.pointerId) && move(this.frameAt(event.clientX)),
        pointerup: () => this.changed(),
        keydown: (event) => {
          const far = event.shiftKey ? 10 : 1;
          const by = { ArrowLeft: -far, ArrowRight: far, PageUp: -this.frames, PageDown: this.frames, Home: -image.at, End: this.total - image.at }[event.key];
          if (event.key === "Delete" || event.key === "Backspace") this.images = this.images.filter((one) => one !== image);
          else if (by !== undefined) move(image.at + by);
          else return;
          event.preventDefault();
          this.changed(image);
        },
      },
    }, h("img", { src: image.url, alt: "", draggable: "false" }), image.share < 1 && h("progress", { max: 1, value: image.share, "aria-label": `sending ${image.name}` }));
    return pin;
  }

  /** Return the part of a request that says all this; `ends` is {overlap, hold}. */
  document(ends) {
    const images = [...this.images].sort((a, b) => a.at - b.at);
    const borders = images.map((image) => this.border(image.at));
    if (images.length === this.segments + 1 && borders.every((border, index) => border === index)) {
      return { images: images.map((image) => image.key), frames: this.frames, ...ends };
    }
    const at = (border) => images.findLast((image) => this.border(image.at) === border);
    const segments = Array.from({ length: this.segments }, (_, index) => {
      const guides = [];
      const [first, last] = [at(index), at(index + 1)];
      if (first) guides.push({ at: [0, ends.overlap - 1], image: first.key });
      for (const image of images) {
        const frame = image.at - index * this.frames;
        if (this.border(image.at) === null && frame > 0 && frame < this.frames) guides.push({ at: frame, image: image.key });
      }
      if (last && ends.hold > 0) guides.push({ at: [this.frames - ends.hold, this.frames - 1], image: last.key });
      return { frames: this.frames, guides };
    });
    return { segments };
  }
}
