/** Shapes that tell kinds apart without colour, the same ones on canvases and in the page. */

import { svg } from "../view/dom.js";

/** @typedef {"circle" | "ring" | "square" | "diamond" | "cross" | "plus" | "up" | "down" | "left" | "right"} Shape */

/** Outlines in a square from -1 to 1. @type {Record<Shape, string>} */
const OUTLINES = {
  circle: "M1 0A1 1 0 1 1-1 0A1 1 0 1 1 1 0Z",
  ring: "M1 0A1 1 0 1 1-1 0A1 1 0 1 1 1 0Z",
  square: "M-.85-.85H.85V.85H-.85Z",
  diamond: "M0-1.15L1.15 0L0 1.15L-1.15 0Z",
  cross: "M-.85-.85L.85.85M-.85.85L.85-.85",
  plus: "M0-1V1M-1 0H1",
  up: "M0-1L1 .8H-1Z",
  down: "M0 1L1-.8H-1Z",
  left: "M-1 0L.8-1V1Z",
  right: "M1 0L-.8-1V1Z",
};
const LINES = ["cross", "plus"];

/** @param {{shape: Shape, hollow?: boolean}} kind */
const isOutlined = ({ shape, hollow }) => hollow || shape === "ring" || LINES.includes(shape);

/** A shape for the page. @param {{shape: Shape, hollow?: boolean, colour: string}} kind */
export function glyph(kind) {
  const outlined = isOutlined(kind);
  const path = svg("path", {
    d: OUTLINES[kind.shape],
    fill: outlined ? "none" : "currentColor",
    stroke: outlined ? "currentColor" : "none",
    "stroke-width": 0.5,
    "vector-effect": "none",
  });
  return svg("svg", { viewBox: "-1.4 -1.4 2.8 2.8", class: `glyph ink-${kind.colour}`, "aria-hidden": "true" }, path);
}

/**
 * Draws a shape on a canvas.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {{shape: Shape, hollow?: boolean}} kind
 * @param {number} x in pixels of the canvas
 * @param {number} y in pixels of the canvas
 * @param {number} radius in pixels of the canvas
 * @param {string} colour
 * @param {string} ground what is behind it: it gets a thin edge of this colour
 */
export function drawGlyph(context, kind, x, y, radius, colour, ground) {
  const path = new Path2D(OUTLINES[kind.shape]);
  context.save();
  context.translate(x, y);
  context.scale(radius, radius);
  context.lineJoin = "round";
  if (isOutlined(kind)) {
    context.strokeStyle = ground;
    context.lineWidth = 0.95;
    context.stroke(path);
    context.strokeStyle = colour;
    context.lineWidth = 0.5;
    context.stroke(path);
  } else {
    context.strokeStyle = ground;
    context.lineWidth = 0.5;
    context.stroke(path);
    context.fillStyle = colour;
    context.fill(path);
  }
  context.restore();
}
