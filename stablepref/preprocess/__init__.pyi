from .patches import PATCH_PROTOCOLS as PATCH_PROTOCOLS
from .patches import PatchPreprocess as PatchPreprocess
from .patches import PatchProtocol as PatchProtocol
from .preprocess import Preprocess as Preprocess
from .protocols import CLIP_MEAN as CLIP_MEAN
from .protocols import CLIP_STD as CLIP_STD
from .protocols import PROTOCOLS as PROTOCOLS
from .protocols import Protocol as Protocol
