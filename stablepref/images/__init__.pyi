from .decoding import decode as decode
from .rgb import over_white as over_white
from .rgb import to_rgb as to_rgb
from .sources import ImageError as ImageError
from .sources import Source as Source
from .sources import UnusableImageError as UnusableImageError
from .sources import count_sources as count_sources
from .sources import iter_sources as iter_sources
