import assert from "node:assert/strict";
import test from "node:test";

import { bucketOf, merged, middles, span } from "../../../web/mlrs_web/static/api/record.js";

/** A record with one bucket for each loss. */
function record(
  first_step,
  losses,
  { steps_per_bucket = 1, end_step = first_step + losses.length * steps_per_bucket, ...rest } = {},
) {
  const column = { min: losses, max: losses, mean: losses };
  return {
    run: { id: "r" },
    first_step,
    steps_per_bucket,
    end_step,
    loss: column,
    lr: column,
    held: losses.map(() => 0),
    signals: {},
    validations: [],
    updates: [],
    restores: [],
    restored: [],
    cursor: "",
    has_more: false,
    ...rest,
  };
}

test("what is new replaces the last bucket and follows it", () => {
  const all = merged(record(0, [5, 4, 3]), record(2, [2.5, 2, 1], { cursor: "next" }));
  assert.deepEqual(all.loss.mean, [5, 4, 2.5, 2, 1]);
  assert.deepEqual([all.first_step, all.end_step, all.cursor], [0, 5, "next"]);
});

test("after a rewind, what came after its step is gone", () => {
  const old = record(0, [5, 4, 3, 2], {
    validations: [
      { step: 1, loss: 9 },
      { step: 3, loss: 8 },
    ],
    restored: [1, 3],
    updates: [{ step: 3 }],
  });
  const all = merged(old, record(2, [7]));
  assert.deepEqual(all.loss.mean, [5, 4, 7]);
  assert.deepEqual(all.validations, [{ step: 1, loss: 9 }]);
  assert.deepEqual([all.restored, all.updates], [[1], []]);
});

test("after a rewind to the beginning, only what is new is left", () => {
  assert.deepEqual(merged(record(0, [5, 4]), record(0, [9])).loss.mean, [9]);
});

test("signals stay with their buckets", () => {
  const old = record(0, [5, 4, 3], {
    signals: {
      grad_norm2: [
        [0, 10],
        [2, 30],
      ],
    },
  });
  const all = merged(
    old,
    record(2, [3, 2], {
      signals: {
        grad_norm2: [
          [0, 31],
          [1, 40],
        ],
        other: [[1, 1]],
      },
    }),
  );
  assert.deepEqual(all.signals, {
    grad_norm2: [
      [0, 10],
      [2, 31],
      [3, 40],
    ],
    other: [[3, 1]],
  });
});

test("a validation loss that comes again replaces the one before", () => {
  const old = record(0, [5, 4], { validations: [{ step: 1, loss: 9 }] });
  assert.deepEqual(merged(old, record(1, [4, 3], { validations: [{ step: 1, loss: 7 }] })).validations, [
    { step: 1, loss: 7 },
  ]);
});

test("buckets know their steps, and the last one may be shorter", () => {
  const coarse = record(8, [5, 4, 3], { steps_per_bucket: 8, end_step: 26 });
  assert.deepEqual(middles(coarse), [11.5, 19.5, 24.5]);
  assert.deepEqual(
    [span(coarse, 0), span(coarse, 2)],
    [
      [8, 15],
      [24, 25],
    ],
  );
  assert.equal(bucketOf(coarse, 17), 1);
});
