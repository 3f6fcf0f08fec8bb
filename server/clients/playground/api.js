// This server's own API; paths are relative, so that a proxy may serve everything below a prefix.

/** A refusal or a loss, in words for the user. `status` is that of HTTP, where there was an answer at all, and `code`
 * the server's name of the error. */
export class ServerError extends Error {
  constructor(message, status = null, code = null) {
    super(message);
    Object.assign(this, { status, code });
  }
}

const headers = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

async function request(path, options) {
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server cannot be reached.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  const said = errorText(body) || response.statusText || "no reason given";
  const hint = response.status === 401 ? " Enter an API key under Settings." : "";
  const message = `The server refused (${response.status}): ${said}.${hint}`.replace("..", ".");
  return new ServerError(message, response.status, body?.error?.code);
}

/** OpenAI's `{"error": {"message", "param"}}`, or the plain string that vLLM sends with a 401. */
function errorText(body) {
  const error = body?.error ?? body?.detail;
  if (!error || typeof error === "string") return error || "";
  return error.param ? `${error.message} (parameter ${error.param})` : String(error.message ?? JSON.stringify(error));
}

export async function listModels(key) {
  const response = await request("v1/models", { headers: headers(key) });
  return (await response.json()).data;
}

/** The checkpoint's questions to begin with; none if they cannot be had. */
export async function listExamples(key) {
  try {
    return await (await request("playground/examples", { headers: headers(key) })).json();
  } catch {
    return [];
  }
}

/** Yields the chunks of one streamed chat completion; throws a ServerError when the stream breaks off. */
export async function* streamChat(body, key, signal) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers(key) },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(`The server failed: ${errorText(chunk)}`, chunk.error.code ?? null);
    yield chunk;
  }
  throw new ServerError("The connection ended before the answer was complete.");
}

/** The data of each server-sent event of a byte stream. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (data.length) yield data.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The connection was lost before the answer was complete.");
  } finally {
    reader.cancel().catch(() => {}); // it may be broken already
  }
}
