"""Embeddings of many texts, block by block; finished blocks outlive a kill."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ecom_rag.files import digest, disk, jobs
from ecom_rag.models.embeddings import Embeddings
from ecom_rag.models.encoder import Encoder


def encode_kept(
    encoder: Encoder,
    texts: Sequence[str],
    outputs: Sequence[str],
    folder: Path | None,
    progress: Callable[[int], None],
) -> Embeddings:
    """As ``Encoder.encode`` for passages, going on where an interrupted run of the same settings stopped.

    Args:
        encoder: The model.
        texts: What is encoded.
        outputs: Of ``dense``, ``sparse``, ``multivector``.
        folder: Where finished blocks are kept; ``None`` to keep none.
        progress: Called with the number of texts done.
    """
    parts: list[Embeddings] = []
    for block in jobs.blocks_of(texts, jobs.Cut(size=len)):
        kept = folder / f"embeddings-{len(parts):05d}-{digest.of_texts(block)}.npz" if folder else None
        if kept is not None and kept.exists():
            parts.append(Embeddings.load(kept))
            progress(len(block))
            continue
        parts.append(encoder.encode(block, outputs=outputs, progress=progress))
        if kept is not None:
            disk.keep(kept, parts[-1].save)
    return parts[0] if len(parts) == 1 else Embeddings.concatenate(parts)
