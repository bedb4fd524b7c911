// What the server does: asked every two seconds while the page is seen, drawn as plots.

import { byId } from "./elements.js";
import { SECONDS, plain, plotCard } from "./plot.js";
import { getJson } from "./server.js";

const EVERY_MS = 2000;
const SUMS = ["running", "waiting", "pages", "free_pages", "cold_pages", "prompt_tokens", "answer_tokens"];

const cards = {
  answers: plotCard("Answers", "tokens/s", ["written"], { least: 10 }),
  prompts: plotCard("Prompts", "tokens/s", ["read"], { least: 10 }),
  queue: plotCard("Queue", "sequences", ["running", "waiting"], { least: 4, digits: 0 }),
  pages: plotCard("Cache pages", "pages", ["in use", "kept for later"], { digits: 0 }),
  temperature: plotCard("Temperature", "°C", []),
};

const readings = [];
let timer = null;
let asking = false;

/** Begins to ask. `told(reading or null, error or null)` hears of every answer. */
export function watch(told) {
  const { temperature, ...always } = cards;
  byId("plots").append(...Object.values(always).map((card) => card.node));
  show();
  async function look() {
    clearTimeout(timer);
    if (asking) return;
    asking = true;
    try {
      take(await getJson("console/state"));
      told(readings.at(-1), null);
    } catch (error) {
      told(null, error);
    }
    asking = false;
    if (document.visibilityState === "visible") timer = setTimeout(look, EVERY_MS);
  }
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && look());
  look();
  return look;
}

function take(body) {
  const engines = Object.values(body.models);
  const sums = Object.fromEntries(SUMS.map((name) => [name, engines.reduce((sum, one) => sum + one[name], 0)]));
  const last = readings.at(-1);
  // The clock and the counters begin again with the server; a model that is unloaded takes its own along.
  if (last && body.seconds <= last.at) readings.length = 0;
  const seconds = last ? body.seconds - last.at : 0;
  const rate = (name) => (readings.length && seconds > 0 ? Math.max(sums[name] - last.sums[name], 0) / seconds : null);
  readings.push({
    at: body.seconds,
    sums,
    answered: rate("answer_tokens"),
    read: rate("prompt_tokens"),
    temperatures: body.temperatures,
    npu: [...new Set(engines.map((one) => one.npu).filter(Boolean))],
  });
  while (readings.at(-1).at - readings[0].at > SECONDS) readings.shift();
  show();
}

function show() {
  const points = (values) => readings.map((reading) => ({ at: reading.at, values: values(reading) }));
  const last = readings.at(-1);
  cards.answers.show(points((reading) => [reading.answered]));
  cards.prompts.show(points((reading) => [reading.read]));
  cards.queue.show(points(({ sums }) => [sums.running, sums.waiting]));
  const held = ({ sums }) => [sums.pages - sums.free_pages, sums.cold_pages];
  cards.pages.show(points(held), undefined, last?.sums.pages || null);
  const zones = last?.temperatures ?? [];
  if (zones.length) {
    const names = zones.map((zone) => zone.name.replace(/[-_]thermal$/, ""));
    cards.temperature.show(points((reading) => zones.map((_, at) => reading.temperatures[at]?.celsius ?? null)), names, 100);
    if (!cards.temperature.node.isConnected) byId("plots").append(cards.temperature.node);
  }
  const npu = last?.npu.length ? ` NPU: ${last.npu.join(", ")}.` : "";
  byId("monitor-note").textContent = last
    ? `${plain(last.sums.answer_tokens)} tokens written and ${plain(last.sums.prompt_tokens)} tokens of prompts read since the start.${npu}`
    : "Waiting for the first reading.";
}
