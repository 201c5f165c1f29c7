import assert from "node:assert/strict";
import test from "node:test";

import { addPoll, emptyRates } from "../../../web/mlrs_web/static/pages/health/rates.js";
import { eventWords, lanesOf } from "../../../web/mlrs_web/static/pages/run/marks.js";
import { missingWords } from "../../../web/mlrs_web/static/pages/run/ranks.js";
import { refreshed } from "../../../web/mlrs_web/static/pages/runs/merge.js";
import { ago, bytes, clock, compact, duration, loss, percent, rate } from "../../../web/mlrs_web/static/view/format.js";

test("learning rates have three significant digits", () => {
  assert.deepEqual([0.1, 0.000123456, 0.00213, 3e-8, 0, 1234, null].map(rate), [
    "0.1",
    "1.23e-4",
    "0.00213",
    "3e-8",
    "0",
    "1,234",
    "–",
  ]);
  assert.deepEqual([0.123456, 12345678, NaN].map(loss), ["0.1235", "1.235e7", "–"]);
});

test("counts, sizes and times are short", () => {
  assert.deepEqual([9999, 20_000, 250_000, 1_500_000].map(compact), ["9,999", "20,000", "250k", "1.5M"]);
  assert.deepEqual([512, 83886080].map(bytes), ["512 bytes", "80 MiB"]);
  assert.deepEqual([0.00008, 0.0015, 12, 185, 7800, 273600].map(duration), [
    "80 µs",
    "1.5 ms",
    "12 s",
    "3 min 5 s",
    "2 h 10 min",
    "3 d 4 h",
  ]);
  assert.deepEqual([ago(100, 102), ago(100, 290), ago(0, 86400)], ["just now", "3 min ago", "1 day ago"]);
  assert.deepEqual([percent(0.004), percent(0.999), percent(1)], ["0.4 %", "99 %", "100 %"]);
});

test("a moment has its date where that is not today's", () => {
  const at = (...parts) => new Date(2026, 2, ...parts).getTime() / 1000;
  assert.equal(clock(at(5, 9, 3), at(5, 23, 59)), "09:03:00");
  assert.match(clock(at(4, 23, 3), at(5, 0, 1)), /^4 Mar 2026.* 23:03:00$/);
});

test("the first page of a list replaces what it has, and keeps what was read beyond it", () => {
  const runs = (...ids) => ids.map((id) => ({ id }));
  const first = { runs: runs("new", "a", "b"), cursor: "c1" };
  assert.deepEqual(refreshed({ runs: runs("a", "b", "c", "d"), cursor: "c9" }, first, false), {
    runs: runs("new", "a", "b", "c", "d"),
    cursor: "c9",
  });
  assert.deepEqual(
    refreshed({ runs: runs("a", "gone"), cursor: null }, { runs: runs("a"), cursor: null }, false).runs,
    runs("a"),
  );
  assert.deepEqual(refreshed({ runs: runs("b", "a"), cursor: "c9" }, first, true), {
    runs: runs("b", "a"),
    cursor: "c9",
  });
});

test("answers a second are differences, and begin again with the daemon", () => {
  const rates = emptyRates();
  for (const [time, fresh] of [
    [0, 100],
    [2, 300],
    [4, 10],
    [6, 20],
  ])
    addPoll(rates, { time, answers: { fresh } });
  assert.deepEqual(rates.perSecond, [100, 5]);
});

test("marks say what happened, in rows of those kinds that occur", () => {
  const record = {
    run: { status: "diverged", next_step: 40 },
    first_step: 0,
    steps_per_bucket: 4,
    end_step: 40,
    held: [0, 4, 1, 0, 0, 0, 0, 0, 0, 0],
    updates: [],
    restores: [],
    restored: [9],
  };
  const events = [{ number: 1, time: 0, kind: "rewound", step: 8, from_step: 20, count: null }];
  const lanes = lanesOf(record, events);
  assert.deepEqual(
    lanes.map((lane) => lane.name),
    ["diverged", "held", "restored", "rewound"],
  );
  assert.deepEqual(
    lanes[1].marks.map(({ from, to, number }) => [from, to, number]),
    [
      [4, 7, 4],
      [8, 8, 1],
    ],
  );
  assert.match(lanes[3].marks[0].words, /^Rewound from step 20 to step 8\./);
});

test("the ranks that a step waits for are listed, and those beyond are counted", () => {
  const words = (reported, missing, world_size) => missingWords({ step: 3, reported, missing, world_size });
  const lowest = Array.from({ length: 100 }, (_, rank) => rank + 1);
  assert.deepEqual(
    [words(4, [], 4), words(3, [2], 4), words(2, [0, 2], 4)],
    [null, "Missing: rank 2.", "Missing: ranks 0, 2."],
  );
  assert.match(words(1, lowest, 4096), /^Missing: ranks 1, 2, .*, 20 and 4,075 more\.$/);
});

test("a fallback without a number of steps says only where it began", () => {
  const words = (count) => eventWords({ number: 1, time: 0, kind: "fallback", step: 7, from_step: null, count });
  assert.match(words(1), /: 1 step from step 7 on/);
  assert.match(words(null), /: steps from step 7 on/);
});
