from .correlations import Correlation as Correlation
from .correlations import correlation as correlation
from .evaluate import evaluate as evaluate
from .report import EvaluationReport as EvaluationReport
