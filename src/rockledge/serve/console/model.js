// What is known of the model: its size, what compression cost, and the bits of every matrix as a picture.

import { byId, codeBlock, element } from "./elements.js";
import { plain } from "./plot.js";

const WIDTHS = ["2", "3", "4", "8"];

/** Shows a sheet as `/console/models` has it; null where there is none. */
export function showSheet(sheet) {
  byId("model-title").textContent = sheet?.name ?? "Model";
  byId("sheet").replaceChildren(...(sheet ? parts(sheet) : [element("p", { class: "lead" }, "Nothing is known of this model.")]));
}

function parts(sheet) {
  return [
    element("p", { class: "lead" }, origin(sheet)),
    facts([
      [size(sheet.bytes), "size"],
      [sheet.bits_per_weight.toFixed(2), "bits a weight"],
      [count(sheet.parameters), "parameters"],
      [plain(sheet.layers), "layers"],
      [plain(sheet.context), "tokens of context"],
    ]),
    element("h3", {}, "What compression cost"),
    ...(sheet.measured.length ? sheet.measured.flatMap(measurement) : [unmeasured(sheet)]),
    element("h3", {}, "Bits of every matrix"),
    ...picture(sheet),
    ...(sheet.notes.length ? [element("h3", {}, "Notes"), element("ul", { class: "notes" }, ...sheet.notes.map((note) => element("li", {}, note)))] : []),
  ];
}

function origin(sheet) {
  const source = sheet.source && sheet.source !== sheet.name ? ` Made from ${sheet.source}` : "";
  const stored = source && sheet.stored ? ` (${sheet.stored})` : "";
  return `Family ${sheet.family}.${source}${stored}${source ? "." : ""}`;
}

function facts(pairs) {
  return element("dl", { class: "facts" }, ...pairs.map(([value, name]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function measurement(found) {
  const pairs = [];
  if ("kl_mean_nats" in found) {
    const error = "kl_mean_se_nats" in found ? ` ± ${found.kl_mean_se_nats.toFixed(4)}` : "";
    pairs.push([found.kl_mean_nats.toFixed(4) + error, "KL divergence, nats a token"]);
  }
  if ("top1_agreement" in found) pairs.push([`${(100 * found.top1_agreement).toFixed(1)} %`, "same most likely token"]);
  if ("perplexity" in found) pairs.push([found.perplexity.toFixed(2), "perplexity"]);
  if ("reference_perplexity" in found) pairs.push([found.reference_perplexity.toFixed(2), "perplexity of the float model"]);
  if ("cosine_distance_mean" in found) pairs.push([found.cosine_distance_mean.toPrecision(2), "1 - cosine on average"]);
  if ("cosine_distance_max" in found) pairs.push([found.cosine_distance_max.toPrecision(2), "1 - cosine at worst"]);
  const tokens = "scored_tokens" in found ? `${plain(found.scored_tokens)} tokens of ` : "";
  return [element("p", {}, `Compared with the float model on ${tokens}${found.on}.`), facts(pairs)];
}

function unmeasured(sheet) {
  const made = {
    true: "It has not been measured.",
    false: "It was made from the weights alone, without calibration, and its accuracy has not been measured.",
    null: "The artifact has no report.",
  }[String(sheet.calibrated)];
  const command = codeBlock("rockledge eval DIR --reference MODEL --text FILE", "sh");
  return element("div", { class: "notice" }, element("p", {}, `${made} This compares it with the float model:`), command);
}

/** A row for each role, a column for each layer; below, the matrices outside the layers and a table. */
function picture(sheet) {
  const inside = sheet.matrices.filter((matrix) => matrix.layer !== null);
  const outside = sheet.matrices.filter((matrix) => matrix.layer === null);
  const roles = [...new Set(inside.map((matrix) => matrix.role))];
  const grid = element("div", {
    class: "widths",
    role: "img",
    ariaLabel: `Widths of the matrices of ${sheet.layers} layers; the table below has them by part.`,
  });
  grid.style.gridTemplateColumns = `max-content repeat(${sheet.layers}, minmax(2px, 1fr))`;
  for (const role of roles) {
    grid.append(element("span", { class: "role" }, role));
    const row = new Map(inside.filter((matrix) => matrix.role === role).map((matrix) => [matrix.layer, matrix]));
    for (let layer = 0; layer < sheet.layers; layer++) grid.append(cell(row.get(layer), `layer ${layer}, ${role}`));
  }
  const ends = [element("span", {}, "layer 0"), element("span", {}, `layer ${sheet.layers - 1}`)];
  grid.append(element("span"), element("div", { class: "times layers" }, ...ends));
  for (const matrix of outside) {
    const whole = cell(matrix, matrix.role);
    whole.classList.add("whole");
    grid.append(element("span", { class: "role" }, matrix.role), whole);
  }
  return [element("figure", { class: "picture" }, grid, legend()), table(sheet.matrices)];
}

function cell(matrix, name) {
  if (!matrix) return element("span", { class: "cell" });
  const shares = shown(matrix.share_by_width);
  const title = `${name}: ${matrix.bits_per_weight.toFixed(2)} bits a weight (${shares.map(([bits, share]) => `${bits}-bit ${percent(share)}`).join(", ")})`;
  const pieces = shares.map(([bits, share]) => {
    const piece = element("span", { class: `w${bits}` });
    piece.style.flexGrow = share;
    return piece;
  });
  return element("span", { class: "cell", title }, ...pieces.reverse());
}

const shown = (shares) => WIDTHS.filter((bits) => shares[bits]).map((bits) => [bits, shares[bits]]);
const percent = (share) => (share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`);

// A number with the largest of some units that it has one of.
function scaled(number, units) {
  const [factor, unit] = units.find(([least]) => number >= least) ?? [1, ""];
  return `${(number / factor).toLocaleString("en", { maximumSignificantDigits: 3 })} ${unit}`.trim();
}
const size = (bytes) => scaled(bytes, [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [0, "bytes"]]);
const count = (number) => scaled(number, [[1e9, "B"], [1e6, "M"]]);

function legend() {
  return element(
    "figcaption",
    {},
    element("ul", { class: "legend" }, ...WIDTHS.map((bits) => element("li", {}, element("span", { class: `swatch w${bits}` }), `${bits} bits`))),
  );
}

function table(matrices) {
  const roles = [...new Set(matrices.map((matrix) => matrix.role))];
  const rows = roles.map((role) => {
    const own = matrices.filter((matrix) => matrix.role === role);
    const weights = own.reduce((sum, matrix) => sum + matrix.rows * matrix.cols, 0);
    const mean = (of) => own.reduce((sum, matrix) => sum + matrix.rows * matrix.cols * of(matrix), 0) / weights;
    const bits = WIDTHS.map((width) => mean((matrix) => matrix.share_by_width[width] ?? 0));
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, role),
      element("td", {}, count(weights)),
      element("td", {}, mean((matrix) => matrix.bits_per_weight).toFixed(2)),
      ...bits.map((share) => element("td", {}, share ? percent(share) : "–")),
    );
  });
  const heads = ["part", "weights", "bits a weight", ...WIDTHS.map((bits) => `${bits} bits`)];
  const head = element("thead", {}, element("tr", {}, ...heads.map((name) => element("th", { scope: "col" }, name))));
  return element("div", { class: "wide", tabIndex: 0, role: "region", ariaLabel: "Bits by part" }, element("table", { class: "numbers-table" }, head, element("tbody", {}, ...rows)));
}
