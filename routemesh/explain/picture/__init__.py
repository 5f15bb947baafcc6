"""An explanation, or a cluster, as a picture: an SVG, an HTML page with it, a Mermaid flowchart. PURE.

scene    what is to be drawn: passed of an explanation, terrain of a cluster      layout, lines    where it goes, by measure
svg, html, mermaid    how it is written; style: its colours and fonts
"""

from routemesh.explain.nouns import Explanation
from routemesh.explain.picture.html import html, of_ground
from routemesh.explain.picture.mermaid import charted, mermaid
from routemesh.explain.picture.passed import scene
from routemesh.explain.picture.svg import drawn
from routemesh.explain.picture.terrain import terrain

__all__ = ["charted", "drawn", "html", "mermaid", "of_ground", "scene", "svg", "terrain"]


def svg(explanation: Explanation) -> str:
    """The picture of an explanation, with a line break at the end."""
    return drawn(scene(explanation))
