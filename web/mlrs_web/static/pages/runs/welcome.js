/** What the list of runs says before there is one: how to make one. */

import { h } from "../../view/dom.js";
import { copyable, empty } from "../../view/parts.js";

const LINES = `from mlrs.torch import AdvisedLR
scheduler = AdvisedLR(optimizer, "my-first-task", horizon=1000)
scheduler.step(loss)  # at each step, before optimizer.step()`;

/** @param {import("../../router.js").Session} session */
export function welcome(session) {
  const at = session.daemon?.address ?? "";
  const remote = at && !at.startsWith("unix:");
  return empty(
    "No runs yet",
    h(
      "p",
      {},
      "A run appears here with its first step. In a training loop of PyTorch, three lines take the place of a scheduler:",
    ),
    copyable(LINES, "the three lines"),
    remote
      ? [
          h("p", {}, "So that the training finds this daemon, start it with:"),
          copyable(`export MLRS_TARGET=${at}`, "the address of the daemon"),
        ]
      : null,
    h(
      "p",
      { class: "quiet" },
      "Any other loop does the same with ",
      h("code", {}, "mlrs.connect().run(…).next_lr(step, loss)"),
      ".",
    ),
  );
}
