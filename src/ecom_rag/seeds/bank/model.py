"""Which model a bank's vectors are from, and the refusal of any other's."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ecom_rag import arguments
from ecom_rag.errors import BankError, UsageError
from ecom_rag.models import Encoder

_SAME = ("max_length", "passage_instruction")  # settings that change the seeds' numbers


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint as a bank remembers it.

    Args:
        path: Where it was found: a folder, a hub id, or ``starter``.
        fingerprint: Of its files, pooling, dimension and ``deobfuscate``.
        pooling: Of token vectors.
        max_length: Tokens a text is cut to.
        query_instruction: Put before queries.
        passage_instruction: Put before seeds.
        truncate_dim: Dimensions kept, where not all.
        deobfuscate: Whether disguised letters are read as what they stand for.
    """

    path: str
    fingerprint: str
    pooling: str | None = None
    max_length: int | None = None
    query_instruction: str | None = None
    passage_instruction: str | None = None
    truncate_dim: int | None = None
    deobfuscate: bool = False

    def load(
        self,
        *,
        path: str | None = None,
        runtime: str = "auto",
        precision: str = "auto",
        device: str = "auto",
        batch_tokens: int | None = None,
    ) -> Encoder:
        """Load the encoder again.

        Args:
            path: Where the checkpoint is now, if it has moved.
            runtime: What runs the network, as of ``Encoder.from_pretrained``.
            precision: How exactly it computes: ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8``.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            batch_tokens: Padded tokens per batch; by default as the device likes it.

        Raises:
            ModelError: It is not there.
        """
        return Encoder.from_pretrained(
            path or self.path,
            runtime=runtime,
            precision=precision,
            device=device,
            batch_tokens=batch_tokens,
            max_length=self.max_length,
            pooling=self.pooling,
            query_instruction=self.query_instruction,
            passage_instruction=self.passage_instruction,
            truncate_dim=self.truncate_dim,
            deobfuscate=self.deobfuscate,
        )

    def check(self, encoder: Encoder, bank: Any) -> None:
        """Refuse an encoder whose vectors do not belong to this bank.

        Raises:
            BankError: Another fingerprint, or another setting that changes the numbers.
        """
        self.check_fingerprint(encoder.fingerprint, bank)
        own = asdict(self)
        for name in _SAME:
            found = encoder.settings[name]
            if own[name] is not None and found != own[name]:
                raise BankError(
                    f"{bank}: was encoded with {name} {own[name]!r}, this encoder has {found!r}; load it"
                    " with the bank's, or take bank.encoder"
                )

    def check_fingerprint(self, fingerprint: str | None, bank: Any) -> None:
        """Refuse vectors of another model.

        Raises:
            BankError: Another fingerprint.
        """
        if fingerprint != self.fingerprint:
            raise BankError(
                f"{bank}: holds vectors of the model {self.fingerprint} ({self.path}), these are of"
                f" {fingerprint}; use that model, or build another bank with this one"
            )


def model_for(outputs: Sequence[str], encoder: Encoder | None, path: str | None) -> Model | None:
    """What a new bank remembers of its encoder; ``None`` where no route needs one.

    Args:
        outputs: What the routes search of its outputs.
        encoder: Loaded.
        path: Where it was found.

    Raises:
        UsageError: There is no encoder, and a route needs one.
        ModelError: The encoder cannot give what a route needs.
    """
    if not outputs:
        return None
    if encoder is None:
        raise UsageError(f"the routes {', '.join(outputs)} need an encoder; give `encoder`")
    arguments.model(encoder, "encoder", "check_outputs", "Encoder")
    encoder.check_outputs(outputs)
    folder = Path(path) if path else encoder.checkpoint.folder
    dimension = encoder.fingerprint.rpartition("-")[2]  # its last part where vectors are cut, else the pooling
    return Model(
        path=str(folder.resolve()) if folder.is_dir() else str(path),
        fingerprint=encoder.fingerprint,
        pooling=encoder.checkpoint.pooling,
        max_length=encoder.settings["max_length"],
        query_instruction=encoder.settings["query_instruction"],
        passage_instruction=encoder.settings["passage_instruction"],
        truncate_dim=int(dimension) if dimension.isdecimal() else None,
        deobfuscate=bool(encoder.settings.get("deobfuscate")),
    )


def model_from(meta: dict[str, Any] | None) -> Model | None:
    """What a bank's record says of its model; ``None`` where no route needs one."""
    return None if meta is None else Model(**meta)
