"""Decodes one image file into pixels. It must never give pixels of a file that is broken or deeper than 8 bits."""

import io
from pathlib import Path

import numpy as np

from experiment.data.data import Pixels
from verbatim.errors import VerbatimError

# By suffix; the decoders that Pillow is allowed to try. It has 40 more, and one of them runs Ghostscript.
FORMATS = {
    ".bmp": "BMP", ".gif": "GIF", ".jpeg": "JPEG", ".jpg": "JPEG", ".pgm": "PPM", ".png": "PNG", ".ppm": "PPM",
    ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP",
}  # fmt: skip
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # 8 bits or fewer: of more, `convert` makes white


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise VerbatimError(path, expected="an image that can be read", found=error.strerror) from error


def decode(path: Path, content: bytes, size: int) -> Pixels:
    """(3, size, size), by Pillow's bilinear filter with its support widened for shrinking (antialiasing)."""
    from PIL import Image, UnidentifiedImageError  # here, because no other data set needs it

    try:
        with Image.open(io.BytesIO(content), formats=sorted(set(FORMATS.values()))) as image:
            if image.mode not in MODES:
                raise VerbatimError(path, expected="an image of 8 bits a channel", found=f"mode {image.mode}")
            small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except VerbatimError:
        raise
    except Exception as error:  # of a broken file, decoders raise nearly anything: SyntaxError, struct.error, …
        found = "no format it knows" if isinstance(error, UnidentifiedImageError) else str(error)
        raise VerbatimError(path, expected="a whole image", found=found, then="restore it, or remove it") from error
    return np.asarray(small).transpose(2, 0, 1).copy()
