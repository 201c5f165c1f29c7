import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { AWAY, BACK, ApiError, get } from "../../../web/mlrs_web/static/api/client.js";

globalThis.document = new EventTarget();
const heard = [];
for (const type of [AWAY, BACK]) document.addEventListener(type, () => heard.push(type));

let status = 200;
const server = createServer((_, response) => response.writeHead(status).end("{}"));
const url = () => `http://127.0.0.1:${server.address().port}/api/runs`;

before(() => new Promise((listening) => server.listen(0, "127.0.0.1", listening)));
after(() => server.close());

test("only the first answer after the daemon was away says that it is back", async () => {
  await get(url());
  assert.deepEqual(heard, []);
  status = 503;
  await assert.rejects(get(url()), ApiError);
  await assert.rejects(get(url()), ApiError);
  assert.deepEqual(heard, [AWAY, AWAY]);
  status = 200;
  await get(url());
  await get(url());
  assert.deepEqual(heard, [AWAY, AWAY, BACK]);
});
