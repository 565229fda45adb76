from .best_of_n import best_of_n as best_of_n
from .ensemble import Ensemble as Ensemble
from .finetune import finetune as finetune
from .guidance import RewardGuidance as RewardGuidance
from .reward import DifferentiableReward as DifferentiableReward
