// How programs use this server: with its address as the browser knows it, and the model's name.

import { byId, codeBlock, element } from "./elements.js";

const QUESTION = '[{"role": "user", "content": "What is a gateway?"}]';

// JSON for a shell, in single quotes.
const asked = (model, more) => `'{"model": ${JSON.stringify(model)}, "messages": ${QUESTION}${more}}'`.replaceAll(/(?<=.)'(?=.)/g, "'\\''");

const EXAMPLES = [
  {
    api: "openai",
    title: "curl",
    language: "sh",
    code: (base, model, key) =>
      `curl ${base}/v1/chat/completions \\
  -H 'Content-Type: application/json' \\${key ? "\n  -H \"Authorization: Bearer $ROCKLEDGE_KEY\" \\" : ""}
  -d ${asked(model, ', "stream": true')}`,
  },
  {
    api: "openai",
    title: "Python, with the openai package",
    language: "python",
    code: (base, model, key) =>
      `${key ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(`${base}/v1`)}, api_key=${key ? 'os.environ["ROCKLEDGE_KEY"]' : '"none"'})
stream = client.chat.completions.create(
    model=${JSON.stringify(model)},
    messages=${QUESTION},
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)`,
  },
  {
    api: "ollama",
    title: "Ollama's API",
    language: "sh",
    code: (base, model, key) =>
      `curl ${base}/api/chat \\
  -H 'Content-Type: application/json' \\${key ? "\n  -H \"Authorization: Bearer $ROCKLEDGE_KEY\" \\" : ""}
  -d ${asked(model, "")}`,
  },
  {
    api: "openai",
    title: "Other programs that know the OpenAI API",
    language: "sh",
    code: (base, model, key) => `export OPENAI_BASE_URL=${base}/v1
export OPENAI_API_KEY=${key ? "$ROCKLEDGE_KEY" : "none"}`,
  },
];

/** `apis`: names of those that are served; `key`: whether the server asks for one. */
export function showExamples(model, apis, key) {
  const base = new URL(".", document.baseURI).href.replace(/\/$/, "");
  const intro = element(
    "p",
    { class: "lead" },
    "Base URL ",
    element("code", {}, `${base}/v1`),
    ", model ",
    element("code", {}, model),
    key ? ". The key is read from the environment variable " : ". The key can be anything: this server asks for none.",
    ...(key ? [element("code", {}, "ROCKLEDGE_KEY"), "."] : []),
  );
  const shown = EXAMPLES.filter((example) => apis.includes(example.api));
  byId("examples").replaceChildren(
    intro,
    ...shown.flatMap((example) => [element("h3", {}, example.title), codeBlock(example.code(base, model, key), example.language)]),
    element("p", { class: "note" }, "All addresses and fields: ", element("code", {}, `${base}/openapi.json`)),
  );
}
