// How the page says numbers.

export function size(bytes) {
  for (const [unit, scale] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= scale) return `${Number((bytes / scale).toPrecision(3))} ${unit}`;
  }
  return `${bytes} B`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 5400) return `${Math.floor(value / 3600)} h ${String(Math.floor(value / 60) % 60).padStart(2, "0")} min`;
  if (value >= 90) return `${Math.floor(value / 60)} min ${String(Math.floor(value) % 60).padStart(2, "0")} s`;
  return `${value.toFixed(value < 10 ? 2 : 1)} s`;
}

export function dollars(usd) {
  if (!usd) return "–"; // nothing is known of it
  return usd >= 1 ? `$${usd.toFixed(2)}` : `$${usd.toFixed(usd < 0.01 ? 5 : 4)}`;
}

export function percent(share) {
  if (share === null || share === undefined) return "–";
  const said = (100 * share).toFixed(1);
  if ((said === "0.0" && share > 0)) return "<0.1 %";
  if (said === "100.0" && share < 1) return ">99.9 %";
  return `${said} %`;
}

export const span = ([first, last]) => (first === last ? `${first}` : `${first}–${last}`);

export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** Say a moment by how long ago it was; the exact one belongs into a title. */
export function ago(iso, now = Date.now()) {
  if (!iso) return "–";
  const past = Math.max(0, (now - Date.parse(iso)) / 1000);
  if (past < 10) return "now";
  if (past < 90) return `${Math.round(past)} s ago`;
  if (past < 5400) return `${Math.round(past / 60)} min ago`;
  if (past < 129600) return `${Math.round(past / 3600)} h ago`;
  return iso.slice(0, 10);
}

export const moment = (iso) => (iso ? `${iso.slice(0, 19).replace("T", " ")} UTC` : "");

/** Say a time of a video as editors do: minutes, seconds, frames. */
export function timecode(frame, fps) {
  const rate = Math.max(1, Math.round(fps));
  const all = Math.floor(frame / rate);
  const two = (value) => String(value).padStart(2, "0");
  return `${two(Math.floor(all / 60))}:${two(all % 60)}:${two(frame % rate)}`;
}

export const KINDS = { guided: "guided: your frames", filled: "filled by motion", generated: "left to the generator" };

const NAMES = {
  structure: "Structure", flow_vis: "Flow", visibility: "Visibility", guide: "Guide", mask: "Mask", path: "Path",
  raw: "Structure (raw)", canny: "Edges", vace_flow: "VACE flow", warp: "Warp", guidance: "Guidance", flow: "Flow",
};
export const named = (name) => NAMES[name] ?? name.replaceAll("_", " ");
