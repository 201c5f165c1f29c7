/** The health of the daemon: its load, its store, and the replicas beside it. */

import { get } from "../../api/client.js";
import { follow } from "../../api/stream.js";
import { fill, h } from "../../view/dom.js";
import { ago, bytes, count, counted, duration, words } from "../../view/format.js";
import { factsNode, panel } from "../../view/parts.js";
import { table } from "../../view/table.js";
import { timeNode } from "../../view/times.js";
import { ANSWERS, REFUSALS } from "../../view/words.js";
import { latencyPanel } from "./latency.js";
import { buildSpeed } from "./speed.js";

/** @typedef {import("./rates.js").Status} Status */

/** @type {Record<string, string>} */
const CHECKS = { store: "the store works" };

/** @param {import("../../types.js").Page} page */
export async function show({ root, signal, session, setTitle }) {
  setTitle("Health");
  const first = await get("/api/health", {}, signal);
  const speed = buildSpeed(signal);
  const boxes = {
    facts: h("div", {}),
    latency: h("div", {}),
    store: h("div", {}),
    replicas: h("div", {}),
    counts: h("div", { class: "panels" }),
    checks: h("div", {}),
  };
  fill(
    root,
    h("header", { class: "page-head" }, h("h1", {}, "Health"), boxes.facts),
    h("div", { class: "two-columns" }, speed.node, boxes.latency),
    h("div", { class: "two-columns" }, boxes.store, boxes.checks),
    boxes.replicas,
    boxes.counts,
  );

  /** @param {{status: Status, checks: Record<string, any>}} health */
  function display({ status, checks }) {
    speed.add(status);
    fill(boxes.facts, daemonFacts(status, session));
    fill(boxes.latency, latencyPanel(status.latency));
    fill(boxes.store, storePanel(status));
    fill(boxes.checks, checksPanel(checks, session));
    fill(boxes.replicas, replicasPanel(status.replicas));
    fill(
      boxes.counts,
      countsPanel("Answers to observations", status.answers, ANSWERS, "None yet."),
      countsPanel("Refusals", status.refusals, REFUSALS, "Nothing was refused."),
    );
  }
  display(first);
  follow("/api/live-health", () => ({}), { health: display }, signal);
}

/** @param {Status} status @param {import("../../router.js").Session} session */
function daemonFacts(status, { daemon }) {
  return factsNode([
    ["daemon", daemon?.address],
    ["version", daemon?.version],
    ["serves since", daemon && timeNode(daemon.start_time)],
    ["ends when idle", daemon && (daemon.exit_after_idle_s ? `after ${duration(daemon.exit_after_idle_s)}` : "no")],
    ["runs in memory", count(status.live_runs)],
    ["streams of advice", count(status.streams)],
    ["followers", count(status.followers)],
    ["memory", bytes(status.resident_memory_bytes)],
    [
      "waiting ranks",
      status.ranks_waiting ? `${count(status.ranks_waiting)} in ${counted(status.pending_barriers, "step")}` : "none",
    ],
  ]);
}

/** @param {Status} status */
function storePanel({ store }) {
  const state = store.works
    ? h("span", { class: "good" }, "works")
    : h("span", { class: "bad" }, "fails: answers go on, and are not stored until it is back");
  const mean = store.flushes ? duration(store.flush_time_s / store.flushes) : "–";
  const facts = factsNode([
    ["state", state],
    ["engine", store.engine],
    ["answers not stored yet", count(store.unstored_answers)],
    ["last flush", store.since_flush_s === null ? "none yet" : `${duration(store.since_flush_s)} ago`],
    ["flushes", count(store.flushes)],
    ["mean flush", mean],
    ["failed flushes", count(store.flush_failures)],
  ]);
  return panel("Store", null, facts);
}

/** @param {Record<string, any>} checks @param {import("../../router.js").Session} session */
function checksPanel(checks, { dashboard }) {
  const value = (/** @type {any} */ one) =>
    typeof one === "boolean" ? h("span", { class: one ? "good" : "bad" }, one ? "yes" : "no") : String(one);
  const rows = /** @type {[string, any][]} */ (
    Object.entries(checks ?? {}).map(([name, one]) => [CHECKS[name] ?? words(name), value(one)])
  );
  const own = /** @type {[string, any][]} */ ([
    ["dashboard", `mlrs ${dashboard.version}`],
    ["answers that it keeps", `${bytes(dashboard.memory_bytes)} of at most ${bytes(dashboard.memory_limit_bytes)}`],
  ]);
  return panel("Checks", null, factsNode([...rows, ...own]));
}

/** @param {any[]} replicas */
function replicasPanel(replicas) {
  if (!replicas?.length) return null;
  const now = Date.now() / 1000;
  const lease = (/** @type {number | null} */ until) =>
    until === null
      ? "not shared"
      : until > now
        ? `holds for ${duration(until - now)}`
        : h("span", { class: "bad" }, `ended ${ago(until, now)}`);
  const rows = replicas.map((one) => [
    h("span", {}, one.address, one.answering ? h("span", { class: "tag plain" }, "answers this page") : null),
    count(one.unfinished_runs),
    `${count(one.shards)} of 256`,
    lease(one.lease_until),
  ]);
  return panel(
    "Replicas",
    null,
    table(
      "Replicas over the store",
      [
        { title: "address" },
        { title: "runs owned, not finished", class: "number" },
        { title: "shards", class: "number" },
        { title: "lease" },
      ],
      rows,
    ),
  );
}

/** @param {string} title @param {Record<string, number>} counts @param {Record<string, string>} meanings @param {string} none */
function countsPanel(title, counts, meanings, none) {
  const rows = Object.entries(counts)
    .filter(([, number]) => number > 0)
    .sort((a, b) => b[1] - a[1])
    .map(([reason, number]) => [
      h("span", { class: reason === "internal" ? "bad" : null }, words(reason)),
      count(number),
      meanings[reason] ?? "",
    ]);
  if (!rows.length) return panel(title, null, h("p", { class: "quiet" }, none));
  return panel(
    title,
    "Since the daemon began, over all tenants.",
    table(
      title,
      [{ title: "reason" }, { title: "number", class: "number" }, { title: "what it means", class: "wide" }],
      rows,
    ),
  );
}
