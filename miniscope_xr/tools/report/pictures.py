"""Pictures for a screen: contrast, size, and encoding them into a page."""

from __future__ import annotations

import base64
import io

import numpy as np

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.stream.footage import Images
from miniscope_xr.tools.stream.libraries import need


def contrast(image: Array) -> tuple[float, float]:
    """Return the values to show as black and as white: all but the extreme half percents."""
    low, high = np.percentile(image, (0.5, 99.5))
    return float(low), float(max(high, low + 1e-6))


def stretched(image: Array, low: float, high: float) -> Images:
    """Map values from ``low`` to ``high`` onto 0 to 255."""
    scaled: Images = np.clip((image - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)
    return scaled


def shrunk(image: Array, width: int) -> Array:
    """Average whole blocks of pixels until the image is no wider than ``width``."""
    factor = -(-image.shape[-1] // width)
    if factor <= 1:
        return image
    height, wide = image.shape[-2] // factor * factor, image.shape[-1] // factor * factor
    blocks = image[..., :height, :wide].reshape(*image.shape[:-2], height // factor, factor, wide // factor, factor)
    mean: Array = blocks.mean(axis=(-3, -1))
    return mean


def data_uri(image: Images, quality: int | None = None) -> str:
    """Encode a grey image for a page: PNG, or WebP of this quality."""
    kind = "png" if quality is None else "webp"
    out = io.BytesIO()
    options = {"optimize": True} if quality is None else {"quality": quality, "method": 4}
    need("PIL.Image", "report", "a picture").fromarray(image).save(out, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
