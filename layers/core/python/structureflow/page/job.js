// One job: where it is while it runs, why it failed, and what it made, side by side at one playhead.

import { ApiError, get, pages } from "./api.js";
import { dropped, fill, h, pairs, pause, problem, say, soft } from "./dom.js";
import { details, downloads, numbers } from "./inspector.js";
import { Wall } from "./panes.js";
import { Player, bind } from "./player.js";
import { panesOf, wipeOf } from "./sources.js";
import { bars, runs, scrubber } from "./strip.js";
import { transport } from "./transport.js";
import { ago, dollars, moment, percent, plural, seconds, timecode } from "./words.js";

const POLL_MS = 1500;

export async function view(main, { id, query, signal }) {
  const page = h("div", { class: "job" });
  fill(main, page);
  let status = await statusOf(id, query, signal);
  let drawn = "";
  while (!signal.aborted) {
    const running = status.state === "running" || status.state === "requested";
    const text = JSON.stringify(status) + (running ? ago(status.updated_at) : "");
    if (text !== drawn && running) fill(page, headOf(status), progressOf(status));
    drawn = text;
    if (!running) break;
    await pause(POLL_MS, signal);
    try {
      status = await statusOf(id, query, signal);
    } catch (error) {
      if (dropped(error) || !(error instanceof TypeError)) throw error;
      fill(page, headOf(status), problem({ code: "not reachable", message: "The server does not answer; asking again." }));
    }
    if (status.state === "done") say(`${id} is done`);
  }
  if (status.state === "failed") {
    fill(page, headOf(status), failureOf(status));
    if (!status.published) return;
    page.append(h("p", { class: "notice" }, "What an earlier run published is shown below."));
  }
  await showResults(page, status, query, signal);
}

/** Ask where a job is. One that was only just sent, as the address then says, has no status yet. */
async function statusOf(id, query, signal) {
  try {
    return await get(["jobs", id], {}, signal);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404 && query.has("sent")) return { task_id: id, state: "requested", stage: null };
    throw error;
  }
}

function headOf(status, facts = [], actions = []) {
  return h("div", { class: "head" },
    h("h1", { text: status.task_id }), h("span", { class: `state ${status.state}`, text: status.state }),
    h("p", { class: "facts soft" }, facts.filter(Boolean).map((fact) => h("span", { text: fact }))),
    h("div", { class: "row end" }, actions));
}

function progressOf(status) {
  const { parts = [], segments_done: done } = status.progress ?? {};
  const bar = (label, value, max, said) => h("li", {},
    h("span", { text: label }), h("progress", { max: max || 1, value: max ? value : null, "aria-label": label }),
    h("span", { class: "number soft", text: said }));
  return h("section", { class: "panel running", "aria-label": "Progress" },
    h("h2", { text: status.stage ?? "waiting to start" }),
    soft(!status.updated_at ? "requested" : `last sign ${ago(status.updated_at)}${status.elapsed_s ? `, running for ${seconds(status.elapsed_s)}` : ""}${status.cost_usd ? `, about ${dollars(status.cost_usd)} so far` : ""}`, { title: moment(status.updated_at) }),
    h("ul", { class: "parts" },
      status.segments ? bar("segments", done ?? 0, status.segments, `${done ?? 0} of ${status.segments}`) : null,
      parts.map((part) => bar(part.step === "segment" ? `segment ${part.index}` : part.step === "extract" ? `extraction ${part.index}` : part.step,
        part.done, part.total, `${part.done} of ${plural(part.total, "frame")}`))));
}

function failureOf(status) {
  const { error } = status;
  const told = Object.entries(error.detail ?? {});
  return h("section", { class: "panel failure", role: "alert" },
    h("h2", { text: `${error.code} at ${error.stage}` }), h("p", { text: error.message }),
    told.length > 0 && pairs(told.map(([name, value]) => [name, h("code", { text: typeof value === "string" ? value : JSON.stringify(value) })])),
    soft("Nothing half-made lies in the job's folder."));
}

async function showResults(page, status, query, signal) {
  const { task_id: id } = status;
  let job = null;
  const segments = [];
  try {
    for await (const found of pages(["jobs", id, "segments"], { limit: 50 }, signal)) {
      job ??= found;
      segments.push(...found.segments);
    }
  } catch (error) {
    if (error instanceof ApiError && [404, 409].includes(error.status)) return;
    throw error;
  }
  const all = segments.reduce((sum, one) => sum + one.frames, 0);
  const cost = Object.values(job.cost_usd ?? {}).reduce((sum, one) => sum + one, 0);
  const first = segments[0];
  const picker = h("select", { "aria-label": "Compare with" }, h("option", { value: "", text: "Compare with…" }));
  const shown = h("div", { class: "results" });
  const head = headOf(status, [
    plural(segments.length, "segment"), `${all} frames`, `${first.width_px}×${first.height_px}`, `${first.fps} fps`,
    job.engine + (job.flow_cache_hit ? ", flows reused" : ""), seconds(status.elapsed_s ?? job.timings_s.job), cost > 0 && dollars(cost),
  ], [picker, job.report_url && h("a", { class: "button", href: job.report_url, target: "_blank", rel: "noopener", text: "Report" })]);
  const keep = page.querySelectorAll(".failure, .notice");
  fill(page, head, [...keep], notices(job), shown);
  fillPicker(picker, id, query.get("with"), signal);
  const state = { index: Math.min(segments.length - 1, Math.max(0, Number(query.get("segment")) || 0)), frame: Number(query.get("frame")) || 0, other: query.get("with") || null };
  let leave = new AbortController();
  signal.addEventListener("abort", () => leave.abort(signal.reason), { once: true });

  async function open() {
    leave.abort();
    leave = new AbortController();
    const inner = leave.signal;
    try {
      await showSegment({ shown, job, id, segments, state, open, signal: inner });
    } catch (error) {
      if (!dropped(error) && !inner.aborted) fill(shown, problem(error, open));
    }
  }

  picker.addEventListener("change", () => { state.other = picker.value || null; open(); });
  await open();
}

function notices(job) {
  return [
    job.fallbacks.length > 0 && h("section", { class: "notice warn", "aria-label": "Fallbacks" },
      h("ul", {}, job.fallbacks.map((one) => h("li", {}, h("b", { text: one.stage }), ": wanted ", h("b", { text: one.wanted }), ", used ",
        h("b", { text: one.used }), ". ", h("span", { class: "soft", text: one.reason }))))),
    job.notices.map((text) => h("p", { class: "notice", text })),
  ];
}

async function fillPicker(picker, id, chosen, signal) {
  try {
    for await (const found of pages(["jobs"], { limit: 200 }, signal)) {
      picker.append(...found.jobs.filter((job) => job.state === "done" && job.task_id !== id)
        .map((job) => h("option", { value: job.task_id, text: job.task_id })));
      if (picker.options.length > 400) break;
    }
    if (chosen && ![...picker.options].some((one) => one.value === chosen)) picker.append(h("option", { value: chosen, text: chosen }));
    picker.value = chosen ?? "";
  } catch (error) {
    if (!dropped(error)) picker.replaceChildren(h("option", { text: `no list of jobs: ${error.message}` }));
  }
}

function segmentRow(segments, state, open) {
  if (segments.length < 2) return null;
  const go = (index) => { state.index = index; state.frame = 0; open(); };
  return h("div", { class: "segments", role: "group", "aria-label": "Segments" }, segments.map((one) => h("button", {
    type: "button", class: "segment", "aria-pressed": String(one.index === segments[state.index].index),
    css: { "flex-grow": one.frames }, on: { click: () => go(segments.indexOf(one)) },
    title: `Segment ${one.index}: ${one.frames} frames, keeps ${percent(one.kept)}`,
  }, h("span", { class: "segment-name" }, h("b", { text: one.index }), h("small", { text: `${one.frames} f` }),
    one.fallbacks.length > 0 && h("i", { class: "dot", title: "not all as asked" })),
  h("span", { class: "mini" }, bars(runs(one), one.frames)))));
}

async function showSegment({ shown, job, id, segments, state, open, signal }) {
  const segment = segments[state.index];
  const perFrame = await get(["jobs", id, "segments", segment.index, "frames"], {}, signal);
  const player = new Player(segment.frames, segment.fps, signal);
  player.seek(state.frame);
  const wall = new Wall(signal);
  const enlarge = (name) => wall.enlarge(wall.big === name ? null : name);
  const panes = state.other
    ? await wipeOf({ job, id, segment, perFrame, other: state.other, signal, enlarge })
    : await panesOf({ job, id, segment, perFrame, signal, enlarge });
  const found = runs(segment);
  const say = (frame) => `frame ${frame} of ${segment.frames}, ${perFrame.state[frame]}, ${timecode(frame, segment.fps)}`;
  const scrub = scrubber(player, {
    ranges: found, curves: curvesOf(perFrame), label: `Frame of segment ${segment.index}`, valueText: say, signal,
  });
  const chosen = chips(panes, wall, scrub);
  const aside = h("aside", { class: "inspector", "aria-label": "Numbers" });
  const frameNumbers = numbers(perFrame, segment, segment.fps);
  fill(aside, frameNumbers.element, panes.about, details(segment, job), downloads(id, signal));
  fill(shown,
    segmentRow(segments, state, open),
    h("div", { class: "desk" }, h("section", { class: "stage", "aria-label": "Pictures" }, chosen.element, wall.element), aside),
    h("section", { class: "dock", "aria-label": "Scrubber" }, transport(player, segment.fps, signal), scrub.element));
  chosen.apply();

  function follow() {
    wall.draw(player.frame);
    frameNumbers.show(player.frame);
    state.frame = player.frame;
    note();
  }
  let timer = 0;
  const note = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (signal.aborted) return;
      const asked = new URLSearchParams({ segment: state.index, frame: state.frame });
      if (state.other) asked.set("with", state.other);
      history.replaceState(null, "", `#/jobs/${encodeURIComponent(id)}?${asked}`);
    }, 300);
  };
  player.follow(follow, signal);
  const edges = found.flatMap(({ first }) => [first]).concat(segment.frames - 1);
  bind(player, signal, () => edges, (event) => {
    if (event.ctrlKey || event.metaKey) return false;
    const seen = wall.panes;
    if (event.altKey && /^Digit[1-9]$/.test(event.code)) {
      const pane = seen[Number(event.code.slice(5)) - 1];
      if (pane) enlarge(pane.name);
      return Boolean(pane);
    }
    if (event.altKey) return false;
    if (event.key === "Escape" && wall.big) { wall.enlarge(null); return true; }
    const by = { "[": -1, "]": 1 }[event.key];
    if (by && segments[state.index + by]) { state.index += by; state.frame = 0; open(); return true; }
    return false;
  });
}

function curvesOf({ kept, path_error: unlike }) {
  const known = (values) => values.filter((value) => value !== null);
  const curves = [];
  const mean = (values) => values.reduce((sum, one) => sum + one, 0) / values.length;
  if (known(kept).length) curves.push({ name: "Shown", values: kept, top: 1, said: `by an anchor: ${percent(mean(known(kept)))} on average` });
  if (known(unlike).length) {
    const worst = Math.max(...known(unlike));
    curves.push({ name: "Path error", values: unlike, top: Math.max(worst, 1), said: `at most ${worst.toFixed(1)} levels` });
  }
  return curves;
}

/** Which pictures are shown; what was chosen is remembered. */
function chips(panes, wall, scrub) {
  const off = new Set(JSON.parse(localStorage.getItem("panes-off") ?? '["canny","raw","vace_flow","warp","guidance","flow"]'));
  const element = h("div", { class: "chips", role: "group", "aria-label": "Pictures" });
  let seen = [];
  const apply = () => {
    seen = panes.filter((pane) => panes.fixed || !off.has(pane.name));
    if (!seen.length) seen = panes.slice(0, 1);
    wall.set(seen.map((pane) => pane.made ??= pane.make()));
    for (const pane of seen) pane.made.onload = progress;
    fill(element, panes.fixed ? null : panes.map((pane) => h("button", {
      type: "button", class: "chip", "aria-pressed": String(seen.includes(pane)), text: pane.title, on: { click: () => {
        if (off.has(pane.name)) off.delete(pane.name);
        else off.add(pane.name);
        localStorage.setItem("panes-off", JSON.stringify([...off]));
        const at = [...element.children].indexOf(document.activeElement);
        apply();
        element.children[at]?.focus();
      } },
    })), panes.controls ?? null);
    progress();
  };
  const progress = () => {
    const sources = seen.map((pane) => pane.made.source).filter((source) => source.way);
    const share = sources.reduce((sum, source) => sum + source.loaded / source.count, 0) / Math.max(1, sources.length);
    scrub.loaded(sources.length ? share : 1);
  };
  return { element, apply };
}
