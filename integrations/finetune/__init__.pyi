from .config import FinetuneConfig as FinetuneConfig
from .run import Finetuned as Finetuned
from .run import finetune as finetune
