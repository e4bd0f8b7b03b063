// The flows of any archive, frame by frame.

import { address, get, pages } from "./api.js";
import { empty, fill, h, pairs, soft } from "./dom.js";
import { pictures } from "./frames.js";
import { cells, listed } from "./lists.js";
import { Pane } from "./panes.js";
import { Player, bind } from "./player.js";
import { scrubber } from "./strip.js";
import { transport } from "./transport.js";
import { plural, size, timecode } from "./words.js";

const AHEAD = 16;
const WIDTH_PX = 960;

export async function view(main, { query, signal }) {
  const key = query.get("key");
  if (key) await one(main, key, signal);
  else await all(main, signal);
}

async function all(main, signal) {
  const typed = h("input", { "aria-label": "Key of an archive", placeholder: "or the key of any .npz", size: 34 });
  const to = (key) => `#/archives?${new URLSearchParams({ key })}`;
  const open = (event) => {
    event.preventDefault();
    if (typed.value.trim()) location.hash = to(typed.value.trim());
  };
  const { body, below } = listed(main, "Archives", ["Archive", "Size", "Written"], ["Size"],
    soft("Flows that were extracted, one archive for each video and way."),
    h("form", { class: "row end", on: { submit: open } }, typed, h("button", { text: "Open" })));
  for await (const found of pages(["archives"], { limit: 200 }, signal)) {
    body.append(...found.archives.map(({ key, size_bytes: bytes, updated_at: at }) => h("tr", {},
      cells(key.split("/").at(-1), to(key), at, h("td", { class: "number", text: size(bytes) })))));
  }
  if (!body.firstChild) fill(below, empty("No archives yet", "The first job on a video makes one."));
}

async function one(main, key, signal) {
  const meta = await get(["archives", "meta"], { key }, signal);
  const player = new Player(meta.flows, meta.fps || 25, signal);
  const made = () => pictures(Array.from({ length: meta.flows }, (_, flow) =>
    address(["archives", "flow"], { key, flow, width_px: WIDTH_PX, max_px: meta.display_max_px || null })), signal, AHEAD);
  const pane = new Pane({
    name: "flow", title: "Flow", note: "from this frame to the next", aspect: meta.width_px / meta.height_px, source: made(),
    onBig: () => pane.element.requestFullscreen?.(),
  });
  const scrub = scrubber(player, {
    cuts: meta.scene_cuts, label: "Flow", signal, valueText: (flow) => `flow ${flow} of ${meta.flows}, ${timecode(flow, player.fps)}`,
  });
  const facts = [
    ["Flows", plural(meta.flows, "flow")], ["Stored at", `${meta.width_px}×${meta.height_px}`],
    ["Video", meta.video_width_px ? `${meta.video_width_px}×${meta.video_height_px}` : "–"], ["Rate", meta.fps ? `${Number(meta.fps.toFixed(3))} fps` : "–"],
    ["Engine", meta.engine || "–"], ["Format", meta.kind], ["Scene cuts", meta.scene_cuts.length || "none"],
    ...Object.entries(meta.params ?? {}).map(([name, value]) => [name.replaceAll("_", " "), String(value)]),
  ];
  const now = h("h2");
  fill(main, h("div", { class: "job archive" },
    h("div", { class: "head" }, h("h1", { text: key.split("/").at(-1) }), soft(key.slice(0, key.lastIndexOf("/")))),
    h("div", { class: "results" },
      h("div", { class: "desk" }, h("section", { class: "stage single", "aria-label": "Picture" }, pane.element),
        h("aside", { class: "inspector", "aria-label": "Numbers" },
          h("section", { class: "group now" }, now),
          h("section", { class: "group" }, pairs(facts)),
          h("section", { class: "group wheel-note" }, h("i", { class: "wheel", "aria-hidden": "true" }),
            soft(`Hue is the direction: right is red, down yellow, left cyan, up blue to violet. White is rest, full colour ${meta.display_max_px ? `${Number(meta.display_max_px.toPrecision(2))} pixels` : "the largest motion"} a frame.`)))),
      h("section", { class: "dock", "aria-label": "Scrubber" }, transport(player, player.fps, signal), scrub.element))));
  const follow = () => {
    pane.draw(player.frame);
    now.textContent = `Flow ${player.frame}`;
  };
  player.follow(follow, signal);
  bind(player, signal, () => [0, ...meta.scene_cuts.map((cut) => cut + 1), meta.flows - 1]);
}
