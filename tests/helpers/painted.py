"""Pictures of shapes by a painter other than the renderer."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw


def painted(background: str, *shapes: tuple[str, str, list[float]]) -> NDArray[np.uint8]:
    """Shapes of PIL, at 8 times the size: (method of ImageDraw, colour, coordinates of 64)."""
    canvas = Image.new("RGB", (512, 512), background)
    draw = ImageDraw.Draw(canvas)
    for method, colour, coordinates in shapes:
        getattr(draw, method)([8 * value for value in coordinates], fill=colour)
    return np.asarray(canvas.resize((64, 64), Image.Resampling.BOX))
