"""Nodes for ComfyUI, whose `custom_nodes` folder takes this folder as it is.

ComfyUI loads a folder by its path and asks for the two tables below.
"""

from .reward_nodes import BestOfN, ComparePictures, LoadReward, PickBest, ScoreImages

NODE_CLASS_MAPPINGS = {
    "StableprefLoadReward": LoadReward,
    "StableprefScoreImages": ScoreImages,
    "StableprefPickBest": PickBest,
    "StableprefCompare": ComparePictures,
    "StableprefBestOfN": BestOfN,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "StableprefLoadReward": "Load Reward",
    "StableprefScoreImages": "Score Images",
    "StableprefPickBest": "Pick Best",
    "StableprefCompare": "Compare Images",
    "StableprefBestOfN": "Best of N",
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
