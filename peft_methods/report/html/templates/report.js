"use strict";
// Sorting: every heading becomes a button. A second press reverses the order.
// Missing values stay last.
function compare(a, b) {
  const numbers = [a, b].map(Number);
  if (numbers.some(Number.isNaN)) return a.localeCompare(b, "en", { numeric: true });
  return numbers[0] - numbers[1];
}
function sort(table, column, heading) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row, index) => {
    return { row, index, key: row.cells[column].dataset.sort };
  });
  keyed.sort((a, b) => {
    const missing = [a, b].map((one) => one.key === undefined);
    if (missing[0] || missing[1]) return missing[0] - missing[1] || a.index - b.index;
    return compare(a.key, b.key) * (down ? -1 : 1) || a.index - b.index;
  });
  body.append(...keyed.map((one) => one.row));
}
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, column, heading));
    heading.append(button);
  });
}
// A printed page cannot be unfolded: open all details before printing.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const one of closed) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of closed) one.open = false;
});
