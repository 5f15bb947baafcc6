"""What makes an HTML page of a picture: its style, its script, its head. PURE.

The script lights a step's box where the step is looked at, and copies commands. Nothing else may run, and nothing is fetched: the
page's policy says so to the browser.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from html import escape

from routemesh.explain.picture.style import STYLE

WIDE = 900
"""Pictures that are wider stand above the steps, not beside them."""

_PAGE = """
:root { color-scheme: light dark; }
body { margin: 0; background: var(--paper); color: var(--ink); font-size: 14px; line-height: 1.4; }
main { display: grid; grid-template-columns: auto minmax(330px, 1fr); gap: 20px; padding: 16px; align-items: start; }
.picture { position: sticky; top: 16px; overflow: auto; max-height: calc(100vh - 32px); border: 1px solid var(--edge);
           border-radius: 8px; }
.picture svg { display: block; flex: none; }
main.wide { grid-template-columns: minmax(0, 1fr); } main.wide .picture { position: static; max-height: none; }
@media (max-width: 1000px) { main { grid-template-columns: minmax(0, 1fr); } .picture { position: static; max-height: none; } }
h1 { font-size: 18px; margin: 0 0 4px; } h2 { font-size: 14px; margin: 14px 0 4px; }
h3 { font-size: 13px; margin: 10px 0 4px; color: var(--there); }
p { margin: 0 0 8px; overflow-wrap: anywhere; }
code { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 12px; overflow-wrap: anywhere; }
.soft { color: var(--soft); } .wrong { color: var(--bad); font-weight: 600; }
p.reaches { color: var(--good); } p.partly, p.untold { color: var(--warn); } p.broken { color: var(--bad); }
ol { list-style: none; margin: 0; padding: 0; }
li { margin: 0 0 2px; padding: 3px 4px 3px 36px; position: relative; border-radius: 5px; cursor: pointer;
     overflow-wrap: anywhere; }
li:hover, li.lit { background: var(--sandbox); }
li > button { position: absolute; left: 2px; top: 4px; min-width: 28px; border: 0; border-radius: 8px; padding: 0 4px;
       cursor: pointer; font: 700 11px/17px ui-sans-serif, system-ui, sans-serif; background: var(--there); color: var(--paper); }
li.back > button { background: var(--paper); color: var(--back); box-shadow: inset 0 0 0 1.5px var(--back); border-radius: 3px; }
li.failed > button { background: var(--bad); color: var(--paper); box-shadow: none; }
li.plain > button { background: none; color: var(--soft); box-shadow: none; }
details > summary { cursor: pointer; overflow-wrap: anywhere; } details { margin: 0 0 8px; }
.shown { display: block; color: var(--soft); }
.shown > button { border: 1px solid var(--edge); border-radius: 4px; background: var(--host); color: var(--ink); font-size: 11px;
                  line-height: 16px; padding: 0 6px; margin-left: 6px; cursor: pointer; }
button:focus-visible, summary:focus-visible { outline: 2px solid var(--there); outline-offset: 1px; }
.site { cursor: pointer; }
"""

_SCRIPT = """
(() => {
  const all = (query) => [...document.querySelectorAll(query)];
  let pinned = null;
  const light = (step) => {
    all(".lit").forEach((each) => each.classList.remove("lit"));
    if (!step) return;
    const { box, hop } = step.dataset;
    step.classList.add("lit");
    all(`.site[data-box="${box}"]`).forEach((each) => each.classList.add("lit"));
    if (hop) all(`[data-hop="${hop}"]`).forEach((each) => each.classList.add("lit"));
  };
  all("li[data-box]").forEach((step) => {
    step.addEventListener("mouseenter", () => light(step));
    step.addEventListener("mouseleave", () => light(pinned));
    step.addEventListener("focusin", () => light(step));
    step.addEventListener("click", (event) => {
      if (event.target.closest(".copy")) return;
      pinned = pinned === step ? null : step;
      light(pinned || step);
      document.querySelector(`.site[data-box="${step.dataset.box}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
  });
  all(".hop[data-hop]").forEach((hop) => hop.addEventListener("click", () => {
    const step = document.querySelector(`li[data-hop="${hop.dataset.hop}"]`);
    if (!step) return;
    for (let each = step; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
    pinned = step;
    light(step);
    step.scrollIntoView({ block: "nearest" });
  }));
  const copy = async (code) => {
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
  };
  all(".copy").forEach((button) => button.addEventListener("click", async () => {
    await copy(button.previousElementSibling);
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  }));
})();
"""


def page(title: str, picture: str, width: float, beside: Iterable[str]) -> str:
    """A page with a picture and what stands beside it, with a line break at its end."""
    lines = _page(title, picture, beside, wide=width > WIDE)
    return "".join(f"{line}\n" for line in lines)


def _page(title: str, picture: str, beside: Iterable[str], *, wide: bool) -> Iterator[str]:
    digest = b64encode(sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    yield "<!DOCTYPE html>"
    yield '<html lang="en" class="rm"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title><style>{STYLE}{_PAGE}</style></head><body><main{' class=wide' * wide}>"
    yield f'<div class="picture" tabindex="0" role="region" aria-label="The picture">{picture}</div><div>'
    yield from beside
    yield f"</div></main><script>{_SCRIPT}</script></body></html>"


def command(text: str, before: str = "") -> str:
    """A command with a button that copies it."""
    return (
        f'<span class="shown">{escape(before)}<code>{escape(text)}</code>'
        '<button type="button" class="copy" aria-label="copy the command">copy</button></span>'
    )
