from .config import FinetuneConfig as FinetuneConfig
from .latent_reward import WeightedReward as WeightedReward
from .loop import Finetuned as Finetuned
from .run import finetune as finetune
