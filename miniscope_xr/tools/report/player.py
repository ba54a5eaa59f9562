"""A small film player as a piece of HTML: pictures inside, no other files, plays and stops by hand."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass

import numpy as np

from miniscope_xr.tools.report.pictures import contrast, data_uri, shrunk, stretched
from miniscope_xr.tools.stream.footage import Images
from miniscope_xr.tools.stream.outputs import progress_bar

_WIDTH = 360

STYLE = """
.player{max-width:480px;font:14px/1.4 system-ui,sans-serif}
.player img{display:block;width:100%;height:auto;border-radius:6px;background:#000}
.player div{display:flex;gap:.6em;align-items:center;margin-top:.5em}
.player input{flex:1;min-width:0;accent-color:#1f6f8b}
.player button{min-width:5.2em;min-height:36px;font:inherit;cursor:pointer}
.player output{min-width:8.5em;text-align:right;font-variant-numeric:tabular-nums}
"""

_SCRIPT = """
(function(root){
  var data=JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  var img=root.querySelector('img'),bar=root.querySelector('input'),key=root.querySelector('button');
  var out=root.querySelector('output'),k=0,timer=null;
  function show(n){k=n%data.images.length;img.src=data.images[k];bar.value=k;out.value=data.labels[k];}
  function stop(){clearInterval(timer);timer=null;key.textContent='Play';}
  key.onclick=function(){
    if(timer){stop();return;}
    key.textContent='Pause';timer=setInterval(function(){show(k+1);},1000/data.fps);
  };
  bar.oninput=function(){stop();show(+bar.value);};
  show(0);
})(document.currentScript.parentNode);
"""


@dataclass(frozen=True)
class Player:
    """A film that a notebook or a page shows."""

    fragment: str

    def _repr_html_(self) -> str:
        page = f"<!doctype html><meta charset=utf-8><style>{STYLE}body{{margin:0}}</style>{self.fragment}"
        return (
            f'<iframe srcdoc="{html.escape(page)}" style="border:0;width:500px;height:560px;max-width:100%"></iframe>'
        )


def make_player(images: Images, labels: list[str], fps: float, title: str, progress: bool = False) -> Player:
    """Build a player.

    Parameters
    ----------
    images
        Frames (n, height, width); they are shrunk to fit a page and stretched in contrast, all alike.
    labels
        What is shown beside each.
    fps
        Pictures per second.
    title
        What it shows, for those who cannot see it.
    progress
        Show a progress bar (on a terminal).
    """
    low, high = contrast(shrunk(images[:: max(len(images) // 20, 1)], _WIDTH))
    pictures = []
    with progress_bar(len(images), "film", "picture", progress) as bar:
        for image in images:
            small = shrunk(image, _WIDTH)
            pictures.append(data_uri(stretched(np.asarray(small, np.float32), low, high), 60))
            bar.update(1)
    data = json.dumps({"images": pictures, "labels": labels, "fps": min(fps, 60)})
    height, width = small.shape
    return Player(
        f'<div class="player"><img alt="{html.escape(title)}" width="{width}" height="{height}" src="{pictures[0]}">'
        '<div><button type="button">Play</button>'
        f'<input type="range" min="0" max="{len(pictures) - 1}" value="0" aria-label="frame of the film">'
        f"<output>{html.escape(labels[0])}</output></div>"
        f'<script type="application/json">{data}</script><script>{_SCRIPT}</script></div>'
    )
