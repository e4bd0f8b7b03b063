// One timeline: its frames or overlays as a grid, however many there are; what is damaged; clear and rebuild.

import { ApiError, address, blobOf, get, pages, send } from "./api.js";
import { ICONS, ask, button, dropped, fill, h, icon, pause, problem, say, soft } from "./dom.js";
import { Grid } from "./grid.js";
import { moment, plural, seconds, timecode } from "./words.js";

const THUMB_PX = 200;
const EARLY = 16;
const POLL_MS = 1500;

/** Ask for frames by their place on the timeline, from (inclusive) to (exclusive). */
async function frames(id, from, to, signal) {
  const found = [];
  for (let at = from; at < to;) {
    const reply = await get(["timelines", id, "frames"], { page: at || null, limit: to - at, width_px: THUMB_PX, quality: 70, damaged: "list" }, signal);
    const damaged = reply.damaged ?? [];
    const all = [...reply.frames, ...damaged].sort((a, b) => a.sequence - b.sequence);
    if (!all.length) break;
    all.forEach((one, by) => found.push(one.jpeg_base64
      ? { at: at + by, url: URL.createObjectURL(blobOf(one.jpeg_base64)), label: `${one.sequence}`, title: `frame ${one.sequence}, ${one.timestamp.toFixed(3)} s, ${one.chunk_id}`, sequence: one.sequence }
      : { at: at + by, damaged: one.code, label: `${one.sequence}`, title: `frame ${one.sequence}: ${one.message}`, sequence: one.sequence }));
    if (!reply.next_page) break;
    at += all.length;
  }
  return found;
}

export async function view(main, { id, query, signal }) {
  // asked for beside what is known of the timeline, so that the first pictures are there as soon as that is
  const early = query.get("at") ? [] : frames(id, 0, EARLY, signal).catch(() => []);
  let info;
  try {
    info = await get(["timelines", id], {}, signal);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    fill(main, h("div", { class: "page" }, h("div", { class: "head" }, h("h1", { text: id })), problem(error),
      error.status !== 404 && button("Clear what lies there", () => clear(id, null, signal), { class: "danger" })));
    return;
  }
  const chunk = info.chunks[0];
  const aspect = chunk?.width_px ? chunk.width_px / chunk.height_px : 16 / 9;
  const fps = info.duration_s > 0 ? info.frames / info.duration_s : 25;

  const grid = new Grid({
    count: info.frames, aspect, signal, label: `Frames of ${id}`, load: (from, to, inner) => frames(id, from, to, inner), open: (at) => open(at),
  });
  // before the grid has a size, and asks for the rest
  for (const one of await early) grid.keep(one);
  let list = null; // overlays that are shown in place of frames
  const jump = h("input", { type: "text", inputmode: "numeric", placeholder: "Frame", "aria-label": "Jump to frame", size: 7 });
  const place = h("span", { class: "soft number" });
  const what = h("select", { "aria-label": "Pictures" }, h("option", { value: "", text: "Frames" }));
  const segment = h("select", { "aria-label": "Segment", hidden: true });
  const zoom = h("input", { type: "range", min: 96, max: 320, step: 8, value: grid.cell, "aria-label": "Size of pictures" });
  const damage = h("div", { class: "damage" });
  fill(main, h("div", { class: "timeline" },
    h("div", { class: "head" }, h("h1", { text: id }),
      h("p", { class: "facts soft" }, [plural(info.frames, "frame"), chunk?.width_px ? `${chunk.width_px}×${chunk.height_px}` : null, seconds(info.duration_s), plural(info.chunks.length, "chunk"), `JPEG ${info.quality}`]
        .filter(Boolean).map((fact) => h("span", { text: fact }))),
      h("div", { class: "row end" },
        button("Rebuild…", () => rebuild(id, info, damage, signal), { disabled: !info.can_rebuild, title: info.can_rebuild ? null : "its chunks are not there" }),
        button("Clear…", () => clear(id, info, signal)))),
    damage,
    h("div", { class: "row tools" }, what, segment,
      h("form", { class: "row", on: { submit: (event) => { event.preventDefault(); go(jump.value); } } }, jump, h("button", { text: "Go" })),
      zoom, place),
    grid.element));

  zoom.addEventListener("input", () => { grid.cell = Number(zoom.value); grid.lay(); });
  grid.onmark = (at) => {
    place.textContent = list ? `${list[at]?.sequence ?? ""}` : `${at.toLocaleString("en")} of ${info.frames.toLocaleString("en")} · ${timecode(at, fps)}`;
  };
  grid.at = Math.min(info.frames - 1, Math.max(0, placeOf(Number(query.get("at")) || 0)));
  grid.lay();
  grid.mark(grid.at);

  function placeOf(sequence) {
    if (list) return list.findIndex((one) => one.sequence >= sequence);
    return info.contiguous ? sequence - info.first_sequence : sequence;
  }

  function go(text) {
    const wanted = Number(text.trim());
    if (text.trim() === "" || !Number.isInteger(wanted)) return;
    grid.go(placeOf(wanted));
    history.replaceState(null, "", `#/timelines/${encodeURIComponent(id)}?at=${wanted}`);
  }

  function open(at) {
    look({ id, grid, info, list: () => list, at, signal });
  }

  /** Show frames, or the overlays of one stage of one job. */
  async function choose() {
    const [job, stage] = what.value ? JSON.parse(what.value) : [];
    segment.hidden = !job;
    if (!job) {
      list = null;
      grid.load = (from, to, inner) => frames(id, from, to, inner);
      grid.reset(info.frames);
      return;
    }
    const all = [];
    for await (const page of pages(["timelines", id, "overlays"], { job_id: job, stage, limit: 2000 }, signal)) all.push(...page.overlays);
    const names = [...new Set(all.map((one) => one.name))].sort();
    fill(segment, h("option", { value: "", text: "all segments" }), names.map((name) => h("option", { value: name, text: name.replace(/^segment0*(\d)/, "segment $1") })));
    segment.onchange = () => {
      list = all.filter((one) => !segment.value || one.name === segment.value).sort((a, b) => a.name.localeCompare(b.name) || a.sequence - b.sequence);
      grid.load = async (from, to) => list.slice(from, to).map((one, by) => ({
        at: from + by, url: one.url, label: `${one.sequence}`, title: `${stage}, ${one.name}, frame ${one.sequence}`,
      }));
      grid.reset(list.length);
    };
    segment.onchange();
  }
  what.addEventListener("change", () => choose().catch((error) => dropped(error) || fill(damage, problem(error))));
  await Promise.all([offerOverlays(id, what, query, signal), nameDamaged(id, damage, grid, info, signal)]);
  if (what.value) await choose();
  if (info.rebuild?.state === "running") await watchRebuild(id, damage, signal);
}

async function offerOverlays(id, what, query, signal) {
  const { jobs } = await get(["timelines", id, "overlays", "jobs"], {}, signal);
  what.append(...jobs.map((job) => h("optgroup", { label: job.job_id }, job.stages.map((stage) =>
    h("option", { value: JSON.stringify([job.job_id, stage]), text: `${stage} of ${job.job_id}` })))));
  const wanted = JSON.stringify([query.get("job"), query.get("stage")]);
  if ([...what.options].some((one) => one.value === wanted)) what.value = wanted;
}

async function nameDamaged(id, damage, grid, info, signal) {
  while (grid.under.size) await pause(99, signal); // pictures first
  const found = await get(["timelines", id, "damaged"], {}, signal);
  if (found.whole) return;
  const link = (sequence) => button(sequence, () => grid.go(sequence - info.first_sequence), { class: "chip" });
  const part = (name, list, count) => count > 0 && h("div", { class: "row" }, h("b", { text: `${plural(count, "frame")} ${name}:` }),
    list.slice(0, 40).map(link), count > 40 && h("span", { text: `and ${(count - 40).toLocaleString("en")} more` }));
  fill(damage, h("section", { class: "notice warn", "aria-label": "Damaged frames" },
    part("missing", found.missing, found.missing_count), part("changed", found.changed, found.changed_count)));
}

async function clear(id, info, signal) {
  const overlays = h("label", {}, h("input", { type: "checkbox", name: "overlays" }), "Overlays of all jobs too");
  const answer = await ask({
    title: "Clear this timeline?", yes: info ? `Clear ${plural(info.frames, "frame")}` : "Clear", danger: true, fields: [overlays],
    text: [`The cached frames of ${id} are removed for all jobs.`,
      info?.can_rebuild ? "They can be rebuilt from the timeline's chunks." : "The next job on its video caches them again."],
  });
  if (!answer) return;
  const { removed } = await send("DELETE", ["timelines", id], undefined, { overlays: answer.has("overlays") }, signal);
  say(`${removed} objects removed`);
  location.hash = "#/timelines";
}

async function rebuild(id, info, damage, signal) {
  const answer = await ask({
    title: "Rebuild this timeline?", yes: "Rebuild",
    text: [`All frames of ${id} are decoded again from its ${plural(info.chunks.length, "chunk")}, and replace those that are cached.`],
    fields: [h("label", {}, "JPEG quality", h("input", { type: "number", name: "quality", min: 1, max: 100, value: info.quality, required: true }))],
  });
  if (!answer) return;
  await send("POST", ["timelines", id, "rebuild"], { quality: Number(answer.get("quality")) }, {}, signal);
  await watchRebuild(id, damage, signal);
}

async function watchRebuild(id, damage, signal) {
  fill(damage, h("section", { class: "notice", role: "status" }, h("b", { text: "Rebuilding… " }), h("progress", { "aria-label": "rebuilding" })));
  for (;;) {
    await pause(POLL_MS, signal);
    const { rebuild: now } = await get(["timelines", id], {}, signal).catch((error) => {
      if (error instanceof ApiError && error.status < 500) return { rebuild: error.detail.rebuild ?? { state: "running" } }; // between the old frames and the new
      throw error;
    });
    if (now?.state === "running") continue;
    if (now?.error) fill(damage, problem(now.error));
    else dispatchEvent(new HashChangeEvent("hashchange"));
    return;
  }
}

/** Show one picture large; arrows go on. */
function look({ id, grid, info, list, at, signal }) {
  const picture = h("img", { alt: "" });
  const title = h("h2");
  const facts = soft("");
  const dialog = h("dialog", { class: "look", "aria-label": "One frame" }, h("div", { class: "look-head" }, title, facts,
    h("button", { type: "button", class: "icon", "aria-label": "Close", on: { click: () => dialog.close() } }, icon(ICONS.close))), picture);
  const show = () => {
    const shown = grid.kept.get(grid.at);
    const overlay = list()?.[grid.at];
    const sequence = overlay?.sequence ?? shown?.sequence ?? info.first_sequence + grid.at;
    title.textContent = `Frame ${sequence}`;
    facts.textContent = shown?.title ?? "";
    picture.alt = shown?.title ?? `frame ${sequence}`;
    picture.src = overlay ? overlay.url : address(["timelines", id, "frames", sequence], { etag: info.etag, width_px: 1600, quality: 90 });
  };
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid.columns, ArrowDown: grid.columns }[event.key];
    if (!by) return;
    event.preventDefault();
    grid.go(grid.at + by);
    show();
  });
  dialog.addEventListener("close", () => { dialog.remove(); grid.element.focus(); });
  signal.addEventListener("abort", () => dialog.remove(), { once: true });
  grid.go(at);
  show();
  document.body.append(dialog);
  dialog.showModal();
}
