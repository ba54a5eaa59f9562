// What the check found, each sentence with links to its frames.

const make = (name, given, ...children) => {
  const node = Object.assign(document.createElement(name), given);
  node.append(...children);
  return node;
};

/** Lines of a list; `several` is whether a card has more than one recording, `go(recording, row)` shows a frame. */
export function lines(findings, several, go) {
  if (!findings.length) return [make("li", {}, "nothing")];
  return findings.map(({ recording, sentence, rows }) => {
    const links = rows.map((row) => {
      const link = make("button", { type: "button", className: "link", ariaLabel: `go to frame ${row}` }, String(row));
      link.addEventListener("click", () => go(recording, row));
      return link;
    });
    const whose = several && recording !== null ? `recording ${recording}: ` : "";
    return make("li", {}, `${whose}${sentence} `, ...links.flatMap((link) => [link, " "]));
  });
}
