// The conversation: turns that are sent, answers that come piece by piece, and what may go wrong with one.

import { byId, copyButton, element } from "./elements.js";
import { showMarkdown } from "./markdown.js";
import { plain } from "./plot.js";
import { chatChunks } from "./server.js";
import { asksForJson, requestFields, showRefusal, systemPrompt } from "./settings.js";

const NEAR_END = 60; // pixels from the end at which the view follows an answer
const SAID = 1000; // characters of an answer that are announced

let modelName = () => "";
let onFailure = () => {};
let turns = [];
let running = null;
let follows = true; // whether the end of the conversation is in view, and shall stay there

/** `model()` is the name to ask; `failed(error)` hears of every error. */
export function startChat({ model, failed }) {
  modelName = model;
  onFailure = failed;
  const prompt = byId("prompt");
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  prompt.addEventListener("input", fit);
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  const log = byId("log");
  log.addEventListener("scroll", () => {
    if (log.clientHeight) follows = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END;
  });
  byId("stop").addEventListener("click", stop);
  byId("new-chat").addEventListener("click", () => {
    stop();
    for (const turn of turns) turn.node.remove();
    turns = [];
    byId("empty").hidden = false;
    prompt.focus();
    enable();
  });
  for (const idea of document.querySelectorAll(".idea")) idea.addEventListener("click", () => send(idea.textContent));
  enable();
}

/** Ends the answer that is being written; whether there was one. */
export function stop() {
  running?.abort();
  return running !== null;
}

/** The chat is seen again: what came meanwhile too, if the end was in view. */
export function seen() {
  fit();
  if (follows) byId("log").scrollTop = byId("log").scrollHeight;
}

function submit() {
  const prompt = byId("prompt");
  const text = prompt.value.trim();
  if (text === "" || running) return;
  if (send(text)) {
    prompt.value = "";
    fit();
  }
}

function fit() {
  const prompt = byId("prompt");
  prompt.style.height = "auto";
  if (prompt.scrollHeight) prompt.style.height = `${prompt.scrollHeight + 2}px`;
  enable();
}

function enable() {
  byId("send").hidden = running !== null;
  byId("stop").hidden = running === null;
  byId("send").disabled = byId("prompt").value.trim() === "";
  byId("new-chat").disabled = turns.length === 0;
}

/** Whether the message went out: settings that are wrong keep it back. */
function send(text) {
  const fields = running ? null : requestFields();
  if (fields === null) return false;
  byId("empty").hidden = true;
  const system = systemPrompt();
  const messages = [
    ...(system ? [{ role: "system", content: system }] : []),
    ...turns.filter((turn) => turn.text).flatMap((turn) => [
      { role: "user", content: turn.question },
      { role: "assistant", content: turn.text },
    ]),
    { role: "user", content: text },
  ];
  const options = { stream: true, stream_options: { include_usage: true, continuous_usage_stats: true } };
  const turn = newTurn(text);
  turns.at(-1)?.again.remove();
  turns.push(turn);
  byId("log").append(turn.node);
  follows = true;
  seen();
  byId("prompt").focus();
  answer(turn, { model: modelName(), messages, ...options, ...fields });
  return true;
}

function newTurn(question) {
  const body = element("div", { class: "text", dir: "auto" });
  const thoughts = element("p", { class: "thoughts-text", dir: "auto" });
  const summary = element("summary", {}, "Thinking");
  const folded = element("details", { class: "thoughts", hidden: true }, summary, thoughts);
  const meta = element("span", { class: "meta" });
  const foot = element("div", { class: "foot", hidden: true }, meta);
  const waiting = element("div", { class: "waiting", ariaHidden: "true" }, element("i"), element("i"), element("i"));
  const turn = { question, text: "", thoughtText: "", json: asksForJson(), body, thoughts, summary, folded, meta, foot, waiting };
  turn.again = element("button", { type: "button", class: "plain small", onclick: () => again(turn) }, "Try again");
  turn.node = element(
    "article",
    { class: "turn" },
    element("div", { class: "question", dir: "auto" }, element("span", { class: "unseen" }, "You: "), question),
    element("div", { class: "answer" }, element("p", { class: "speaker" }, modelName()), folded, waiting, body, foot),
  );
  return turn;
}

function again(turn) {
  if (running) return;
  turns = turns.filter((other) => other !== turn);
  turn.node.remove();
  if (!send(turn.question)) {
    turns.push(turn);
    byId("log").append(turn.node);
  }
}

async function answer(turn, request) {
  const own = (running = new AbortController());
  const times = { start: performance.now(), thought: null, first: null, last: null };
  const counts = { first: 0, all: 0 };
  let finish = null;
  let frame = 0;
  const paint = () => {
    frame = 0;
    show(turn, times, counts);
  };
  enable();
  say("The model is answering.");
  try {
    for await (const chunk of chatChunks(request, own.signal)) {
      const choice = chunk.choices[0];
      const now = performance.now();
      counts.all = chunk.usage?.completion_tokens ?? counts.all;
      if (choice?.delta.reasoning_content) turn.thoughtText += choice.delta.reasoning_content;
      if (choice?.delta.content) {
        if (turn.thoughtText && times.thought === null) times.thought = now;
        turn.text += choice.delta.content;
      }
      finish = choice?.finish_reason ?? finish;
      if (!counts.all) continue;
      if (times.first === null) {
        times.first = now;
        counts.first = counts.all;
      }
      if (choice) times.last = now;
      frame ||= requestAnimationFrame(paint);
    }
    end(turn, times, counts, { length: "cut off at the longest answer" }[finish] ?? null);
    say(`Answer: ${(turn.text || turn.thoughtText).slice(0, SAID)}`);
  } catch (error) {
    if (own.signal.aborted) {
      end(turn, times, counts, "stopped");
      say("Stopped.");
    } else {
      end(turn, times, counts, null);
      fail(turn, error);
    }
  } finally {
    cancelAnimationFrame(frame);
    if (running === own) running = null;
    enable();
  }
}

function show(turn, times, counts) {
  const log = byId("log");
  if (turn.thoughtText) {
    turn.folded.hidden = false;
    turn.thoughts.textContent = turn.thoughtText;
    if (times.thought !== null) turn.summary.textContent = `Thought for ${plain((times.thought - times.start) / 1000)} s`;
  }
  if (turn.text) {
    turn.waiting.hidden = true;
    if (turn.json) turn.body.replaceChildren(element("pre", { class: "json", tabIndex: 0 }, element("code", {}, pretty(turn.text))));
    else showMarkdown(turn.body, turn.text);
  }
  turn.meta.textContent = figures(times, counts).join(" · ");
  turn.foot.hidden = turn.meta.textContent === "";
  if (follows) log.scrollTop = log.scrollHeight;
}

function end(turn, times, counts, note) {
  if (turn.thoughtText && times.thought === null) times.thought = times.last ?? performance.now();
  turn.waiting.hidden = true;
  turn.foot.hidden = false;
  show(turn, times, counts);
  turn.foot.hidden = false;
  turn.meta.textContent = [...(note ? [note] : []), ...figures(times, counts)].join(" · ");
  turn.foot.append(...(turn.text ? [copyButton(() => turn.text)] : []), turn.again);
}

function fail(turn, error) {
  if (!turn.text) turn.foot.hidden = true;
  const titles = { 0: "No connection", 401: "A key is needed", 429: "Too many requests", 503: "The server cannot answer now" };
  const title = error.param?.startsWith("response_format") ? "The schema was refused" : (titles[error.status] ?? "The request was refused");
  const box = element(
    "div",
    { class: "failure", role: "alert" },
    element("strong", {}, error.status === undefined ? "The page has failed" : title),
    element("p", {}, error.message),
    turn.again,
  );
  turn.node.querySelector(".answer").append(box);
  byId("log").scrollTop = byId("log").scrollHeight;
  showRefusal(error);
  onFailure(error);
}

function figures(times, counts) {
  if (times.first === null) return [];
  const found = [`${counts.all} ${counts.all === 1 ? "token" : "tokens"}`];
  const seconds = (times.last - times.first) / 1000;
  if (counts.all > counts.first && seconds > 0.05) found.push(`${plain((counts.all - counts.first) / seconds)} tokens/s`);
  found.push(`first token after ${plain((times.first - times.start) / 1000, 2)} s`);
  return found;
}

// JSON as people read it once it is whole.
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function say(text) {
  byId("announcement").textContent = text;
}
