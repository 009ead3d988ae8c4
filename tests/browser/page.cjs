// Checks a status page in Chromium, as a person would see it. Started by tests/page.rs, which runs pontoon.
//
//   node page.cjs URL [DIRECTORY]     screenshots go to the directory
//
// Prints "ready" once the page updates itself. After a line on stdin it looks for the client "late-comer" and prints "seen". After another
// line it expects that pontoon is gone. Exits with an error if a check fails.
"use strict";
const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const { chromium } = require("playwright-core");

const [url, directory] = process.argv.slice(2);
const PATIENCE = 30000;
const OFF = ["quic", "background-networking", "component-update", "sync", "gpu"].map((what) => `--disable-${what}`);

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const told = async (words) => {
  console.log(words);
  const { done } = await lines.next();
  assert(!done, "whoever asked is gone");
};

async function main() {
  const browser = await chromium.launch({
    executablePath: process.env.TEST_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--no-first-run", ...OFF],
  });
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(`error: ${error}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) complaints.push(`asks ${request.url()}`);
  });
  const shoot = async (name) => {
    if (directory) await page.screenshot({ path: path.join(directory, `${name}.png`), fullPage: true });
  };

  const answer = await page.goto(url);
  const header = answer.headers();
  assert.match(header["content-security-policy"], /^default-src 'none'; style-src 'sha256-/);
  assert.match(header["content-security-policy"], /frame-ancestors 'none'/);
  assert.equal(header["x-content-type-options"], "nosniff");
  assert.equal(header["referrer-policy"], "no-referrer");
  assert.equal(header["cross-origin-opener-policy"], "same-origin");

  // The content that must be visible.
  const text = async () => (await page.innerText("body")).replaceAll(/\s+/g, " ");
  const sees = async (pattern) => {
    for (const end = Date.now() + PATIENCE; !pattern.test(await text()); ) {
      assert(Date.now() < end, `${pattern} is not on the page: ${await text()}`);
      await page.waitForTimeout(50);
    }
  };
  for (const pattern of [
    /Uses only TLS: ✓ ?yes/, /Uses only TLS: ✕ ?no/, /Safe to require TLS: ✕ ?no/, /the servers? are not asked|does not count/, /Bridge still needed: yes/,
    /Next: /, /Sessions over TLS/, /Certificate expires/, /Recent events/, /listening/,
  ]) await sees(pattern);
  assert.equal(await page.locator("[aria-current=step]").count(), 4, "each route is somewhere on the road");
  assert(await page.locator("svg.chart").count() >= 4);
  const overview = async (name) => (await page.locator(".overview tbody tr", { hasText: name }).innerText()).replaceAll(/\s+/g, " ");
  assert.match(await overview("sessions"), /✓ ?reachable/);
  assert.match(await overview("carts"), /▲ ?in plaintext/);
  await sees(/✓ ?up since \d\d:\d\d UTC \(\d+ (s|min) ago\)/);
  await sees(/\d\d:\d\d:\d\d UTC \(\d+ (s|min) ago\)/);
  await sees(/\d+ s of 24 h without a session in plaintext/);
  assert.equal(await page.locator("progress[max='86400']").count(), 1);
  assert.notEqual(await page.locator("time").first().getAttribute("title"), null, "the local time");

  // The page updates itself without being loaded again.
  await page.evaluate(() => { window.mark = "still the same document"; });
  const updated = page.locator(".updated time");
  const next = async () => {
    const before = await updated.textContent();
    await page.waitForFunction((before) => document.querySelector(".updated time").textContent !== before, before);
  };
  await next();
  await page.locator("svg.chart path.line[d^=M]").first().waitFor({ state: "attached" });
  await sees(/last \d+ s at most/);
  await sees(/Requests [1-9][\d.\s]*\/s/);
  await sees(/(µs|ms) · [\d.]+ (µs|ms|s)/);

  // An idle route is collapsed. What a person opened or closed stays so.
  const card = (name) => page.locator("details.route", { has: page.locator("h2", { hasText: name }) });
  const is_open = (name) => card(name).evaluate((details) => details.open);
  const stay = async (open) => {
    await next();
    for (const name in open) assert.equal(await is_open(name), open[name], name);
  };
  const toggle = (name) => card(name).locator("summary").first().click();
  assert.match(await card("spare").innerText(), /idle, not used yet/);
  await stay({ sessions: true, jobs: true, spare: false });
  await toggle("spare");
  await toggle("jobs");
  await stay({ sessions: true, jobs: false, spare: true });
  await toggle("spare");
  await stay({ jobs: false, spare: false });
  await page.locator(".overview a", { hasText: "spare" }).click();
  await stay({ jobs: false, spare: true });
  await page.evaluate(() => window.scrollTo(0, 0));
  await toggle("spare");
  await told("ready");
  const rows = page.locator("#clients tbody tr:visible");
  await rows.filter({ hasText: "late-comer" }).waitFor();
  assert.equal(await page.evaluate(() => window.mark), "still the same document");
  assert(await is_open("spare"), "a route that is in use again opens");

  // With the keyboard only: reach the filter, then a heading.
  const focused = () => page.evaluate(() => document.activeElement.id);
  const tab_to = async (id) => {
    for (let n = 0; n < 60 && (await focused()) !== id; n++) await page.keyboard.press("Tab");
    assert.equal(await focused(), id, "it can be reached with Tab");
  };
  await page.locator("body").click({ position: { x: 1, y: 1 } });
  await tab_to("filter");
  await page.keyboard.type("late-");
  await next();
  assert.equal(await rows.count(), 1);
  assert.equal(await focused(), "filter", "an update leaves the focus alone");
  assert.equal(await page.inputValue("#filter"), "late-");
  await page.keyboard.press("Control+A");
  await page.keyboard.press("Delete");
  assert(await rows.count() > 1);
  await tab_to("by-now");
  const numbers = async () => (await rows.locator("td.number:nth-child(5)").allTextContents()).map(Number);
  const heading = page.locator("th:has(#by-now)");
  for (const [key, order] of [["Enter", "ascending"], ["Space", "descending"]]) {
    await page.keyboard.press(key);
    assert.equal(await heading.getAttribute("aria-sort"), order);
    await next();
    assert.equal(await heading.getAttribute("aria-sort"), order, "an update leaves the order alone");
    const found = await numbers();
    const sorted = [...found].sort((a, b) => (order === "ascending" ? a - b : b - a));
    assert(found.length > 1 && found.every(Number.isFinite), `${found}`);
    assert.deepEqual(found, sorted);
  }
  assert.equal(await focused(), "by-now");

  // In light and dark colours, on wide and narrow screens.
  await shoot("light");
  await page.emulateMedia({ colorScheme: "dark" });
  await shoot("dark");
  await page.setViewportSize({ width: 390, height: 844 });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  assert(wide <= 0, `a phone has to scroll sideways by ${wide} px`);
  for (const table of await page.locator(".scroll:visible").all()) {
    const attachments = await table.evaluate((box) => getComputedStyle(box).backgroundAttachment);
    assert.equal(attachments, "local, local, scroll, scroll", "a shadow shows that there is more");
  }
  const hidden = (box) => box.scrollWidth - box.clientWidth;
  assert(await page.locator(".scroll:has(#clients)").evaluate(hidden) > 0, "the table scrolls on its own");
  await shoot("phone-dark");
  await page.emulateMedia({ colorScheme: "light" });
  await shoot("phone");
  await page.setViewportSize({ width: 1280, height: 900 });
  assert.deepEqual(complaints, [], "the browser has nothing to complain of");

  // With an accessibility checker.
  await page.evaluate(fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8"));
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    const { violations } = await page.evaluate(() => axe.run());
    const problems = violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html} ${node.failureSummary}`));
    assert.equal(problems.join("\n"), "", colorScheme);
  }

  // Without scripts.
  const plain = await (await browser.newContext({ javaScriptEnabled: false })).newPage();
  await plain.goto(url);
  assert.match(await plain.innerText("main"), /Safe to require TLS/);
  assert(!(await plain.locator("#filter").isVisible()), "what would not work is not shown");
  assert.equal(await plain.locator("meta[http-equiv=refresh]").count(), 1);

  // Without pontoon.
  await told("seen");
  await page.locator("#link", { hasText: "this page is out of date" }).waitFor();
  await sees(/Safe to require TLS/);
  await browser.close();
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
