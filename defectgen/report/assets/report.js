// Sorting and filtering tables, opening targets, printing all of them.
for (const form of document.querySelectorAll("form.filters")) {
  const table = document.getElementById(form.dataset.for), rows = [...table.tBodies[0].rows];
  const cards = new Map([...form.closest("section").querySelectorAll("[data-card]")].map((card) => [card.dataset.card, card]));
  const filter = () => {
    const words = form.elements.text.value.toLowerCase().split(/[\s,]+/).filter(Boolean), kind = form.elements.kind.value;
    const most = parseFloat(form.elements.most.value), energy = parseFloat(form.elements.energy.value);
    let shown = 0;
    for (const row of rows) {
      const label = row.cells[1].textContent.toLowerCase();
      const fits = words.every((word) => label.includes(word)) && (!kind || row.dataset.kind === kind) &&
        !(Number(row.dataset.delta) > most) && !(Number.isFinite(energy) && !(Number(row.dataset.energy ?? NaN) <= energy));
      row.hidden = !fits;
      const card = cards.get(row.dataset.row);
      if (card) card.hidden = !fits;
      shown += fits;
    }
    form.querySelector("output").textContent = `${shown} of ${rows.length} shown`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
}
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
