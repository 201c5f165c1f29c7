// Train a softmax regression on points in the plane, with learning rates from a daemon.
//
//     npm ci && npm run train -- [--mlrs COMMAND]
//
// It starts a daemon of its own, kills it in the middle of the training and starts it again, goes back to a
// checkpoint, and shows that the learning rates are those of a training that nothing disturbs.

import { parseArgs } from "node:util";

import { Connection } from "./contract.js";
import { Daemon } from "./daemon.js";
import { Run } from "./run.js";

const STEPS = 60;
const CLASSES = 3;

/** A generator of numbers from 0 to 1, always the same ones. */
function* numbers(seed) {
  for (let state = seed; ; ) {
    state = (state * 1664525 + 1013904223) % 2 ** 32;
    yield state / 2 ** 32;
  }
}

/** Return points around three centers, with their class. */
function points(count) {
  const random = numbers(1);
  const next = () => random.next().value;
  return Array.from({ length: count }, (_, i) => {
    const label = i % CLASSES;
    const angle = (2 * Math.PI * label) / CLASSES;
    return { x: [Math.cos(angle) + next() - 0.5, Math.sin(angle) + next() - 0.5, 1], label };
  });
}

/** Return the mean cross-entropy in nats, and its gradient; weights are CLASSES rows of 3. */
function lossAndGradient(weights, data) {
  const gradient = weights.map((row) => row.map(() => 0));
  let loss = 0;
  for (const { x, label } of data) {
    const scores = weights.map((row) => row.reduce((sum, w, i) => sum + w * x[i], 0));
    const total = scores.reduce((sum, score) => sum + Math.exp(score), 0);
    loss += (Math.log(total) - scores[label]) / data.length;
    scores.forEach((score, k) => {
      const error = Math.exp(score) / total - (k === label ? 1 : 0);
      x.forEach((value, i) => (gradient[k][i] += (error * value) / data.length));
    });
  }
  return { loss, gradient };
}

/** Train from a step on; return the learning rates of each step. `before(step)` is called before each. */
async function train(run, data, weights, before = () => {}) {
  const rates = [];
  for (let step = run.nextStep; step < STEPS; step += 1) {
    await before(step);
    const { loss, gradient } = lossAndGradient(weights, data);
    const { learningRate } = await run.observe(step, loss);
    weights.forEach((row, k) => row.forEach((_, i) => (row[i] -= learningRate * gradient[k][i])));
    rates.push(learningRate);
  }
  return rates;
}

const { values } = parseArgs({ options: { mlrs: { type: "string", default: "mlrs" } } });
const daemon = new Daemon(values.mlrs);
try {
  await daemon.start();
  const connection = new Connection(daemon.address);
  const config = { horizon: String(STEPS), numClasses: CLASSES, optimizer: "OPTIMIZER_SGD" };
  const data = points(90);
  const zeros = () => Array.from({ length: CLASSES }, () => [0, 0, 0]);

  // Create a run, and train: the learning rate of a step comes from its loss.
  const undisturbed = new Run(connection, { runId: "undisturbed", config });
  await undisturbed.open();
  const expected = await train(undisturbed, data, zeros());
  console.log(`trained ${STEPS} steps, the last at a learning rate of ${expected.at(-1)}`);

  // The same again: a repeated observation gets the recorded answer, another loss is refused.
  const { loss } = lossAndGradient(zeros(), data);
  const replay = await undisturbed.observe(0, loss);
  console.log(`step 0 again: ${replay.reason}, the same rate: ${replay.learningRate === expected[0]}`);
  await undisturbed.observe(0, loss + 1).catch(({ reason, code }) => {
    console.log(`step 0 with another loss: ${code}, ${reason}`);
  });
  await undisturbed.finish();
  await undisturbed.observe(STEPS, 1).catch(({ reason }) => console.log(`after the end: ${reason}`));

  // The daemon is killed in the middle, and comes back.
  const weights = zeros();
  let checkpoint;
  const disturbed = new Run(connection, { runId: "disturbed", config });
  await disturbed.open();
  const rates = await train(disturbed, data, weights, async (step) => {
    if (step === 20) checkpoint = structuredClone(weights);
    if (step === 30) {
      daemon.signal("SIGKILL");
      await daemon.ended();
      await daemon.start();
    }
  });
  console.log(`killed at step 30, the same rates: ${`${rates}` === `${expected}`}`);

  // Back to the checkpoint of step 20.
  await disturbed.open({ mode: "OPEN_MODE_RESUME", resumeFrom: 20 });
  const again = await train(disturbed, data, checkpoint);
  console.log(`from the checkpoint of step 20, the same rates: ${`${again}` === `${expected.slice(20)}`}`);
  const run = await disturbed.finish();
  console.log(`${run.status} with ${run.nextStep} steps`);

  // What is wrong is in the metadata of an error.
  const wrong = new Run(connection, { runId: "wrong", config: { ...config, horizon: "0" } });
  await wrong.open().catch(({ code, reason, field }) => console.log(`a wrong field: ${code}, ${reason}, ${field}`));
  connection.close();
} finally {
  await daemon.remove();
}
