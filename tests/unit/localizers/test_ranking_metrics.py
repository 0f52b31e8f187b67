import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from torch import Tensor

from real_tasks.localizers.roc import bootstrap_roc_auc, precision_recall, ranking_metrics, roc_auc


def scores_with_ties(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    labels = (torch.rand(200, generator=source) < 0.4).long()
    scores = (torch.randn(5, 200, generator=source) * 3 + labels).round().double()
    return scores, labels, torch.arange(200) // 4


def test_roc_auc_equals_sklearn_with_ties() -> None:
    scores, labels, _ = scores_with_ties()
    expected = [roc_auc_score(labels, module) for module in scores]
    assert roc_auc(scores, labels).tolist() == pytest.approx(expected, abs=1e-12)


def test_average_precision_equals_sklearn_with_ties() -> None:
    scores, labels, _ = scores_with_ties()
    expected = [average_precision_score(labels, module) for module in scores]
    assert precision_recall(scores, labels)[0].tolist() == pytest.approx(expected, abs=1e-12)


def test_f1_is_the_best_over_all_thresholds() -> None:
    scores, labels, _ = scores_with_ties()
    for module, f1 in zip(scores, precision_recall(scores, labels)[1], strict=True):
        precision, recall, _ = precision_recall_curve(labels, module)
        best = (2 * precision * recall / (precision + recall).clip(1e-12)).max()
        assert float(f1) == pytest.approx(best, abs=1e-12)


def test_a_perfect_and_a_reversed_ranking() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    assert roc_auc(scores, labels).tolist() == [1.0, 0.0, 0.5]


def test_the_bootstrap_equals_sklearn_on_each_resample_of_questions() -> None:
    scores, labels, questions = scores_with_ties()
    n_draws, n_questions = 40, 50
    low, high = bootstrap_roc_auc(
        scores, labels, questions, n_draws, torch.Generator().manual_seed(3)
    )
    draws = torch.randint(
        n_questions, (n_draws, n_questions), generator=torch.Generator().manual_seed(3)
    )
    for module, (lower, upper) in enumerate(zip(low, high, strict=True)):
        aucs = []
        for draw in draws:
            rows = torch.cat([(questions == question).nonzero()[:, 0] for question in draw])
            aucs.append(roc_auc_score(labels[rows], scores[module, rows]))
        expected = torch.tensor(aucs, dtype=torch.float64).quantile(
            torch.tensor([0.025, 0.975], dtype=torch.float64)
        )
        assert [float(lower), float(upper)] == pytest.approx(expected.tolist(), abs=1e-9)


def test_answers_of_one_question_widen_the_interval_over_single_answers() -> None:
    # Every question's answers are copies, so there are only as many independent ones as questions.
    source = torch.Generator().manual_seed(1)
    labels = (torch.arange(30) % 2).repeat_interleave(8)
    scores = (torch.randn(1, 30, generator=source).double() + labels[::8]).repeat_interleave(
        8, dim=1
    )
    by_question = torch.arange(30).repeat_interleave(8)
    widths = []
    for questions in (by_question, torch.arange(240)):
        low, high = bootstrap_roc_auc(
            scores, labels, questions, 500, torch.Generator().manual_seed(0)
        )
        widths.append(float(high - low))
    assert widths[0] > 2 * widths[1]


def test_the_interval_holds_the_estimate_and_repeats_itself() -> None:
    scores, labels, questions = scores_with_ties()
    first, second = (
        ranking_metrics(scores, labels, questions, 300, torch.Generator().manual_seed(0))
        for _ in range(2)
    )
    assert bool((first.roc_auc_low < first.roc_auc).all())
    assert bool((first.roc_auc < first.roc_auc_high).all())
    assert first.roc_auc_low.tolist() == second.roc_auc_low.tolist()


def test_questions_need_no_particular_numbers_or_order() -> None:
    scores, labels, questions = scores_with_ties()
    shuffled = torch.randperm(200, generator=torch.Generator().manual_seed(5))
    plain = bootstrap_roc_auc(scores, labels, questions, 50, torch.Generator().manual_seed(0))
    other = bootstrap_roc_auc(
        scores[:, shuffled],
        labels[shuffled],
        questions[shuffled] * 7 + 100,
        50,
        torch.Generator().manual_seed(0),
    )
    assert torch.allclose(plain[0], other[0]) and torch.allclose(plain[1], other[1])
