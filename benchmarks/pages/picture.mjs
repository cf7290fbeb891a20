// A picture of a page: node picture.mjs CHROMIUM PAGE OUT.png WIDTH HEIGHT [CANDIDATE]   (of its 3D view, the CANDIDATEth)
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const [, , executablePath, page, path, width, height, candidate] = process.argv;
const browser = await puppeteer.launch({
  executablePath,
  args: ["--no-sandbox", "--hide-scrollbars", "--enable-unsafe-swiftshader", "--use-angle=swiftshader", "--ignore-gpu-blocklist"],
});
const tab = await browser.newPage();
await tab.setViewport({ width: Number(width), height: Number(height) });
await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
await tab.goto(pathToFileURL(resolve(page)));
if (candidate) {
  await tab.evaluate((n) => document.querySelectorAll("button[data-view]")[n - 1].click(), Number(candidate));
  await tab.waitForSelector("#viewer-stage[data-drawn] canvas", { timeout: 30000 });
  await new Promise((done) => setTimeout(done, 1000));
  await (await tab.$("#viewer")).screenshot({ path });
} else await tab.screenshot({ path });
await browser.close();
