// Looks at the pages of a built site: node site.mjs CHROMIUM FOLDER [PART OF A PAGE'S PATH ...]   (prints JSON; exit code 1 with findings)
// Each page: axe in light and dark; at 1,000 pixels and on a phone no sideways scrolling, neither of the page nor of a table in its box.
import { readFileSync, readdirSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join } from "node:path";
import puppeteer from "puppeteer-core";

const [, , executablePath, folder, ...only] = process.argv;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const TYPES = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".json": "application/json", ".png": "image/png" };
const server = createServer((request, answer) => {
  const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname).replace(/\/$/, "/index.html");
  try {
    const text = readFileSync(join(folder, path));
    answer.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" }).end(text);
  } catch {
    answer.writeHead(404).end();
  }
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const root = `http://127.0.0.1:${server.address().port}/`;
const pages = readdirSync(folder, { recursive: true })
  .filter((name) => name.endsWith("index.html") && (!only.length || only.some((part) => name.includes(part))))
  .sort();
const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox"] });
const LOOKS = [
  { look: "light", width: 1000, scheme: "light" },
  { look: "dark", width: 1000, scheme: "dark" },
  { look: "phone", width: 390, scheme: "light" },
];

// Tables that are wider than the text, and how far the page scrolls sideways.
const wide = () => {
  const text = document.querySelector("article").getBoundingClientRect();
  const over = (table) => Math.ceil(Math.max(table.getBoundingClientRect().right - text.right, table.scrollWidth - table.clientWidth - 1));
  return {
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    tables: [...document.querySelectorAll("article table:not(.highlighttable)")]
      .filter((table) => over(table) > 0)
      .map((table) => ({ by: over(table), head: table.innerText.slice(0, 70).replace(/\s+/g, " ") })),
  };
};
const findings = [];
for (const name of pages) {
  for (const { look, width, scheme } of LOOKS) {
    const visit = await browser.createBrowserContext();  // the theme remembers the look of the first page
    const tab = await visit.newPage();
    const errors = [];
    tab.on("pageerror", (error) => errors.push(error.message));
    await tab.setViewport({ width, height: 900, isMobile: width < 500, hasTouch: width < 500 });
    await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await tab.goto(root + name.replace(/index\.html$/, ""), { waitUntil: "load" });
    await tab.evaluate(axe);
    const found = await tab.evaluate(wide);
    const { violations } = await tab.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    const broken = violations.map(({ id, impact, nodes }) => ({ id, impact, n: nodes.length, first: nodes[0].html.slice(0, 160), why: nodes[0].failureSummary.slice(0, 300) }));
    if (broken.length || found.overflow > 0 || found.tables.length || errors.length)
      findings.push({ page: name, look, axe: broken, ...found, errors });
    await visit.close();
  }
}
await browser.close();
server.close();
console.log(JSON.stringify({ pages: pages.length, looks: LOOKS.map(({ look }) => look), findings }, null, 1));
process.exitCode = findings.length || !pages.length ? 1 : 0;
