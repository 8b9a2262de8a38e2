// What the page costs: the first paint of the server's table, and frames while ten thousand rows scroll, by the
// browser's own trace. Written into docs/performance.md: `make bench-page`. Nothing is asserted about times.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { test } from "node:test";
import { change, launch, open, show } from "./browser.mjs";
import { Demo, SITE } from "./demo.mjs";

const LOADS = 20;
const WORKLOADS = 1000;
const PEERS = 10;
/** Pixels of a turn of the wheel, and how often a second it turns. */
const STEP = 120;
const SCROLL_SECONDS = 5;

/** Milliseconds to the first paint of the server's table: the script is held back. */
async function firstPaints(browser) {
  const paints = [];
  for (let load = 0; load < LOADS; load += 1) {
    const { page, close } = await open(browser);
    await page.route("**/page.js*", (route) => route.abort());
    await page.goto(SITE);
    assert.ok((await page.locator("table.matrix td[data-bytes], table td").count()) > 0);
    const paint = await page.evaluate(
      () =>
        new Promise((found) => {
          new PerformanceObserver((list) => found(list.getEntriesByName("first-contentful-paint")[0].startTime)).observe({
            type: "paint",
            buffered: true,
          });
        }),
    );
    paints.push(paint);
    await close();
  }
  return paints.sort((one, other) => one - other);
}

/** A report of many workloads, each of which sends to many peers. */
function many(report) {
  const row = report.rows[0];
  report.rows = Array.from({ length: WORKLOADS * PEERS }, (_, at) => ({
    ...row,
    bytes: 10 ** 9 - at * 1000,
    key: { ...row.key, source_workload: `workload-${at % WORKLOADS}`, destination_workload: `peer-${Math.floor(at / WORKLOADS)}` },
  }));
  return report;
}

/** Frames of a compositor's trace. One that its two threads report is one frame: shown if either part of it was. */
function frames(events) {
  const ends = events.filter(({ name, ph }) => name === "PipelineReporter" && ph === "b");
  const shown = new Map();
  for (const { args } of ends) {
    const { state, frame_source: source, frame_sequence: sequence } = args?.chrome_frame_reporter ?? args?.frame_reporter ?? {};
    if (state === undefined || state === "STATE_NO_UPDATE_DESIRED") continue;
    const frame = `${source} ${sequence}`;
    shown.set(frame, (shown.get(frame) ?? false) || state.startsWith("STATE_PRESENTED"));
  }
  const presented = [...shown.values()].filter(Boolean).length;
  return { presented, dropped: shown.size - presented };
}

/** Scrolls the table as a wheel does, sixty times a second, while the browser traces itself. */
async function scrolled(browser) {
  const { page, close } = await open(browser);
  await change(page, "report", many);
  await show(page, "?view=explore&sort=bytes");
  const session = await browser.newBrowserCDPSession();
  const events = [];
  session.on("Tracing.dataCollected", ({ value }) => events.push(...value));
  await page.locator(".scroll.tall").hover();
  const client = await page.context().newCDPSession(page);
  await session.send("Tracing.start", { transferMode: "ReportEvents", traceConfig: { includedCategories: ["cc", "benchmark"] } });
  const start = performance.now();
  const box = await page.locator(".scroll.tall").boundingBox();
  await client.send("Input.synthesizeScrollGesture", {
    x: box.x + box.width / 2,
    y: box.y + box.height / 2,
    yDistance: -STEP * 60 * SCROLL_SECONDS,
    speed: STEP * 60,
    gestureSourceType: "mouse",
  });
  const seconds = (performance.now() - start) / 1000;
  const complete = new Promise((done) => session.once("Tracing.tracingComplete", done));
  await session.send("Tracing.end");
  await complete;
  const rows = await page.locator(".scroll.tall").evaluate((element) => element.scrollTop);
  await close();
  assert.ok(rows > 1000, `scrolled by ${rows} pixels`);
  return { ...frames(events), seconds, pixels: Math.round(rows) };
}

test("bench", async () => {
  const [demo, browser] = await Promise.all([Demo.start(), launch()]);
  const paints = await firstPaints(browser);
  const { presented, dropped, seconds, pixels } = await scrolled(browser);
  await browser.close();
  await demo.end();
  assert.ok(presented > 0);
  const build = /\/release\//.test(process.env.MERIDIAN_BINARY) ? "release" : "debug";
  const day = new Date().toISOString().slice(0, 10);
  const median = paints[Math.floor(paints.length / 2)];
  const lines = [
    `Measured on ${cpus().length} CPUs (${cpus()[0].model.replace(/ (Processor|\d+-Core).*/, "")}), Chromium ${browser.version()} without a GPU, a ${build} build, ${day} by \`make bench-page\`.`,
    "",
    "| | |",
    "|---|---:|",
    `| first paint of the server's table on loopback, without scripts: median of ${LOADS} loads | ${Math.round(median)} ms |`,
    `| the slowest of them | ${Math.round(paints.at(-1))} ms |`,
    `| ${(WORKLOADS * PEERS).toLocaleString("en-US")} rows scrolled by ${pixels.toLocaleString("en-US")} pixels in ${seconds.toFixed(1)} s: frames shown a second | ${(presented / seconds).toFixed(0)} |`,
    `| frames dropped of these | ${dropped} of ${presented + dropped} |`,
  ];
  const path = process.env.MERIDIAN_BENCH;
  const text = await readFile(path, "utf8");
  const [begin, end] = ["<!-- begin: page -->", "<!-- end: page -->"];
  const [before, rest] = text.split(begin);
  const after = rest.split(end)[1];
  await writeFile(path, `${before}${begin}\n${lines.join("\n")}\n${end}${after}`);
  console.log(lines.join("\n"));
});
