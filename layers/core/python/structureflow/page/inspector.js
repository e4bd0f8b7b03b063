// The numbers beside the pictures: of this frame, of this segment; and the files to take away.

import { get } from "./api.js";
import { ICONS, dropped, fill, h, icon, pairs, problem, soft } from "./dom.js";
import { KINDS, percent, plural, seconds, size, timecode } from "./words.js";

/** Return the numbers of one frame; `show(frame)` changes them. */
export function numbers(perFrame, segment, fps) {
  const title = h("h2");
  const list = h("div");
  const kind = h("p", { class: "kind" });
  return {
    element: h("section", { class: "group now" }, title, kind, list),
    show(frame) {
      title.textContent = `Frame ${frame}`;
      const state = perFrame.state[frame];
      fill(kind, h("i", { class: `swatch ${state}` }), KINDS[state]);
      const at = (name) => perFrame[name]?.[frame] ?? null;
      const level = at("path_error");
      fill(list, pairs([
        ["Anchors show", percent(at("kept"))],
        ["Path error", level === null ? "–" : `${level.toFixed(2)} levels`],
        ["Structure frame", at("structure_frame") ?? "–"],
        ["Time", timecode(frame, fps)],
        ["On the timeline", segment.first_on_timeline + frame],
      ]));
    },
  };
}

/** Return what is said of a segment as a whole: pairs of name and value. */
export function numbersOf(segment) {
  const count = (ranges) => ranges.reduce((sum, [first, last]) => sum + last - first + 1, 0);
  return [
    ["Guided", plural(count(segment.guided), "frame")],
    ["Filled", plural(count(segment.filled), "frame")],
    ["Generated", plural(count(segment.generated), "frame")],
    ["Mask keeps", percent(segment.kept)],
    ["Path error", segment.path_error === null ? "–" : `${segment.path_error.toFixed(2)} levels`],
    ["Mask", segment.mask],
    ["Target", segment.target ?? "–"],
    ["Paths", segment.tracking],
    ["Engine", segment.engine],
    ["Flows from", segment.flow_source],
    ["Rendered in", seconds(segment.seconds)],
  ];
}

export function details(segment, job) {
  return h("section", { class: "group" }, h("h2", { text: `Segment ${segment.index}` }), pairs(numbersOf(segment)),
    segment.fallbacks.map((one) => h("p", { class: "notice warn" }, h("b", { text: one.stage }), `: wanted ${one.wanted}, used `,
      h("b", { text: one.used }), `. ${one.reason}`)),
    segment.notices.filter((text) => !job.notices.includes(text)).map((text) => h("p", { class: "notice", text })));
}

/** Return the files of the job, by the program that takes them; they are asked for when opened. */
export function downloads(id, signal) {
  const list = h("div", { class: "files" });
  const box = h("details", { class: "group" }, h("summary", { text: "Downloads" }), list);
  box.addEventListener("toggle", async () => {
    if (!box.open || list.firstChild) return;
    fill(list, soft("…"));
    try {
      const { groups } = await get(["jobs", id, "downloads"], {}, signal);
      fill(list, groups.map((group) => h("section", {}, h("h3", { text: group.consumer }),
        h("ul", {}, group.files.map((file) => h("li", {},
          h("a", { href: file.url, download: file.name, title: file.meaning }, icon(ICONS.down, 13), file.segment === null ? file.name : `${file.segment} · ${file.name}`),
          h("span", { class: "soft number", text: size(file.size_bytes) })))))));
    } catch (error) {
      if (!dropped(error)) fill(list, problem(error));
    }
  });
  return box;
}
