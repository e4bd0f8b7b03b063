// The index of an H.264 mp4 with one video track, as the project's encoder and most others write it (ISO/IEC 14496-12):
// where each coded frame lies, when it is shown, and what a decoder must know. Nothing is decoded here.

const CONTAINERS = new Set(["moov", "trak", "mdia", "minf", "stbl"]);

/** Iterate over the boxes between two places of a file. */
function* boxes(view, start, end) {
  for (let at = start; at + 8 <= end;) {
    let size = view.getUint32(at);
    let head = 8;
    if (size === 1) { size = Number(view.getBigUint64(at + 8)); head = 16; }
    if (size === 0) size = end - at;
    if (size < head || at + size > end) throw new Error("a box of the mp4 does not fit into it");
    yield { type: name(view, at + 4), start: at + head, end: at + size };
    at += size;
  }
}

const name = (view, at) => String.fromCharCode(...[0, 1, 2, 3].map((by) => view.getUint8(at + by)));

function gather(view, start, end, found) {
  for (const box of boxes(view, start, end)) {
    if (CONTAINERS.has(box.type)) gather(view, box.start, box.end, found);
    else found[box.type] ??= box;
  }
  return found;
}

function table(view, box, width, read) {
  const count = view.getUint32(box.start + 4);
  if (box.start + 8 + count * width > box.end) throw new Error(`the table ${box.type} of the mp4 is cut off`);
  return Array.from({ length: count }, (_, at) => read(box.start + 8 + at * width));
}

/** Return runs as one value per frame. */
function spread(runs) {
  const all = [];
  for (const [count, value] of runs) for (let at = 0; at < count; at += 1) all.push(value);
  return all;
}

function track(view, start, end) {
  const box = gather(view, start, end, {});
  const isVideo = box.hdlr && name(view, box.hdlr.start + 8) === "vide";
  return isVideo && box.stsd && box.stsz && box.stsc && box.stts && (box.stco || box.co64) ? box : null;
}

/**
 * Read the index of a file.
 * @param {ArrayBuffer} data the whole file
 * @returns {{codec: string, description: Uint8Array, width: number, height: number,
 *   frames: {offset: number, size: number, key: boolean, shown: number}[]}} in the order of decoding; `shown` is the
 *   place in the order of showing.
 */
export function demux(data) {
  const view = new DataView(data);
  const moov = [...boxes(view, 0, data.byteLength)].find((box) => box.type === "moov");
  if (!moov) throw new Error("the file has no index (moov)");
  const traks = [...boxes(view, moov.start, moov.end)].filter((box) => box.type === "trak");
  const box = traks.map((one) => track(view, one.start, one.end)).find(Boolean);
  if (!box) throw new Error("the file has no video track");
  const entry = [...boxes(view, box.stsd.start + 8, box.stsd.end)][0];
  if (entry?.type !== "avc1") throw new Error(`expected H.264, got ${entry?.type}`);
  const avc = [...boxes(view, entry.start + 78, entry.end)].find((one) => one.type === "avcC");
  if (!avc) throw new Error("the file does not say how its H.264 is set up");
  const description = new Uint8Array(data.slice(avc.start, avc.end));
  const hex = (value) => value.toString(16).padStart(2, "0");
  const fixed = view.getUint32(box.stsz.start + 4);
  const count = view.getUint32(box.stsz.start + 8);
  if (!fixed && box.stsz.start + 12 + 4 * count > box.stsz.end) throw new Error("the table stsz of the mp4 is cut off");
  const sizes = Array.from({ length: count }, (_, at) => fixed || view.getUint32(box.stsz.start + 12 + 4 * at));
  const offsets = placed(view, box, sizes);
  const keys = box.stss && new Set(table(view, box.stss, 4, (at) => view.getUint32(at) - 1));
  const pairs = (one, signed) => spread(table(view, one, 8, (at) =>
    [view.getUint32(at), signed ? view.getInt32(at + 4) : view.getUint32(at + 4)]));
  const lasts = pairs(box.stts, false);
  const late = box.ctts ? pairs(box.ctts, true) : [];
  let time = 0;
  const frames = sizes.map((size, at) => {
    const moment = time + (late[at] ?? 0);
    time += lasts[at] ?? 0;
    return { offset: offsets[at], size, key: keys ? keys.has(at) : true, moment };
  });
  if (frames.some((one) => !(one.offset + one.size <= data.byteLength))) throw new Error("the file is cut off");
  [...frames].sort((a, b) => a.moment - b.moment).forEach((one, at) => { one.shown = at; });
  return {
    codec: `avc1.${hex(description[1])}${hex(description[2])}${hex(description[3])}`,
    description,
    width: view.getUint16(entry.start + 24),
    height: view.getUint16(entry.start + 26),
    frames,
  };
}

/** Return where each frame lies: chunks of so many frames each, one frame behind the other in a chunk. */
function placed(view, box, sizes) {
  const chunks = box.co64
    ? table(view, box.co64, 8, (at) => Number(view.getBigUint64(at)))
    : table(view, box.stco, 4, (at) => view.getUint32(at));
  const runs = table(view, box.stsc, 12, (at) => [view.getUint32(at), view.getUint32(at + 4)]);
  const offsets = [];
  for (let chunk = 0, run = 0; chunk < chunks.length && offsets.length < sizes.length; chunk += 1) {
    while (run + 1 < runs.length && runs[run + 1][0] <= chunk + 1) run += 1;
    let at = chunks[chunk];
    for (let left = runs[run][1]; left > 0 && offsets.length < sizes.length; left -= 1) {
      offsets.push(at);
      at += sizes[offsets.length - 1];
    }
  }
  return offsets;
}
