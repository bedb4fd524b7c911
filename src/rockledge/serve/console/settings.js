// The settings beside the chat: what they say of a request, and what is wrong with them.

import { byId, kept } from "./elements.js";

const SAMPLING = ["temperature", "top_p", "top_k", "min_p"];
const NUMBERS = [...SAMPLING, "max_tokens", "seed"];
const FIELDS = ["system", ...NUMBERS, "schema"];
const EXAMPLE = {
  type: "object",
  properties: { name: { type: "string", maxLength: 40 }, age: { type: "integer", minimum: 0, maximum: 120 } },
  required: ["name", "age"],
  additionalProperties: false,
};

let defaults = {};

/** Reads what this tab kept, and keeps what is changed. */
export function startSettings() {
  for (const name of FIELDS) {
    const field = byId(name);
    field.value = kept.get(name) ?? "";
    field.addEventListener("input", () => {
      kept.set(name, field.value || null);
      if (name === "schema") checkSchema();
      else clearRefusal(field);
    });
  }
  const use = byId("use-schema");
  use.checked = kept.get("use-schema") === "yes";
  use.addEventListener("change", () => {
    kept.set("use-schema", use.checked ? "yes" : null);
    showSchema();
  });
  byId("reset").addEventListener("click", () => {
    for (const name of [...FIELDS, "use-schema"]) kept.set(name, null);
    for (const name of FIELDS) {
      byId(name).value = "";
      clearRefusal(byId(name));
    }
    use.checked = false;
    showSchema();
  });
  showSchema();
}

function showSchema() {
  const shown = byId("use-schema").checked;
  byId("schema-part").hidden = !shown;
  if (shown && byId("schema").value.trim() === "") byId("schema").value = JSON.stringify(EXAMPLE, null, 2);
  if (shown) checkSchema();
}

/** The model's own values, as placeholders. */
export function showDefaults(sampling) {
  defaults = sampling ?? {};
  for (const name of SAMPLING) byId(name).placeholder = defaults[name] ?? "";
}

/** Fields of a request; null, with the field at fault in focus, where they cannot be sent. */
export function requestFields() {
  for (const name of NUMBERS) {
    if (!byId(name).checkValidity() && !byId(name).validity.stepMismatch) return refused(byId(name), null);
  }
  const fields = {};
  const set = NUMBERS.filter((name) => byId(name).value !== "");
  for (const name of set) fields[name] = Number(byId(name).value);
  // A request that names some of these gets other values than the model's own for the rest.
  if (SAMPLING.some((name) => name in fields)) {
    for (const name of SAMPLING) if (!(name in fields) && name in defaults) fields[name] = defaults[name];
  }
  if (byId("use-schema").checked) {
    const schema = checkSchema();
    if (schema === undefined) return refused(byId("schema"), null);
    fields.response_format = { type: "json_schema", json_schema: { name: "answer", schema, strict: true } };
  }
  return fields;
}

export const systemPrompt = () => byId("system").value.trim();
export const asksForJson = () => byId("use-schema").checked;

// undefined where the text is not JSON.
function checkSchema() {
  const box = byId("schema");
  const note = byId("schema-note");
  box.removeAttribute("aria-invalid");
  note.classList.remove("wrong");
  try {
    const schema = JSON.parse(box.value);
    if (schema === null || typeof schema !== "object" || Array.isArray(schema)) throw new Error("a schema is an object");
    note.textContent = "Every answer will be JSON of this form.";
    return schema;
  } catch (error) {
    box.setAttribute("aria-invalid", "true");
    note.classList.add("wrong");
    note.textContent = `Not a JSON schema: ${error.message}`;
    return undefined;
  }
}

/** Shows at its field what the server refused; whether there is such a field. */
export function showRefusal(error) {
  const param = error.param ?? "";
  const name = param.startsWith("response_format") ? "schema" : NUMBERS.find((field) => field === param);
  if (!name || (name === "schema" && !asksForJson())) return false;
  refused(byId(name), error.message);
  return true;
}

function refused(field, message) {
  document.dispatchEvent(new CustomEvent("settings-wrong"));
  field.setAttribute("aria-invalid", "true");
  if (field.id === "schema") {
    if (message !== null) {
      byId("schema-note").classList.add("wrong");
      byId("schema-note").textContent = `Refused by the server: ${message}`;
    }
  } else {
    byId("sampling-note").classList.add("wrong");
    byId("sampling-note").textContent = message ?? `${field.labels[0].textContent}: ${field.validationMessage}`;
  }
  field.focus();
  return null;
}

function clearRefusal(field) {
  field.removeAttribute("aria-invalid");
  const note = byId("sampling-note");
  note.classList.remove("wrong");
  note.textContent = "Empty fields have the model's own values, shown in grey.";
}
