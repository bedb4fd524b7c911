// A plot of a few lines over the last minutes, in SVG.

import { drawn, element } from "./elements.js";

export const SECONDS = 180;
const LONGEST_GAP = 12; // seconds; beyond that nobody knows what was in between
const COLOURS = 7; // an RK3588 has so many temperatures
const WIDTH = 360;
const HEIGHT = 110;

/** A card with the lines `names`. `show(points)` draws points {at, values}, values null where not known. */
export function plotCard(title, unit, names, { least = 1, most = null, digits = 1 } = {}) {
  const now = element("p", { class: "now" });
  const top = element("span", { class: "top" });
  const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const frame = element("div", { class: "frame" }, svg);
  const times = element("div", { class: "times" }, element("span", {}, "3 min ago"), element("span", {}, "now"));
  const legend = element("ul", { class: "legend" });
  const node = element("section", { class: "card" }, element("h3", {}, title), now, top, frame, times, legend);
  let named = [];

  function show(points, lines = names, ceiling = most) {
    const last = points.at(-1);
    const peak = Math.max(least, ...points.flatMap((point) => point.values.map((value) => value ?? 0)));
    const high = ceiling ?? round(peak);
    if (lines.join("\n") !== named.join("\n")) {
      named = lines;
      legend.replaceChildren(
        ...lines.map((name, at) => element("li", {}, element("span", { class: `swatch line${at % COLOURS}` }), name)),
      );
      legend.hidden = lines.length < 2;
    }
    top.textContent = `${plain(high)} ${unit}`;
    const shown = lines.map((_, at) => value(last?.values[at], digits));
    const small = (text) => element("span", { class: "unit" }, ` ${text} `);
    if (lines.length === 2) now.replaceChildren(...lines.flatMap((name, at) => [shown[at], small(name)]));
    else if (lines.length === 1) now.replaceChildren(shown[0], small(unit));
    else now.replaceChildren(value(Math.max(...(last?.values ?? [0])), digits), small(`${unit}, the highest`));
    const said = lines.map((name, at) => `${name} ${shown[at]}`).join(", ");
    svg.setAttribute("aria-label", `${title}, the last three minutes. Now: ${said} ${unit}. Top of the scale: ${plain(high)}.`);
    svg.replaceChildren(
      ...[0.5, 1].map((part) => drawn("path", { class: "grid", d: `M0 ${y(part * high, high)}H${WIDTH}` })),
      ...lines.flatMap((_, at) => paths(points, at, high, lines.length === 1)),
    );
  }
  return { node, show };
}

function paths(points, at, high, filled) {
  const end = points.at(-1)?.at ?? 0;
  const runs = [];
  let before = null;
  for (const point of points) {
    const found = point.values[at];
    if (found === null || found === undefined) {
      before = null;
      continue;
    }
    if (before === null || point.at - before > LONGEST_GAP) runs.push([]);
    before = point.at;
    runs.at(-1).push([WIDTH * (1 - (end - point.at) / SECONDS), y(found, high)]);
  }
  return runs.flatMap((run) => {
    const line = run.map(([x, top]) => `${x.toFixed(1)} ${top.toFixed(1)}`).join("L");
    const area = `M${run[0][0].toFixed(1)} ${HEIGHT}L${line}L${run.at(-1)[0].toFixed(1)} ${HEIGHT}Z`;
    const stroke = drawn("path", { class: `line line${at % COLOURS}`, d: `M${line}` });
    return filled ? [drawn("path", { class: "area", d: area }), stroke] : [stroke];
  });
}

const y = (found, high) => HEIGHT - 2 - (HEIGHT - 4) * Math.min(found / high, 1);
const value = (found, digits) => (found === null || found === undefined ? "–" : plain(found, digits));

/** A number as people write it: no digits after the point where they say nothing. */
export function plain(found, digits = 1) {
  return found.toLocaleString("en", { maximumFractionDigits: found >= 100 ? 0 : digits });
}

// The next of 1, 2, 5, 10, 20, ...
function round(peak) {
  const power = 10 ** Math.floor(Math.log10(peak));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= peak);
}
