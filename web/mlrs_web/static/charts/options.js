/** The options that a chart gives to uPlot. */

import { LANE_HEIGHT, drawLanes } from "./lanes.js";
import { drawGlyph } from "./glyphs.js";
import { drawOverlay } from "./overlay.js";
import { colour, faint } from "./palette.js";
import { isLabelled, linearRange, logRange, tickText } from "./scales.js";

/** @typedef {import("./chart.js").Picture} Picture */
/** @typedef {import("./chart.js").ChartSettings} ChartSettings */

const NARROW = 520;
/** The least distances of ticks with a text on logarithmic axes, in CSS pixels. */
const [WIDE, HIGH] = [56, 24];
const FONT = 'ui-sans-serif, system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif';
const MARKERS_A_LINE = 12;
/** Distances of ticks between which there are only whole numbers. */
const WHOLE = Array.from({ length: 16 }, (_, zeros) => [1, 2, 5].map((one) => one * 10 ** zeros)).flat();

/**
 * @param {ChartSettings & {xText: (value: number) => string}} settings
 * @param {() => Picture} picture what is shown at present
 * @param {() => [number, number]} view the range of x at present
 * @param {number} width in CSS pixels
 */
export function uPlotOptions(settings, picture, view, width) {
  const { lanes = [], logX, logY, bands = [], lines, xLabel = settings.xLabel, xText = settings.xText } = picture();
  const lanesHeight = lanes.length * LANE_HEIGHT;
  return {
    width,
    height: settings.height + lanesHeight,
    padding: [lanesHeight + 8, 22, 0, 0],
    legend: { show: false },
    scales: {
      x: { time: false, distr: logX ? 3 : 1, range: view },
      y: {
        distr: logY ? 3 : 1,
        range: (/** @type {any} */ plot, /** @type {number} */ low, /** @type {number} */ high) =>
          yRange(picture(), view(), low, high),
      },
    },
    axes: [xAxis(xLabel, logX ? tickText : xText, Boolean(logX)), yAxis(settings, width, Boolean(logY))],
    series: [{}, ...bands.flatMap(() => [edge(), edge()]), ...lines.map(series)],
    bands: bands.map((band, index) => ({
      series: [1 + 2 * index, 2 + 2 * index],
      fill: () => faint(band.colour, 0.2),
    })),
    cursor: cursor(settings),
    hooks: {
      setSelect: [(/** @type {any} */ plot) => selected(plot, settings)],
      setCursor: [(/** @type {any} */ plot) => settings.oncursor?.(plot.cursor.idx ?? null)],
      draw: [
        (/** @type {any} */ plot) => {
          const { points = [], rules = [], lanes: rows = [], lines: drawn } = picture();
          drawMarkers(plot, drawn, 1 + 2 * (picture().bands ?? []).length);
          drawOverlay(plot, points, rules);
          drawLanes(plot, rows);
        },
      ],
    },
  };
}

/** @param {Picture} picture @param {[number, number]} view @param {number | null} low @param {number | null} high */
function yRange({ points = [], rules = [], logY, fromZero }, view, low, high) {
  const inside = points.filter((point) => point.x >= view[0] && point.x <= view[1]).map((point) => point.y);
  const ys = [...inside, ...rules.flatMap((rule) => (rule.y === undefined ? [] : [rule.y]))].filter(
    (y) => Number.isFinite(y) && (!logY || y > 0),
  );
  const least = Math.min(low ?? Infinity, ...ys);
  const most = Math.max(high ?? -Infinity, ...ys);
  if (fromZero) return [0, linearRange(0, most)[1]];
  return logY ? logRange(least, most) : linearRange(least, most);
}

/** @param {string} label @param {(value: number) => string} text @param {boolean} log */
function xAxis(label, text, log) {
  return {
    ...axisLook(log),
    ...(label === "step" ? { incrs: WHOLE } : {}),
    label,
    labelSize: 20,
    size: 30,
    space: 72,
    values: (/** @type {any} */ plot, /** @type {(number | null)[]} */ splits) =>
      splits.map((one) => (one === null ? "" : text(one))),
  };
}

/** @param {ChartSettings} settings @param {number} width @param {boolean} log */
function yAxis(settings, width, log) {
  const narrow = width < NARROW;
  return {
    ...axisLook(log),
    label: narrow ? undefined : settings.yLabel,
    labelSize: 18,
    labelGap: 2,
    size: narrow ? 54 : 60,
    space: 34,
    values: (/** @type {any} */ plot, /** @type {(number | null)[]} */ splits) => splits.map(tickText),
  };
}

/** @param {boolean} log */
function axisLook(log) {
  const filter = log ? wellApart : (/** @type {any} */ plot, /** @type {number[]} */ splits) => splits;
  return {
    filter,
    stroke: () => colour("quiet"),
    font: `12px ${FONT}`,
    labelFont: `12px ${FONT}`,
    grid: { stroke: () => colour("grid"), width: 1, filter },
    ticks: { stroke: () => colour("grid"), width: 1, size: 5, filter },
    gap: 4,
  };
}

/**
 * Leaves out ticks of a logarithmic axis that would stand too close to each other.
 *
 * @param {any} plot
 * @param {number[]} splits
 * @param {number} axis 0: x
 */
function wellApart(plot, splits, axis) {
  const { scale } = plot.axes[axis];
  const decade = Math.abs(plot.valToPos(10, scale) - plot.valToPos(1, scale));
  return splits.map((value) => (isLabelled(value, decade, axis === 0 ? WIDE : HIGH) ? value : null));
}

/** The edge of a band, which is not drawn itself. */
const edge = () => ({ stroke: "transparent", width: 0, points: { show: false } });

/** @param {import("./chart.js").Line} line */
function series(line) {
  return {
    label: line.label,
    stroke: () => (line.opacity === undefined ? colour(line.colour) : faint(line.colour, line.opacity)),
    width: line.width ?? 2,
    dash: line.dash?.length ? line.dash : undefined,
    points: { show: (/** @type {any} */ plot, /** @type {number} */ index) => isAlone(plot.data[index]), size: 5 },
  };
}

/** Whether a series is a single point, which no line would show. @param {(number | null)[]} values */
const isAlone = (values) => values.filter((value) => value !== null).length === 1;

/** @param {ChartSettings} settings */
function cursor(settings) {
  const moves = (/** @type {string} */ type) => type === "mousemove" || type === "mouseleave";
  return {
    y: false,
    sync: settings.sync
      ? { key: settings.sync, setSeries: false, scales: ["x", null], filters: { pub: moves, sub: () => true } }
      : undefined,
    drag: { x: Boolean(settings.onzoom), y: false, setScale: false },
    points: { size: 7 },
    bind: { dblclick: () => () => (settings.onreset?.(), null) },
  };
}

/** @param {any} plot @param {ChartSettings} settings */
function selected(plot, settings) {
  const { left, width } = plot.select;
  if (width < 4) return;
  const [from, to] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
  plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  settings.onzoom?.(from, to);
}

/** Draws a few markers on lines that have them. @param {any} plot @param {import("./chart.js").Line[]} lines @param {number} first */
function drawMarkers(plot, lines, first) {
  lines.forEach((line, number) => {
    if (!line.marker) return;
    const values = plot.data[first + number];
    const every = Math.max(1, Math.floor(values.length / MARKERS_A_LINE));
    for (let index = (number * 7) % every; index < values.length; index += every) {
      if (values[index] === null || values[index] === undefined) continue;
      const [x, y] = [plot.valToPos(plot.data[0][index], "x", true), plot.valToPos(values[index], "y", true)];
      drawGlyph(plot.ctx, { shape: line.marker }, x, y, 3.5 * devicePixelRatio, colour(line.colour), colour("surface"));
    }
  });
}
