"""The list of models, and what one checkpoint is taken for: plain rows, for whoever prints them."""

from pathlib import Path

from ecom_rag.models.checkpoints.checkpoint import encoder_checkpoint, own_length, position_limit
from ecom_rag.models.checkpoints.folder import read_config
from ecom_rag.models.checkpoints.locate import STARTER, locate
from ecom_rag.models.checkpoints.size import parameters
from ecom_rag.models.families import FAMILIES, RERANKERS
from ecom_rag.models.prompted import Asked, is_reranker, prompted

Row = dict[str, str | int]


def encoders() -> list[Row]:
    """A row for each family of encoders, in the order in which names are looked up."""
    return [
        {
            "models": family.card.models,
            "architecture": family.card.architecture,
            "pooling": family.pooling,
            "query_instruction": family.query_instruction,
            "passage_instruction": family.passage_instruction,
            "outputs": ", ".join(family.outputs),
            "max_length": family.card.length or "",
            "licence": family.card.licence,
            "verified": family.card.verified,
        }
        for family in FAMILIES
    ]


def rerankers() -> list[Row]:
    """A row for each family of rerankers."""
    return [
        {
            "models": one.card.models,
            "architecture": one.card.architecture,
            "head": one.head,
            "instruction": one.instruction,
            "max_length": one.card.length or "",
            "licence": one.card.licence,
            "verified": one.card.verified,
        }
        for one in RERANKERS
    ]


def described(model: str) -> Row:
    """What a checkpoint on this machine is taken for; its weights are not read.

    Args:
        model: Local folder, or ``starter``.

    Raises:
        ModelError: There is no such folder, or one that asks for what is not done here.
    """
    folder = locate(model if model == STARTER else str(Path(model).expanduser().absolute()))
    config = read_config(folder)
    shared: Row = {"architecture": str(config.get("model_type")), "parameters": parameters(folder)}
    if any("SequenceClassification" in str(name) for name in config.get("architectures") or []):
        labels = len(config.get("id2label") or "01")
        return {"kind": "reranker", **shared, "logits": labels, "max_length": position_limit(config)}
    if is_reranker(folder) and (read := prompted(folder, model, Asked())) is not None:
        own = {"template": read.prompt.name, "instruction": read.instruction, "exit_layer": read.exit_layer or ""}
        return {"kind": "reranker", **shared, **own, "max_length": position_limit(config)}
    found = encoder_checkpoint(folder)
    outputs = ["dense"] + ["sparse"] * found.has_sparse + ["multivector"] * found.has_multivector
    return {
        "kind": "encoder",
        **shared,
        "outputs": ", ".join(outputs),
        "dimension": found.truncate_dim or found.dimension,
        "pooling": found.pooling,
        "query_instruction": found.query_instruction,
        "passage_instruction": found.passage_instruction,
        "max_length": own_length(folder),
        "default_length": found.max_length,
        "sources": found.sources,
    }
