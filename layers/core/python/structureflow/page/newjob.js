// A new job: a video, images on a timeline, what the generator takes; checked as it is made, seen before it is sent.

import { ApiError, get, pages, put, send } from "./api.js";
import { ask, button, dropped, fill, h, problem, say, settled, soft, takes } from "./dom.js";
import { Pins } from "./pins.js";
import { preview } from "./preview.js";
import { dollars, plural, seconds, size } from "./words.js";

const CHECK_MS = 500;
const PREVIEWED = 12;
const MOTIONS = { retime: "at the video's speed (retime)", adjust: "stretched to fit (adjust)", clip: "frame by frame (clip)" };
const MASKS = { visibility: "keep what is really seen (visibility)", keyframes: "motion is a hint (keyframes)", filled: "keep all that is filled (filled)" };

const today = () => `job-${new Date().toISOString().slice(0, 16).replace(/[-:]/g, "").replace("T", "-")}`;

export async function view(main, { signal }) {
  const about = await get(["about"], {}, signal);
  const id = h("input", { value: today(), required: true, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]{0,127}", id: "job-id", autocomplete: "off" });
  const target = choice("target", "Generator", [["", "none in particular"], ...about.targets.map((one) => [one.name, `${one.model} (${one.name})`])], "vace");
  const frames = numberField("frames", "Frames a segment", 81, { min: 2, max: about.limits.max_segment_frames });
  const segments = numberField("segments", "Segments", 1, { min: 1, max: about.limits.max_segments });
  const treatment = choice("treatment", "Motion", about.treatments.map((one) => [one, MOTIONS[one] ?? one]), "retime");
  const mask = choice("mask", "Mask", about.masks.map((one) => [one, MASKS[one] ?? one]), "visibility");
  const strength = numberField("strength", "Strength", 1, { min: 0, max: 10, step: 0.1 });
  const overlap = numberField("overlap", "Hold the first image", 21, { min: 1 });
  const hold = numberField("hold", "Hold the last image", 8, { min: 0 });
  const wanted = new Set(["flow_vis", "visibility"]);
  const outputs = h("div", { class: "chips", role: "group", "aria-label": "Further outputs" }, about.outputs.map((name) => button(name.replaceAll("_", " "), (event) => {
    if (!wanted.delete(name)) wanted.add(name);
    event.currentTarget.ariaPressed = wanted.has(name);
    changed();
  }, { class: "chip", "aria-pressed": String(wanted.has(name)) })));
  let video = null;
  const pins = new Pins((image) => { changed(); image?.pin?.focus(); }, (files, at) => addImages(files, at));
  const videoBox = h("div", { class: "drop video-drop" });
  const verdict = h("div", { class: "verdict", role: "status" });
  const trouble = h("div");
  const seen = h("div", { class: "preview" });
  const go = h("button", { type: "submit", class: "primary", disabled: true, text: "Send the job" });
  const look = button("Preview a gap", showPreview, { disabled: true });
  const gap = h("select", { "aria-label": "Gap", hidden: true });
  const form = h("form", { class: "page new", on: { submit: submit, input: changed } },
    h("div", { class: "head" }, h("h1", { text: "New job" }), h("label", { class: "hidden", for: "job-id", text: "Name" }), id,
      h("div", { class: "row end" }, gap, look, go)),
    about.sends ? null : h("p", { class: "notice warn", text: "This store is only shown: nothing here carries jobs out." }),
    h("div", { class: "new-top" }, videoBox, h("fieldset", { class: "fields" }, h("legend", { class: "hidden", text: "Settings" }),
      target.label, frames.label, segments.label, treatment.label, strength.label, mask.label, overlap.label, hold.label,
      h("div", { class: "wide" }, h("span", { class: "soft", text: "Further outputs" }), outputs))),
    h("h2", { text: "Images" }), pins.element,
    h("div", { class: "row" }, filePicker("Add images…", "image/*", true, (files) => addImages(files, null)),
      button("Pick from the store…", () => pick("image", addKnown)),
      button("Spread evenly", () => { pins.spread(); changed(); }),
      h("span", { class: "soft", text: "Drag an image, or move it by arrow keys; Delete takes it away." })),
    trouble, verdict, seen);
  fill(main, form);

  function drawVideo() {
    fill(videoBox, video
      ? [h("video", { src: video.url, controls: true, muted: true, playsinline: true, preload: "metadata", "aria-label": video.name }),
        h("div", { class: "row" }, h("b", { text: video.name }), video.share < 1 && h("progress", { max: 1, value: video.share, "aria-label": `sending ${video.name}` }))]
      : soft("Drop the structure video here: its motion is taken."),
    h("div", { class: "row" }, filePicker(video ? "Another…" : "Choose a file…", "video/*", false, ([file]) => addVideo(file)),
      button("Pick from the store…", () => pick("video", (one) => { video = { ...one, share: 1 }; drawVideo(); changed(); }))));
  }
  takes(videoBox, ([file]) => file && addVideo(file));

  /** Send a file into the job's folder; what is sent there binds the job's name. */
  async function upload(file, most, item, drawn) {
    if (file.size > most) throw new Error(`${file.name}: expected at most ${size(most)}, got ${size(file.size)}`);
    id.readOnly = true;
    const there = await send("POST", ["jobs", id.value, "uploads"], { name: file.name, size_bytes: file.size }, {}, signal);
    await put(there, file, (share) => { item.share = share; drawn(); }, signal);
    Object.assign(item, { key: there.key, share: 1 });
  }

  async function guarded(act, failed = (error) => fill(verdict, problem(error))) {
    try {
      await act();
    } catch (error) {
      if (!dropped(error)) failed(error);
    }
  }

  /** Say that a file was not sent, and do without it. */
  function unsent(error) {
    fill(trouble, problem(error));
    drawVideo();
    changed();
  }

  const shown = (file) => { const url = URL.createObjectURL(file); signal.addEventListener("abort", () => URL.revokeObjectURL(url), { once: true }); return url; };

  function addVideo(file) {
    fill(trouble);
    return guarded(async () => {
      const item = { name: file.name, url: shown(file), share: 0, key: null };
      video = item;
      drawVideo();
      await upload(file, about.limits.max_video_bytes, item, () => { const bar = videoBox.querySelector("progress"); if (bar) bar.value = item.share; });
      drawVideo();
      changed();
    }, (error) => { video = null; unsent(error); });
  }

  function place(item, at) {
    const even = pins.images.every((image, index) => image.at === index * pins.frames);
    pins.images.push(item);
    if (at === null || (even && pins.border(at) !== null)) {
      item.at = at ?? Infinity;
      pins.images.sort((a, b) => a.at - b.at);
      pins.spread();
      segments.input.value = pins.segments;
    } else item.at = at;
  }

  function addKnown(one) {
    place({ ...one, share: 1, at: 0 }, null);
    changed();
  }

  function addImages(files, at) {
    const images = files.filter((file) => file.type.startsWith("image/") || /\.(heic|heif|avif|tiff?)$/i.test(file.name));
    fill(trouble);
    return Promise.all(images.map((file, index) => {
      const item = { name: file.name, url: shown(file), share: 0, key: null, at: 0 };
      return guarded(async () => {
        place(item, at === null ? null : Math.min(pins.total, at + index));
        pins.draw();
        await upload(file, about.limits.max_image_bytes, item, () => pins.show(item));
        changed();
      }, (error) => { pins.images = pins.images.filter((image) => image !== item); unsent(error); });
    }));
  }

  async function pick(kind, chosen) {
    const found = [];
    for await (const page of pages(["inputs"], { limit: 50 }, signal)) {
      found.push(...page.inputs.filter((one) => one.kind === kind));
      if (found.length > 400) break;
    }
    const fields = found.length
      ? h("select", { name: "key", size: Math.min(12, Math.max(2, found.length)), "aria-label": `A ${kind}`, required: true },
        found.map((one) => h("option", { value: one.key, text: `${one.name}  (${size(one.size_bytes)}${one.task_id ? `, ${one.task_id}` : ""})` })))
      : soft(`There is no ${kind} yet.`);
    const answer = await ask({ title: `Pick a ${kind}`, text: [], yes: "Take it", fields: [fields] });
    const one = found.find((other) => other.key === answer?.get("key"));
    if (one) chosen(one);
  }

  function request() {
    const document = { task_id: id.value, structure_video: video?.key, treatment: treatment.input.value, mask: mask.input.value,
      motion_strength: Number(strength.input.value), outputs: about.outputs.filter((name) => wanted.has(name)) };
    if (target.input.value) document.target = target.input.value;
    return { ...document, ...pins.document({ overlap: Number(overlap.input.value), hold: Number(hold.input.value) }) };
  }

  function changed(event) {
    const model = about.targets.find((one) => one.name === target.input.value);
    if (event?.target === target.input && model) {
      // as a request means it that says nothing of these
      const step = model.frame_step;
      frames.input.value = model.frames;
      overlap.input.value = Math.round(19 / step) * step + 1;
      hold.input.value = Math.max(1, Math.ceil(10 / step - 0.5)) * step;
    }
    frames.input.step = model?.frame_step ?? 1;
    frames.input.min = model ? 1 + model.frame_step : 2;
    const before = pins.frames;
    pins.frames = Math.max(2, Number(frames.input.value) || 2);
    if (event?.target === segments.input) pins.segments = Math.max(1, Number(segments.input.value) || 1);
    for (const image of pins.images) {
      if (before !== pins.frames) image.at = image.at % before === 0 ? image.at / before * pins.frames : Math.round(image.at / before * pins.frames);
      image.at = Math.min(image.at, pins.total);
    }
    segments.input.value = pins.segments;
    pins.draw();
    go.disabled = look.disabled = true;
    check();
  }

  const ready = () => video?.key && pins.images.length > 0 && pins.images.every((image) => image.key);
  let asked = 0;
  const check = settled(() => guarded(async () => {
    if (signal.aborted) return;
    if (!ready()) {
      fill(verdict, soft(!video ? "A job needs a structure video." : pins.images.length ? "Files are being sent." : "A job needs an image."));
      return;
    }
    const mine = asked += 1;
    const found = await send("POST", ["jobs", id.value, "check"], request(), {}, signal);
    if (mine !== asked) return;
    pins.unguided = found.segments.map((segment) => segment.unguided);
    pins.draw();
    const cost = h("span", { class: "soft" });
    fill(verdict, found.problems.length
      ? h("div", { class: "problem" }, h("strong", { text: plural(found.problems.length, "thing is", "things are") + " amiss" }), h("ul", {}, found.problems.map((text) => h("li", { text }))))
      : h("p", {}, h("b", { class: "good", text: "Ready. " }), plural(found.segments.length, "segment"), cost));
    const gaps = found.segments.flatMap((segment, index) => segment.unguided.map((range) => ({ index, range })));
    fill(gap, gaps.map(({ index, range }) => h("option", { value: JSON.stringify([index, range]), text: `segment ${index}: ${range.join("–")}` })));
    gap.hidden = gaps.length < 2;
    look.disabled = !found.valid || gaps.length === 0;
    go.disabled = !found.valid || !about.sends;
    if (found.valid) await guarded(async () => {
      const { seconds: time, cost_usd: usd, flows_found: known } = await send("POST", ["forecasts"], { request: request() }, {}, signal);
      cost.textContent = ` · on AWS about ${seconds(time)} and ${dollars(usd)}${known ? ", its flows are there" : ""}`;
    }, (error) => { cost.textContent = ` · ${error.message}`; });
  }), CHECK_MS);

  async function showPreview() {
    const [segment, range] = JSON.parse(gap.value);
    look.disabled = true;
    fill(seen, soft("Looking at the gap…", { role: "status" }));
    await guarded(async () => {
      const found = await send("POST", ["previews"], { request: request(), segment, gap: range, frames: PREVIEWED }, {}, signal);
      await preview(seen, found, signal);
    });
    if (seen.textContent === "Looking at the gap…") fill(seen);
    look.disabled = false;
  }

  async function submit(event) {
    event.preventDefault();
    if (go.disabled) return;
    go.disabled = true;
    await guarded(async () => {
      try {
        await send("PUT", ["jobs", id.value], request(), {}, signal);
      } catch (error) {
        if (!(error instanceof ApiError && error.status === 409)) throw error;
        const answer = await ask({ title: "Do this job again?", yes: "Do it again", text: [`There is a job ${id.value} already. What it made stays until the new run is done.`] });
        if (!answer) return;
        await send("PUT", ["jobs", id.value], request(), { again: true }, signal);
      }
      say("The job is sent");
      location.hash = `#/jobs/${encodeURIComponent(id.value)}?sent=1`;
    });
    go.disabled = false;
  }

  drawVideo();
  changed({ target: target.input });
}

function field(name, label, input) {
  input.id = `field-${name}`;
  return { input, label: h("div", { class: "field" }, h("label", { class: "soft", for: input.id, text: label }), input) };
}

const choice = (name, label, options, chosen) =>
  field(name, label, h("select", {}, options.map(([value, text]) => h("option", { value, text, selected: value === chosen }))));

const numberField = (name, label, value, limits) => field(name, label, h("input", { type: "number", value, required: true, ...limits }));

function filePicker(text, accept, multiple, chosen) {
  const input = h("input", { type: "file", accept, multiple, hidden: true, on: { change: () => { chosen([...input.files]); input.value = ""; } } });
  return h("span", {}, input, button(text, () => input.click()));
}
