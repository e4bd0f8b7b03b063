// A gap as it would come out, at a quarter of its size: guide and mask at one playhead.

import { blobOf } from "./api.js";
import { fill, h, soft } from "./dom.js";
import { AskedFrames } from "./frames.js";
import { Pane, Wall } from "./panes.js";
import { Player } from "./player.js";
import { scrubber } from "./strip.js";
import { transport } from "./transport.js";
import { percent, plural, seconds, span } from "./words.js";

export async function preview(box, found, signal) {
  const player = new Player(found.frames.length, 8, signal);
  const wall = new Wall(signal);
  const source = (name) => new AskedFrames(found.frames.length, signal, {
    has: (frame) => Boolean(found.frames[frame][name]), group: found.frames.length,
    load: (frames) => Promise.all(frames.map(async (frame) => [frame, await createImageBitmap(blobOf(found.frames[frame][name]))])),
  });
  const pane = (name, title, from) => new Pane({
    name, title, note: "", aspect: found.width_px / found.height_px, source: source(from), onBig: () => wall.enlarge(wall.big === name ? null : name),
  });
  const told = (frame) => `frame ${found.frames[frame].frame}, kept ${percent(found.frames[frame].kept)}`;
  const kept = found.frames.map((one) => one.kept);
  const scrub = scrubber(player, {
    label: "Frame of the preview", valueText: told, signal,
    curves: kept.some((one) => one !== null) ? [{ name: "Shown", values: kept, top: 1, said: "by an anchor, share of the picture" }] : [],
  });
  const now = soft("");
  fill(box, h("section", { class: "panel wide", "aria-label": "Preview" },
    h("h2", { text: `Segment ${found.segment}, frames ${span(found.gap)}` }),
    soft(`${plural(found.frames.length, "frame")} in ${seconds(found.took_s)}, flows from the ${found.flow_source}`),
    found.notices.map((text) => h("p", { class: "notice", text })), wall.element, transport(player, 8, signal), scrub.element, now));
  wall.set([pane("guide", "Guide", "jpeg_base64"), pane("mask", "Mask", "mask_jpeg_base64")]);
  const follow = () => {
    wall.draw(player.frame);
    now.textContent = told(player.frame);
  };
  player.follow(follow, signal);
  scrub.track.addEventListener("keydown", (event) => { if (player.key(event)) event.preventDefault(); }, { signal });
}
