"""`POST /rerank`, `/v1/rerank` and `/v2/rerank`, as clients of Cohere, Jina and text-embeddings-inference send them.

Wire: cohere 7.3 (`ClientV2.rerank`; its v1 client may send objects), Jina's API, TEI's `texts` with a bare list back.
Ours: the relevance is the expected grade, scaled so that the lowest grade is 0 and the highest 1; ties stay in the
order given; equal documents are judged once, so that they are equal in relevance. A document that is too long is
refused, and cut where the request allows it in its contract's words.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from piar.serve.contracts import Refused, RerankError, TeiError, documented, known_keys
from piar.serve.documents import fields_in
from piar.serve.engine import Judged, Unfit
from piar.serve.handlers import engine_of, offer_of
from piar.serve.offer import Offer
from piar.serve.settings import ServeSettings
from store.errors import UsageError

MANY = 50  # documents that are read beside other requests: YAML of some megabytes takes a second
# Legal in one of the contracts, and without effect here.
_KNOWN = frozenset({"max_chunks_per_doc", "priority", "truncation_direction", "user"})


class RerankRequest(BaseModel):
    """A query, and documents as texts or objects (`texts` at `/rerank`: the shape of text-embeddings-inference)."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    query: str | None = None
    documents: list[Any] | None = None
    texts: list[str] | None = None
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool | None = None
    return_text: bool = False
    max_tokens_per_doc: int | None = Field(default=None, ge=1)
    truncation: bool = False
    truncate: bool = False

    @property
    def cut(self) -> bool:
        """Whether a document may be cut to what the student reads: in the words of Cohere, Jina, TEI."""
        return self.max_tokens_per_doc is not None or self.truncation or self.truncate


@dataclass(frozen=True, slots=True)
class Ranking:
    """How a query and a document become a sample.

    Attributes:
        query: the field that takes the query, "" for none.
        document: the field that takes a document that is a text, "" for none.
    """

    offer: Offer
    query: str
    document: str

    @classmethod
    def of(cls, offer: Offer, settings: ServeSettings) -> "Ranking":
        """By `[serve]`, else the field of the groups takes the query, and the only other one the documents.

        Raises:
            UsageError: a setting names no field of the task.
        """
        fields = offer.task.fields
        for key in ("rerank_query", "rerank_field"):
            if (name := getattr(settings, key)) and name not in fields:
                raise UsageError(f"[serve] {key} names no field of this student.", f"Its fields: {', '.join(fields)}.")
        query = settings.rerank_query or (offer.task.group_by if offer.task.group_by in fields else "")
        others = [name for name in fields if name != query]
        return cls(offer, query, settings.rerank_field or (others[0] if len(others) == 1 else ""))

    def samples(self, body: RerankRequest, name: str) -> list[dict[str, str]]:
        """A sample for each document.

        Args:
            name: what the contract calls the documents.

        Raises:
            Refused: no query, no documents, or a document that fills no field.
        """
        if not self.offer.task.ordered:
            raise Refused(422, "this student's grades have no order, so it cannot rank: ask POST /score", param=name)
        if not self.query:
            words = "no field of this task takes a query; start the server with --set serve.rerank_query=FIELD"
            raise Refused(422, words, param="query")
        documents: list[Any] | None = getattr(body, name)
        if not (body.query and body.query.strip()):
            raise Refused(422, "a query is needed", param="query")
        if not documents:
            raise Refused(422, "at least one document is needed", param=name)
        query = self.offer.text(body.query, "query")
        return [self._sample(query, one, f"{name}[{i}]", cut=body.cut) for i, one in enumerate(documents)]

    def _sample(self, query: str, document: Any, where: str, *, cut: bool) -> dict[str, str]:
        others = [name for name in self.offer.task.fields if name != self.query]
        given = self._given(document, others, where)
        filled = {name: self.offer.text(given.get(name, ""), f"{where}.{name}", cut=cut) for name in others}
        return {name: query if name == self.query else filled[name] for name in self.offer.task.fields}

    def _given(self, document: Any, others: Sequence[str], where: str) -> Mapping[str, Any]:
        if isinstance(document, dict) and any(name in document for name in others):
            return document
        text = document.get("text") if isinstance(document, dict) else document
        if not isinstance(text, str):
            raise Refused(422, f"a document is a text, or an object with {' or '.join(others)}", param=where)
        if (found := fields_in(text, others)) is not None:
            return found
        if not self.document:
            words = (
                f"a text could be any of {', '.join(others)}: send objects with these, or texts that are such objects "
                "in JSON or YAML, or start the server with --set serve.rerank_field=FIELD"
            )
            raise Refused(422, words, param=where)
        return {self.document: text}


def add_rerank(app: FastAPI, settings: ServeSettings) -> None:
    """Add the three routes to the application.

    Raises:
        UsageError: a setting names no field of the task.
    """
    Ranking.of(app.state.offer, settings)

    async def ranked(body: RerankRequest, request: Request, name: str) -> tuple[list[tuple[int, float]], Judged]:
        """Places and relevance of the documents, best first, and what was read."""
        known_keys(body, _KNOWN)
        offer = offer_of(request)
        offer.model(body.model)
        read = partial(Ranking.of(offer, settings).samples, body, name)
        many = len(body.documents or body.texts or ()) > MANY
        samples = await asyncio.to_thread(read) if many else read()
        first = {key: i for i, key in reversed(list(enumerate(tuple(sample.values()) for sample in samples)))}
        distinct = sorted(first, key=first.__getitem__)
        wanted = [samples[first[key]] for key in distinct]
        try:
            judged = await engine_of(request).score(wanted, settings.rerank_tokens, cut=body.cut)
        except Unfit as unfit:
            raise Unfit(first[distinct[unfit.index]], str(unfit)) from None
        expected = dict(zip(distinct, (offer.relevance(one) for one in judged.scored), strict=True))
        found = [(i, expected[tuple(sample.values())]) for i, sample in enumerate(samples)]
        return sorted(found, key=lambda one: -one[1]), judged

    async def rerank(body: RerankRequest, request: Request) -> Any:
        if body.texts is not None and request.url.path == "/rerank":
            request.state.contract = "tei"
            found, _ = await ranked(body, request, "texts")
            return [
                {"index": i, "score": relevance, **({"text": body.texts[i]} if body.return_text else {})}
                for i, relevance in found
            ]
        if body.texts is not None:
            raise Refused(422, "`texts` go to POST /rerank; here they are called `documents`", param="texts")
        found, judged = await ranked(body, request, "documents")
        asked = body.return_documents
        shown = asked if asked is not None else request.url.path != "/v2/rerank"  # Cohere's v2 has no such parameter
        tokens = judged.tokens
        return {
            "model": offer_of(request).names[0],
            "results": [
                {
                    "index": i,
                    "relevance_score": relevance,
                    **({"document": _shown((body.documents or [])[i])} if shown else {}),
                }
                for i, relevance in found[: body.top_n]
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "meta": {"tokens": {"input_tokens": tokens, "output_tokens": 0}},
        }

    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        errors = documented(RerankError | TeiError if path == "/rerank" else RerankError)
        app.post(path, summary="Rank documents for a query by their expected grade", responses=errors)(rerank)


def _shown(document: Any) -> Any:
    return {"text": document} if isinstance(document, str) else document
