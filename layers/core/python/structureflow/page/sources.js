// Which pictures a segment has, and where their frames come from.

import { ApiError, address, get, pages } from "./api.js";
import { h, soft } from "./dom.js";
import { VideoFrames, cachedFrames, pictures } from "./frames.js";
import { Pane, Wipe } from "./panes.js";
import { numbersOf } from "./inspector.js";
import { named, percent } from "./words.js";

const ORDER = ["structure", "flow_vis", "visibility", "path", "guide", "mask"];
const NOTES = {
  structure: "what moves", flow_vis: "how it moves", visibility: "what an anchor shows", path: "where pixels come from",
  guide: "what you get", mask: "white is generated",
};

/** Return the pictures of a segment, in their order: {name, title, make} each; nothing is loaded before `make`. */
export async function panesOf({ job, id, segment, perFrame, signal, enlarge }) {
  const aspect = segment.width_px / segment.height_px;
  const found = new Map();
  const add = (name, source, title = named(name)) => found.set(name, {
    name, title, make: () => new Pane({ name, title, note: NOTES[name], aspect, source: source(), onBig: () => enlarge(name) }),
  });
  const video = (file) => () => new VideoFrames(file, segment.frames, segment.fps, signal);
  for (const [name, file] of Object.entries(segment.videos)) add(name, video(file));
  if (found.has("raw")) {
    add("structure", video(segment.videos.raw));
    found.delete("raw");
  } else if (perFrame.structure_frame.some((frame) => frame !== null)) {
    add("structure", () => cachedFrames(perFrame.timeline_id, perFrame.structure_frame, signal));
  }
  const flows = perFrame.flow;
  if (!found.has("flow_vis") && job.flows && flows?.some((flow) => flow !== null)) {
    const addresses = flows.map((flow) => (flow === null ? null : address(["archives", "flow"], { key: job.flows.key, flow, width_px: 480 })));
    add("flow_vis", () => pictures(addresses, signal));
  }
  for (const [stage, addresses] of await overlays(perFrame.timeline_id, id, segment, signal)) {
    if (!found.has(stage)) add(stage, () => pictures(addresses, signal));
  }
  const place = ({ name }) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
  return [...found.values()].sort((a, b) => place(a) - place(b));
}

/** Return the addresses of a segment's overlays, one per frame, by stage. */
async function overlays(timelineId, id, segment, signal) {
  const wanted = `segment${String(segment.index).padStart(3, "0")}`;
  const found = new Map();
  let stages = [];
  try {
    const { jobs } = await get(["timelines", timelineId, "overlays", "jobs"], {}, signal);
    stages = jobs.find((one) => one.job_id === id)?.stages ?? [];
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 404)) throw error; // its frames were cleared, and these with them
  }
  // flow and visibility are there as videos too, which load faster
  for (const stage of stages.filter((one) => !(one === "flow" && segment.videos.flow_vis) && !segment.videos[one])) {
    const addresses = new Array(segment.frames).fill(null);
    const sequences = `0-${segment.frames - 1}`;
    for await (const page of pages(["timelines", timelineId, "overlays"], { job_id: id, stage, sequences, limit: 2000 }, signal)) {
      for (const one of page.overlays) if (one.name === wanted) addresses[one.sequence] = one.url;
    }
    if (addresses.some(Boolean)) found.set(stage, addresses);
  }
  return found;
}

/** Return the pictures of two jobs, laid over each other. */
export async function wipeOf({ id, segment, perFrame, other, signal, enlarge }) {
  const [second, theirs] = await Promise.all([
    segmentOf(other, segment.index, signal), get(["jobs", other, "segments", segment.index, "frames"], {}, signal)]);
  const kinds = Object.keys(segment.videos).filter((name) => second.videos[name]);
  const aspect = segment.width_px / segment.height_px;
  const frames = Math.min(segment.frames, second.frames);
  const order = ["guide", ...kinds.filter((name) => name !== "guide")];
  const group = [];
  const panes = order.map((name) => ({
    name, title: named(name), make: () => new Wipe({
      name, title: named(name), note: "", aspect, onBig: () => enlarge(name),
      source: new VideoFrames(segment.videos[name], segment.frames, segment.fps, signal),
    }, new VideoFrames(second.videos[name], frames, second.fps, signal), [id, other], group),
  }));
  panes.about = comparison(id, segment, perFrame, other, second, theirs);
  return panes;
}

async function segmentOf(id, index, signal) {
  for await (const found of pages(["jobs", id, "segments"], { limit: 50 }, signal)) {
    const one = found.segments.find((segment) => segment.index === index);
    if (one) return one;
  }
  throw new ApiError(404, { code: "no such segment", message: `${id} has no segment ${index}` });
}

function comparison(id, segment, perFrame, other, second, theirs) {
  const rows = numbersOf(segment).map(([name, value], at) => [name, value, numbersOf(second)[at][1]]);
  const differ = perFrame.state.filter((state, frame) => theirs.state[frame] !== state).length;
  return h("section", { class: "group" }, h("h2", { text: "Comparison" }),
    h("table", { class: "small" },
      h("thead", {}, h("tr", {}, h("td"), h("th", { scope: "col", text: id }), h("th", { scope: "col", text: other }))),
      h("tbody", {}, rows.map(([name, a, b]) => h("tr", { class: a === b ? null : "differs" },
        h("th", { scope: "row", text: name }), h("td", { text: a }), h("td", { text: b }))))),
    soft(differ ? `${percent(differ / segment.frames)} of the frames are of another kind` : "All frames are of the same kind in both."));
}
