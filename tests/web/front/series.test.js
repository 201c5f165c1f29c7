import assert from "node:assert/strict";
import test from "node:test";

import { grouped } from "../../../web/mlrs_web/static/charts/grouping.js";
import { isLabelled, linearRange, logRange, spansDecades } from "../../../web/mlrs_web/static/charts/scales.js";
import { evenly, resampled, smoothed } from "../../../web/mlrs_web/static/charts/series.js";

test("smoothing weighs by age, has no bias at the start and keeps gaps", () => {
  assert.deepEqual(smoothed([4, null, 1], 0.5), [4, null, (4 * 0.5 + 1) / 1.5]);
  assert.deepEqual(
    smoothed([3, 3, 3], 0.9).map((one) => Number(one.toFixed(9))),
    [3, 3, 3],
  );
  assert.deepEqual(smoothed([3, 1], 0), [3, 1]);
});

test("a series is read on straight lines between its points, and not beyond them", () => {
  assert.deepEqual(resampled([0, 10, 20], [0, null, 4], [-1, 0, 5, 20, 21]), [null, 0, 1, 4, null]);
  assert.deepEqual(evenly(0, 1, 3), [0, 0.5, 1]);
});

test("ranges of axes have room, and none below 0 that no value needs", () => {
  assert.deepEqual(linearRange(0, 1), [0, 1.06]);
  assert.deepEqual(
    linearRange(2, 2).map((one) => Number(one.toFixed(6))),
    [1.8, 2.2],
  );
  assert.deepEqual(
    [logRange(0.03, 0.7), logRange(2, 2), logRange(0, 1)],
    [
      [0.02, 1],
      [1, 5],
      [0.1, 1],
    ],
  );
  assert.deepEqual([spansDecades([0.01, null, 2]), spansDecades([0, 2]), spansDecades([1, 2])], [true, false, false]);
});

test("a logarithmic axis has as many labels as there is room for", () => {
  const shown = (decade) => [1, 2, 3, 5, 10, 100].filter((value) => isLabelled(value, decade, 30));
  assert.deepEqual(
    [shown(1000), shown(120), shown(40), shown(16)],
    [
      [1, 2, 3, 5, 10, 100],
      [1, 2, 5, 10, 100],
      [1, 10, 100],
      [1, 100],
    ],
  );
});

test("marks that would cover each other are put together, and those off the chart left out", () => {
  const marks = [0, 4, 50, 500].map((step) => ({ from: step, to: step, words: "" }));
  const groups = grouped(marks, (step) => step, 100);
  assert.deepEqual(
    groups.map((group) => group.marks.map((mark) => mark.from)),
    [[0, 4], [50]],
  );
});
