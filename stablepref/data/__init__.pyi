from .check import check_data as check_data
from .groups import DataError as DataError
from .groups import Exclusions as Exclusions
from .groups import RankedGroup as RankedGroup
from .read import read_folder as read_folder
from .read import read_groups as read_groups
