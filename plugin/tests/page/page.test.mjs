// The page on the demo's traffic: what it shows is what the API says, and what the wire carried.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { after, before, test } from "node:test";
import { change, faultsOfAccess, launch, open, overflow, SCHEMES, show, SIZES, VIEWS } from "./browser.mjs";
import { api, byPair, Demo, SITE } from "./demo.mjs";

let demo;
let browser;

before(async () => {
  [demo, browser] = await Promise.all([Demo.start(), launch()]);
});

after(async () => {
  await browser?.close();
  await demo?.end();
});

/** Bytes as people read them, reckoned apart from the page. */
function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = value < 1000 ? 0 : Math.floor(Math.log10(value) / 3);
  return power === 0 ? `${value} B` : `${(value / 10 ** (3 * power)).toFixed(1)} ${units[power]}`;
}

/** Dollars as people read them. */
function dollars(text) {
  const value = Number(text);
  if (value === 0) return "$0";
  if (value < 0.01) return `$${value.toPrecision(2)}`;
  if (value >= 1000) return `$${Math.round(value).toLocaleString("en-US")}`;
  return `$${value.toFixed(2)}`;
}

test("the API has the bytes of the wire, however they are grouped", async () => {
  assert.equal(demo.result.exact, true);
  const wire = demo.wire();
  assert.ok(wire.size >= 8, `${[...wire.keys()]}`);
  const zones = await api("zones");
  assert.deepEqual(new Map([...byPair(zones.matrix)].sort()), new Map([...wire].sort()));
  for (const by of ["zone-pair", "namespace-pair", "workload-pair"]) {
    const report = await api(`report?locality=all&by=${by}`);
    assert.deepEqual(new Map([...byPair(report.rows, (row) => row.key)].sort()), new Map([...wire].sort()), by);
  }
  const all = [...wire.values()].reduce((sum, value) => sum + value, 0);
  const series = await api("series?locality=all");
  assert.equal(series.total.bytes.reduce((sum, value) => sum + value, 0), all);
  // Money is that of the demo's own result, to the last digit.
  const workloads = await api("report?by=workload");
  const usd = (rows) => rows.map((row) => `${row.key.workload} ${row.cost?.usd ?? row.usd}`).sort();
  assert.deepEqual(usd(workloads.rows), usd(demo.result.cost.rows));
});

for (const size of Object.keys(SIZES)) {
  for (const scheme of SCHEMES) {
    for (const view of VIEWS) {
      test(`${view} is whole: ${size}, ${scheme}`, async () => {
        const { page, faults, close } = await open(browser, { size, scheme });
        await show(page, `?view=${view}`);
        assert.deepEqual(await faultsOfAccess(page), []);
        assert.equal(await overflow(page), 0);
        const path = `${process.env.MERIDIAN_PICTURES}/${view}-${size}-${scheme}.png`;
        await page.screenshot({ path, fullPage: true });
        assert.deepEqual(faults, []);
        await close();
      });
    }
  }
}

test("a control without a name and a pale text are faults", async () => {
  const { page, close } = await open(browser);
  await show(page, "?view=explore");
  await page.evaluate(() => {
    const label = document.querySelector("label");
    label.replaceWith(label.querySelector("select"));
    document.querySelector("h1").style.color = "#ccc";
  });
  const faults = (await faultsOfAccess(page)).map((fault) => fault.split(":")[0]);
  assert.deepEqual(faults.sort(), ["color-contrast", "select-name"]);
  await close();
});

test("the overview shows the matrix of the wire and the money of the API", async () => {
  const { page, close } = await open(browser);
  await show(page, "?view=overview");
  const shown = await page.$$eval("table.matrix tbody tr", (rows) => {
    const zones = [...document.querySelectorAll("table.matrix thead th bdi")].map((zone) => zone.textContent);
    return rows.flatMap((row) =>
      [...row.querySelectorAll("td")].flatMap((cell, at) => {
        const from = row.querySelector("th bdi").textContent;
        const text = (name) => cell.querySelector(`.${name}`)?.textContent;
        return cell.dataset.bytes ? [[`${from} → ${zones[at]}`, Number(cell.dataset.bytes), text("bytes"), text("money")]] : [];
      }),
    );
  });
  const report = await api("report?locality=all");
  const money = new Map(
    report.rows.map(({ key, cost }) => [
      `${key.source_zone} → ${key.destination_zone}`,
      cost.unpriced_bytes > 0 ? "unpriced" : dollars(cost.usd_per_month),
    ]),
  );
  const expected = [...demo.wire()].map(([pair, sum]) => [pair, sum, bytes(sum), money.get(pair)]);
  assert.deepEqual(shown.sort(), expected.sort());
  assert.ok(shown.some(([, , , text]) => text === "unpriced"), "the demo sends to an unknown place");
  const crossing = report.rows.filter(({ key }) => key.locality.startsWith("cross-"));
  const month = crossing.reduce((sum, { cost }) => sum + Number(cost.usd_per_month), 0);
  assert.equal(await page.textContent("#usd-per-month"), dollars(month));
  assert.equal(await page.textContent("#unknown-bytes"), bytes(report.coverage.unknown_bytes));
  await close();
});

test("explore shows every row of the report, filters, sorts, and can be gone back from", async () => {
  const { page, faults, close } = await open(browser);
  await show(page, "?view=explore");
  const { rows, total } = await api("report?by=workload-pair");
  const numbers = (name) => page.$$eval(`table.grid [data-${name}]`, (cells, name) => cells.map((cell) => cell.dataset[name]), name);
  const shown = (await numbers("bytes")).map(Number);
  assert.equal(shown.length, rows.length);
  assert.equal(shown.reduce((sum, value) => sum + value, 0), total.bytes);
  assert.deepEqual(await numbers("usd"), rows.map((row) => row.cost.usd));

  await page.getByRole("button", { name: "Bytes" }).click();
  const sorted = (await numbers("bytes")).map(Number);
  assert.deepEqual(sorted, [...shown].sort((a, b) => b - a));
  assert.equal(await page.getAttribute("th[aria-sort]", "aria-sort"), "descending");
  await page.keyboard.press("/");
  await page.keyboard.type("orders-db eu-1b");
  const some = rows.filter(({ key }) => {
    const text = Object.values(key).join(" ");
    return text.includes("orders-db") && text.includes("eu-1b");
  });
  assert.equal((await numbers("bytes")).length, some.length);
  assert.ok(some.length > 0 && some.length < rows.length);
  assert.match(page.url(), /q=orders-db/);
  await page.reload();
  await page.waitForSelector("table.grid");
  assert.equal((await numbers("bytes")).length, some.length, "the address has the state");
  await page.locator("h1").click();
  await page.keyboard.press("6");
  await page.getByRole("heading", { name: "Nodes" }).waitFor();
  await page.goBack();
  await page.waitForSelector("#filter");
  for (const by of ["namespace-pair", "zone-pair", "workload", "namespace", "service", "node", "region", "label"]) {
    await page.getByLabel("Rows are").selectOption(by);
    await page.waitForLoadState("networkidle");
    await page.locator("#filter").fill("");
    const report = await api(`report?by=${by === "label" ? "label:app" : by}`);
    await page.waitForFunction((count) => document.querySelectorAll("table.grid tbody tr").length === count, report.rows.length);
  }
  assert.deepEqual(faults, []);
  await close();
});

test("the first table is there without scripts, with the same numbers", async (t) => {
  const { page, close } = await open(browser, { javaScriptEnabled: false });
  await page.goto(SITE);
  const cells = await page.locator("table.matrix td .bytes").allTextContents();
  assert.deepEqual(cells.sort(), [...demo.wire().values()].map(bytes).sort());
  await close();
  // Measured, not asserted: other work on the machine is in it.
  const timed = await open(browser);
  await timed.page.goto(SITE);
  const [paint] = await timed.page.evaluate(() => performance.getEntriesByName("first-contentful-paint").map((e) => e.startTime));
  t.diagnostic(`first paint after ${Math.round(paint)} ms`);
  await timed.close();
});

test("hostile names stay names", async () => {
  const hostile = [
    "<img src=x onerror=\"globalThis.broken=1\">",
    "</td></table><script>globalThis.broken=1</script>",
    "\u202egnp.exe\u0007\u001b[31m\u0000",
    "javascript:globalThis.broken=1",
    `${"x".repeat(253)}`,
    "__proto__",
    "שלום/עולם",
    "{{7*7}}${7*7}'\"`",
  ];
  const names = (report) => {
    report.rows.forEach((row, at) => {
      for (const part of Object.keys(row.key)) {
        if (part !== "locality" && part !== "other") row.key[part] = hostile[(at + part.length) % hostile.length];
      }
    });
    return report;
  };
  for (const size of Object.keys(SIZES)) {
    for (const view of VIEWS) {
      const { page, faults, close } = await open(browser, { size });
      await change(page, "report", names);
      await change(page, "series", names);
      await change(page, "health", (health) => {
        health.nodes.forEach((node, at) => Object.assign(node, { node: hostile[at], hook_reason: hostile[at + 1] }));
        return health;
      });
      await show(page, `?view=${view}&q=`);
      assert.equal(await page.evaluate(() => globalThis.broken), undefined, view);
      assert.equal(await page.locator("#app img:not([src='icon.svg']), #app script").count(), 0, view);
      const text = await page.textContent("body");
      assert.doesNotMatch(text, /[\u0000-\u0008\u001b\u202a-\u202e]/, view);
      assert.equal(await overflow(page), 0, `${view}, ${size}`);
      assert.deepEqual(faults, [], view);
      await close();
    }
  }
  // In the address, too.
  const { page, faults, close } = await open(browser);
  await show(page, `?view=explore&by=${encodeURIComponent(`label:${hostile[0]}`)}&q=${encodeURIComponent(hostile[1])}`);
  assert.equal(await page.evaluate(() => globalThis.broken), undefined);
  assert.deepEqual(faults, []);
  await close();
});

test("of ten thousand rows only those that are seen are made, and the last can be reached", async () => {
  const { page, faults, close } = await open(browser);
  await change(page, "report", (report) => {
    const row = report.rows[0];
    report.rows = Array.from({ length: 10_000 }, (_, at) => ({
      ...row,
      bytes: 20_000 - at,
      key: { ...row.key, source_workload: `workload-${at % 1000}`, destination_workload: `peer-${Math.floor(at / 1000)}` },
    }));
    return report;
  });
  await show(page, "?view=explore&sort=bytes");
  assert.equal(await page.getAttribute("table.grid", "aria-rowcount"), "10001");
  const made = () => page.locator("table.grid tbody tr:not(.space)").count();
  assert.ok((await made()) < 60, `${await made()} rows`);
  await page.locator(".scroll.tall").evaluate((box) => box.scrollTo(0, box.scrollHeight));
  await page.getByText("workload-999").first().waitFor();
  assert.equal(await page.locator("table.grid [data-bytes]").last().getAttribute("data-bytes"), "10001");
  assert.ok((await made()) < 60);
  assert.deepEqual(faults, []);
  await close();
});

test("an empty history, missing prices and a missing history are named in words", async () => {
  const { page, faults, close } = await open(browser);
  for (const view of ["overview", "explore", "flows"]) {
    await show(page, `?view=${view}&from=2020-01-01&to=2020-01-02`);
    await page.getByText("Nothing was recorded").waitFor();
  }
  await show(page, "?view=compare");
  await page.getByText("There is nothing to compare").waitFor();
  assert.deepEqual(faults, []);

  const unpriced = (sum) => Object.assign(sum.cost, { usd: "0", usd_per_month: "0", rules: [], unpriced_bytes: sum.bytes });
  await change(page, "report", (report) => {
    [...report.rows, report.total].forEach(unpriced);
    return { ...report, rules: [], unpriced: { "the provider of one end is not known": report.total.bytes } };
  });
  await show(page, "?view=overview");
  assert.equal(await page.textContent("#usd-per-month"), "unpriced");
  assert.doesNotMatch(await page.textContent("main"), /\$0/);
  await show(page, "?view=explore");
  assert.doesNotMatch(await page.textContent("table.grid tbody"), /\$/);
  await show(page, "?view=health");
  await page.getByText("nothing of it has a price").waitFor();
  await close();

  const other = await open(browser);
  await change(other.page, "health", (health) => ({ ...health, history: null, offers: ["health", "zones"] }));
  for (const view of ["overview", "explore", "flows", "compare"]) {
    await show(other.page, `?view=${view}`);
    await other.page.getByText("No history is kept here").waitFor();
  }
  await show(other.page, "?view=advice");
  await other.page.getByText("This server gives no advice").waitFor();
  await show(other.page, "?view=overview");
  const counted = await other.page.$$eval("table.matrix td[data-bytes]", (cells) => cells.map((cell) => Number(cell.dataset.bytes)));
  assert.deepEqual(counted.sort(), [...demo.wire().values()].sort());
  assert.deepEqual(other.faults, []);
  await other.close();
});

test("advice is shown with its evidence, its risk and a patch", async () => {
  const { page, faults, close } = await open(browser);
  const finding = {
    id: "r1-shop-cart",
    rule: "R1",
    subject: "Service shop/cart",
    action: "set trafficDistribution",
    saving_usd_per_month: "12.5",
    bytes_per_month: 5_000_000_000,
    evidence: ["3 of 4 <b>clients</b> are in other zones"],
    risk: "one endpoint gets twice the load",
    patch: { command: "kubectl -n shop patch service cart --type=merge -p '{\"spec\":{}}'", body: { spec: {} } },
    confidence: "high",
    state: "proposed",
  };
  await page.route("**/api/v1/advice", (route) => route.fulfill({ json: { findings: [finding] } }));
  await show(page, "?view=advice");
  const text = await page.textContent("main");
  for (const part of ["R1: Service shop/cart", "set trafficDistribution", "$12.50 a month", "5.0 GB", "<b>clients</b>", "twice the load"]) {
    assert.ok(text.includes(part), `${part} in ${text}`);
  }
  await page.getByText("Patch", { exact: true }).click();
  assert.match(await page.textContent("pre"), /^kubectl -n shop patch service cart /);
  assert.deepEqual(await faultsOfAccess(page), []);
  await show(page, "?view=overview");
  await page.getByRole("heading", { name: "What to change" }).waitFor();
  assert.deepEqual(faults, []);
  await close();
});

test("sliders ask what if, and show the answer", async () => {
  const { page, faults, close } = await open(browser, { size: "narrow" });
  const month = (gigabytes) => ({
    bytes_per_month: gigabytes * 1e9,
    usd_per_month: (gigabytes * 0.02).toFixed(2),
    unpriced_bytes_per_month: 0,
  });
  const finding = {
    id: "R3-1",
    rule: "R3",
    subject: "Service shop/cart",
    patch: { command: "kubectl", body: { spec: { trafficDistribution: "PreferClose" } } },
  };
  await page.route("**/api/v1/advice*", (route) => route.fulfill({ json: { findings: [finding] } }));
  const asked = [];
  await page.route("**/api/v1/whatif*", (route) => {
    const query = new URL(route.request().url()).searchParams;
    asked.push([query.get("change"), query.get("endpoints")]);
    if (query.get("change") === "shop/none=PreferSameZone") {
      return route.fulfill({ status: 400, contentType: "text/plain", body: "there is no Service `shop/none`\n" });
    }
    const added = Number(/eu-1b=(\d+)/.exec(query.get("endpoints") ?? "")?.[1] ?? 0);
    const endpoints = { zone: "eu-1a", endpoints_before: 3, endpoints_after: 3, bytes_per_month_before: 4e12, bytes_per_month_after: 4e12 };
    const pair = { client_zone: "eu-1b", server_zone: "eu-1a", before: month(4000), after: month(added ? 0 : 4000) };
    return route.fulfill({
      json: {
        service: "shop/cart",
        preference: "PreferClose",
        ignored: added > 1 ? "<b>its version</b> does not know it" : null,
        pairs: [pair],
        endpoints: [endpoints],
        crossing: { before: month(4000), after: month(added ? 100 : 4000) },
      },
    });
  });
  await show(page, "?view=advice");
  assert.deepEqual(asked, []);
  await page.getByText("What if", { exact: true }).first().click();
  await page.getByText("$80.00 → $80.00").waitFor();
  assert.deepEqual(asked[0], ["shop/cart=PreferClose", null]);
  // The clients' zone has a slider, though it has no endpoint.
  const slider = page.getByRole("slider", { name: /eu-1b/ });
  await slider.fill("2");
  await page.getByText("$80.00 → $2.00").waitFor();
  assert.deepEqual(asked.at(-1), ["shop/cart=PreferClose", "eu-1b=2"]);
  assert.match(await page.textContent("main"), /would ignore the preference: <b>its version<\/b>/);
  assert.deepEqual(await faultsOfAccess(page), []);
  assert.equal(await overflow(page), 0);
  for (const scheme of SCHEMES) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.screenshot({ path: `${process.env.MERIDIAN_PICTURES}/whatif-narrow-${scheme}.png`, fullPage: true });
  }
  await page.setViewportSize(SIZES.wide);
  await page.screenshot({ path: `${process.env.MERIDIAN_PICTURES}/whatif-wide-dark.png`, fullPage: true });
  assert.deepEqual(faults, []);
  // Of a service that is not there, the server's own words.
  await page.getByLabel("Service").fill("shop/none");
  await page.getByRole("button", { name: "Show" }).click();
  await page.getByText("there is no Service `shop/none`").waitFor();
  await close();
});

test("silent agents, a restarting controller and a refused answer are named in every view", async () => {
  const { page, close } = await open(browser);
  await change(page, "health", (health) => {
    health.nodes.forEach((node) => Object.assign(node, { silent: true, age_seconds: 900, hook: null, hook_reason: null }));
    return { ...health, program: "controller", ready: false, agents: { connected: 2, behind: 2 } };
  });
  await change(page, "report", (report) => {
    report.coverage.silent_nodes = [{ node: "node-1", percent: 40 }];
    return report;
  });
  await show(page, "?view=health");
  const text = await page.textContent("main");
  for (const part of ["4 of 4 nodes are silent", "This server is starting", "2 behind"]) assert.ok(text.includes(part), `${part} in ${text}`);
  assert.deepEqual(await faultsOfAccess(page), []);
  await page.screenshot({ path: `${process.env.MERIDIAN_PICTURES}/health-away-wide-light.png`, fullPage: true });
  for (const view of VIEWS) {
    await show(page, `?view=${view}`);
    await page.getByText("4 of 4 nodes are silent: their latest traffic is missing.").waitFor();
  }
  await close();

  for (const view of VIEWS) {
    const other = await open(browser);
    const busy = { status: 503, contentType: "text/plain", body: "too many requests at once: try again\n" };
    for (const path of ["report", "series", "advice"]) {
      await other.page.route(`**/api/v1/${path}*`, (route) => route.fulfill(busy));
    }
    await other.page.goto(`${SITE}?view=${view}`);
    await other.page.getByText("too many requests at once").first().waitFor();
    // The way to the other views stays.
    await other.page.getByRole("link", { name: "Health" }).click();
    await other.page.getByRole("heading", { name: "Nodes" }).waitFor();
    await other.close();
  }
});

test("the demo's advice is shown as the API has it, and says how much history it needs", async () => {
  const { page, faults, close } = await open(browser);
  await show(page, "?view=advice");
  await page.getByText("Advice needs").waitFor();
  await page.getByRole("button", { name: "Show it all the same" }).click();
  await page.locator("article.finding").first().waitFor();
  const { findings } = await api("advice?min-data=0s&floor=0");
  const headlines = await page.$$eval("article.finding h2", (all) => all.map((one) => one.textContent));
  assert.deepEqual(headlines, findings.map(({ rule, subject }) => `${rule}: ${subject}`));
  assert.ok(findings.length >= 2);
  assert.deepEqual(await faultsOfAccess(page), []);
  assert.deepEqual(faults, []);
  await close();
});

test("a trend of hours is a chart with a table", async () => {
  const { page, faults, close } = await open(browser);
  await change(page, "series", (series) => {
    const { from } = series.points[0];
    const hour = (at) => new Date(Date.parse(from) - (48 - at) * 3_600_000).toISOString().replace(".000", "");
    // A gap of six hours in between.
    const hours = Array.from({ length: 48 }, (_, at) => at).filter((at) => at < 20 || at > 25);
    const wave = (value, at) => value * (1 + 0.5 * Math.sin(at / 4));
    series.points = hours.map((at) => ({ from: hour(at), seconds: 3600, recorded_seconds: 3600 }));
    for (const row of [...series.rows, series.total]) {
      const [bytes, usd] = [row.bytes[0], Number(row.usd[0])];
      row.bytes = hours.map((at) => Math.round(wave(bytes, at)));
      row.usd = hours.map((at) => wave(usd, at).toFixed(12));
      row.unpriced_bytes = hours.map(() => 0);
    }
    return series;
  });
  for (const scheme of SCHEMES) {
    await page.emulateMedia({ colorScheme: scheme });
    await show(page, "?view=overview");
    await page.locator(".plot canvas").waitFor();
    await page.screenshot({ path: `${process.env.MERIDIAN_PICTURES}/trend-${scheme}.png`, fullPage: true });
  }
  await page.getByText("The same as a table").click();
  assert.equal(await page.locator("figure table tbody tr").count(), 42);
  assert.deepEqual(await faultsOfAccess(page), []);
  assert.deepEqual(faults, []);
  await close();
});

test("the description of the API holds against what a fuzzer asks", () => {
  const args = ["run", `${SITE}api/v1/openapi.json`, "--max-examples", "40", "--phases", "examples,coverage,fuzzing"];
  const excluded = ["--exclude-checks", "positive_data_acceptance,unsupported_method"];
  // The same requests in each run, or those of a seed: a failure can be had again.
  const seed = ["--seed", process.env.MERIDIAN_SEED ?? "1", "--generation-database", "none"];
  const all = ["--config-file", "schemathesis.toml", ...args, ...excluded, ...seed, "--no-color"];
  const { status, stdout, stderr } = spawnSync(process.env.SCHEMATHESIS, all, {
    encoding: "utf8",
    timeout: 300_000,
  });
  assert.equal(status, 0, `${stdout}\n${stderr}`.slice(-6000));
});

test("a server that has gone is named, and the last numbers stay", async () => {
  const pages = await Promise.all(VIEWS.map(() => open(browser)));
  for (const [at, view] of VIEWS.entries()) await show(pages[at].page, `?view=${view}`);
  await pages[0].page.locator("table.matrix").waitFor();
  assert.equal(await demo.end(), 0);
  for (const [at, { page, close }] of pages.entries()) {
    await page.getByRole("alert").first().waitFor({ timeout: 90_000 });
    assert.match(await page.getByRole("alert").first().textContent(), /does not answer/);
    if (VIEWS[at] === "overview") assert.equal(await page.locator("table.matrix").count(), 1);
    await close();
  }
});
