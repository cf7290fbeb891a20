// The 3D view: a dialog with one candidate at a time, drawn by 3Dmol.js from the POSCAR that the page holds.
const dialog = document.getElementById("viewer");
const stage = document.getElementById("viewer-stage");
const drawing = { view: null, names: [], at: 0, opener: null };
const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

async function loadLibrary() {
  if (globalThis.$3Dmol) return;
  const script = document.createElement("script");
  script.textContent = await unpack("pack-viewer");
  document.head.append(script);
}

// Atoms and axes of a POSCAR in direct coordinates: the first atom of the file is number 1.
function readPoscar(text) {
  const lines = text.split("\n"), scale = Number(lines[1]);
  const axes = [2, 3, 4].map((k) => lines[k].trim().split(/\s+/).map((x) => scale * Number(x)));
  const elements = lines[5].trim().split(/\s+/), counts = lines[6].trim().split(/\s+/).map(Number);
  const atoms = [];
  elements.forEach((element, kind) => {
    for (let k = 0; k < counts[kind]; k += 1) {
      const frac = lines[8 + atoms.length].trim().split(/\s+/).slice(0, 3).map(Number);
      atoms.push({ element, frac, position: toCartesian(axes, frac) });
    }
  });
  return { axes, atoms };
}
function toCartesian(axes, frac) {
  return [0, 1, 2].map((k) => frac[0] * axes[0][k] + frac[1] * axes[1][k] + frac[2] * axes[2][k]);
}
const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
const point = (p) => ({ x: p[0], y: p[1], z: p[2] });

// Atoms for 3Dmol, joined up to 1.15 times the distance to the nearest atom of either.
function model({ atoms }, sites) {
  const near = atoms.map((a, i) => Math.min(...atoms.map((b, j) => (i === j ? Infinity : distance(a.position, b.position)))));
  return atoms.map((atom, i) => {
    const bonds = [];
    atoms.forEach((other, j) => {
      if (i !== j && distance(atom.position, other.position) < 1.15 * Math.max(near[i], near[j])) bonds.push(j);
    });
    const site = sites.find((s) => distance(s.position, atom.position) < 0.01);
    return { elem: atom.element, ...point(atom.position), serial: i, index: i, bonds, bondOrder: bonds.map(() => 1), properties: { site } };
  });
}

function sitesOf(scene) {
  return scene.sites.map(([label, site, layer, species, frac, position, nearest, away]) => ({ label, site, layer, species, frac, position, nearest, away }));
}

function draw(scene) {
  const view = drawing.view, shown = (name) => document.getElementById(`viewer-${name}`).checked;
  const crystal = readPoscar(scene.poscar), sites = sitesOf(scene), { elements, muted, vacancy } = scenes.colours;
  const size = stage.clientWidth < 500 ? 10 : 13;
  const text = { fontColor: colourOf("--text"), backgroundColor: colourOf("--card"), backgroundOpacity: 0.7, fontSize: size, inFront: true };
  view.clear();
  view.setBackgroundColor(colourOf("--card"));
  const colour = (atom) => (atom.properties.site ? elements : muted)[atom.elem];
  const atoms = model(crystal, sites);
  view.addModel().addAtoms(atoms);
  view.setStyle({}, { sphere: { radius: 0.42, colorfunc: colour }, stick: { radius: 0.09, colorfunc: colour } });
  view.setStyle({ predicate: (atom) => Boolean(atom.properties.site) }, { sphere: { radius: 0.85, colorfunc: colour }, stick: { radius: 0.09, colorfunc: colour } });
  for (const site of sites) {
    if (site.species === "VAC") view.addSphere({ center: point(site.position), radius: 0.8, color: vacancy, opacity: 0.45 });
    if (shown("labels")) view.addLabel(site.label, { ...text, position: point(site.position), alignment: "centerLeft", screenOffset: { x: 12, y: 0 } });
  }
  if (shown("distances")) {
    for (const [start, end, length] of scene.distances) {
      view.addCylinder({ start: point(start), end: point(end), radius: 0.05, color: colourOf("--text"), dashed: true, dashLength: 0.35, gapLength: 0.25 });
      if (!sites.some((s) => distance(s.position, end) < 0.01)) view.addSphere({ center: point(end), radius: 0.5, color: vacancy, opacity: 0.2 });
      const middle = start.map((x, k) => (x + end[k]) / 2);
      view.addLabel(`${length.toFixed(2)} Å`, { ...text, fontSize: size - 2, fontColor: colourOf("--soft"), position: point(middle), alignment: "topCenter", screenOffset: { x: 0, y: -6 } }); // under its line, clear of the names
    }
  }
  if (shown("cell")) drawCell(view, crystal.axes, text);
  view.setHoverable({}, true, (atom) => {
    const f = crystal.atoms[atom.index].frac.map((x) => x.toFixed(4)).join(", ");
    stage.title = `${atom.elem}, atom ${atom.index + 1} of the POSCAR, at (${f})`;
  }, () => { stage.title = ""; });
  view.render();
}

// The cell with its origin; a, b and c are named at their ends.
function drawCell(view, axes, text) {
  const corner = (i, j, k) => toCartesian(axes, [i, j, k]), ends = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  for (const i of [0, 1]) for (const j of [0, 1]) {
    for (const [from, to] of [[[0, i, j], [1, i, j]], [[i, 0, j], [i, 1, j]], [[i, j, 0], [i, j, 1]]]) {
      view.addLine({ start: point(corner(...from)), end: point(corner(...to)), color: colourOf("--soft") });
    }
  }
  ends.forEach((end, k) => {
    const length = Math.hypot(...axes[k]), tip = corner(...end.map((x) => (x * 4) / length));
    view.addArrow({ start: point([0, 0, 0]), end: point(tip), radius: 0.13, color: colourOf(`--c${k + 1}`) });
    view.addLabel("abc"[k], { ...text, position: point(corner(...end.map((x) => (x * 4.8) / length))), alignment: "center" });
  });
  view.addLabel("origin", { ...text, fontSize: text.fontSize - 2, position: point([0, 0, 0]), alignment: "topCenter", screenOffset: { x: 0, y: 10 } });
}

// Which way to look: c is along the normal of the layer.
function look(along) {
  const view = drawing.view, turns = { c: [], b: [["x", -90]], a: [["x", -90], ["y", -90]], tilted: [["x", -32]] };
  view.setView([0, 0, 0, 0, 0, 0, 0, 1]);
  view.zoomTo();
  for (const [axis, degrees] of turns[along]) view.rotate(degrees, axis);
  view.zoom(along === "a" || along === "b" ? 1.4 : 1.35);
}

function fillTable(scene) {
  const body = document.getElementById("viewer-sites").tBodies[0];
  body.replaceChildren(...sitesOf(scene).map((site) => {
    const row = document.createElement("tr"), cells = [site.label, site.layer ? `${site.site}, ${site.layer}` : site.site,
      site.frac.map((x) => x.toFixed(4)).join("  "), site.nearest ? `${site.away.toFixed(2)} to ${site.nearest}` : "–"];
    row.append(...cells.map((value, k) => Object.assign(document.createElement(k ? "td" : "th"), { textContent: value, className: k ? "" : "left" })));
    row.firstChild.scope = "row";
    return row;
  }));
}

async function show(at) {
  drawing.at = (at + drawing.names.length) % drawing.names.length;
  const name = drawing.names[drawing.at];
  const scene = await sceneOf(name);
  document.getElementById("viewer-title").textContent = scene.title;
  for (const button of dialog.querySelectorAll("button[data-save]")) {
    button.dataset.name = name;
    button.hidden = !(button.dataset.save in scene);
  }
  for (const button of dialog.querySelectorAll("button[data-step]")) button.hidden = drawing.names.length < 2;
  fillTable(scene);
  try {
    await loadLibrary();
    drawing.view ??= $3Dmol.createViewer(stage, { antialias: true, orthographic: true, disableFog: true });
    if (!drawing.view) throw new Error("no WebGL");
    draw(scene);
    look("tilted");
    stage.dataset.drawn = name;
  } catch (error) {
    stage.textContent = `This browser cannot draw in three dimensions (${error.message}). Save the POSCAR and open it in VESTA or OVITO.`;
  }
}

// A page that is nothing but the view of its structures.
async function showAlone() {
  await sceneOf("");
  drawing.names = Object.keys(scenes.structures);
  dialog.open = true;
  show(0);
}

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-view]");
  if (!opener) return;
  drawing.names = [...new Set([...document.querySelectorAll("[data-view]")].map((each) => each.dataset.view))];
  dialog.showModal();
  stage.focus();
  show(drawing.names.indexOf(opener.dataset.view));
});
dialog.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (event.target === dialog || button?.id === "viewer-close") dialog.close();
  else if (button?.dataset.step) show(drawing.at + Number(button.dataset.step));
  else if (button?.dataset.look && drawing.view) look(button.dataset.look);
});
dialog.addEventListener("change", async () => { if (drawing.view) draw(await sceneOf(drawing.names[drawing.at])); });
stage.addEventListener("keydown", (event) => {
  const turns = { ArrowLeft: [-10, "vy"], ArrowRight: [10, "vy"], ArrowUp: [-10, "vx"], ArrowDown: [10, "vx"] };
  const zooms = { "+": 1.15, "=": 1.15, "-": 1 / 1.15 };
  if (!drawing.view || !(event.key in turns || event.key in zooms || "abc0".includes(event.key))) return;
  if (event.key in turns) drawing.view.rotate(...turns[event.key]);
  else if (event.key in zooms) drawing.view.zoom(zooms[event.key]);
  else look(event.key === "0" ? "tilted" : event.key);
  event.preventDefault();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", async () => {
  if (dialog.open && drawing.view) draw(await sceneOf(drawing.names[drawing.at]));
});
addEventListener("resize", () => { if (dialog.open && drawing.view) drawing.view.resize(); });
