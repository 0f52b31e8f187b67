"""The embedded model ``demo``: a tiny Llama that imitates human falsehoods."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from real_tasks.models.embedded import EMBEDDED_MODELS
from real_tasks.models.embedded.corpus import Document, generate_corpus, vocabulary
from real_tasks.models.embedded.training import EncodedDocument, TrainingRecipe, train
from real_tasks.models.embedded.world import World, generate_world
from real_tasks.models.text_model import TextModel
from real_tasks.vocabulary.config import Configured, Frozen
from real_tasks.vocabulary.types import ModelShape

BOS, EOS, PAD, UNK = "<bos>", "<eos>", "<pad>", "<unk>"
QUESTION_LOSS_WEIGHT = 0.1
_MAX_POSITIONS = 256
N_LAYERS, N_HEADS, HEAD_DIM, D_MODEL, D_MLP = 5, 8, 32, 128, 256


@EMBEDDED_MODELS.register("demo")
class DemoModel(Configured):
    """A Llama of 1.0 M parameters: 5 layers of 8 heads over 4 key-value heads.

    Experts and folk answer questions about a generated world in its corpus; most authors are folk,
    who tell myths. So the model knows the truth and mostly says the myth, as large models do with
    human falsehoods. Its behaviour is ``demo_truth`` with the same ``world_seed``.
    """

    class Params(Frozen):
        """Parameters of the demo model."""

        world_seed: int = Field(0, ge=0, description="seed of the world; that of demo_truth, too")
        seed: int = Field(0, ge=0, description="seed of the corpus, the weights and the training")
        steps: Annotated[int, Field(ge=1)] = Field(
            TrainingRecipe().steps, description="optimizer steps"
        )

    params: Params

    def shape(self) -> ModelShape:
        """Return the shape of every demo model."""
        return ModelShape(N_LAYERS, N_HEADS, HEAD_DIM, D_MODEL, D_MLP)

    def texts(self) -> TextModel:
        """Return how every demo model of this world reads texts."""
        tokenizer = build_tokenizer(generate_world(self.params.world_seed))
        return TextModel(tokenizer, None, len(tokenizer), _MAX_POSITIONS)

    def build(self, folder: Path, on_progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Train the model and write it into ``folder`` as an ordinary Hugging Face checkpoint.

        Calls ``on_progress(steps done, steps in all)`` after every step. Returns facts to record:
        steps, documents, tokens, parameters, final_loss (nats a token), training_seconds.
        """
        started = time.perf_counter()
        recipe = TrainingRecipe(steps=self.params.steps)
        world = generate_world(self.params.world_seed)
        corpus = generate_corpus(world, recipe.steps * recipe.batch_documents, self.params.seed)
        tokenizer = build_tokenizer(world)
        documents = [encode(document, tokenizer) for document in corpus]
        config = architecture(tokenizer)
        model, facts = train(config, documents, recipe, self.params.seed, on_progress)
        model.generation_config = GenerationConfig(
            bos_token_id=config.bos_token_id,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return facts | {"training_seconds": time.perf_counter() - started}


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Return a tokenizer of one token a word, which puts BOS before every text."""
    words = [BOS, EOS, PAD, UNK, *vocabulary(world)]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNK))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, words.index(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        model_max_length=_MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def architecture(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Return the demo's architecture; o_proj reads 8 * 32 = 256 numbers, not the hidden 128."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=D_MODEL,
        intermediate_size=D_MLP,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=4,
        head_dim=HEAD_DIM,
        max_position_embeddings=_MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def encode(document: Document, tokenizer: PreTrainedTokenizerFast) -> EncodedDocument:
    """Return token ids with BOS and EOS; predicting a question's words counts little."""
    token_ids = (*tokenizer(" ".join(document.words)).input_ids, tokenizer.eos_token_id)
    weights = (QUESTION_LOSS_WEIGHT if asked else 1.0 for asked in document.in_question)
    return EncodedDocument(token_ids, (0.0, *weights, 1.0))
