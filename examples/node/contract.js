// The contract in JavaScript: the services at an address, calls as promises, and errors with their metadata.

import path from "node:path";
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const FOLDER = process.env.MLRS_PROTO ?? fileURLToPath(new URL("../../proto", import.meta.url));
const SERVICES = ["advisor_service", "model_service", "task_service"];
const REASON = "ERROR_REASON_";

// Messages as in protobuf's JSON mapping: camelCase, 64-bit integers as strings, enums by name.
const definition = loader.loadSync(
  SERVICES.map((name) => path.join("mlrs", "v1", `${name}.proto`)),
  { includeDirs: [FOLDER], longs: String, enums: String, defaults: true, oneofs: true },
);
const { v1 } = grpc.loadPackageDefinition(definition).mlrs;

// What a client of any language sets (rule 8.1 of docs/guides/client-authors.md), as far as grpc-js has it.
const OPTIONS = {
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 500,
  "grpc.max_receive_message_length": 64 * 2 ** 20,
};

/** An error of a call, or of an entry of a stream, with what the daemon says of it for programs. */
export class AdviceError extends Error {
  /**
   * @param {string} message for people
   * @param {{code: string, reason?: string, field?: string, nextStep?: number, owner?: string}} told
   */
  constructor(message, told) {
    super(message);
    Object.assign(this, told);
  }

  /** The error of a failed call. */
  static ofCall(error) {
    const said = (key) => error.metadata?.get(key)[0]?.toString();
    const nextStep = said("mlrs-next-step");
    return new AdviceError(error.details, {
      code: grpc.status[error.code],
      reason: said("mlrs-reason")?.replace(REASON, ""),
      field: said("mlrs-field"),
      nextStep: nextStep === undefined ? undefined : Number(nextStep),
      owner: said("mlrs-owner"),
    });
  }

  /** The error of an entry of a stream. */
  static ofEntry(entry) {
    return new AdviceError(entry.message, {
      code: grpc.status[entry.code],
      reason: entry.reason.replace(REASON, ""),
      nextStep: entry.nextStep === undefined ? undefined : Number(entry.nextStep),
    });
  }
}

/** A StreamAdvice call: what arrives waits here until it is taken. */
export class Stream {
  #arrived = [];
  #waiting = [];

  constructor(call) {
    this.call = call;
    call.on("data", (response) => this.#put({ response }));
    call.on("error", (error) => this.#put({ error }));
    call.on("end", () => this.#put({}));
  }

  /** Send a message; does not wait. */
  send(message) {
    this.call.write(message);
  }

  /** Wait for what comes next: a `response`, an `error`, or neither at the end. */
  receive() {
    return new Promise((resolve) => {
      if (this.#arrived.length) resolve(this.#arrived.shift());
      else this.#waiting.push(resolve);
    });
  }

  /** Say that no further message follows. */
  halfClose() {
    this.call.end();
  }

  /** End the call now. */
  cancel() {
    this.call.cancel();
  }

  #put(item) {
    if (this.#waiting.length) this.#waiting.shift()(item);
    else this.#arrived.push(item);
  }
}

/** The services of a daemon. */
export class Connection {
  /** @param {string} address HOST:PORT */
  constructor(address) {
    const credentials = grpc.credentials.createInsecure();
    const services = ["AdvisorService", "ModelService", "TaskService"];
    this.clients = Object.fromEntries(
      services.map((name) => [name, new v1[name](address, credentials, OPTIONS)]),
    );
  }

  /** Make a unary call, such as `AdvisorService.OpenRun`; rejects with gRPC's error. */
  call(method, request, timeoutMs = 10_000) {
    const [service, name] = method.split(".");
    const deadline = Date.now() + timeoutMs;
    return new Promise((resolve, reject) => {
      this.clients[service][name](request, { deadline }, (error, response) =>
        error ? reject(error) : resolve(response),
      );
    });
  }

  /** Open a StreamAdvice call. */
  stream(metadata = {}) {
    const sent = new grpc.Metadata();
    for (const [key, value] of Object.entries(metadata)) sent.set(key, value);
    return new Stream(this.clients.AdvisorService.StreamAdvice(sent));
  }

  close() {
    for (const client of Object.values(this.clients)) client.close();
  }
}
