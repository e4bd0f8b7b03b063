// The scrubber: ranges, curves and a playhead over the frames of a segment.

import { h, svg } from "./dom.js";
import { KINDS, span } from "./words.js";

const share = (part, whole) => `${(100 * part / whole).toFixed(3)}%`;

/** Return the ranges of a segment in order, each with its kind. */
export function runs(segment) {
  return ["guided", "filled", "generated"]
    .flatMap((kind) => segment[kind].map(([first, last]) => ({ kind, first, last })))
    .sort((a, b) => a.first - b.first);
}

/** Return the bars of ranges, as they also stand for a segment in a row of segments. */
export function bars(found, count, labelled = false) {
  return found.map(({ kind, first, last }) => h("i", {
    class: `range ${kind}`, title: `${span([first, last])}: ${KINDS[kind]}`,
    css: { left: share(first, count), width: share(last - first + 1, count) },
  }, labelled && (last - first + 1) / count > 0.11 ? h("span", { text: span([first, last]) }) : null));
}

function curve({ name, values, top, said }) {
  const lines = [];
  values.forEach((value, at) => {
    if (value === null) return;
    if (values[at - 1] === null || at === 0) lines.push([]);
    lines.at(-1).push([at + 0.5, 1 - Math.min(1, value / top)]);
  });
  const drawn = lines.flatMap((line) => {
    const points = (line.length === 1 ? [[line[0][0] - 0.5, line[0][1]], [line[0][0] + 0.5, line[0][1]]] : line);
    const text = points.map((point) => point.map((value) => value.toFixed(3)).join(",")).join(" ");
    return [svg("polygon", { points: `${points[0][0]},1 ${text} ${points.at(-1)[0]},1` }), svg("polyline", { points: text })];
  });
  return h("div", { class: "lane curve", role: "img", "aria-label": `${name}: ${said}` },
    svg("svg", { viewBox: `0 0 ${values.length} 1`, preserveAspectRatio: "none", "aria-hidden": "true" }, drawn),
    h("span", { class: "lane-name", "aria-hidden": "true" }, name, h("small", { text: said })));
}

function ruler(count) {
  const step = [1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000, 2000, 5000].find((one) => count / one <= 16) ?? 10000;
  const ticks = [];
  for (let frame = 0; frame < count; frame += step) {
    ticks.push(h("span", { css: { left: share(frame + 0.5, count) }, text: frame }));
  }
  return h("div", { class: "ruler", "aria-hidden": "true" }, ticks);
}

/**
 * Make a scrubber.
 * @param player what it moves and follows
 * @param options `ranges` (of `runs`), `curves` ({name, values, top, said}), `cuts` (frames after which the scene
 *   changes), `label`, `valueText` (frame to words), `signal`
 */
export function scrubber(player, { ranges = [], curves = [], cuts = [], label, valueText, signal }) {
  const { count } = player;
  const loaded = h("div", { class: "loaded" });
  const head = h("div", { class: "playhead" }, h("b"));
  const track = h("div", {
    class: "track", role: "slider", tabindex: 0, "aria-label": label, "aria-valuemin": 0, "aria-valuemax": count - 1,
  },
  ranges.length || !curves.length ? h("div", { class: "lane ranges" }, bars(ranges, count, true)) : null,
  curves.map(curve),
  cuts.map((cut) => h("div", { class: "cut", title: `scene cut after frame ${cut}`, css: { left: share(cut + 1, count) } })),
  loaded, head);

  function follow() {
    head.style.left = share(player.frame + 0.5, count);
    track.setAttribute("aria-valuenow", player.frame);
    track.setAttribute("aria-valuetext", valueText ? valueText(player.frame) : `frame ${player.frame}`);
    head.firstChild.textContent = player.frame;
    head.classList.toggle("left", player.frame > count * 0.94);
  }

  const there = (event) => {
    const box = track.getBoundingClientRect();
    player.seek(Math.floor((event.clientX - box.left) / box.width * count));
  };
  track.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    player.pause();
    track.setPointerCapture(event.pointerId);
    there(event);
  });
  track.addEventListener("pointermove", (event) => track.hasPointerCapture(event.pointerId) && there(event));
  player.follow(follow, signal);
  return {
    element: h("div", { class: "scrubber" }, ruler(count), track),
    track,
    /** Show how much of the pictures is there, 0 to 1. */
    loaded(part) {
      loaded.style.width = share(part, 1);
      loaded.hidden = part >= 1;
    },
  };
}
