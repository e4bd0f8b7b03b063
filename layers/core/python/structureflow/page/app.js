// The shell: which view is shown, by the part of the address behind "#".

import { dropped, fill, h, problem, say } from "./dom.js";

const VIEWS = {
  jobs: ["./jobs.js", "Jobs"],
  job: ["./job.js", "Job"],
  timelines: ["./timelines.js", "Timelines"],
  timeline: ["./timeline.js", "Timeline"],
  archives: ["./archives.js", "Archives"],
  new: ["./newjob.js", "New job"],
};

const main = document.getElementById("main");
let leave = new AbortController();
let shown = "";

/** Read the address: `#/jobs/walk-1?segment=2`. */
function place() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/").map(decoded).filter(Boolean);
  const name = parts[0] ?? "jobs";
  const view = parts.length > 1 ? { jobs: "job", timelines: "timeline" }[name] ?? name : name;
  return { view, name, id: parts[1], query: new URLSearchParams(query) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // as it stands: no such thing will be found, and that is said
  }
}

async function show() {
  if (location.hash === "#main") return;
  const { view, name, id, query } = place();
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const [module, title] = VIEWS[view] ?? [];
  document.title = `${id ?? title ?? "not found"} · structureflow`;
  main.className = `view-${view}`;
  if (shown && shown !== `${view} ${id}`) {
    main.focus({ preventScroll: true });
    say(document.title);
  }
  shown = `${view} ${id}`;
  if (!module) {
    fill(main, h("div", { class: "empty" }, h("h1", { text: "There is no such page" }),
      h("p", {}, h("a", { href: "#/jobs", text: "All jobs" }))));
    return;
  }
  try {
    const found = await import(module);
    if (signal.aborted) return;
    fill(main);
    await found.view(main, { id, query, signal });
  } catch (error) {
    if (!dropped(error) && !signal.aborted) fill(main, problem(error, show));
  }
}

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
}

const KEYS = [
  ["Space, K", "play, pause"], ["J, L", "play backward, forward; again: faster"], ["← →", "one frame"],
  ["⇧← ⇧→", "ten frames"], ["↑ ↓", "previous, next range"], ["Home, End", "first, last frame"],
  ["0–9, then Enter", "go to a frame"], ["1–9 with Alt", "enlarge a picture"], ["[ ]", "previous, next segment"],
  ["Esc", "all pictures again"], ["?", "this list"],
];

function keys() {
  const dialog = h("dialog", { class: "ask", "aria-labelledby": "keys-title" }, h("form", { method: "dialog" },
    h("h2", { id: "keys-title", text: "Keys" }),
    h("dl", { class: "keys" }, KEYS.map(([key, text]) => [h("dt", {}, h("kbd", { text: key })), h("dd", { text })])),
    h("div", { class: "row end" }, h("button", { text: "Close" }))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

const chosen = localStorage.getItem("theme");
if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
document.getElementById("theme").addEventListener("click", theme);
document.getElementById("keys").addEventListener("click", keys);
document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "?" && !event.target.closest("input, select, textarea, dialog")) keys();
});
addEventListener("hashchange", show);
show();
