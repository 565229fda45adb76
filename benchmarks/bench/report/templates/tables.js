"use strict";
// Tables whose column heads sort their rows.
(() => {
  const valueOf = (row, column, numeric) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    return numeric ? parseFloat(text) : text.toLowerCase();
  };
  // What is missing comes last in either direction.
  const compare = (one, other, direction) => {
    const gone = Number.isNaN(one) - Number.isNaN(other);
    return gone || direction * (one < other ? -1 : one > other ? 1 : 0) || 0;
  };
  const sort = (table, head, column) => {
    const numeric = head.dataset.sort === "number";
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [valueOf(row, column, numeric), row]);
    rows.sort((one, other) => compare(one[0], other[0], up ? 1 : -1));
    body.replaceChildren(...rows.map((pair) => pair[1]));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
      if (!head.dataset.sort) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, head, column));
      head.append(button);
    }
  }
})();
