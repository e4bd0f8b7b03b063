// What the page asks its server for. Addresses are relative: the API may lie below a path of its own.

/** An answer that says no; `code` and `message` are those of the typed error. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body?.message ?? `the server answered ${status}`);
    this.name = "ApiError";
    this.status = status;
    this.code = body?.code ?? `HTTP ${status}`;
    this.detail = body?.detail ?? {};
  }
}

/** Return `parts` as a path, each part as one part whatever it has in it, with a query of what is not undefined. */
export function address(parts, query = {}) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== null) asked.set(name, value);
  const text = asked.toString();
  return parts.map(encodeURIComponent).join("/") + (text ? `?${text}` : "");
}

async function answered(reply) {
  if (reply.ok) return reply.status === 204 ? null : reply.json();
  let body = null;
  try {
    body = await reply.json();
  } catch {
    // a gateway between here and there answers in HTML
  }
  throw new ApiError(reply.status, body);
}

export async function get(parts, query, signal) {
  return answered(await fetch(address(parts, query), { signal, headers: { Accept: "application/json" } }));
}

export async function send(method, parts, body, query, signal) {
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  const text = body === undefined ? undefined : JSON.stringify(body);
  return answered(await fetch(address(parts, query), { method, headers, body: text, signal }));
}

/** Iterate over the pages of a list. */
export async function* pages(parts, query, signal) {
  let page;
  do {
    const found = await get(parts, { ...query, page }, signal);
    yield found;
    page = found.next_page;
  } while (page !== null && page !== undefined);
}

export const blobOf = (base64) => new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type: "image/jpeg" });

/** Put a file where the server said; `seen` is told the share that is done. */
export function put(target, file, seen, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(target.method, target.url);
    for (const [name, value] of Object.entries(target.headers ?? {})) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => event.lengthComputable && seen(event.loaded / event.total));
    request.addEventListener("load", () => (request.status < 300 ? resolve() : reject(new ApiError(request.status))));
    request.addEventListener("error", () => reject(new Error(`${file.name} could not be sent`)));
    request.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
    signal?.addEventListener("abort", () => request.abort(), { once: true });
    request.send(file);
  });
}
