"""One fold of a data set, by reference."""

from real_tasks.questions.folds import split
from real_tasks.questions.groups import question_groups
from real_tasks.tasks.stages.references import load_dataset
from real_tasks.vocabulary.config import DataConfig, Frozen
from real_tasks.vocabulary.types import BehaviourData, FoldSplit
from storage.artifacts.store import ArtifactRef


class Fold(Frozen):
    """One fold of a data set; without an index all of its questions are test questions."""

    dataset: ArtifactRef
    config: DataConfig
    index: int | None

    def load(self) -> tuple[BehaviourData, FoldSplit]:
        """Return the data, and which of its questions are for what."""
        data = load_dataset(self.dataset)
        if self.index is None:
            return data, FoldSplit(train=(), validation=(), test=tuple(range(len(data.questions))))
        return data, split(question_groups(data.questions), self.index, self.config)
