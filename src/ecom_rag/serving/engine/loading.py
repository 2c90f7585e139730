"""Loading the models of a service: each once, whatever the number of banks and endpoints that use it."""

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from ecom_rag.models import Encoder
from ecom_rag.models.spec import ModelSpec, cross_encoder_of, encoder_of
from ecom_rag.seeds.bank import SeedBank
from ecom_rag.serving.engine.batching import Ran
from ecom_rag.serving.engine.models import EncoderStage, RerankerStage
from ecom_rag.serving.settings import Serve


class Models:
    """The models of a service.

    Args:
        settings: Of the service.
        executor: The model thread.
        watch: As of ``Batcher``.

    Attributes:
        encoder: Behind ``/v1/embeddings``; ``None`` where no model is served.
        reranker: ``None`` where reranking is not offered.
    """

    def __init__(self, settings: Serve, executor: Executor, *, watch: Callable[[Ran], None] | None = None) -> None:
        self._settings, self._executor, self._watch = settings, executor, watch
        self._encoders: dict[str, EncoderStage] = {}  # by fingerprint
        self.encoder: EncoderStage | None = None
        self.reranker: RerankerStage | None = None

    def of_bank(self, path: Path) -> Encoder | None:
        """The encoder of a bank, loaded where no other bank of its model is open.

        Args:
            path: Folder of the bank.

        Raises:
            BankError: No bank.
            ModelError: Its model cannot be loaded.
        """
        with SeedBank.open(path, maintain=False) as own:
            model = own.model
        if model is None:
            return None
        stage = self._encoders.get(model.fingerprint)
        if stage is None:
            stage = self._stage(model.load(**self._settings.placement), model.path)
        return stage.encoder

    def stage(self, bank: SeedBank) -> EncoderStage | None:
        """The encoder of an open bank; ``None`` where it needs none.

        Args:
            bank: The bank.
        """
        return None if bank.model is None else self._encoders[bank.model.fingerprint]

    def load(self) -> None:
        """Load what the settings name, after the encoders of the banks.

        Raises:
            ModelError: A model cannot be loaded.
        """
        settings = self._settings
        if settings.model is not None:
            named = [one for one in self._encoders.values() if one.name == settings.model]
            own = named[0] if named else None
            self.encoder = own or self._stage(encoder_of(ModelSpec(settings.model, settings.placement)), settings.model)
        elif self._encoders:
            self.encoder = next(iter(self._encoders.values()))
        if settings.rerank is not None:
            model = cross_encoder_of(ModelSpec(settings.rerank, settings.placement))
            self.reranker = RerankerStage(
                model,
                self._executor,
                name=settings.rerank,
                queue_seconds=settings.limits.queue_seconds,
                watch=self._watch,
            )

    def _stage(self, encoder: Encoder, name: str) -> EncoderStage:
        stage = EncoderStage(
            encoder,
            self._executor,
            name=name,
            queue_seconds=self._settings.limits.queue_seconds,
            watch=self._watch,
        )
        return self._encoders.setdefault(encoder.fingerprint, stage)
