"""ITI's localizer: a logistic probe a module, ranked by its accuracy on validation questions.

Source: Li et al. 2023, arXiv 2306.03341. The probes see the activations as they are, as ITI's do.
"""

from typing import ClassVar

from pydantic import Field

from real_tasks.localizers import LOCALIZERS, Localizer, ScoreMeaning
from real_tasks.localizers.checks import check_labels, check_values
from real_tasks.localizers.roc import ranking_metrics, scored_modules
from real_tasks.localizers.seeding import generator
from real_tasks.steering.probes import ProbeParams, fit_probes
from real_tasks.vocabulary.config import Resamples
from real_tasks.vocabulary.types import LocalizerInput, LocalizerResult


class ItiParams(ProbeParams):
    """Parameters of `iti`; the defaults are scikit-learn's, which ITI's release uses."""

    bootstrap_samples: Resamples = Field(
        1000, description="resamples of questions behind the confidence interval of the ROC-AUC"
    )


@LOCALIZERS.register("iti")
class ItiLocalizer(Localizer):
    """Logistic regression on the training questions, ranked by validation accuracy.

    Evidence: `sample_scores` [module, train sample], log-odds of the probes on the samples they are
    fitted to; `probe_weights` [module, d] and `probe_bias` [module], float64.
    """

    Params: ClassVar[type[ItiParams]] = ItiParams
    label = "ITI"
    meaning = ScoreMeaning("score", "validation accuracy (0.5: chance)", 0.5)
    explained = (
        "How often a logistic probe on a module is right about answers to validation questions: "
        "where half of them are aligned, 0.5 is chance. It says that the module carries the "
        "information, not that steering through it changes what the model says."
    )
    place = 20
    params: ItiParams

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
        return LocalizerResult(
            "validation", scored_modules(data.modules, accuracy, metrics), evidence
        )
