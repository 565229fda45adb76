from .data.groups import DataError as DataError
from .data.groups import Exclusions as Exclusions
from .data.groups import RankedGroup as RankedGroup
from .data.read import read_groups as read_groups
from .evaluation.correlations import Correlation as Correlation
from .evaluation.correlations import correlation as correlation
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.report import EvaluationReport as EvaluationReport
from .images.sources import ImageError as ImageError
from .models.function import FunctionScorer as FunctionScorer
from .models.registry import register as register
from .recipes import TrainConfig as TrainConfig
from .recipes import recipe as recipe
from .scorer import Scorer as Scorer
from .scoring.compare import Comparison as Comparison
from .scoring.stream import Scored as Scored
from .trainer import train as train
from .weights.errors import WeightsError as WeightsError
from .weights.hub import UnavailableError as UnavailableError
from .zoo import compare as compare
from .zoo import load as load
from .zoo import rank as rank
from .zoo import score as score

__version__: str
