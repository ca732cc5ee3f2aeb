"use strict";
// Sorting: every heading becomes a button. A second press reverses the order, a third one restores
// the order of the page. Missing values stay last.
function compare(a, b) {
  const numbers = [a, b].map(Number);
  if (numbers.some(Number.isNaN)) return a.localeCompare(b, "en", { numeric: true });
  return numbers[0] - numbers[1];
}
function sort(table, bodies, column, heading) {
  const before = heading.getAttribute("aria-sort");
  const down = before === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  for (const { body, title, rows } of bodies) {
    if (title) fold(title, rows, false);
    body.replaceChildren(...(title ? [title] : []), ...rows);
  }
  if (before === "descending") return;
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  for (const { title } of bodies) title?.remove();
  const keyed = bodies.flatMap(({ rows }) => rows).map((row, index) => {
    return { row, index, key: row.cells[column].dataset.sort };
  });
  keyed.sort((a, b) => {
    const missing = [a, b].map((one) => one.key === undefined);
    if (missing[0] || missing[1]) return missing[0] - missing[1] || a.index - b.index;
    return compare(a.key, b.key) * (down ? -1 : 1) || a.index - b.index;
  });
  bodies[0].body.append(...keyed.map((one) => one.row));
}
// Parts of a table fold: their title becomes a button.
function fold(title, rows, isFolded) {
  title.querySelector("button").setAttribute("aria-expanded", !isFolded);
  for (const row of rows) row.hidden = isFolded;
}
function addFold(title, rows) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...title.cells[0].childNodes);
  button.addEventListener("click", () => fold(title, rows, !rows[0].hidden));
  title.cells[0].append(button);
  fold(title, rows, false);
}
for (const table of document.querySelectorAll("table.sortable")) {
  const bodies = [...table.tBodies].map((body) => {
    const title = body.querySelector("tr.part");
    const rows = [...body.rows].filter((row) => row !== title);
    if (title) addFold(title, rows);
    return { body, title, rows };
  });
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, bodies, column, heading));
    heading.append(button);
  });
}
// A printed page cannot be unfolded: open all details and parts before printing.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const one of closed) one.open = true;
  for (const one of document.querySelectorAll('tr.part [aria-expanded="false"]')) one.click();
});
addEventListener("afterprint", () => {
  for (const one of closed) one.open = false;
});
