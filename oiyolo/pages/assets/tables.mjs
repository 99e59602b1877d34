// Tables that can be sorted by clicking a heading, and filtered if they are long.

const LONG = 10;
const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

// Return the number that a cell begins with, or null: "12.5%", "1,234", "3e-05", "0.5 to 0.7".
export function numberOf(text) {
  const match = /^[+-]?[\d,]*\.?\d+(e[+-]?\d+)?/i.exec(text.trim().replace("\u2212", "-"));
  return match ? Number(match[0].replaceAll(",", "")) : null;
}

// Compare two texts as numbers if both are, else as words; what is not known comes last in
// either direction, which is 1 or -1.
export function compareCells(a, b, direction = 1) {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null && y !== null) return direction * (x - y);
  if (x === null && y === null) return direction * collator.compare(a, b);
  return x === null ? 1 : -1;
}

function sort(table, column, heading) {
  const ascending = heading.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = table.tBodies[0];
  const sign = ascending ? 1 : -1;
  const rows = [...body.rows].sort(
    (a, b) => compareCells(a.cells[column].textContent, b.cells[column].textContent, sign));
  body.append(...rows);
}

function addFilter(table) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  input.type = "search";
  label.append("Filter rows ", input);
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    for (const row of table.tBodies[0].rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    }
  });
  const box = document.createElement("div");
  box.className = "filter";
  box.append(label);
  table.parentElement.before(box);
}

for (const table of document.querySelectorAll("table.sortable")) {
  if (table.tBodies[0].rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(table, column, heading));
  });
  if (table.tBodies[0].rows.length > LONG) addFilter(table);
}
