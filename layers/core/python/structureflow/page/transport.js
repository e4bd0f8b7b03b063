// Buttons for what keys do as well, and where the playhead is.

import { ICONS, fill, h, icon } from "./dom.js";
import { timecode } from "./words.js";

export function transport(player, fps, signal) {
  const button = (path, label, click, more = {}) => h("button", { type: "button", class: "icon", "aria-label": label, title: label, on: { click }, ...more }, icon(path));
  const playing = button(ICONS.play, "Play (space)", () => player.toggle(), { class: "icon play" });
  const loop = button(ICONS.loop, "Play in a loop", () => { player.loop = !player.loop; loop.setAttribute("aria-pressed", String(player.loop)); }, { "aria-pressed": "true" });
  const place = h("output", { class: "place" });
  const speed = h("span", { class: "speed soft" });
  const follow = () => {
    fill(place, h("b", { text: player.typed ? `→ ${player.typed}` : player.frame }), h("span", { class: "soft", text: ` / ${player.count - 1}` }), h("span", { class: "time", text: timecode(player.frame, fps) }));
  };
  const turned = () => {
    fill(playing, icon(player.speed ? ICONS.pause : ICONS.play));
    playing.setAttribute("aria-label", player.speed ? "Pause (space)" : "Play (space)");
    speed.textContent = player.speed && player.speed !== 1 ? `${player.speed}×` : "";
  };
  player.addEventListener("typed", follow, { signal });
  player.addEventListener("speed", turned, { signal });
  player.follow(follow, signal);
  return h("div", { class: "transport" },
    button(ICONS.first, "First frame (Home)", () => player.step(-player.frame)),
    button(ICONS.back, "One frame back (←)", () => player.step(-1)), playing,
    button(ICONS.next, "One frame on (→)", () => player.step(1)),
    button(ICONS.last, "Last frame (End)", () => player.step(player.count)), loop, place, speed);
}
