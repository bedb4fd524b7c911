// What the page asks of its server, and the one kind of error that may come of it. Addresses are relative,
// so that a proxy may put all of them below a path of its own.

import { kept } from "./elements.js";

const GONE = "The server does not answer. It may have been stopped, or the network is down.";

/** `status` is 0 where there was no answer; `param` names the field at fault. */
export class ServerError extends Error {
  constructor(message, status, param = null, code = null) {
    super(message);
    this.status = status;
    this.param = param;
    this.code = code;
  }
}

export const key = {
  get: () => kept.get("key"),
  set: (value) => kept.set("key", value),
};

function headers(more = {}) {
  const found = key.get();
  return found ? { ...more, Authorization: `Bearer ${found}` } : more;
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(GONE, 0);
  }
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  let found = null;
  try {
    found = (await response.json()).error;
  } catch {
    // A proxy in between answers in its own words.
  }
  const message = found?.message ?? `The server answered with status ${response.status}.`;
  return new ServerError(message, response.status, found?.param, found?.code);
}

/** A JSON object of the server. */
export async function getJson(path) {
  const response = await ask(path, { headers: headers(), signal: AbortSignal.timeout?.(15000) });
  try {
    return await response.json();
  } catch {
    throw new ServerError(GONE, 0);
  }
}

/** Chunks of a chat completion as they come. Aborting `signal` ends it with an AbortError. */
export async function* chatChunks(body, signal) {
  const response = await ask("v1/chat/completions", {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify(body),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new ServerError("The connection to the server broke off in the middle of the answer.", 0);
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        if (!event.startsWith("data: ")) continue;
        const data = event.slice(6);
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new ServerError(chunk.error.message, 500, chunk.error.param, chunk.error.code);
        yield chunk;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ServerError) throw error;
    throw new ServerError("The connection to the server broke off in the middle of the answer.", 0);
  } finally {
    reader.cancel().catch(() => {});
  }
}
