// Asking the server: frames as bytes, the rest as JSON, long work line by line.

async function refused(response) {
  const said = await response.json().catch(() => ({}));
  return new Error(said.error || `the server answered ${response.status}`);
}

async function get(name, given) {
  let response;
  try {
    response = await fetch(`${name}?${new URLSearchParams(given)}`);
  } catch {
    throw new Error("miniscope-xr view has ended; start it again");
  }
  if (!response.ok) throw await refused(response);
  return response;
}

export async function ask(name, given = {}) {
  return (await get(name, given)).json();
}

async function send(name, given, signal) {
  let response;
  try {
    response = await fetch(name, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(given), signal,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error("miniscope-xr view has ended; start it again");
  }
  if (!response.ok) throw await refused(response);
  return response;
}

/** What changes something: never by a link. */
export async function post(name, given = {}) {
  return (await send(name, given)).json();
}

export const open = (path) => post("open", { path });

/** Frames of a recording: {start, count, numbers, ms, whole, pixels}; pixels is a Uint8Array of all of them. */
export async function frames(given) {
  const buffer = await (await get("frames", given)).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const about = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return { ...about, pixels: new Uint8Array(buffer, 4 + length) };
}

/** Long work: calls `each` with every part as it comes; `signal` (of an AbortController) ends it. */
export async function stream(name, given, each, signal) {
  const response = await send(name, given, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (rest + (value || "")).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const part = JSON.parse(line);
      if (part.error) throw new Error(part.error);
      each(part);
    }
    if (done) return;
  }
}

/** While this page is open the server stays. */
export function stay(ended) {
  const alive = new EventSource("alive");
  alive.onerror = () => {
    if (alive.readyState === EventSource.CLOSED) ended();
  };
}
