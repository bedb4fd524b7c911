// The page as a whole: its views, theme, models and key, and how the server is.

import { seen, startChat, stop } from "./chat.js";
import { byId, element, kept } from "./elements.js";
import { showExamples } from "./examples.js";
import { showSheet } from "./model.js";
import { watch } from "./monitor.js";
import { plain } from "./plot.js";
import { getJson, key } from "./server.js";
import { showDefaults, startSettings } from "./settings.js";

const NARROW = matchMedia("(max-width: 900px)");
const state = { names: [], model: "", sheets: [], apis: [], asked: false, gone: true };
let look = () => {};

startSettings();
startChat({ model: () => state.model, failed });
startViews();
startTheme();
startKey();
startPanel();
look = watch(heard);

// --- how the server is

function heard(reading, error) {
  if (error) {
    failed(error, true);
    return;
  }
  banner(null);
  const { running, waiting } = reading.sums;
  const rate = reading.answered ? `, ${plain(reading.answered)} tokens/s` : "";
  if (waiting) show("busy", `${running} running, ${waiting} waiting`);
  else if (running) show("working", `${running} running${rate}`);
  else show("ready", "Ready");
  if (state.gone) loadModels();
}

// Of the chat only what concerns the server as a whole is shown here; the rest is shown there.
function failed(error, whole = false) {
  if (error.status === 401) {
    show("gone", "Key needed");
    banner("This server asks for an API key.", true);
    state.gone = true;
    if (!state.asked) askForKey();
  } else if (error.status === 0) {
    show("gone", "No answer");
    banner("The server does not answer. Trying again every two seconds.");
    state.gone = true;
  } else if (whole) {
    show("gone", "Not ready");
    banner(error.message);
    state.gone = true;
  }
}

function show(kind, text) {
  byId("status").dataset.state = kind;
  byId("status").title = text;
  byId("status-text").textContent = text;
}

function banner(text, forKey = false) {
  const line = byId("banner-text");
  if (line.textContent !== (text ?? "")) line.textContent = text ?? "";
  byId("banner").hidden = text === null;
  byId("banner-key").hidden = !forKey;
}

// --- models

async function loadModels() {
  state.gone = false;
  try {
    const [listed, known] = await Promise.all([getJson("v1/models"), getJson("console/models")]);
    state.names = listed.data.map((one) => one.id);
    state.sheets = known.models;
    state.apis = known.apis;
  } catch (error) {
    failed(error, true);
    return;
  }
  const before = kept.get("model");
  state.model = state.names.includes(before) ? before : (state.names[0] ?? "");
  byId("model").replaceChildren(...state.names.map((name) => element("option", { value: name, selected: name === state.model }, name)));
  byId("model-choice").hidden = state.names.length < 2;
  byId("model-name").hidden = state.names.length > 1;
  showModel();
}

byId("model").addEventListener("change", () => {
  state.model = byId("model").value;
  kept.set("model", state.model);
  showModel();
});

function showModel() {
  const sheet = state.sheets.find((one) => one.name === state.model || one.aliases.includes(state.model));
  byId("model-name").textContent = byId("model-name").title = state.model;
  byId("empty-name").textContent = state.model || "the model";
  document.title = state.model ? `${state.model} – Rockledge` : "Rockledge";
  showDefaults(sheet?.sampling);
  showSheet(sheet ?? null);
  showExamples(state.model, state.apis, key.get() !== null);
}

// --- views

function startViews() {
  const views = [...document.querySelectorAll(".view")];
  const links = [...document.querySelectorAll(".views a")];
  function turn() {
    const wanted = location.hash.slice(1);
    const name = views.some((view) => view.id === wanted) ? wanted : "chat";
    for (const view of views) view.hidden = view.id !== name;
    for (const link of links) {
      if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.querySelector("main").scrollTop = 0;
    if (name === "chat") seen();
    if (name === "chat" && !NARROW.matches) byId("prompt").focus();
  }
  addEventListener("hashchange", turn);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    if (byId("chat").hidden) location.hash = "#chat";
    setTimeout(() => byId("prompt").focus());
  });
  turn();
}

// --- theme

function startTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const mark = () => byId("theme").setAttribute("aria-pressed", String(isDark()));
  byId("theme").addEventListener("click", () => {
    const chosen = isDark() ? "light" : "dark";
    if ((chosen === "dark") === dark.matches) delete root.dataset.theme;
    else root.dataset.theme = chosen;
    try {
      if (root.dataset.theme) localStorage.setItem("rockledge-theme", chosen);
      else localStorage.removeItem("rockledge-theme");
    } catch {
      // Storage can be turned off; then the choice lasts as long as the page.
    }
    mark();
  });
  dark.addEventListener("change", mark);
  mark();
}

// --- the key

function startKey() {
  byId("banner-key").addEventListener("click", askForKey);
  byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());
  byId("key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const before = key.get();
    key.set(byId("key").value.trim());
    try {
      await getJson("v1/models");
    } catch (error) {
      key.set(before);
      byId("key-note").textContent = error.status === 401 ? "This is not a key of this server." : error.message;
      byId("key").setAttribute("aria-invalid", "true");
      byId("key").select();
      return;
    }
    byId("key-dialog").close();
    state.gone = true;
    look();
  });
}

function askForKey() {
  state.asked = true;
  byId("key").value = "";
  byId("key").removeAttribute("aria-invalid");
  byId("key-note").textContent = "";
  if (!byId("key-dialog").open) byId("key-dialog").showModal();
}

// --- settings on a narrow screen

function startPanel() {
  const panel = byId("settings");
  const others = [document.querySelector(".conversation"), document.querySelector(".bar")];
  const open = (shown) => {
    panel.classList.toggle("open", shown);
    byId("open-settings").setAttribute("aria-expanded", String(shown));
    for (const other of others) other.inert = shown;
  };
  byId("open-settings").addEventListener("click", () => {
    open(true);
    byId("close-settings").focus();
  });
  const close = () => {
    open(false);
    byId("open-settings").focus();
  };
  byId("close-settings").addEventListener("click", close);
  document.addEventListener("settings-wrong", () => NARROW.matches && open(true));
  NARROW.addEventListener("change", () => open(false));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || byId("key-dialog").open) return;
    if (panel.classList.contains("open")) close();
    else stop();
  });
}
