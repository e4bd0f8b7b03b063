// All jobs, live: the list is asked for again while one of them runs.

import { get, pages } from "./api.js";
import { button, dropped, empty, fill, h, pause, problem } from "./dom.js";
import { cells, listed } from "./lists.js";
import { ago, dollars, plural, seconds } from "./words.js";

const QUICK_MS = 1500;
const SLOW_MS = 15000;
const STATES = ["all", "running", "done", "failed"];

export async function view(main, { query, signal }) {
  const wanted = STATES.includes(query.get("state")) ? query.get("state") : "all";
  const search = h("input", { type: "search", placeholder: "Find a job", "aria-label": "Find a job", class: "find" });
  const tabs = h("div", { class: "chips", role: "group", "aria-label": "State" });
  const { table, body, below } = listed(main, "Jobs", ["Job", "State", "Progress", "Time", "Cost", "Updated"], ["Time", "Cost"], tabs, search);
  search.addEventListener("input", () => draw());

  const rows = new Map();
  let jobs = [];
  let next = null;
  let loaded = 0;

  function draw() {
    const count = (state) => jobs.filter((job) => state === "all" || group(job) === state).length;
    fill(tabs, STATES.map((state) => h("a", {
      class: "chip", href: state === "all" ? "#/jobs" : `#/jobs?state=${state}`,
      "aria-current": state === wanted ? "true" : null,
    }, state, h("span", { class: "count", text: next ? `${count(state)}+` : count(state) }))));
    const text = search.value.trim().toLowerCase();
    const seen = jobs.filter((job) =>
      (wanted === "all" || group(job) === wanted) && job.task_id.toLowerCase().includes(text));
    const kept = new Set(seen.map((job) => job.task_id));
    for (const [id, row] of rows) if (!kept.has(id)) { row.element.remove(); rows.delete(id); }
    seen.forEach((job, at) => {
      const text = JSON.stringify(job) + ago(job.updated_at);
      let row = rows.get(job.task_id);
      if (!row) rows.set(job.task_id, row = { element: h("tr"), text: "" });
      if (row.text !== text) { fillRow(row.element, job); row.text = text; }
      if (body.children[at] !== row.element) body.insertBefore(row.element, body.children[at] ?? null);
    });
    table.hidden = seen.length === 0;
    fill(below,
      seen.length === 0 && (jobs.length
        ? empty("No such job", "None of the jobs fits.")
        : empty("No jobs yet", "A job turns a structure video and a few images into a guide and a mask for your generator.",
          h("p", {}, h("a", { class: "button primary", href: "#/new", text: "Make the first one" })))),
      next && button(`More than ${plural(jobs.length, "job")}: show more`, more));
  }

  async function more() {
    const found = await get(["jobs"], { limit: 200, page: next }, signal);
    jobs = jobs.concat(found.jobs);
    next = found.next_page;
    loaded = jobs.length;
    draw();
  }

  async function refresh() {
    let found = [];
    for await (const page of pages(["jobs"], { limit: 200 }, signal)) {
      found = found.concat(page.jobs);
      next = page.next_page;
      if (found.length >= Math.max(200, loaded)) break;
    }
    jobs = found;
    draw();
  }

  await refresh();
  watch();

  async function watch() {
    for (;;) {
      try {
        await pause(jobs.some((job) => group(job) === "running") ? QUICK_MS : SLOW_MS, signal);
        if (document.hidden) continue;
        await refresh();
        main.querySelector(".problem")?.remove();
      } catch (error) {
        if (dropped(error) || signal.aborted) return;
        main.querySelector(".problem")?.remove();
        main.firstChild.prepend(problem(error));
      }
    }
  }
}

const group = (job) => ({ requested: "running", unreadable: "failed" })[job.state] ?? job.state;

function fillRow(row, job) {
  const done = job.segments ? (job.segments_done ?? 0) / job.segments : 0;
  const running = group(job) === "running";
  const part = job.segments ? `${job.segments_done ?? 0} of ${job.segments} segments` : job.stage ?? "";
  fill(row, cells(job.task_id, `#/jobs/${encodeURIComponent(job.task_id)}${job.state === "requested" ? "?sent=1" : ""}`, job.updated_at,
    h("td", {}, h("span", { class: `state ${job.state}`, text: job.state })),
    h("td", { class: "progress" },
      job.error
        ? h("span", { class: "why", title: job.error.message }, h("b", { text: job.error.code }), " ", job.error.message)
        : [running && h("progress", { max: 1, value: job.segments ? done : null, "aria-label": `${job.task_id}: ${part}` }),
          h("span", { class: "soft", text: running && job.segments && job.stage ? `${job.stage} · ${part}` : part })]),
    [seconds(job.elapsed_s), (running && job.cost_usd ? "≈ " : "") + dollars(job.cost_usd)].map((text) => h("td", { class: `number${text === "–" ? " unknown" : ""}`, text }))));
}
