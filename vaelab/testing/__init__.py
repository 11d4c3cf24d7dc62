"""Checks for parts that you write yourself, like scikit-learn's ``check_estimator``.

Each raises ``BrokenPromise``, an ``AssertionError`` that names the broken promise of the contract
and what was observed::

    from vaelab.testing import check_model

    def test_my_model_keeps_its_promises() -> None:
        check_model(MyVAE(z_dim=8), torch.randn(3, 4, 16, 16, 16))
"""

from vaelab.testing.annealing import check_annealing
from vaelab.testing.dataset import check_dataset
from vaelab.testing.model import check_model
from vaelab.testing.objective import check_objective
from vaelab.testing.optimizer import check_optimizer
from vaelab.testing.promises import BrokenPromise
from vaelab.testing.score import check_score
from vaelab.testing.task import check_task

__all__ = [
    "BrokenPromise",
    "check_annealing",
    "check_dataset",
    "check_model",
    "check_objective",
    "check_optimizer",
    "check_score",
    "check_task",
]
