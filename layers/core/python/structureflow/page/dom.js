// Elements, made without markup: text is text, whatever it says.

const SVG = "http://www.w3.org/2000/svg";

const present = (children) => children.flat(3).filter((child) => child !== null && child !== undefined && child !== false);

function put(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    else if (name === "text") element.textContent = value;
    else if (name === "css") for (const [rule, to] of Object.entries(value)) element.style.setProperty(rule, to);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...present(children));
  return element;
}

/** Make an element; `props` are attributes, and `on`, `text`, `css`, `data`. */
export function h(tag, props, ...children) {
  return put(document.createElement(tag), props, children);
}

/** Make a button that calls `click`. */
export const button = (text, click, more) => h("button", { type: "button", text, on: { click }, ...more });

export const soft = (text, more) => h("p", { class: "soft", text, ...more });

/** Make a list of names, and what is said of each: text, or an element. */
export const pairs = (rows) => h("dl", { class: "pairs" }, rows.map(([name, value]) => [h("dt", { text: name }), h("dd", {}, value)]));

/** Make an element of SVG. */
export function svg(tag, props, ...children) {
  return put(document.createElementNS(SVG, tag), props, children);
}

/** Return an icon: one path on a grid of 24. */
export function icon(path, size = 16) {
  return svg("svg", { viewBox: "0 0 24 24", width: size, height: size, "aria-hidden": "true", class: "glyph" },
    svg("path", { d: path }));
}

export const ICONS = {
  play: "M7 4v16l13-8z",
  pause: "M7 4h4v16H7zM14 4h4v16h-4z",
  first: "M6 4h3v16H6zM20 4v16L9 12z",
  last: "M15 4h3v16h-3zM4 4v16l11-8z",
  back: "M17 4v16L5 12z",
  next: "M7 4v16l12-8z",
  big: "M4 4h6v3H7v3H4zM20 4v6h-3V7h-3V4zM4 20v-6h3v3h3v3zM20 20h-6v-3h3v-3h3z",
  close: "M6.400 5 12 10.600 17.600 5 19 6.400 13.400 12 19 17.600 17.600 19 12 13.400 6.400 19 5 17.600 10.600 12 5 6.400z",
  down: "M11 4h2v8h4l-5 5-5-5h4zM5 18h14v2H5z",
  loop: "M7 7h10v3l4-4-4-4v3H5v6h2zM17 17H7v-3l-4 4 4 4v-3h12v-6h-2z",
};

/** Put `children` into `element` in place of what it has. */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
  return element;
}

/** Say something to those who listen to the page. */
export function say(text) {
  document.getElementById("say").textContent = text;
}

/** Return a box that says what went wrong, with a way on where there is one. */
export function problem(error, again) {
  return h("div", { class: "problem", role: "alert" },
    h("strong", { text: error.code ?? error.name ?? "Error" }),
    h("p", { text: error.message }),
    again && button("Try again", again));
}

export function empty(title, text, more) {
  return h("div", { class: "empty" }, h("h2", { text: title }), h("p", { text }), more);
}

/** Ask before something is done that cannot be undone; resolves to the form's data, or null. */
export function ask({ title, text, yes, danger = false, fields = [] }) {
  return new Promise((resolve) => {
    const form = h("form", { method: "dialog" },
      h("h2", { text: title, id: "ask-title" }), text.map((line) => h("p", { text: line })), fields,
      h("div", { class: "row end" },
        h("button", { type: "submit", value: "no", text: "Cancel", formnovalidate: true, autofocus: true }),
        h("button", { type: "submit", value: "yes", class: danger ? "danger" : "primary", text: yes })));
    const dialog = h("dialog", { class: "ask", "aria-labelledby": "ask-title" }, form);
    dialog.addEventListener("close", () => {
      const found = dialog.returnValue === "yes" ? new FormData(form) : null;
      dialog.remove();
      resolve(found);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Let files be dropped onto an element. */
export function takes(element, dropped) {
  const over = (event) => { event.preventDefault(); element.classList.toggle("over", event.type === "dragover"); };
  for (const type of ["dragover", "dragleave", "drop"]) element.addEventListener(type, over);
  element.addEventListener("drop", (event) => dropped([...event.dataTransfer.files], event));
}

/** Call `act` once the calls have paused for `ms`. */
export function settled(act, ms) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), ms);
  };
}

/** Wait; ends at once, with an error, when `signal` does. */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const end = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal?.removeEventListener("abort", end); resolve(); }, ms);
    signal?.addEventListener("abort", end, { once: true });
  });
}

export const dropped = (error) => error?.name === "AbortError";
