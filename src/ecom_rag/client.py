"""A client of the service: records in, records out, as from a file.

::

    from ecom_rag import Client

    with Client("http://127.0.0.1:8000") as service:
        for record in service.decide([{"text": "加微信私下转账便宜", "metadata": {"id": 1}}]):
            print(record["decision"]["action"], record["decision"]["label"])
"""

import base64
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import text_of, texts_of, whole
from ecom_rag.errors import ServiceError
from ecom_rag.files import json_text, records
from ecom_rag.files.records import Record

T = TypeVar("T")
_AGAIN = (429, 503)  # answers that another try may better
_PART = 64  # items per request, so that one does not hold up the others of the service


class Client:
    """A connection to a service; threads may share it.

    A request that the service is too busy for is sent again, after the time that the service asks for. What must not be
    done twice, a decision or a verdict, is not sent again once it may have arrived.

    Args:
        url: Address of the service, e.g. ``http://127.0.0.1:8000``.
        key: API key; by default none.
        timeout: Seconds to wait for an answer.
        retries: Further tries where the service is busy, loading, or cannot be reached.

    Raises:
        UsageError: An argument of the wrong kind.
    """

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 60.0, retries: int = 5) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {text_of(key, 'key')}"}
        self._http = httpx.Client(base_url=text_of(url, "url"), headers=headers, timeout=timeout)
        self._retries = whole(retries, "retries", least=0)

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def embed(self, texts: Iterable[str], *, side: str = "passage") -> NDArray[np.float32]:
        """Dense embeddings.

        Args:
            texts: Any iterable.
            side: ``query`` or ``passage``.

        Returns:
            ``(texts, dim)`` float32, rows of length 1; ``(0, 0)`` of no texts.

        Raises:
            ServiceError: The service refuses, or cannot be reached.
        """
        rows = []
        for part in _parts(texts_of(texts)):
            body = {"input": part, "side": side, "encoding_format": "base64"}
            data = self._post("/v1/embeddings", body)["data"]
            rows += [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in data]
        return np.stack(rows) if rows else np.zeros((0, 0), np.float32)

    def rerank(self, query: str, documents: Iterable[str]) -> NDArray[np.float32]:
        """Relevance of documents to a query.

        Args:
            query: A text.
            documents: Any iterable.

        Returns:
            ``(documents,)`` in 0..1, in their order; higher is more relevant.

        Raises:
            ServiceError: The service refuses, or cannot be reached.
        """
        documents = texts_of(documents, "documents")
        scores = np.zeros(len(documents), np.float32)
        for start in range(0, len(documents), _PART):
            body = {"query": query, "documents": documents[start : start + _PART]}
            for one in self._post("/v1/rerank", body)["results"]:
                scores[start + one["index"]] = one["relevance_score"]
        return scores

    def recall(
        self,
        queries: Iterable[Record],
        *,
        bank: str | None = None,
        routes: Sequence[str] | None = None,
        fusion: str | None = None,
        weights: Mapping[str, float] | None = None,
        depth: int | None = None,
        top_k: int | None = None,
        filter: Any = None,
        rerank: bool | None = None,
        normalize: bool | None = None,
        blend: float | None = None,
        exclude_self: bool | None = None,
    ) -> list[Record]:
        """The most similar seeds of each record; what is left out is as the service was started.

        Args:
            queries: Any iterable of records.
            bank: Name of the bank; may be left out where the service has one.
            routes: Some of the bank's routes.
            fusion: How the routes are joined, see ``Recall``.
            weights: Weight of each route.
            depth: Candidates per route, and for the reranker.
            top_k: Seeds per record.
            filter: Condition on the seeds' metadata, as an expression or in its dict form.
            rerank: Whether to re-sort by the reranker; by default where there is one.
            normalize: Give the reranker's relevance in 0..1.
            blend: Share of the reranker in the order, 0..1.
            exclude_self: Leave out the seed that a record itself is.

        Returns:
            The records with ``topk_sim``, ``topk_seed``, ``topk_metadata`` and ``topk_evidence``.

        Raises:
            RecordError: Something that is no record.
            ServiceError: The service refuses, or cannot be reached.
        """
        settings = {
            "bank": bank,
            "routes": None if routes is None else list(routes),
            "fusion": fusion,
            "weights": None if weights is None else dict(weights),
            "depth": depth,
            "top_k": top_k,
            "filter": filter,
            "rerank": rerank,
            "normalize": normalize,
            "blend": blend,
            "exclude_self": exclude_self,
        }
        return list(self._records("/v1/recall", queries, settings))

    def decide(self, listings: Iterable[Record], *, bank: str | None = None) -> list[Record]:
        """What the policy of a bank decides of each record.

        Args:
            listings: Any iterable of records.
            bank: Name of the bank; may be left out where the service has one.

        Returns:
            The records with what was found and ``decision``; its ``id`` is what ``feedback`` takes.

        Raises:
            RecordError: Something that is no record.
            ServiceError: The service refuses, or cannot be reached.
        """
        return list(self._records("/v1/decide", listings, {"bank": bank}))

    def feedback(self, decision: str, label: str | None = None, *, innocent: bool = False, note: str = "") -> None:
        """Say what a text is that was decided.

        Args:
            decision: The ``id`` of a decision.
            label: What the text is; or
            innocent: Nothing is wrong with it.
            note: Why.

        Raises:
            ServiceError: The service refuses, or cannot be reached.
        """
        body = {"label": label, "innocent": innocent, "note": note}
        self._post(f"/v1/decisions/{quote(decision, safe='')}/feedback", body, once=True)

    def _records(self, path: str, given: Iterable[Record], settings: dict[str, Any]) -> Iterator[Record]:
        said = {name: value for name, value in settings.items() if value is not None}
        for part in _parts(list(records.cleaned(given))):
            items = [{"text": one["text"], "metadata": one["metadata"]} for one in part]
            found = self._post(path, {"records": items, **said}, once=path == "/v1/decide")["results"]
            yield from ({**one, **own} for one, own in zip(part, found, strict=True))

    def _post(self, path: str, body: dict[str, Any], *, once: bool = False) -> Any:
        headers = {"Content-Type": "application/json"}
        return self._answer("POST", path, once=once, content=json_text.dumps(body), headers=headers)

    def _answer(self, method: str, path: str, *, once: bool, **request: Any) -> Any:
        """What the service answers, after as many tries as are allowed.

        A request that must not be done twice is not sent again once it may have arrived.
        """
        for left in range(self._retries, -1, -1):
            try:
                answer = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                if not left or (once and not isinstance(error, httpx.ConnectError)):
                    at = self._http.base_url
                    raise ServiceError(
                        f"{at}: cannot be reached ({type(error).__name__}); is the service running?", status=None
                    ) from None
                wait = 0.2
            else:
                if answer.is_success:
                    return json_text.loads(answer.content)
                if answer.status_code not in _AGAIN or not left:
                    raise _refused(answer)
                wait = _seconds(answer.headers.get("Retry-After", ""))
            time.sleep(wait * (0.5 + random.random()))
        raise AssertionError("every try ends the loop")


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _PART):
        yield items[start : start + _PART]


def _seconds(said: str) -> float:
    """How long a service asks to wait; a proxy may send a date, and nobody is waited for longer than a minute."""
    return min(float(said), 60.0) if said.isascii() and said.isdigit() else 1.0


def _refused(answer: httpx.Response) -> ServiceError:
    """The error that an answer tells of."""
    status = answer.status_code
    try:
        said = answer.json()["error"]
        return ServiceError(f"{answer.url}: {said['message']} ({status} {said['code']})", status=status)
    except (ValueError, KeyError, TypeError):  # a proxy, or something else than our service
        return ServiceError(
            f"{answer.url}: answered {status} without saying why; is it a service of ecom_rag?", status=status
        )
