// All timelines of the frame cache.

import { pages } from "./api.js";
import { empty, fill, h } from "./dom.js";
import { cells, listed } from "./lists.js";
import { seconds } from "./words.js";

export async function view(main, { signal }) {
  const { body, below } = listed(main, "Timelines", ["Timeline", "Frames", "Size", "Length", "Written"], []);
  for await (const found of pages(["timelines"], { limit: 25 }, signal)) {
    body.append(...found.timelines.map((one) => h("tr", {}, cells(one.timeline_id, `#/timelines/${encodeURIComponent(one.timeline_id)}`, one.updated_at,
      one.error
        ? h("td", { colspan: 3 }, h("span", { class: "why" }, h("b", { text: one.error.code }), " ", one.error.message))
        : [h("td", { text: `${one.frames?.toLocaleString("en") ?? "–"} frames` }), h("td", { text: one.width_px ? `${one.width_px}×${one.height_px}` : "–" }),
          h("td", { text: seconds(one.duration_s) })]))));
  }
  if (!body.firstChild) fill(below, empty("No frames are cached", "A job caches the frames of its structure video here."));
}
