from .choose import best_of_n as best_of_n
from .folder import Candidate as Candidate
from .selection import Selection as Selection
