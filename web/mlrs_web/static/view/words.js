/** The words, shapes and colours for what a daemon reports. A shape and a word always go with a colour. */

/** @typedef {{word: string, shape: import("../charts/glyphs.js").Shape, hollow?: boolean, colour: string, why: string}} Kind */

/** @type {Record<string, Kind>} */
export const STATUSES = {
  active: { word: "active", shape: "right", colour: "good", why: "It takes observations." },
  diverged: { word: "diverged", shape: "cross", colour: "bad", why: "Its last losses were all not finite." },
  finished: { word: "finished", shape: "square", colour: "quiet", why: "It takes no more observations." },
};

/** What happens to a run, in the order of the rows over its chart. @type {Record<string, Kind>} */
export const MARKS = {
  diverged: { word: "diverged", shape: "cross", colour: "bad", why: "The last losses were all not finite." },
  held: {
    word: "held",
    shape: "square",
    hollow: true,
    colour: "series-2",
    why: "A loss was not finite, so the last learning rate was kept.",
  },
  restore: {
    word: "restore asked",
    shape: "up",
    hollow: true,
    colour: "series-5",
    why: "The advice asked to put a saved state back, since the training blew up or overfits.",
  },
  restored: {
    word: "restored",
    shape: "up",
    colour: "series-5",
    why: "The training put a saved state back before this step.",
  },
  rewound: {
    word: "rewound",
    shape: "left",
    colour: "series-4",
    why: "The training went back to an earlier step, such as a checkpoint's. What came after is replaced.",
  },
  resumed: { word: "resumed", shape: "right", colour: "series-3", why: "A process opened the run again." },
  taken_over: {
    word: "taken over",
    shape: "plus",
    colour: "series-3",
    why: "Another process took the run over while the one before was connected.",
  },
  resized: { word: "resized", shape: "ring", colour: "series-6", why: "The number of the run's ranks changed." },
  fallback: {
    word: "fallback",
    shape: "diamond",
    colour: "series-7",
    why: "The daemon did not answer, so the client's fallback gave the learning rates. The curve has what was advised afterwards.",
  },
  update: {
    word: "meta update",
    shape: "circle",
    colour: "series-1",
    why: "The network's weights were changed by an update of meta mode.",
  },
};

/** How a run of a task ended. @type {Record<string, Kind>} */
export const ENDINGS = {
  reached: { word: "reached its horizon", shape: "circle", colour: "good", why: "It trained for all of its steps." },
  diverged: { word: "diverged", shape: "cross", colour: "bad", why: "Its last losses were all not finite." },
  stopped: { word: "stopped early", shape: "square", colour: "quiet", why: "It was finished before its horizon." },
  under_way: { word: "under way", shape: "right", colour: "good", why: "It has not ended." },
};

/** Why calls and entries failed. @type {Record<string, string>} */
export const REFUSALS = {
  invalid_field: "A field of a request was missing, malformed or out of range.",
  run_not_found: "No run has the id that was asked for.",
  run_exists: "A run was to be created under an id that is taken.",
  config_mismatch: "A run was opened again with another config than it was created with.",
  run_finished: "A finished run was sent observations.",
  stale_handle: "A process used a run that another process has taken over.",
  step_ahead: "An observation skipped steps.",
  stale_step: "An answered step was sent again with another loss, and not as a rewind.",
  model_not_found: "No model has the name that was asked for.",
  model_invalid: "A file is not a model that this daemon can serve.",
  queue_full: "More observations waited than the daemon takes at once; clients send them again.",
  draining: "The daemon was shutting down; clients connect again.",
  store: "The store did not answer, or refused a write.",
  memory_full: "The daemon's limit of memory for runs was reached.",
  not_owner: "Another replica owns the run; clients follow to it.",
  unauthenticated: "A call had no token, or one that is not valid.",
  permission_denied: "A token's role does not allow the call.",
  tenant_limit: "A tenant's limit was reached.",
  nothing_to_do: "There was nothing to do.",
  damaged: "A run cannot be read completely from the store.",
  store_newer: "The store was written by a newer version.",
  other_feeder: "Another process sends this run's observations.",
  model_exists: "A model was imported under a name that has another one.",
  run_begun: "A search was asked for after a run's first step.",
  no_search: "The run has no search under way.",
  no_task: "Nothing is remembered of the task that was asked for.",
  internal: "A defect of the daemon: please report it with the daemon's log.",
};

/** What answers to observations were. @type {Record<string, string>} */
export const ANSWERS = {
  fresh: "Computed from the observation.",
  replayed: "Answered before; the recorded answer was given.",
  held: "The loss was not finite; the last learning rate was kept.",
};

/** What the signals are. @type {Record<string, string>} */
export const SIGNALS = {
  update_norm2: "squared norm of the update",
  param_norm2: "squared norm of the weights",
  grad_norm2: "squared norm of the gradient",
  grad_dot_update: "gradient · update",
  grad_dot_previous_update: "gradient · update before",
  log_relative_update: "ln(norm of update / norm of weights)",
};
