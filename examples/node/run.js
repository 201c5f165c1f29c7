// A small client of one run, after the rules of docs/guides/client-authors.md, whose numbers stand in comments.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import grpc from "@grpc/grpc-js";

import { AdviceError } from "./contract.js";

const PASSING = new Set(["STALE_HANDLE", "QUEUE_FULL", "MEMORY_FULL", "TENANT_LIMIT", "STORE", "DRAINING"]); // 4.4
const AWAY = new Set([grpc.status.UNAVAILABLE, grpc.status.DEADLINE_EXCEEDED, grpc.status.CANCELLED]);
const FIRST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 1000;

/** What passes: the same observation may be answered later. */
class Passing extends Error {}

export class Run {
  nextStep = 0;
  lastRate; // what the fallback answers with
  #kept = []; // 2.1: observations that the daemon may lose, in order and without gaps
  #feeder = randomUUID(); // 1.5
  #stream;
  #handle;

  /**
   * @param {import("./contract.js").Connection} connection
   * @param {object} request an OpenRunRequest
   * @param {number} timeoutMs how long an observation waits for its answer
   */
  constructor(connection, request, timeoutMs = 10_000) {
    this.connection = connection;
    this.request = request;
    this.timeoutMs = timeoutMs;
  }

  /** Open it; in the mode OPEN_MODE_RESUME it goes on where it was, or at `resumeFrom`. */
  async open({ mode = "OPEN_MODE_BEGIN", resumeFrom } = {}) {
    const request = { ...this.request, mode, feeder: this.#feeder };
    if (resumeFrom !== undefined) request.resumeFrom = String(resumeFrom);
    const { run } = await this.#opened(request);
    this.#kept = [];
    this.nextStep = Number(run.nextStep);
    this.lastRate = run.lastLearningRate;
  }

  /** Return the learning rate of a step, and why; waits for the daemon, or else the fallback answers. */
  async observe(step, loss) {
    const isNew = step === this.nextStep;
    if (isNew) {
      this.#kept.push({ step, loss });
      this.nextStep += 1;
    }
    const end = Date.now() + this.timeoutMs;
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      try {
        if (!this.#stream) await this.#again(step);
        const advice = (await this.#exchange([{ step, loss }], end - Date.now())).at(-1);
        this.lastRate = advice.learningRate;
        return advice;
      } catch (error) {
        if (!(error instanceof Passing)) {
          if (isNew) this.#withdraw(step);
          throw error;
        }
        this.#drop();
        if (Date.now() >= end) {
          if (this.lastRate === undefined) throw error;
          return { learningRate: this.lastRate, reason: "FALLBACK" }; // 5.1
        }
        await sleep(Math.random() * pauseMs); // 4.3
      }
    }
  }

  /** Say that the training is complete, and that it had this many steps. */
  async finish() {
    const end = Date.now() + this.timeoutMs;
    for (;;) {
      try {
        if (this.#kept.length && !this.#stream) await this.#again(this.nextStep);
        const request = { runId: this.request.runId, nextStep: String(this.nextStep) }; // 2.5
        const { run } = await this.connection.call("AdvisorService.FinishRun", request).catch(raised);
        this.close();
        return run;
      } catch (error) {
        const lacks = error instanceof AdviceError && error.reason === "STEP_AHEAD";
        if ((!lacks && !(error instanceof Passing)) || Date.now() >= end) throw error;
        this.#drop();
        await sleep(Math.random() * LONGEST_PAUSE_MS);
      }
    }
  }

  /** End its stream. */
  close() {
    this.#stream?.halfClose();
    this.#stream = undefined;
  }

  /** Open it again (3.1), and send what the daemon lacks, but for a step that is sent next (3.2). */
  async #again(step) {
    const { run } = await this.#opened({
      runId: this.request.runId,
      mode: "OPEN_MODE_RESUME",
      feeder: this.#feeder,
    });
    const expected = Number(run.nextStep);
    const oldest = this.#kept[0]?.step ?? this.nextStep;
    if (expected < oldest) throw new Error(`the daemon lacks steps from ${expected} on: rewind`); // 3.4
    const lacking = this.#kept.filter((each) => each.step >= expected && each.step !== step);
    if (lacking.length) await this.#exchange(lacking, this.timeoutMs);
  }

  async #opened(request) {
    const response = await this.connection.call("AdvisorService.OpenRun", request).catch(raised);
    this.#handle = response.runHandle;
    this.#stream ??= this.connection.stream({ "mlrs-feeder": this.#feeder }); // 1.3
    return response;
  }

  /** Send observations in one message, and return the advice for each. */
  async #exchange(observations, timeoutMs) {
    this.#stream.send({
      observations: {
        runHandles: observations.map(() => this.#handle),
        steps: observations.map(({ step }) => String(step)),
        losses: observations.map(({ loss }) => loss),
      },
    });
    const late = sleep(Math.max(timeoutMs, 0), { late: true }, { ref: false }); // 6.1
    const { response, error, late: isLate } = await Promise.race([this.#stream.receive(), late]);
    if (error) raised(error);
    if (isLate || !response?.advice) throw new Passing("no answer, the end, or a notice of the daemon's end"); // 7.1
    const { learningRates, reasons, durableSteps, errors } = response.advice;
    if (errors.length) refused(AdviceError.ofEntry(errors[0]));
    const durable = Math.max(...durableSteps.map(Number));
    this.#kept = this.#kept.filter(({ step }) => step > durable); // 2.2
    return learningRates.map((learningRate, i) => ({
      learningRate,
      reason: (reasons[i] ?? "ADVICE_REASON_FRESH").replace("ADVICE_REASON_", ""), // 2.6
    }));
  }

  /** Forget an observation that was refused: its step is the next one again. */
  #withdraw(step) {
    this.#kept = this.#kept.filter((each) => each.step < step);
    this.nextStep = step;
  }

  #drop() {
    this.#stream?.cancel();
    this.#stream = undefined;
  }
}

/** Throw what a failed call means. */
function raised(error) {
  const known = AdviceError.ofCall(error);
  if (!known.reason && AWAY.has(error.code)) throw new Passing(known.message); // 4.2
  refused(known);
}

function refused(error) {
  throw PASSING.has(error.reason) ? new Passing(error.message) : error;
}
