// Uses GraphiQL in a browser, as a person would: node graphiql.mjs SCENARIO URL. tests/it/browser.rs says when.
//
// CHROMIUM is the browser, SCREENSHOT where a picture of the log goes, TOKEN what the server asks for. The browser reaches
// the server and nothing else; whatever the page asks for elsewhere makes the scenario fail.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [scenario, url] = process.argv.slice(2);
const { CHROMIUM, SCREENSHOT, TOKEN } = process.env;
const PATIENCE = 45_000;
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];

const scenarios = {
  async "runs a query"() {
    const page = await open();
    await write(page, "{ workspaces { totalCount } }");
    await run(page);
    await answered(page, '"totalCount": 0');
  },

  async "follows a job through the ready-made tabs"() {
    const page = await open();
    await run(page);
    await answered(page, "WORKSPACE_INIT");
    await choose(page, "Pipeline");
    await run(page);
    await answered(page, "PIPELINE_CONFIG");
    await choose(page, "Run");
    await run(page);
    await answered(page, '"attempt": 1');
    await choose(page, "Log");
    await run(page);
    await answered(page, "line 1 of 10", '"complete": false');
    await answered(page, "line 5 of 10", "line 10 of 10", '"complete": true');
    if (SCREENSHOT) await page.screenshot({ path: SCREENSHOT });
    await choose(page, "Status");
    await run(page);
    await answered(page, '"status": "COMPLETE"', '"previousStatus": "RUNNING"');
    await choose(page, "Jobs");
    await run(page);
    await answered(page, '"totalCount": 5', "PIPELINE_RUN");
    // After a reload the tabs are as they were left, and the ids still known.
    await reload(page);
    await choose(page, "Log");
    await run(page);
    await answered(page, "line 10 of 10", '"complete": true');
  },

  async "says what is missing"() {
    const page = await open();
    await choose(page, "Log");
    await run(page);
    await answered(page, "No job is known yet");
  },

  async "shows tabs of another GraphiQL to nobody"() {
    const tab = {
      id: "1",
      title: "Old",
      query: "{ old }",
      variables: null,
      headers: null,
      operationName: null,
      response: null,
    };
    const page = await open(
      {},
      { "graphiql:tabState": JSON.stringify({ activeTabIndex: 0, tabs: [tab] }), "jobstream:made": "[]" },
    );
    const titles = await page.locator(".graphiql-tab-button").allTextContents();
    assert.deepEqual(titles, ["Workspace", "Pipeline", "Run", "Log", "Status", "Jobs"]);
  },

  async "asks for the token"() {
    const page = await open();
    const field = page.getByLabel("Token");
    const refusal = page.locator("#token-refusal");
    await refusal.getByText("token").waitFor();
    const message = await refusal.textContent();
    // A WebSocket is refused without a word, but the page has the server's.
    await write(page, "subscription { jobStatusChanged { status } }");
    await run(page);
    await answered(page, message);

    await field.fill("wrong");
    await field.press("Enter");
    await refusal.getByText(message).waitFor();
    // The page asks twice for the schema if it is refused: the second time says that it has heard the first answer.
    const letGo = await hold(page, "Bearer late");
    const asked = () => page.waitForRequest((request) => request.headers().authorization === "Bearer late");
    await Promise.all([asked(), field.fill("late").then(() => field.press("Enter"))]);
    await field.fill(TOKEN);
    await field.press("Enter");
    await refusal.waitFor({ state: "hidden" });
    await Promise.all([asked(), letGo()]);
    assert.equal(await refusal.isVisible(), false, "a late answer is taken for one to another token");
    // Over HTTP, over a new WebSocket, and after a reload.
    await write(page, 'mutation { createWorkspace(input: { name: "W" }) { workspace { id } jobs { id type } } }');
    await run(page);
    await answered(page, "WORKSPACE_INIT");
    await reload(page);
    await write(
      page,
      "subscription($workspaceId: ID) { jobStatusChanged(workspaceId: $workspaceId) { status job { type } } }",
    );
    await run(page);
    await answered(page, "PROFILE_");
    // The same button ends what runs.
    await run(page);
    assert.equal(
      await page.evaluate(() => JSON.stringify(localStorage).includes(sessionStorage["jobstream:token"])),
      false,
    );

    // What the headers editor says wins, over both.
    await page.getByRole("button", { name: "Headers" }).click();
    await fill(
      page,
      page.locator(".graphiql-editor-tool .graphiql-editor:not(.hidden)"),
      '{ "Authorization": "Bearer other" }',
    );
    for (const query of ["{ workspaces { totalCount } }", "subscription { jobStatusChanged { status } }"]) {
      await write(page, query);
      await run(page);
      await answered(page, message);
    }
  },

  async "is dark where the system is"() {
    for (const [colorScheme, isExpected] of [
      ["dark", (light) => light < 0.3],
      ["light", (light) => light > 0.9],
    ]) {
      const page = await open({ colorScheme });
      const light = await page.locator(".graphiql-container").evaluate((element) => {
        const [red, green, blue] = getComputedStyle(element).backgroundColor.match(/\d+/g);
        return Math.max(red, green, blue) / 255;
      });
      assert.ok(isExpected(light), `${colorScheme}: ${light}`);
      await page.context().close();
    }
  },
};

const outside = [];
const defects = [];
const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
try {
  await scenarios[scenario]();
  assert.deepEqual(outside, [], "requests to other hosts");
  assert.deepEqual(defects, [], "defects of the page");
} finally {
  await browser.close();
}

/** Opens the page in a profile of its own. */
async function open(options = {}, stored = {}) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 800 },
    permissions: ["clipboard-read", "clipboard-write"],
    ...options,
  });
  await context.route("**", (route) => {
    const asked = route.request().url();
    if (asked.startsWith(url) || asked.startsWith("data:")) return route.continue();
    outside.push(asked);
    return route.abort();
  });
  await context.addInitScript((stored) => {
    for (const [key, value] of Object.entries(stored)) if (!localStorage[key]) localStorage[key] = value;
  }, stored);
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("websocket", (socket) => socket.url().startsWith(url.replace("http", "ws")) || outside.push(socket.url()));
  page.on("pageerror", (error) => defects.push(error.stack ?? String(error)));
  page.on(
    "console",
    (message) => /Content.Security.Policy/i.test(message.text()) && defects.push(message.text().slice(0, 300)),
  );
  await page.goto(url);
  await ready(page);
  return page;
}

async function reload(page) {
  await page.reload();
  await ready(page);
}

/** Waits until the page shows what it is to run. */
async function ready(page) {
  await page.locator(".graphiql-query-editor .view-line").first().waitFor();
}

/** Keeps requests with this authorization back; what is returned lets them go. */
async function hold(page, authorization) {
  let letGo;
  const gone = new Promise((resolve) => (letGo = resolve));
  await page.route("**/graphql", async (route) => {
    if (route.request().headers().authorization === authorization) await gone;
    await route.fallback();
  });
  return letGo;
}

async function choose(page, tab) {
  await page.locator(".graphiql-tab-button", { hasText: tab }).click();
}

async function write(page, query) {
  await fill(page, page.locator(".graphiql-query-editor"), query);
}

/** Pastes, for when typing the editor closes braces by itself. */
async function fill(page, editor, text) {
  await page.evaluate((text) => navigator.clipboard.writeText(text), text);
  await editor.locator(".view-lines").first().click();
  await page.keyboard.press("Control+A");
  await page.keyboard.press("Control+V");
}

async function run(page) {
  await page.locator(".graphiql-execute-button").click();
}

/** Waits until all of these texts are in view in the answer. */
async function answered(page, ...texts) {
  const inView = (texts) => {
    const answer = document.querySelector(".result-window .view-lines")?.innerText.replaceAll("\u00a0", " ") ?? "";
    return texts.every((text) => answer.includes(text));
  };
  try {
    await page.waitForFunction(inView, texts);
  } catch (error) {
    const shown = await page.locator(".result-window").innerText();
    throw new Error(`${texts} is not in the answer:\n${shown}`, { cause: error });
  }
}
