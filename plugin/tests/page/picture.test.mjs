// The picture of README.md: `scripts/picture.sh`.

import { test } from "node:test";
import { launch, show } from "./browser.mjs";
import { Demo } from "./demo.mjs";

test("the picture", async () => {
  const demo = await Demo.start("30s");
  const browser = await launch();
  const page = await browser.newPage({ viewport: { width: 1280, height: 616 }, colorScheme: "light" });
  await show(page, "?view=overview&from=1h");
  await page.locator("table.matrix").waitFor();
  await page.screenshot({ path: process.env.MERIDIAN_PICTURE });
  await browser.close();
  await demo.end();
});
