/** Tiny pictures of a run's loss, one a row of a list. */

import { colour } from "./palette.js";
import { extent } from "./series.js";

/**
 * Draws the losses of a run on a canvas, on a logarithmic axis where they span two decades.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {import("../types.js").Sample} sample
 * @param {string} ink the name of a colour
 */
export function drawSpark(canvas, sample, ink) {
  const ratio = devicePixelRatio;
  const [width, height] = [canvas.clientWidth || 120, canvas.clientHeight || 28];
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  if (!context) return;
  context.scale(ratio, ratio);
  const { steps, losses } = sample;
  const [low, high] = extent(losses);
  if (!Number.isFinite(low)) return;
  const log = low > 0 && high / low >= 100;
  const scaled = (/** @type {number} */ loss) =>
    log ? Math.log(loss / low) / Math.log(high / low) : (loss - low) / (high - low || 1);
  const [first, last] = [steps[0], steps[steps.length - 1]];
  const x = (/** @type {number} */ step) => 3 + ((width - 6) * (step - first)) / (last - first || 1);
  const y = (/** @type {number} */ loss) => height - 3 - (height - 6) * scaled(loss);
  context.beginPath();
  let drawing = false;
  losses.forEach((loss, index) => {
    if (loss === null) drawing = false;
    else if (drawing) context.lineTo(x(steps[index]), y(loss));
    else context.moveTo(x(steps[index]), y(loss));
    drawing = loss !== null;
  });
  context.strokeStyle = colour(ink);
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.stroke();
  const end = losses.findLastIndex((loss) => loss !== null);
  context.beginPath();
  context.arc(x(steps[end]), y(/** @type {number} */ (losses[end])), 2, 0, 2 * Math.PI);
  context.fillStyle = colour(ink);
  context.fill();
}
