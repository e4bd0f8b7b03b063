// All timelines of the frame cache.

import { pages } from "./api.js";
import { empty, fill, h } from "./dom.js";
import { ago, moment, seconds } from "./words.js";

export async function view(main, { signal }) {
  const body = h("tbody");
  const below = h("div", { class: "below" });
  fill(main, h("div", { class: "page" }, h("div", { class: "head" }, h("h1", { text: "Timelines" })),
    h("table", { class: "list" }, h("caption", { class: "hidden", text: "Timelines" }),
      h("thead", {}, h("tr", {}, ["Timeline", "Frames", "Size", "Length", "Written"].map((name) => h("th", { scope: "col", text: name })))), body),
    below));
  for await (const found of pages(["timelines"], { limit: 25 }, signal)) {
    body.append(...found.timelines.map((one) => h("tr", {},
      h("th", { scope: "row" }, h("a", { href: `#/timelines/${encodeURIComponent(one.timeline_id)}`, text: one.timeline_id })),
      one.error
        ? h("td", { colspan: 3 }, h("span", { class: "why" }, h("b", { text: one.error.code }), " ", one.error.message))
        : [h("td", { text: `${one.frames?.toLocaleString("en") ?? "–"} frames` }), h("td", { text: one.width_px ? `${one.width_px}×${one.height_px}` : "–" }),
          h("td", { text: seconds(one.duration_s) })],
      h("td", { class: "soft", title: moment(one.updated_at), text: ago(one.updated_at) }))));
  }
  if (!body.firstChild) {
    fill(below, empty("No frames are cached", h("p", { text: "A job caches the frames of its structure video here." })));
  }
}
