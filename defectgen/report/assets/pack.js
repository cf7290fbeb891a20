"use strict";
// What the page holds as gzip in base64 is unpacked when it is asked for, once.
const unpackedTexts = new Map();
function unpack(id) {
  if (!unpackedTexts.has(id)) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpackedTexts.set(id, new Response(stream).text());
  }
  return unpackedTexts.get(id);
}
let scenes = null;
async function sceneOf(name) {
  scenes ??= JSON.parse(await unpack("pack-structures"));
  return scenes.structures[name];
}

// A button with data-save (cif, poscar, relaxed) and data-name (of the structure) saves a file that the page holds.
const ENDS = { cif: ".cif", poscar: ".vasp", relaxed: "-relaxed.cif" };
async function save(name, form) {
  const text = (await sceneOf(name))[form];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name + ENDS[form];
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-save]");
  if (button) save(button.dataset.name, button.dataset.save);
});
