// Debian's Chromium, and pages that note what must not happen.

import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { SITE } from "./demo.mjs";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

export const SIZES = { wide: { width: 1280, height: 800 }, narrow: { width: 390, height: 844 } };
export const SCHEMES = ["light", "dark"];
export const VIEWS = ["overview", "explore", "flows", "compare", "advice", "health"];

export function launch() {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  return chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
}

/** A page with the list of its faults: errors of the console and of scripts, and requests to others. */
export async function open(browser, { size = "wide", scheme = "light", ...more } = {}) {
  const context = await browser.newContext({ viewport: SIZES[size], colorScheme: scheme, ...more });
  const page = await context.newPage();
  const faults = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) faults.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => faults.push(`script: ${error.message}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(SITE)) faults.push(`request: ${request.url()}`);
  });
  return { page, faults, close: () => context.close() };
}

/** Goes to a view, and waits until all that it asked for is shown. */
export async function show(page, query) {
  await page.goto(`${SITE}${query}`);
  await page.waitForLoadState("networkidle");
  await page.getByText("Loading").first().waitFor({ state: "detached" });
}

/** Answers a path of the API with a change of what the server says. */
export async function change(page, path, how) {
  await page.route(`**/api/v1/${path}*`, async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, json: how(await response.json()) });
  });
}

/** Serious faults that axe finds. Scripts that the page itself may not load are evaluated by the browser's debugger. */
export async function faultsOfAccess(page) {
  const { readFile } = await import("node:fs/promises");
  await page.evaluate(await readFile(AXE, "utf8"));
  const { violations } = await page.evaluate(() => globalThis.axe.run(document));
  const serious = violations.filter((fault) => ["serious", "critical"].includes(fault.impact));
  return serious.map((fault) => `${fault.id}: ${fault.nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`);
}

/** How far the page is wider than the screen. */
export function overflow(page) {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}
