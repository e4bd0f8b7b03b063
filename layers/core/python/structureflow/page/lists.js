// What the views that are lists have in common: their heading, their table, and what is said below it.

import { fill, h } from "./dom.js";
import { ago, moment } from "./words.js";

/** Show an empty list, some of whose columns are numbers; returns its table, the table's body, and the box below. */
export function listed(main, title, columns, numbers, ...head) {
  const body = h("tbody");
  const below = h("div", { class: "below" });
  const table = h("table", { class: "list" }, h("caption", { class: "hidden", text: title }), h("thead", {}, h("tr", {},
    columns.map((name) => h("th", { scope: "col", text: name, class: numbers.includes(name) && "number" })))), body);
  fill(main, h("div", { class: "page" }, h("div", { class: "head" }, h("h1", { text: title }), head), table, below));
  return { table, body, below };
}

/** Return the cells of a row: a name that leads to `href`, what is known, and when it was written. */
export function cells(name, href, iso, ...known) {
  return [h("th", { scope: "row" }, h("a", { href, text: name })), known, h("td", { class: "soft", title: moment(iso), text: ago(iso) })];
}
