"""Which model a bank's vectors are from, and the refusal of any other's."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ecom_rag.errors import BankError
from ecom_rag.models import Encoder

_SAME = ("max_length", "passage_instruction")  # settings that change the seeds' numbers


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint as a bank remembers it.

    Args:
        path: Where it was found: a folder, a hub id, or ``starter``.
        fingerprint: Of its files, pooling and dimension.
        pooling: Of token vectors.
        max_length: Tokens a text is cut to.
        query_instruction: Put before queries.
        passage_instruction: Put before seeds.
        truncate_dim: Dimensions kept, where not all.
    """

    path: str
    fingerprint: str
    pooling: str | None = None
    max_length: int | None = None
    query_instruction: str | None = None
    passage_instruction: str | None = None
    truncate_dim: int | None = None

    @classmethod
    def of(cls, encoder: Encoder, path: str | None = None) -> "Model":
        """What to remember of a loaded encoder."""
        folder = Path(path) if path else encoder.checkpoint.folder
        where = str(folder.resolve()) if folder.is_dir() else str(path)
        settings = encoder.settings
        dimension = encoder.fingerprint.rpartition("-")[2]  # its last part where vectors are cut, else the pooling
        return cls(
            where,
            encoder.fingerprint,
            pooling=encoder.checkpoint.pooling,
            max_length=settings["max_length"],
            query_instruction=settings["query_instruction"],
            passage_instruction=settings["passage_instruction"],
            truncate_dim=int(dimension) if dimension.isdecimal() else None,
        )

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
            runtime: As of ``Encoder.from_pretrained``.
            precision: As above.
            device: As above.
            batch_tokens: As above.

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
        )

    def check(self, encoder: Encoder, bank: Path) -> None:
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

    def check_fingerprint(self, fingerprint: str | None, bank: Path) -> None:
        """Refuse vectors of another model.

        Raises:
            BankError: Another fingerprint.
        """
        if fingerprint != self.fingerprint:
            raise BankError(
                f"{bank}: holds vectors of the model {self.fingerprint} ({self.path}), these are of"
                f" {fingerprint}; use that model, or build another bank with this one"
            )


def model_from(meta: dict[str, Any] | None) -> Model | None:
    """What a bank's record says of its model; ``None`` where no route needs one."""
    return None if meta is None else Model(**meta)
