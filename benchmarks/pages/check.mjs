// Looks at pages as a reader does: node check.mjs CHROMIUM PAGE...   (prints JSON; exit code 1 with findings)
// Each page: axe in light, dark and on a phone; nothing fetched, no errors, no sideways scrolling.
// A report of design besides: the 3D view is drawn, a POSCAR is saved, the table sorts and filters, marks name themselves.
import { readFileSync, mkdtempSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const [, , chromium, ...pages] = process.argv;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await puppeteer.launch({
  executablePath: chromium,
  args: ["--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader", "--ignore-gpu-blocklist"],
});
const LOOKS = {
  light: { width: 1280, height: 900, scheme: "light" },
  dark: { width: 1280, height: 900, scheme: "dark" },
  phone: { width: 390, height: 844, scheme: "light" },
};
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// How many 3D views are drawn without being asked for, frames included.
async function views(page) {
  const alone = await page.$("body.alone, iframe[srcdoc]");
  let n = 0;
  for (let k = 0; alone && n === 0 && k < 100; k += 1) {
    await pause(100);
    for (const frame of page.frames()) n += (await frame.$$("#viewer-stage[data-drawn] canvas")).length > 0;
  }
  return n;
}

async function open(file, { width, height, scheme }, errors) {
  const page = await browser.newPage();
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (line) => { if (line.type() === "error") errors.push(line.text()); });
  page.on("request", (request) => { if (!/^(file|data|blob):/.test(request.url())) errors.push(`asks for ${request.url()}`); });
  await page.setViewport({ width, height, isMobile: width < 500, hasTouch: width < 500 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(pathToFileURL(resolve(file)));
  await page.evaluate(axe);
  return page;
}
const audit = (page) => page.evaluate(async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.map(({ id, impact, nodes }) => ({ id, impact, n: nodes.length, first: nodes[0].html.slice(0, 160), why: nodes[0].failureSummary }));
});

// What a reader does with a report, one result a thing: true, or what went wrong.
async function use(page) {
  const done = {};
  const folder = mkdtempSync(join(tmpdir(), "pages-"));
  const session = await page.createCDPSession();
  await session.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: folder });
  const name = await page.$eval("[data-save=poscar]", (b) => { b.click(); return b.dataset.name; });
  for (let k = 0; k < 40 && !readdirSync(folder).includes(`${name}.vasp`); k += 1) await pause(100);
  done.saved = readdirSync(folder).includes(`${name}.vasp`) && readFileSync(join(folder, `${name}.vasp`), "utf8").split("\n")[7] === "Direct";

  const table = `#${await page.$eval("table[id^=table]", (first) => first.id)}`;
  const ranks = () => page.$$eval(`${table} tbody tr:not([hidden]) td:first-child`, (cells) => cells.map((c) => Number(c.textContent)));
  const before = await ranks();
  await page.focus(`${table} th button`);
  await page.keyboard.press("Enter");
  done.sorted = JSON.stringify(await ranks()) === JSON.stringify([...before].reverse());
  await page.keyboard.press("Enter");
  await page.select("form.filters select", "dft");
  const labelled = await page.$$eval(`${table} tbody tr:not([hidden])`, (rows) => rows.map((row) => row.dataset.kind));
  const output = await page.$eval("form.filters output", (o) => o.textContent);
  done.filtered = labelled.every((kind) => kind === "dft") && output === `${labelled.length} of ${before.length} shown`;
  await page.select("form.filters select", "");

  if (await page.$(".points .point")) {
    await page.$eval(".points .point", (point) => point.focus());
    await page.keyboard.press("ArrowRight");
    done.named = await page.evaluate(() => document.getElementById("tip").textContent === document.activeElement.dataset.tip);
  }
  if (await page.$(".reader")) {
    const reads = (start) => page.waitForFunction((s) => document.querySelector(".reading").textContent.startsWith(s) &&
      document.querySelector(".spot.on"), { timeout: 10000 }, start).then(() => true, (error) => error.message);
    await page.focus(".reader");
    await reads("nearest: ");
    await page.keyboard.press("ArrowRight");
    done.known = await reads("2. nearest: ");
    const spot = await page.$eval(".spot", (s) => { const b = s.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; });
    await page.mouse.move(...spot);
    await pause(200);
    done.hovered = await page.evaluate(() => !document.getElementById("tip").hidden && /: .*\d\.\d{3}/.test(document.getElementById("tip").textContent));
  }
  await page.$eval("[data-view]", (b) => b.click());
  try {
    await page.waitForSelector("#viewer-stage[data-drawn] canvas", { timeout: 20000 });
    await page.focus("#viewer-stage");
    await page.keyboard.press("ArrowRight");
    await page.click("#viewer [data-step='1']");
    await pause(500);
    done.drawn = await page.evaluate(() => document.querySelectorAll("#viewer-sites tbody tr").length > 0);
  } catch (error) {
    done.drawn = await page.$eval("#viewer-stage", (stage) => stage.textContent) || error.message;
  }
  return done;
}

const results = [];
let bad = 0;
for (const file of pages) {
  for (const [look, view] of Object.entries(LOOKS)) {
    const errors = [], page = await open(file, view, errors);
    const drawn = await views(page), found = await audit(page);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    const result = { page: basename(file), look, bytes: readFileSync(file).length, errors, overflow, axe: found, views: drawn };
    if (look === "light" && (await page.$("[data-view]"))) {
      result.used = await use(page);
      result.axe = [...found, ...(await audit(page)).map((item) => ({ ...item, with: "3D view open" }))];
    }
    bad += errors.length + (overflow > 0) + result.axe.length + Object.values(result.used ?? {}).filter((x) => x !== true).length;
    results.push(result);
    await page.close();
  }
}
await browser.close();
console.log(JSON.stringify(results, null, 1));
process.exitCode = bad ? 1 : 0;
