"""An explanation as a picture: an SVG, an HTML page with it, a Mermaid flowchart. PURE.

scene    what is to be drawn      layout   where it goes      svg, html, mermaid
"""

from routemesh.explain.picture.html import html
from routemesh.explain.picture.mermaid import mermaid
from routemesh.explain.picture.svg import svg

__all__ = ["html", "mermaid", "svg"]
