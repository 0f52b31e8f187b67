"""How questions with answers are put before prompts."""

from pydantic import Field

from real_tasks.vocabulary.config import Frozen, PositiveInt


class FewShot(Frozen):
    """Training questions that stand, with answers, before prompts (after arXiv 2310.15213)."""

    shots: PositiveInt = Field(10, description="training questions that stand before a prompt")
    contexts: PositiveInt = Field(
        5, description="different selections of them; each costs a pass for every module"
    )
    prompts: PositiveInt = Field(
        100, description="most prompts, of training questions, that a module's mean is taken over"
    )
