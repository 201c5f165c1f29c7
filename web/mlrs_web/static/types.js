/**
 * What the dashboard's server answers, as types for the other modules. Times are seconds since the epoch; a number that
 * is not finite is `null`.
 *
 * @typedef {number | null} Num
 *
 * @typedef {object} Run
 * @property {string} id
 * @property {string} task
 * @property {"active" | "diverged" | "finished"} status
 * @property {string | null} model `name@digest`
 * @property {string | null} schedule the kind
 * @property {number} next_step
 * @property {number} durable_step -1: none
 * @property {number | null} horizon
 * @property {Num} last_loss
 * @property {Num} last_learning_rate
 * @property {number} create_time
 * @property {number} update_time
 * @property {number | null} world_size
 * @property {string | null} optimizer
 * @property {number | null} batch_size
 * @property {Record<string, string>} tags
 * @property {string} note
 * @property {Record<string, any> | null} meta
 *
 * @typedef {{min: Num[], max: Num[], mean: Num[]}} Column
 * @typedef {{step: number, loss: Num}} ValidationPoint
 *
 * @typedef {object} Update
 * @property {number} step
 * @property {Num} alignment
 * @property {Num} validation_loss
 * @property {string} outcome
 * @property {Num} learning_rate
 * @property {Num} log_change
 *
 * @typedef {object} RunRecord
 * @property {Run} run
 * @property {number} first_step
 * @property {number} steps_per_bucket
 * @property {number} end_step
 * @property {Column} loss
 * @property {Column} lr
 * @property {number[]} held
 * @property {Record<string, [number, number][]>} signals index of a bucket, and the value
 * @property {ValidationPoint[]} validations
 * @property {Update[]} updates
 * @property {number[]} restores
 * @property {number[]} restored
 * @property {string} cursor
 * @property {boolean} has_more
 *
 * @typedef {object} RunEvent
 * @property {number} number
 * @property {number} time
 * @property {"resumed" | "rewound" | "taken_over" | "resized" | "fallback"} kind
 * @property {number} step
 * @property {number | null} from_step
 * @property {number | null} count
 *
 * @typedef {object} Ranks
 * @property {number} step
 * @property {number} reported how many ranks have reported the step
 * @property {number[]} missing the lowest ranks that have not, once one has; at most 100
 * @property {Num} waiting_s
 * @property {{rank: number, steps: number}[]} misses
 * @property {number} world_size
 *
 * @typedef {{steps: number[], losses: Num[], learning_rates: Num[]}} Sample
 *
 * @typedef {object} Page What a page gets from the router.
 * @property {HTMLElement} root the element to fill
 * @property {URLSearchParams} query
 * @property {AbortSignal} signal aborted when the page is left
 * @property {import("./router.js").Session} session
 * @property {(title: string) => void} setTitle
 */
export {};
