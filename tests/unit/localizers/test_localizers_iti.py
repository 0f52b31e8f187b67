from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from real_tasks.contract.planted import part_of, planted_input
from real_tasks.localizers import LOCALIZERS
from real_tasks.localizers.iti import ItiParams
from real_tasks.steering.probes import fit_probes
from real_tasks.vocabulary.errors import UserInputError

ITI = LOCALIZERS["iti"]


@pytest.mark.parametrize("inverse_penalty", [1.0, 0.01])
@pytest.mark.parametrize("scale", [1.0, 0.02, 30.0])
def test_probes_equal_sklearns_for_all_modules_at_once(
    scale: float, inverse_penalty: float
) -> None:
    data = planted_input(3, relevant=[0, 2], n_questions=40, d=12)
    values, labels = data.values * scale + scale, data.labels
    probes = fit_probes(values, labels, ItiParams(inverse_penalty=inverse_penalty, tolerance=1e-9))
    for module in range(3):
        x = values[module].double().numpy()
        theirs = LogisticRegression(C=inverse_penalty, tol=1e-10, max_iter=100_000).fit(x, labels)
        assert probes.weights[module].numpy() == pytest.approx(theirs.coef_[0], rel=2e-3, abs=2e-4)
        ours = probes.log_odds(values)[module].sigmoid()
        assert ours.numpy() == pytest.approx(theirs.predict_proba(x)[:, 1], abs=1e-4)


def test_separable_classes_are_fitted_as_sklearn_does() -> None:
    data = planted_input(1, relevant=[0], n_questions=20, d=8, strength=20.0)
    probes = fit_probes(data.values, data.labels, ItiParams(tolerance=1e-9))
    x = data.values[0].double().numpy()
    theirs = LogisticRegression(tol=1e-10, max_iter=100_000).fit(x, data.labels)
    assert probes.weights[0].numpy() == pytest.approx(theirs.coef_[0], rel=1e-2, abs=1e-3)


def test_scores_are_the_accuracy_and_auc_of_sklearns_probe_on_validation_questions() -> None:
    data = planted_input(4, relevant=[1])
    result = ITI(ITI.Params()).localize(data, seed=0)
    for module, row in enumerate(result.scores):
        x, y, train = data.values[module].numpy(), data.labels.numpy(), data.train.numpy()
        theirs = LogisticRegression(max_iter=10_000, tol=1e-8).fit(x[train], y[train])
        assert row.score == pytest.approx(theirs.score(x[~train], y[~train]), abs=1e-9)
        odds = theirs.decision_function(x[~train])
        assert row.roc_auc == pytest.approx(roc_auc_score(y[~train], odds), abs=2e-3)


def test_planted_modules_come_first() -> None:
    data = planted_input(12, relevant=[2, 7, 11])
    scores = ITI(ITI.Params()).localize(data, seed=0).scores
    best = sorted(range(12), key=lambda module: -scores[module].score)[:3]
    assert sorted(best) == [2, 7, 11]


def test_a_module_scores_the_same_alone() -> None:
    data = planted_input(5, relevant=[1])
    together = ITI(ITI.Params()).localize(data, seed=0).scores[3]
    alone = ITI(ITI.Params()).localize(part_of(data, [3]), seed=0).scores[0]
    assert alone == together


def test_shuffled_labels_leave_chance() -> None:
    data = planted_input(20, relevant=range(20))
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))
    rows = ITI(ITI.Params()).localize(replace(data, labels=data.labels[order]), seed=0).scores
    assert sum(row.roc_auc or 0.0 for row in rows) / 20 == pytest.approx(0.5, abs=0.05)


def test_evidence_has_the_promised_shapes() -> None:
    data = planted_input(3, relevant=[0])
    evidence = ITI(ITI.Params()).localize(data, seed=0).evidence
    assert evidence["sample_scores"].shape == (3, int(data.train.sum()))
    assert evidence["probe_weights"].shape == (3, 32)
    assert evidence["probe_bias"].shape == (3,)


def test_one_label_only_is_refused_in_either_part() -> None:
    data = planted_input(2, relevant=[0])
    with pytest.raises(UserInputError, match="training questions have 0 aligned"):
        one_label = torch.where(data.train, 0, data.labels)
        ITI(ITI.Params()).localize(replace(data, labels=one_label), seed=0)
    with pytest.raises(UserInputError, match="validation questions have 0 aligned and 0 violating"):
        ITI(ITI.Params()).localize(replace(data, train=torch.ones_like(data.train)), seed=0)


def test_values_that_are_no_numbers_are_refused() -> None:
    data = planted_input(2, relevant=[0])
    data.values[1, 5, 3] = torch.inf
    with pytest.raises(
        UserInputError, match="1 of 2 modules hold NaN or infinity.*layer 0, head 1"
    ):
        ITI(ITI.Params()).localize(data, seed=0)


def test_a_probe_that_does_not_converge_says_so() -> None:
    data = planted_input(2, relevant=[0])
    with pytest.raises(UserInputError, match="did not converge in 1 steps"):
        ITI(ITI.Params(max_iterations=1)).localize(data, seed=0)
