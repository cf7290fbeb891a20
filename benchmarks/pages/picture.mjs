// A picture of a page: node picture.mjs CHROMIUM PAGE OUT.png WIDTH HEIGHT
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const [, , executablePath, page, path, width, height] = process.argv;
const browser = await puppeteer.launch({
  executablePath,
  args: ["--no-sandbox", "--hide-scrollbars"],
});
const tab = await browser.newPage();
await tab.setViewport({ width: Number(width), height: Number(height) });
await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
await tab.goto(pathToFileURL(resolve(page)));
await tab.screenshot({ path });
await browser.close();
