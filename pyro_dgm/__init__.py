"""Deep generative models as Pyro programs: declare once, train by SVI, and know the numbers."""

from . import adversarial, evaluation, experiments, inference, programs
from .adversarial import *
from .arviz_export.export import to_arviz
from .evaluation import *
from .experiments import *
from .inference import *
from .programs import *
from .testing import assert_bijector

__version__ = "0.1.0"
__all__ = ["assert_bijector", "to_arviz"]
__all__ += programs.__all__
__all__ += inference.__all__
__all__ += evaluation.__all__
__all__ += adversarial.__all__
__all__ += experiments.__all__
