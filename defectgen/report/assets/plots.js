// Names in plots: a mark names itself where the pointer is, and where the focus is; arrow keys go from mark to mark.
const tip = document.getElementById("tip");
function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 12 : y + 18}px`;
}
const hideTip = () => { tip.hidden = true; };

for (const plot of document.querySelectorAll("svg.points")) {
  const points = [...plot.querySelectorAll(".point")];
  points[0]?.setAttribute("tabindex", "0");
  plot.addEventListener("pointermove", (event) => {
    const point = event.target.closest(".point");
    if (point) showTip(point.dataset.tip, event.clientX, event.clientY);
    else hideTip();
  });
  plot.addEventListener("pointerleave", hideTip);
  plot.addEventListener("focusin", (event) => {
    const box = event.target.getBoundingClientRect();
    showTip(event.target.dataset.tip, box.right, box.top);
  });
  plot.addEventListener("focusout", hideTip);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") hideTip();
    if (!step) return;
    const now = points.indexOf(document.activeElement), next = points[(now + step + points.length) % points.length];
    points[now]?.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
    event.preventDefault();
  });
}

// The cloud of known structures: its names and values are unpacked when they are asked for.
for (const box of document.querySelectorAll(".cloud-box")) {
  const svg = box.querySelector("svg"), reader = box.querySelector(".reader"), spot = svg.querySelector(".spot");
  const reading = box.parentElement.querySelector(".reading");
  const [xLow, xHigh, xStart, xEnd, yLow, yHigh, yStart, yEnd] = svg.dataset.place.split(" ").map(Number);
  let cloud = null, at = 0;
  const load = async () => { cloud ??= JSON.parse(await unpack("pack-known")); };
  const place = ([, a, b]) => [
    xStart + ((a * cloud.step - xLow) / (xHigh - xLow)) * (xEnd - xStart),
    yStart + ((b * cloud.step - yLow) / (yHigh - yLow)) * (yEnd - yStart),
  ];
  const name = ([label, a, b]) => `${cloud.labels[label]}: ${cloud.titles[0]} ${(a * cloud.step).toFixed(3)}, ${cloud.titles[1]} ${(b * cloud.step).toFixed(3)} ${cloud.units[1]}`;
  function mark(index, word) {
    const [x, y] = place(cloud.points[index]), text = name(cloud.points[index]);
    spot.setAttribute("cx", x);
    spot.setAttribute("cy", y);
    spot.classList.add("on");
    reading.textContent = `${word}${text}`;
    return text;
  }
  svg.addEventListener("pointermove", async (event) => {
    await load();
    const scale = svg.viewBox.baseVal.width / svg.getBoundingClientRect().width, origin = svg.getBoundingClientRect();
    const x = (event.clientX - origin.left) * scale, y = (event.clientY - origin.top) * scale;
    let best = -1, least = 12 * 12;
    cloud.points.forEach((point, index) => {
      const [px, py] = place(point), away = (px - x) ** 2 + (py - y) ** 2;
      if (away < least) { least = away; best = index; }
    });
    if (best < 0) { hideTip(); spot.classList.remove("on"); } else showTip(mark(best, ""), event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", () => { hideTip(); spot.classList.remove("on"); });
  const go = async (to) => {
    await load();
    at = Math.max(0, Math.min(cloud.points.length - 1, to));
    reader.setAttribute("aria-valuenow", at + 1);
    reader.setAttribute("aria-valuetext", mark(at, at ? `${at + 1}. nearest: ` : "nearest: "));
  };
  reader.addEventListener("focus", () => go(at));
  reader.addEventListener("blur", () => spot.classList.remove("on"));
  reader.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, PageUp: at + 10, PageDown: at - 10, Home: 0, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    go(steps[event.key]);
  });
}
