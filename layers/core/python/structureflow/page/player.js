// Where the playhead is, and how keys move it: space, arrows, J K L, numbers, as in an editor.

const FASTEST = 8;

export class Player extends EventTarget {
  constructor(count, fps, signal) {
    super();
    Object.assign(this, { count, fps, frame: 0, speed: 0, loop: true });
    this.typed = "";
    signal.addEventListener("abort", () => this.pause(), { once: true });
  }

  seek(frame) {
    const there = Math.min(this.count - 1, Math.max(0, Math.round(frame)));
    if (there === this.frame) return;
    this.frame = there;
    this.dispatchEvent(new Event("frame"));
  }

  /** Call `act` now, and whenever the playhead has moved. */
  follow(act, signal) {
    this.addEventListener("frame", act, { signal });
    act();
  }

  step(by) {
    this.pause();
    this.seek(this.frame + by);
  }

  /** Play at a multiple of the video's rate; negative plays backward, 0 stops. */
  play(speed = 1) {
    const started = this.speed === 0;
    if (started && speed > 0 && !this.loop && this.frame === this.count - 1) this.seek(0);
    this.speed = speed;
    this.from = { frame: this.frame, time: performance.now() };
    this.dispatchEvent(new Event("speed"));
    if (started && speed !== 0) requestAnimationFrame((time) => this.tick(time));
  }

  pause() {
    if (this.speed !== 0) this.play(0);
  }

  toggle() {
    this.play(this.speed === 0 ? 1 : 0);
  }

  /** As J and L: start, or double the speed, or turn round. */
  shuttle(way) {
    this.play(Math.sign(this.speed) === way ? way * Math.min(FASTEST, Math.abs(this.speed) * 2) : way);
  }

  tick(time) {
    if (this.speed === 0) return;
    const passed = Math.max(0, time - this.from.time) / 1000 * this.fps * this.speed;
    const place = this.from.frame + Math.trunc(passed);
    if (this.loop) {
      this.seek(((place % this.count) + this.count) % this.count);
    } else {
      this.seek(place);
      if (place < 0 || place >= this.count) return this.pause();
    }
    requestAnimationFrame((next) => this.tick(next));
  }

  /** Act on a key; tells whether it was one of the player's. `edges` are frames that up and down go to. */
  key(event, edges = []) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    if (/^[0-9]$/.test(event.key)) {
      this.typed = (this.typed + event.key).slice(-6);
      this.dispatchEvent(new Event("typed"));
      return true;
    }
    const typed = this.typed;
    this.typed = "";
    if (typed) this.dispatchEvent(new Event("typed"));
    const far = event.shiftKey ? 10 : 1;
    const act = {
      " ": () => this.toggle(), k: () => this.pause(), j: () => this.shuttle(-1), l: () => this.shuttle(1),
      ArrowLeft: () => this.step(-far), ArrowRight: () => this.step(far),
      ArrowUp: () => this.step((edges.findLast((edge) => edge < this.frame) ?? 0) - this.frame),
      ArrowDown: () => this.step((edges.find((edge) => edge > this.frame) ?? this.count - 1) - this.frame),
      Home: () => this.step(-this.frame), End: () => this.step(this.count - 1 - this.frame),
      PageUp: () => this.step(-10), PageDown: () => this.step(10),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act) act();
    else if (event.key === "Enter" && typed) { this.pause(); this.seek(Number(typed)); }
    else return false;
    return true;
  }
}

const OWN_KEYS = "input, select, textarea, dialog, [contenteditable]";

/** Let keys anywhere on the page move the playhead, except where they have a meaning of their own. */
export function bind(player, signal, edges, more = () => false) {
  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.defaultPrevented || at.closest?.(OWN_KEYS)) return;
    // a button is pressed by space, a link by Enter, a tab list has arrows
    if (at.closest?.("button, a, summary") && [" ", "Enter"].includes(event.key) && !player.typed) return;
    if (more(event) || player.key(event, edges())) event.preventDefault();
  }, { signal });
}
