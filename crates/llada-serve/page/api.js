// Requests to the server: JSON, and streams of server-sent events.

/** What the server, or the way to it, has refused. `param` is the field, or null. */
export class ApiError extends Error {
  constructor(key, { message = "", status = 0, param = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { key, status, param, retryAfter });
  }
}

let key = "";

/** The key that requests carry from now on. */
export function setKey(value) {
  key = value.trim();
}

async function send(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("error.unreachable");
  }
  if (response.ok) return response;
  const status = response.status;
  const retryAfter = response.headers.get("Retry-After");
  const body = await response.json().catch(() => null);
  const { message = "", param = null } = body?.error ?? {};
  throw new ApiError("error.status", { message, param, status, retryAfter });
}

/** The models, the usual one first. */
export async function models() {
  const response = await send("/v1/models");
  return (await response.json()).data;
}

/**
 * The events of a stream up to [DONE], each `{event, data}`.
 * Throws an ApiError for an error in the stream, or if it breaks off.
 */
export async function* events(path, body, signal) {
  const response = await send(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let isOver = false;
  try {
    while (true) {
      const { done, value } = await read(reader);
      if (done && isOver) return;
      if (done) throw new ApiError("error.cut");
      rest += value.replaceAll("\r", "");
      const blocks = rest.split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const { event, data } = parseEvent(block);
        isOver ||= data === "[DONE]";
        if (isOver || data === "") continue;
        const parsed = JSON.parse(data);
        if (parsed.error) throw new ApiError("error.status", { ...parsed.error, status: 200 });
        yield { event, data: parsed };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("error.cut");
  }
}

function parseEvent(block) {
  let event = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  return { event, data: data.join("\n") };
}
