"""Which floating-point type a scorer's encoders run in when the user leaves it to us."""

from typing import Final

import torch

AUTOMATIC: Final = torch.float32
"""Exact everywhere. Faster types are the user's to choose: their errors are not measured yet."""
