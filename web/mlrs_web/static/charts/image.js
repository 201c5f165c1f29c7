/** Charts as a PNG file. */

import { h } from "../view/dom.js";
import { colour } from "./palette.js";

const MARGIN = 16;
const TITLE = 22;
const KEY = 20;

/** @typedef {{title: string, canvas: HTMLCanvasElement | null}} Part */
/** @typedef {{text: string, colour: string, dash: number[]}} KeyEntry */

/**
 * Puts charts one below the other, with a heading and a key, and hands the picture to the browser as a download.
 *
 * @param {string} heading
 * @param {Part[]} parts
 * @param {KeyEntry[]} key
 */
export async function savePng(heading, parts, key) {
  const drawn = /** @type {{title: string, canvas: HTMLCanvasElement}[]} */ (parts.filter((part) => part.canvas));
  const ratio = devicePixelRatio;
  const width = Math.max(...drawn.map((part) => part.canvas.width)) / ratio + 2 * MARGIN;
  const height =
    2 * MARGIN + TITLE + KEY * key.length + drawn.reduce((sum, part) => sum + TITLE + part.canvas.height / ratio, 0);
  const canvas = /** @type {HTMLCanvasElement} */ (
    /** @type {unknown} */ (h("canvas", { width: width * ratio, height: height * ratio }))
  );
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(ratio, ratio);
  context.fillStyle = colour("surface");
  context.fillRect(0, 0, width, height);
  context.textBaseline = "middle";
  let y = MARGIN + TITLE / 2;
  write(context, heading, MARGIN, y, "600 15px system-ui, sans-serif", "ink");
  y += TITLE / 2;
  for (const part of drawn) {
    write(context, part.title, MARGIN, y + TITLE / 2, "13px system-ui, sans-serif", "quiet");
    context.drawImage(part.canvas, MARGIN, y + TITLE, part.canvas.width / ratio, part.canvas.height / ratio);
    y += TITLE + part.canvas.height / ratio;
  }
  for (const entry of key) {
    drawKey(context, entry, y + KEY / 2);
    y += KEY;
  }
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  save(
    URL.createObjectURL(/** @type {Blob} */ (blob)),
    `${heading.replaceAll(/[^A-Za-z0-9._-]+/g, "_").slice(0, 100)}.png`,
  );
}

/** @param {CanvasRenderingContext2D} context @param {KeyEntry} entry @param {number} y */
function drawKey(context, entry, y) {
  context.beginPath();
  context.strokeStyle = colour(entry.colour);
  context.lineWidth = 2;
  context.setLineDash(entry.dash);
  context.moveTo(MARGIN, y);
  context.lineTo(MARGIN + 28, y);
  context.stroke();
  context.setLineDash([]);
  write(context, entry.text, MARGIN + 36, y, "12px system-ui, sans-serif", "ink");
}

/** @param {CanvasRenderingContext2D} context @param {string} text @param {number} x @param {number} y @param {string} font @param {string} ink */
function write(context, text, x, y, font, ink) {
  context.font = font;
  context.fillStyle = colour(ink);
  context.fillText(text, x, y);
}

/** @param {string} url @param {string} name */
function save(url, name) {
  const link = h("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
