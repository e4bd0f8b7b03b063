// Pictures by frame number, kept so that a scrubber finds them at once. What is kept may be smaller than the video
// (a proxy, as editors call it): all frames of a segment, whatever their number, have one budget of memory together.

import { blobOf, get } from "./api.js";
import { dropped } from "./dom.js";
import { demux } from "./mp4.js";

const BUDGET_BYTES = (navigator.deviceMemory ?? 4) >= 8 ? 160e6 : 64e6;
const WHOLE_FILE_BYTES = 96e6;
const WIDEST_PX = 1280;
const AHEAD = 12;

/** Return the size at which `count` pictures fit the budget. */
function proxy(width, height, count) {
  const scale = Math.min(1, WIDEST_PX / width, Math.sqrt(BUDGET_BYTES / (4 * width * height * Math.max(1, count))));
  return { width: Math.max(16, Math.round(width * scale)), height: Math.max(16, Math.round(height * scale)) };
}

/** Return what makes pictures of a size out of frames. Scaling by a canvas takes half as long as by createImageBitmap. */
function scaler(size, small) {
  if (small.width >= size.width) return (frame) => createImageBitmap(frame);
  const canvas = new OffscreenCanvas(small.width, small.height);
  const context = canvas.getContext("2d", { alpha: false });
  context.imageSmoothingQuality = "medium";
  return async (frame) => {
    context.drawImage(frame, 0, 0, small.width, small.height);
    return canvas.transferToImageBitmap();
  };
}

/** What all sources share: pictures by frame, and who is told of new ones. */
class Frames {
  constructor(count, signal) {
    this.count = count;
    this.signal = signal;
    this.error = null;
    this.pictures = new Array(count).fill(null);
    this.loaded = 0;
    this.near = 0;
    this.tell = () => {};
    signal.addEventListener("abort", () => this.drop(), { once: true });
  }

  /** Return the picture of a frame; null while there is none. */
  at(frame) {
    return this.pictures[frame] ?? null;
  }

  /** Say where the playhead is: what lies near is loaded first. */
  want(frame) {
    this.near = frame;
  }

  keep(frame, picture) {
    if (this.signal.aborted || frame < 0 || frame >= this.count) {
      picture.close();
      return;
    }
    if (this.pictures[frame]) this.pictures[frame].close();
    else this.loaded += 1;
    this.pictures[frame] = picture;
    this.tell(frame);
  }

  failed(error) {
    if (dropped(error) || this.signal.aborted) return;
    this.error = error;
    this.tell(this.near);
  }

  drop() {
    for (const picture of this.pictures) picture?.close();
    this.pictures = [];
  }
}

/** An mp4 of the job, every frame of it exactly: decoded by WebCodecs, where a browser has it, else by seeking. */
export class VideoFrames extends Frames {
  constructor(file, count, fps, signal) {
    super(count, signal);
    this.file = file;
    this.fps = fps;
    this.way = "";
    this.index = null;
    this.load().catch((error) => this.failed(error));
  }

  async load() {
    if ("VideoDecoder" in globalThis && this.file.size_bytes <= WHOLE_FILE_BYTES) {
      const reply = await fetch(this.file.url, { signal: this.signal });
      if (!reply.ok) throw new Error(`${this.file.name}: the store answered ${reply.status}`);
      this.data = await reply.arrayBuffer();
      try {
        this.index = demux(this.data);
        this.way = "decoded";
        await this.decode();
        return;
      } catch (error) {
        if (dropped(error) || this.signal.aborted) throw error;
        this.index = null; // another codec, or a file that only a player reads: seeking shows it too
      }
    }
    this.way = "sought";
    await this.seek();
  }

  async decode() {
    const small = proxy(this.index.width, this.index.height, this.count);
    const scaled = scaler(this.index, small);
    await this.run(this.index.frames, async (frame, shown) => this.keep(shown, await scaled(frame)));
    this.full = small.width >= this.index.width;
  }

  /** Decode coded frames, in order; `each` gets the picture and its place, and must not keep the picture. */
  async run(frames, each) {
    const pending = new Set();
    let broken = null;
    const decoder = new VideoDecoder({
      output: (frame) => {
        const work = each(frame, frame.timestamp).catch((error) => { broken ??= error; }).finally(() => {
          frame.close();
          pending.delete(work);
        });
        pending.add(work);
      },
      error: (error) => { broken ??= error; },
    });
    try {
      const { codec, description, width, height } = this.index;
      decoder.configure({ codec, description, codedWidth: width, codedHeight: height, optimizeForLatency: true });
      for (const one of frames) {
        while (!broken && (decoder.decodeQueueSize > AHEAD || pending.size > AHEAD)) await new Promise((go) => setTimeout(go));
        this.signal.throwIfAborted();
        if (broken) throw broken;
        decoder.decode(new EncodedVideoChunk({
          type: one.key ? "key" : "delta", timestamp: one.shown, data: new Uint8Array(this.data, one.offset, one.size),
        }));
      }
      await decoder.flush();
      await Promise.all(pending);
      if (broken) throw broken;
    } finally {
      if (decoder.state !== "closed") decoder.close();
    }
  }

  /** Return a frame at the video's own size, if what is kept is smaller; the caller closes it. */
  async whole(frame, signal) {
    if (!this.index || this.full) return null;
    const { frames } = this.index;
    const wanted = frames.findIndex((one) => one.shown === frame);
    const from = frames.findLastIndex((one, at) => at <= wanted && one.key);
    let found = null;
    await this.run(frames.slice(from, wanted + 1), async (picture, shown) => {
      signal.throwIfAborted();
      if (shown === frame) found = await createImageBitmap(picture);
    });
    return found;
  }

  async seek() {
    const video = document.createElement("video");
    video.muted = true;
    video.preload = "auto";
    video.src = this.file.url;
    const event = (type) => new Promise((resolve, reject) => {
      const end = () => reject(this.signal.reason);
      video.addEventListener(type, resolve, { once: true, signal: this.signal });
      video.addEventListener("error", () => reject(new Error(`${this.file.name} can't be played by this browser`)), { once: true });
      this.signal.addEventListener("abort", end, { once: true });
    });
    await event("loadeddata");
    const size = { width: video.videoWidth, height: video.videoHeight };
    const scaled = scaler(size, proxy(size.width, size.height, this.count));
    for (let done = 0; done < this.count; done += 1) {
      const frame = this.nearest();
      const there = event("seeked");
      let seen;
      // The place is reached before its picture is: the one drawn until then is another frame's.
      const shown = new Promise((done) => { seen = done; video.requestVideoFrameCallback?.(done); });
      video.currentTime = (frame + 0.5) / this.fps;
      await there;
      setTimeout(seen, 200);
      await shown;
      this.keep(frame, await scaled(video));
    }
    video.removeAttribute("src");
    video.load();
  }

  nearest() {
    for (let far = 0; far < this.count; far += 1) {
      if (this.near + far < this.count && !this.pictures[this.near + far]) return this.near + far;
      if (this.near - far >= 0 && !this.pictures[this.near - far]) return this.near - far;
    }
    return 0;
  }
}

/** Pictures that are asked for one by one or in groups, what is near first. `load(frames)` gives pictures by frame. */
export class AskedFrames extends Frames {
  constructor(count, signal, { has, load, group = 1, atOnce = 3, most = Infinity }) {
    super(count, signal);
    Object.assign(this, { has, ask: load, group, atOnce, most });
    this.asked = new Set();
    this.under = 0;
    this.go();
  }

  want(frame) {
    super.want(frame);
    this.go();
  }

  go() {
    while (this.under < this.atOnce && !this.signal.aborted) {
      const wanted = this.next();
      if (!wanted.length) return;
      this.under += 1;
      for (const frame of wanted) this.asked.add(frame);
      this.ask(wanted, this.signal)
        .then((found) => { for (const [frame, picture] of found) this.keep(frame, picture); })
        .catch((error) => this.failed(error))
        .finally(() => { this.under -= 1; this.go(); });
    }
  }

  next() {
    const found = [];
    for (let far = 0; far < this.count && far <= this.most && found.length < this.group; far += 1) {
      for (const frame of far ? [this.near + far, this.near - far] : [this.near]) {
        if (frame >= 0 && frame < this.count && !this.asked.has(frame) && this.has(frame)) found.push(frame);
      }
    }
    return found.sort((a, b) => a - b);
  }
}

/** The structure video's frames that a segment plays, out of the frame cache. */
export function cachedFrames(timelineId, sequences, signal) {
  return new AskedFrames(sequences.length, signal, {
    has: (frame) => sequences[frame] !== null,
    group: 16,
    atOnce: 2,
    load: async (frames) => {
      const numbers = [...new Set(frames.map((frame) => sequences[frame]))].sort((a, b) => a - b);
      const found = new Map();
      let page;
      do {
        const reply = await get(["timelines", timelineId, "frames"],
          { sequences: numbers.join(","), width_px: 640, quality: 80, damaged: "list", page }, signal);
        for (const one of reply.frames) found.set(one.sequence, one.jpeg_base64);
        page = reply.next_page;
      } while (page);
      const shown = frames.filter((frame) => found.has(sequences[frame]));
      return Promise.all(shown.map(async (frame) => [frame, await createImageBitmap(blobOf(found.get(sequences[frame])))]));
    },
  });
}

/** Pictures that each have an address: overlays, flows of an archive. `most` bounds how far ahead they are loaded. */
export function pictures(addresses, signal, most = 24) {
  return new AskedFrames(addresses.length, signal, {
    has: (frame) => Boolean(addresses[frame]),
    most,
    load: async ([frame]) => {
      const reply = await fetch(addresses[frame], { signal });
      if (!reply.ok) throw new Error(`frame ${frame}: the server answered ${reply.status}`);
      return [[frame, await createImageBitmap(await reply.blob())]];
    },
  });
}
