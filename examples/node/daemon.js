// A daemon in a process of its own, which the examples here start, end and start again.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";

export class Daemon {
  address = "127.0.0.1:0"; // a free port; later, the one that it had before
  #folder = mkdtempSync(path.join(tmpdir(), "mlrs-"));
  #process;

  /** @param {string} command what starts the command line of mlrs, such as `mlrs` */
  constructor(command) {
    this.command = command.split(" ");
  }

  /** Start it, and wait until it listens. */
  async start() {
    const [program, ...first] = this.command;
    const where = ["--listen", this.address, "--data-dir", path.join(this.#folder, "data")];
    this.#process = spawn(program, [...first, "serve", ...where], { stdio: ["ignore", "pipe", "ignore"] });
    const lines = createInterface({ input: this.#process.stdout });
    const [line] = await Promise.race([
      once(lines, "line"),
      once(this.#process, "exit").then(() => [`${program} serve did not start`]),
    ]);
    if (!line.startsWith("mlrs is listening on ")) throw new Error(line);
    this.address = line.split(" ").at(-1);
  }

  /** Send it a signal. */
  signal(name) {
    this.#process.kill(name);
  }

  /** Wait until it has ended. */
  async ended() {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      await once(this.#process, "exit");
    }
  }

  /** End it, and remove what it has stored. */
  async remove() {
    this.signal("SIGKILL");
    await this.ended();
    rmSync(this.#folder, { recursive: true });
  }
}
