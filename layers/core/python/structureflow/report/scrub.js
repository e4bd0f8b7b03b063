// The scrubber of the report: the strip of a segment moves all of its videos. Without scripts, the strip is a picture.
// It goes into the page behind the player of the web page (page/player.js).

for (const section of document.querySelectorAll("section.segment")) {
  const strip = section.querySelector(".strip.tall");
  const videos = [...section.querySelectorAll("video")];
  if (!strip || !videos.length) continue;
  const frames = Number(strip.dataset.frames);
  const fps = Number(strip.dataset.fps);
  const player = new Player(frames, fps, new AbortController().signal);
  const head = document.createElement("b");
  const place = document.createElement("p");
  head.className = "head";
  place.className = "soft place";
  const set = (names) => { for (const [name, value] of Object.entries(names)) strip.setAttribute(name, value); };
  set({ role: "slider", tabindex: 0, "aria-valuemin": 0, "aria-valuemax": frames - 1, "aria-label": `Frame of all videos of ${section.querySelector("h2").textContent}` });
  strip.append(head);
  strip.after(place);

  const show = () => {
    const run = [...strip.querySelectorAll("i")].find((one) => Number(one.dataset.last) >= player.frame);
    head.style.left = `${100 * (player.frame + 0.5) / frames}%`;
    set({ "aria-valuenow": player.frame, "aria-valuetext": `frame ${player.frame}, ${run ? run.title : ""}` });
    place.textContent = `Frame ${player.typed ? `→ ${player.typed}` : player.frame} · ${run ? run.title : ""}`;
  };
  // videos are played by the browser, and the head follows the first of them
  player.play = (speed = 1) => {
    player.speed = speed > 0 ? 1 : 0;
    for (const video of videos) {
      if (speed > 0) video.play();
      else video.pause();
    }
    if (speed < 0) player.seek(player.frame - 1);
    if (speed > 0) requestAnimationFrame(follow);
  };
  const follow = () => {
    if (!player.speed) return;
    player.seek(Math.floor(videos[0].currentTime * fps));
    requestAnimationFrame(follow);
  };
  player.addEventListener("frame", () => {
    // half a frame on: between two frames, a browser may show either
    if (!player.speed) for (const video of videos) video.currentTime = (player.frame + 0.5) / fps;
    show();
  });
  player.addEventListener("typed", show);
  const there = (event) => {
    const box = strip.getBoundingClientRect();
    player.seek(Math.floor((event.clientX - box.left) / box.width * frames));
  };
  strip.addEventListener("pointerdown", (event) => {
    player.pause();
    strip.setPointerCapture(event.pointerId);
    there(event);
  });
  strip.addEventListener("pointermove", (event) => strip.hasPointerCapture(event.pointerId) && there(event));
  const edges = [...strip.querySelectorAll("i")].map((one) => Number(one.dataset.first));
  strip.addEventListener("keydown", (event) => { if (player.key(event, edges)) event.preventDefault(); });
  show();
}
