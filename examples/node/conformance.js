// Plays the scenarios of proto/conformance on a daemon; fails if anything differs from what they state.
//
//     npm run conformance -- [--mlrs COMMAND] [--tolerance PART] [NAME...]
//
// `--mlrs` is what starts the command line of mlrs (default: `mlrs`), `--tolerance` how far learning rates may be
// apart where the daemon is of another build than the one that made the files (default: 0, equal to the bit).

import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";

import { Connection } from "./contract.js";
import { Daemon } from "./daemon.js";

const PROTO = process.env.MLRS_PROTO ?? fileURLToPath(new URL("../../proto", import.meta.url));
const FOLDER = path.join(PROTO, "conformance");
const VERSION = 1;
const HEXADECIMAL = /^(-?)0x([01])(?:\.([0-9a-f]+))?p([+-]\d+)$/;

/** Return the number that hexadecimal digits such as 0x1.8p-3 stand for; `undefined`: they are not that. */
function parsed(text) {
  const found = HEXADECIMAL.exec(text);
  if (!found) return undefined;
  const [, sign, whole, digits = "", exponent] = found;
  const value = Number(`0x${whole}${digits}`) * 2 ** (Number(exponent) - 4 * digits.length);
  return sign ? -value : value;
}

/** Whether a number is the one that a scenario states. */
function isStated(expected, actual, tolerance) {
  if (typeof actual !== "number" || typeof expected !== "string") return expected === actual;
  const wanted = parsed(expected) ?? Number(expected);
  return Object.is(wanted, actual) || Math.abs(actual - wanted) <= tolerance * Math.abs(wanted);
}

/** Yield how an outcome differs from what a scenario states; what is not stated is not compared. */
function* differences(expected, actual, tolerance, where = "") {
  if (Array.isArray(expected)) {
    if (expected.length !== actual?.length) yield `${where}: ${actual?.length} entries, not ${expected.length}`;
    else for (const [i, each] of expected.entries()) yield* differences(each, actual[i], tolerance, `${where}[${i}]`);
  } else if (typeof expected === "object") {
    for (const [key, each] of Object.entries(expected)) {
      yield* differences(each, actual?.[key], tolerance, `${where}.${key}`);
    }
  } else if (!isStated(expected, actual, tolerance)) {
    yield `${where}: ${actual}, not ${expected}`;
  }
}

/** Plays scenarios, one after another. */
class Player {
  #kept = {};
  #streams = {};

  constructor(daemon) {
    this.daemon = daemon;
    this.connection = new Connection(daemon.address);
  }

  /** Play a scenario; return what is wrong, in words. */
  async play(scenario, tolerance) {
    const problems = [];
    for (const [number, action] of scenario.actions.entries()) {
      const outcome = await this.#do(action);
      for (const key of ["response", "error"]) {
        if (key in action !== key in outcome) problems.push(`action ${number}: ${key} ${key in outcome}`);
        else if (key in action) {
          const found = differences(action[key], outcome[key], tolerance);
          problems.push(...[...found].map((each) => `action ${number}${each}`));
        }
      }
      const [stated, told] = [action, outcome].map((each) => Object.keys(each.error?.metadata ?? {}).sort());
      if (`${stated}` !== `${told}`) problems.push(`action ${number}: metadata ${told}, not ${stated}`);
    }
    return problems;
  }

  async #do(action) {
    if ("call" in action) {
      return this.connection.call(action.call, this.#filled(action.request), 60_000).then(
        (response) => {
          for (const [name, at] of Object.entries(action.keep ?? {})) {
            this.#kept[name] = at.split(".").reduce((value, key) => value[key], response);
          }
          return { response };
        },
        (error) => ({ error: outcomeOf(error) }),
      );
    }
    if ("open" in action) this.#streams[action.open] = this.connection.stream(action.metadata);
    else if ("send" in action) this.#streams[action.send].send(this.#filled(action.message));
    else if ("receive" in action) return this.#received(action.receive);
    else if ("close" in action) {
      this.#streams[action.close].halfClose();
      return this.#received(action.close);
    } else if (action.daemon === "drain") this.daemon.signal("SIGTERM");
    else {
      if (action.daemon === "kill") this.daemon.signal("SIGKILL");
      await this.daemon.ended();
      if (action.daemon === "start") await this.#start();
    }
    return {};
  }

  async #received(name) {
    const { response, error } = await this.#streams[name].receive();
    return error ? { error: outcomeOf(error) } : response ? { response } : {};
  }

  async #start() {
    await this.daemon.start();
    this.connection.close();
    this.connection = new Connection(this.daemon.address);
  }

  /** Return a part of a request with the values that were kept in place of their names. */
  #filled(value) {
    if (Array.isArray(value)) return value.map((each) => this.#filled(each));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, this.#filled(each)]));
    }
    return typeof value === "string" && value.startsWith("$") ? this.#kept[value.slice(1)] : value;
  }
}

/** Return the code of a failure, and the metadata that mlrs says of it. */
function outcomeOf(error) {
  const metadata = Object.entries(error.metadata.getMap()).filter(([key]) => key.startsWith("mlrs-"));
  return { code: grpc.status[error.code], metadata: Object.fromEntries(metadata) };
}

async function main() {
  const { values, positionals } = parseArgs({
    options: {
      mlrs: { type: "string", default: "mlrs" },
      tolerance: { type: "string", default: "0" },
    },
    allowPositionals: true,
  });
  const files = readdirSync(FOLDER).filter((file) => file.endsWith(".json") && file !== "schema.json");
  const names = positionals.length ? positionals : files.map((file) => path.basename(file, ".json"));
  const daemon = new Daemon(values.mlrs);
  try {
    await daemon.start();
    const player = new Player(daemon);
    for (const name of names) {
      const scenario = JSON.parse(readFileSync(path.join(FOLDER, `${name}.json`), "utf8"));
      if (scenario.version !== VERSION) throw new Error(`${name} is of version ${scenario.version} of the format`);
      const problems = await player.play(scenario, Number(values.tolerance));
      if (problems.length) process.exitCode = 1;
      console.log([problems.length ? `not ok ${name}` : `ok ${name}`, ...problems].join("\n    "));
    }
    player.connection.close();
  } finally {
    await daemon.remove();
  }
}

await main();
