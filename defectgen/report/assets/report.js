// Sorting tables, opening targets, printing all of them.
function cellValue(row, index) {
  const text = row.cells[index].textContent.trim();
  const number = parseFloat(text.replace("\u2212", "-"));
  return Number.isNaN(number) || /[A-Za-z]/.test(text) ? text : number;
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const head = button.closest("th"), index = heads.indexOf(head);
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [cellValue(row, index), row]);
    rows.sort(([a], [b]) => sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))));
    body.append(...rows.map(([, row]) => row));
  });
}
function openTarget() {
  const details = location.hash && document.querySelector(location.hash + " > details");
  if (details) details.open = true;
}
addEventListener("hashchange", openTarget);
openTarget();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
