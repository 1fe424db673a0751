// Checks every page of a running journal with axe, as a person who signs in sees it.
//
//   npm ci --ignore-scripts
//   JOURNAL_URL=https://localhost:8443 JOURNAL_USER=SE2321000016-1003 JOURNAL_PASSWORD=… npm run check
//
// Uses Debian's chromium, found in PATH; downloads none. It writes a patient, a note and an attachment, so it is for
// a journal of tests. The certificate is not verified: what is checked here is the page.
// JOURNAL_CHROMIUM_ARGS adds arguments, one a line, e.g. --host-resolver-rules=MAP journal.example 10.0.0.1
// Prints a line for each page and a verdict. Exits with 0 only if no page has a violation.

import { mkdtemp, rm } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { tmpdir } from "node:os";
import { accessSync, constants, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Published by Skatteverket. */
const PERSONNUMMER = "18900102-9819";
/** WCAG 1.4.10: at this width nothing may need scrolling both ways. */
const NARROW = { width: 320, height: 640 };
const WIDE = { width: 1280, height: 800 };
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const site = setting("JOURNAL_URL").replace(/\/$/, "");
const user = setting("JOURNAL_USER");
const password = setting("JOURNAL_PASSWORD");

function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

function chromiumInPath() {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    const file = join(folder, "chromium");
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // Not in this folder.
    }
  }
  throw new Error("there is no chromium in PATH: install Debian's package chromium");
}

/** What axe finds on the page that is shown, and whether it has to be scrolled sideways. */
async function violations(page) {
  await page.evaluate(axe);
  return page.evaluate(async () => {
    const { violations } = await window.axe.run(document);
    const list = violations.map(({ id, impact, help, nodes }) => ({
      id,
      impact,
      help,
      where: nodes.map((node) => node.target.join(" ")),
    }));
    // axe does not look at reflow.
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth > clientWidth) {
      const help = `the page is ${scrollWidth} px wide in a window of ${clientWidth} px`;
      list.push({ id: "reflow", impact: "serious", help, where: ["html"] });
    }
    return list;
  });
}

let pages = 0;
let found = 0;

/** Checks the page that is shown, wide and narrow. */
async function check(page, name) {
  for (const size of [WIDE, NARROW]) {
    await page.setViewportSize(size);
    const list = await violations(page);
    pages += 1;
    found += list.length;
    console.log(`${list.length === 0 ? "ok  " : "FAIL"} ${name} at ${size.width} px`);
    for (const { id, impact, help, where } of list) console.log(`     ${impact} ${id}: ${help} (${where.join("; ")})`);
  }
  await page.setViewportSize(WIDE);
}

/** Spoils the page that is shown, and sees whether axe notices: a check that cannot fail is no check. */
async function checkTheCheck(page) {
  await page.evaluate(() => document.querySelector("main").append(document.createElement("img")));
  const noticed = (await violations(page)).some(({ id }) => id === "image-alt");
  if (!noticed) throw new Error("axe did not notice an image without a text");
}

async function signIn(page, word) {
  await page.goto(`${site}/sign-in`);
  await page.getByLabel("HSA-id").fill(user);
  await page.getByLabel("Lösenord").fill(word);
  await page.getByRole("button", { name: "Logga in" }).click();
}

async function openPatient(page) {
  const create = page.locator("form[action='/patients']");
  await create.getByLabel("Personnummer").fill(PERSONNUMMER);
  await create.getByLabel("Namn").fill("Tova Testsson");
  await create.getByRole("button").click();
  if (new URL(page.url()).pathname !== "/patients") return;
  // The patient is there from an earlier run: the page says so, and is one of ours too.
  await check(page, "a refused form");
  await page.goto(site);
  const find = page.locator("form[action='/find']");
  await find.getByLabel("Personnummer").fill(PERSONNUMMER);
  await find.getByRole("button").click();
}

async function walk(page) {
  await page.goto(`${site}/sign-in`);
  await check(page, "signing in");
  await checkTheCheck(page);
  await signIn(page, `${password}-fel`);
  await check(page, "a wrong password");
  await signIn(page, password);
  await page.waitForURL(`${site}/`);
  await check(page, "patients");
  await openPatient(page);
  await check(page, "a patient with nothing");
  await page.getByLabel("Anteckning", { exact: true }).fill("Söker för hosta sedan tre dagar.\nÅter vid behov.");
  await page.getByRole("button", { name: "Spara anteckning" }).click();
  await page.locator("article").first().waitFor();
  const file = { name: "röntgen.dcm", mimeType: "application/dicom", buffer: Buffer.from("röntgen") };
  await page.locator("input[type=file]").setInputFiles(file);
  await page.getByRole("button", { name: "Spara bilaga" }).click();
  await page.locator("td code").first().waitFor();
  await check(page, "a patient with a note and an attachment");
  const sign = page.getByRole("button", { name: "Signera anteckning" }).first();
  if ((await sign.count()) > 0) {
    await sign.click();
    await page.getByText("Signerad ").first().waitFor();
    await check(page, "a patient with a signed note");
  }
  const chart = page.url();
  await page.getByRole("link", { name: "Vem har läst den här journalen?" }).click();
  await check(page, "who read a patient");
  await page.goto(`${site}/access-log`);
  await check(page, "the access log");
  await page.goto(site);
  await check(page, "patients, with one in the list");
  await page.goto(`${chart}0000000`);
  await check(page, "a page that does not exist");
}

const folder = await mkdtemp(join(tmpdir(), "journal-axe-"));
const more = (process.env.JOURNAL_CHROMIUM_ARGS ?? "").split("\n").filter(Boolean);
const browser = await chromium.launchPersistentContext(folder, {
  executablePath: chromiumInPath(),
  headless: true,
  args: [...FLAGS, ...more],
  ignoreHTTPSErrors: true,
  locale: "sv-SE",
});
try {
  await walk(browser.pages()[0] ?? (await browser.newPage()));
} finally {
  await browser.close();
  await rm(folder, { recursive: true, force: true });
}
console.log(`axe: ${pages} views, ${found} violations: ${found === 0 ? "passed" : "failed"}`);
process.exitCode = found === 0 ? 0 : 1;
