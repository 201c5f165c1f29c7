import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";

import { readNews } from "../../../web/mlrs_web/static/api/reading.js";

const { fetch } = globalThis;
let asked = [];
let answers = [];
const server = createServer((request, response) => {
  asked.push(request.url);
  response.end(JSON.stringify(answers.shift()));
});

/** The buckets from a step on, as the dashboard answers them. */
function record(first_step, losses, { status = "active", ...rest } = {}) {
  const column = { min: losses, max: losses, mean: losses };
  const end_step = first_step + losses.length;
  return {
    run: { id: "r", status, next_step: end_step },
    first_step,
    steps_per_bucket: 1,
    end_step,
    loss: column,
    lr: column,
    held: losses.map(() => 0),
    signals: {},
    validations: [],
    updates: [],
    restores: [],
    restored: [],
    cursor: `c${end_step}`,
    has_more: false,
    ...rest,
  };
}
const signal = new AbortController().signal;

before(async () => {
  globalThis.document = new EventTarget();
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  // A page's addresses are those of its server; Node has no page.
  globalThis.fetch = (url, options) => fetch(new URL(url, `http://127.0.0.1:${server.address().port}`), options);
});
after(() => server.close());
beforeEach(() => ([asked, answers] = [[], []]));

test("only what is new of a record is read, piece by piece", async () => {
  answers = [record(2, [3, 2], { has_more: true }), record(3, [2.5, 1])];
  const now = await readNews(record(0, [5, 4, 3]), 10, signal);
  assert.deepEqual(now.loss.mean, [5, 4, 3, 2.5, 1]);
  assert.deepEqual(asked, ["/api/record?id=r&cursor=c3", "/api/record?id=r&cursor=c4"]);
});

test("nothing is asked about a run that has ended, once all of it is known", async () => {
  const all = record(0, [5, 4], { status: "finished" });
  assert.equal(await readNews(all, 10, signal), all);
  assert.deepEqual(asked, []);
  answers = [record(1, [4, 3], { status: "finished" })];
  const behind = record(0, [5, 4], { run: { id: "r", status: "finished", next_step: 3 } });
  assert.deepEqual((await readNews(behind, 10, signal)).loss.mean, [5, 4, 3]);
});

test("a record of twice the buckets is read anew", async () => {
  answers = [record(0, [4.5, 2.5], { steps_per_bucket: 2 })];
  const now = await readNews(record(0, [5, 4, 3, 2]), 2, signal);
  assert.deepEqual([now.loss.mean, now.steps_per_bucket], [[4.5, 2.5], 2]);
  assert.deepEqual(asked, ["/api/record?buckets=2&id=r"]);
});
