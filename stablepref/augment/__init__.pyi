from .perturbations import MIRRORING as MIRRORING
from .perturbations import UNSEEN as UNSEEN
from .perturbations import Perturbation as Perturbation
from .views import crop_views as crop_views
from .views import mentions_side as mentions_side
from .views import weak_view_boxes as weak_view_boxes
from .views import weak_views as weak_views
