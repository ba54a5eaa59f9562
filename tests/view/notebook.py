"""A page that plays a notebook: it shows widgets as anywidget's host does, over the messages of their real comms."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAGE = """<!doctype html>
<html lang="en">
  <head><meta charset="utf-8" /><title>notebook</title>
    <style>button { background: red; } body { margin: 20px; }</style>
  </head>
  <body>
    <main></main>
    <script type="module">
      const pressed = (window.pressed = []);
      document.addEventListener("keydown", (event) => pressed.push(event.key));
      window.sent = [];
      function model(number) {
        const heard = new Set();
        return {
          get() {}, set() {}, save_changes() {},
          on: (name, does) => name === "msg:custom" && heard.add(does),
          off: (name, does) => heard.delete(does),
          async send(content) {
            window.sent.push(content.ask);
            const answer = await fetch(`message/${number}`, { method: "POST", body: JSON.stringify(content) });
            for (const { content, buffers } of await answer.json()) {
              const bytes = buffers.map((text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
              const data = bytes.map(({ buffer }) => new DataView(buffer));
              for (const does of heard) does(content, data);
            }
          },
          heard,
        };
      }
      window.widgets = [];
      for (const number of await (await fetch("widgets")).json()) {
        const text = await (await fetch(`module/${number}`)).text();
        const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
        const { default: widget } = await import(address); // as anywidget loads it
        const el = document.createElement("section");
        document.querySelector("main").append(el);
        const at = model(number);
        window.widgets.push({ el, model: at, end: await widget.render({ model: at, el }) });
      }
    </script>
  </body>
</html>
"""


class Comm:
    """One end of a widget's messages, as a kernel's comm manager would have it."""

    made: list[Comm] = []  # noqa: RUF012 - of all widgets of a test, emptied by `notebook`

    def __init__(self, *, data: Any = None, **rest: Any) -> None:
        self.comm_id = f"comm-{id(self)}"
        self.state = data["state"]
        self.out: list[dict[str, Any]] = []
        if "_esm" in self.state:  # others are of ipywidgets: a widget's layout
            self.made.append(self)

    def on_msg(self, does: Any) -> None:
        self.does = does

    def on_close(self, does: Any) -> None:
        pass

    def close(self, *given: Any, **rest: Any) -> None:
        pass

    def send(self, data: Any = None, metadata: Any = None, buffers: Any = None) -> None:
        if data["method"] == "custom":
            some = [base64.b64encode(part).decode() for part in buffers or []]
            self.out.append({"content": json.loads(json.dumps(data["content"])), "buffers": some})

    def hear(self, content: Any) -> list[dict[str, Any]]:
        """Give the widget a message of its page; returns what it sent back."""
        self.does({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
        out, self.out = self.out, []
        return out


class _Handler(BaseHTTPRequestHandler):
    lock = threading.Lock()

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        name, _, number = self.path.strip("/").partition("/")
        if name == "module":
            self._send(Comm.made[int(number)].state["_esm"].encode(), "text/javascript")
        elif name == "widgets":
            self._send(json.dumps(list(range(len(Comm.made)))).encode(), "application/json")
        else:
            self._send(PAGE.encode() if not name else b"", "text/html")

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:  # a kernel answers one message after another
            out = Comm.made[int(self.path.rpartition("/")[2])].hear(content)
        self._send(json.dumps(out).encode(), "application/json")

    def _send(self, data: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def notebook() -> Iterator[str]:
    """Serve the page; returns its address. It shows the widgets that were made when it is opened."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        Comm.made.clear()
