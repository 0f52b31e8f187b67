"""The stage that keeps a data set, and its cutting into shards of samples."""

from pathlib import Path
from typing import Any

from pydantic import Field

from real_tasks.questions.samples import Sample, samples_of
from real_tasks.tasks.cache.stage import stage
from real_tasks.tasks.stages import references
from real_tasks.vocabulary.config import ExtractionConfig, Frozen
from real_tasks.vocabulary.types import BehaviourData
from storage.artifacts.store import ArtifactRef, sha256_of


class Source(Frozen):
    """A data set as it was read; a cache key and a manifest hold the digest of its content."""

    content: str = Field(exclude=True, repr=False)
    digest: str


class Shard(Frozen):
    """Some samples of a data set; a cache key sees their content alone, wherever they stand."""

    dataset: ArtifactRef = Field(exclude=True)
    start: int = Field(exclude=True)
    stop: int = Field(exclude=True)
    digest: str

    def samples(self) -> list[Sample]:
        """Return the samples."""
        return samples_of(references.load_dataset(self.dataset))[self.start : self.stop]


def source_of(data: BehaviourData) -> Source:
    """Return a data set as the stage takes it."""
    content = references.dataset_json(data).decode()
    return Source(content=content, digest=sha256_of(content))


@stage("dataset")
def dataset(out: Path, *, source: Source) -> dict[str, Any]:
    """Keep the behaviour's questions, answers and neutral texts."""
    data = references.parsed_dataset(source.content)
    (out / references.DATASET).write_text(source.content, encoding="utf-8")
    return {
        "questions": len(data.questions),
        "samples": len(samples_of(data)),
        "source": dict(data.source),
    }


def sample_shards(dataset: ArtifactRef, config: ExtractionConfig) -> list[Shard]:
    """Cut the samples into shards."""
    data = references.load_dataset(dataset)
    samples = samples_of(data)
    prompts = [data.name, data.template, data.chat_prompt]
    shards = []
    for start in range(0, len(samples), config.samples_per_shard):
        part = samples[start : start + config.samples_per_shard]
        content = [
            [
                s.question.question_id,
                s.question.text,
                s.question.context,
                s.answer.answer_id,
                s.answer.text,
                s.answer.label,
                s.answer.is_best,
                *s.answer.marks,
            ]
            for s in part
        ]
        shards.append(
            Shard(
                dataset=dataset,
                start=start,
                stop=start + len(part),
                digest=sha256_of([prompts, content]),
            )
        )
    return shards
