"""The pictures' colours and fonts, for light and dark. PURE."""

_LIGHT = """--paper:#fff; --ink:#1b1f24; --soft:#57606a; --edge:#b6bec8; --node:#f6f8fa; --host:#fff;
  --sandbox:#e9f2ff;
  --overlay:#fff6df; --task:#e8f7ec; --there:#0b5fd8; --back:#8238c9; --onward:#0a6e7c; --onback:#9a5b00; --bad:#c41e2c;
  --badfill:#ffebe9;  --good:#16732f; --warn:#8a5a00; --wire:#e2e7ed; --idle:#eef0f2; --lit:#ffd33d;"""
_DARK = """--paper:#0d1117; --ink:#e6edf3; --soft:#a3adb8; --edge:#4a525c; --node:#151b23; --host:#1c232c; --sandbox:#13233a;
  --overlay:#2b2413; --task:#12261a; --there:#5aa5ff; --back:#c79bff; --onward:#3fc6d6; --onback:#e0a33e; --bad:#ff7b72;
  --badfill:#3a1618; --good:#4cc764; --warn:#dba52e; --wire:#262d36; --idle:#181c22; --lit:#9e7c0c;"""

STYLE = (
    f"\n.rm {{ {_LIGHT} }}\n@media (prefers-color-scheme: dark) {{ .rm {{ {_DARK} }} }}"
    """
.rm { font-family: ui-sans-serif, system-ui, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
.rm text { fill: var(--ink); font-size: 12px; }
.rm .mono, .rm .plug { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 10.5px;
  white-space: pre; }
.rm .by, .rm .note { fill: var(--soft); font-size: 10px; }
.rm .note { font-style: italic; font-size: 10.5px; }
.rm .head { font-weight: 600; } .rm .title { font-size: 17px; font-weight: 650; }
.rm .verdict { font-size: 13px; font-weight: 600; }
.rm .reaches { fill: var(--good); } .rm .partly, .rm .untold { fill: var(--warn); } .rm .broken { fill: var(--bad); }
.rm .paper { fill: var(--paper); } .rm .wire { fill: var(--wire); } .rm .stub { stroke: var(--edge); stroke-width: 3; }
.rm .node { fill: var(--node); stroke: var(--edge); } .rm .port { fill: var(--host); stroke: var(--edge); }
.rm .box { stroke: var(--edge); } .rm .jack { fill: var(--paper); stroke: var(--edge); }
.rm .box.host, .rm .box.other { fill: var(--host); } .rm .box.sandbox { fill: var(--sandbox); }
.rm .box.overlay { fill: var(--overlay); } .rm .box.task { fill: var(--task); }
.rm .box.bad { stroke: var(--bad); stroke-width: 2; fill: var(--badfill); }
.rm .idle > .box, .rm .idle > .node { fill: var(--idle); stroke-dasharray: 3 3; } .rm .idle text { fill: var(--soft); }
.rm text.failed { fill: var(--bad); font-weight: 600; }
.rm .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.rm .line.there { stroke: var(--there); } .rm .line.back { stroke: var(--back); stroke-dasharray: 5 3; }
.rm .line.onward { stroke: var(--onward); } .rm .line.onback { stroke: var(--onback); stroke-dasharray: 5 3; }
.rm .line.bad { stroke: var(--bad); } .rm .line.cable { stroke: var(--soft); stroke-width: 1.5; }
.rm .line.tunnel { stroke: var(--onback); stroke-width: 2.5; stroke-dasharray: 1 3; stroke-linecap: round; }
.rm .tip.there { fill: var(--there); } .rm .tip.back { fill: var(--back); }
.rm .tip.onward { fill: var(--onward); } .rm .tip.onback { fill: var(--onback); }
.rm .tip.bad { fill: var(--bad); }
.rm .badge { fill: var(--there); } .rm .badge.back { fill: var(--paper); stroke: var(--back); stroke-width: 1.5; }
.rm .badge.failed { fill: var(--bad); }
.rm text.number { fill: var(--paper); font-size: 9px; font-weight: 700; text-anchor: middle; }
.rm text.number.back { fill: var(--back); }
.rm .client { fill: var(--host); stroke: var(--there); stroke-width: 1.5; }
.rm .lit > .box, .rm .site:hover > .box { stroke: var(--there); stroke-width: 3; stroke-dasharray: none; }
.rm .hop .mark { fill: none; }
.rm .hop.lit .mark { fill: var(--lit); opacity: .55; }
"""
)
