/** Reads a few steps of the runs on the screen, many runs in one question, and of each only when it has new steps. */

import { get } from "../../api/client.js";
import { debounced } from "../../view/dom.js";

/** @typedef {import("../../types.js").Run} Run */
/** @typedef {import("../../types.js").Sample} Sample */

const QUIET_MS = 60;
const MOST = 100;
const KEPT = 2000;

/** @param {AbortSignal} signal @param {(id: string, sample: Sample) => void} onsample */
export function buildSamples(signal, onsample) {
  /** @type {Map<string, {next_step: number, sample: Sample | null}>} */
  const known = new Map();
  /** @type {Run[]} */
  let wanted = [];

  const read = debounced(async () => {
    const missing = wanted
      .filter((run) => run.next_step > 0 && known.get(run.id)?.next_step !== run.next_step)
      .slice(0, MOST);
    if (signal.aborted || !missing.length) return;
    for (const run of missing)
      known.set(run.id, { next_step: run.next_step, sample: known.get(run.id)?.sample ?? null });
    try {
      const { samples } = await get("/api/samples", { id: missing.map((run) => run.id) }, signal);
      for (const run of missing) {
        const sample = samples[run.id];
        if (!sample?.steps.length) continue;
        known.set(run.id, { next_step: run.next_step, sample });
        onsample(run.id, sample);
      }
    } catch {
      for (const run of missing) known.delete(run.id); // The next time that they are on the screen asks again.
    }
    for (const id of known.keys()) {
      if (known.size <= KEPT) break;
      known.delete(id);
    }
  }, QUIET_MS);

  return {
    /** Says which runs are on the screen. @param {Run[]} runs */
    want(runs) {
      wanted = runs;
      this.again(runs.map((run) => run.id));
      read();
    },
    /** Tells the samples of these runs that are known. @param {string[]} ids */
    again(ids) {
      for (const id of ids) {
        const sample = known.get(id)?.sample;
        if (sample) onsample(id, sample);
      }
    },
  };
}
