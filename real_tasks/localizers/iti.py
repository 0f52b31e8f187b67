"""ITI's localizer: a logistic probe a module, ranked by its accuracy on validation questions.

Source: Li et al. 2023, arXiv 2306.03341. The probes see the activations as they are, as ITI's do.
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from real_tasks.localizers import LOCALIZERS
from real_tasks.localizers.checks import check_labels, check_values
from real_tasks.localizers.seeding import generator
from real_tasks.statistics.probes import ProbeParams, fit_probes
from real_tasks.statistics.roc import RankingMetrics, ranking_metrics
from real_tasks.vocabulary.config import Resamples
from real_tasks.vocabulary.types import LocalizerInput, LocalizerResult, ModuleScore


class ItiParams(ProbeParams):
    """Parameters of `iti`; the defaults are scikit-learn's, which ITI's release uses."""

    bootstrap_samples: Resamples = Field(
        1000, description="resamples of questions behind the confidence interval of the ROC-AUC"
    )


@LOCALIZERS.register("iti")
class ItiLocalizer:
    """Logistic regression on the training questions, ranked by validation accuracy.

    Evidence: `sample_scores` [module, train sample], log-odds of the probes on the samples they are
    fitted to; `probe_weights` [module, d] and `probe_bias` [module], float64.
    """

    Params: ClassVar[type[ItiParams]] = ItiParams
    weighting: ClassVar[Literal["score", "equal"]] = "equal"
    stochastic: ClassVar[bool] = False
    uses_effects: ClassVar[bool] = False

    def __init__(self, params: ItiParams) -> None:
        """Keep the parameters."""
        self.params = params

    def check(self, d: int) -> None:
        """Accept modules of any width ``d``."""

    def localize(self, data: LocalizerInput, seed: int) -> LocalizerResult:
        """Score every module of the shard; see `Localizer.localize`.

        Raises:
            UserInputError: NaN or infinity among the values, training or validation questions with
                one label only, or probes that did not converge.
        """
        check_values(data)
        check_labels(data, "training", data.train)
        check_labels(data, "validation", ~data.train)
        probes = fit_probes(data.values[:, data.train], data.labels[data.train], self.params)
        held_out = probes.log_odds(data.values[:, ~data.train])
        labels = data.labels[~data.train]
        accuracy = ((held_out > 0) == (labels == 1)).double().mean(dim=1)
        metrics = ranking_metrics(
            held_out,
            labels,
            data.questions[~data.train],
            self.params.bootstrap_samples,
            generator(seed, "bootstrap"),
        )
        evidence = {
            "sample_scores": probes.log_odds(data.values[:, data.train]).float().cpu(),
            "probe_weights": probes.weights.cpu(),
            "probe_bias": probes.bias.cpu(),
        }
        return LocalizerResult("validation", _rows(data, accuracy, metrics), evidence)


def _rows(
    data: LocalizerInput, accuracy: Tensor, metrics: RankingMetrics
) -> tuple[ModuleScore, ...]:
    return tuple(
        ModuleScore(
            module,
            score=float(accuracy[index]),
            roc_auc=float(metrics.roc_auc[index]),
            roc_auc_low=float(metrics.roc_auc_low[index]),
            roc_auc_high=float(metrics.roc_auc_high[index]),
            aupr=float(metrics.aupr[index]),
            f1=float(metrics.f1[index]),
        )
        for index, module in enumerate(data.modules)
    )
