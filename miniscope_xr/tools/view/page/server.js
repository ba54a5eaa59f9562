// Asking the server: frames as bytes, the rest as JSON, long work line by line. `kernel.js` answers the same in a notebook.

const ENDED = "miniscope-xr view has ended; start it again";

async function refused(response) {
  const said = await response.json().catch(() => ({}));
  return new Error(said.error || `the server answered ${response.status}`);
}

export class Server {
  async ask(name, given = {}) {
    return (await this.get(name, given)).json();
  }

  /** What changes something: never by a link. */
  async post(name, given = {}) {
    return (await this.send(name, given)).json();
  }

  /** Frames of a recording: {start, count, numbers, ms, whole, pixels}; pixels is a Uint8Array of the bytes of all of them. */
  async frames(given) {
    const buffer = await (await this.get("frames", given)).arrayBuffer();
    const length = new DataView(buffer).getUint32(0, true);
    const about = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    return { ...about, pixels: new Uint8Array(buffer, 4 + length) };
  }

  /** Long work: calls `each` with every part as it comes; `signal` (of an AbortController) ends it. */
  async stream(name, given, each, signal) {
    const response = await this.send(name, given, signal);
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
  stay(ended) {
    const alive = new EventSource("alive");
    alive.onerror = () => {
      if (alive.readyState === EventSource.CLOSED) ended(ENDED);
    };
  }

  async get(name, given) {
    let response;
    try {
      response = await fetch(`${name}?${new URLSearchParams(given)}`);
    } catch {
      throw new Error(ENDED);
    }
    if (!response.ok) throw await refused(response);
    return response;
  }

  async send(name, given, signal) {
    let response;
    try {
      response = await fetch(name, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(given), signal,
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Error(ENDED);
    }
    if (!response.ok) throw await refused(response);
    return response;
  }
}
