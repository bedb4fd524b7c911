"""What the routes of every API share: from the body of a request to the response.

An API is a folder with its bodies and its answers, and one function that adds its routes. A route reads a
body into `Work` (in a thread, with the model that the body names) and gives it to `Api.answer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from rockledge.serve.delivery import Reply, as_api_error, deliver, unless_disconnected
from rockledge.serve.embedding import EmbeddingWork
from rockledge.serve.errors import ApiError
from rockledge.serve.gathering import GatheredWork, gather, open_gathered
from rockledge.serve.generation import Answers, Generation
from rockledge.serve.http.intake import DisconnectedError, Intake
from rockledge.serve.limits import Limits
from rockledge.serve.openapi import takes
from rockledge.serve.residency.models import Models
from rockledge.serve.residency.running import Running
from rockledge.serve.safety.authentication import client_of
from rockledge.serve.schema import Reading, Schema
from rockledge.serve.served_model import ServedModel
from rockledge.serve.style import OPENAI, Style

T = TypeVar("T")

# Nobody reads it; the access log has it, as nginx's does.
CLIENT_CLOSED_REQUEST = 499

DROPPED_MESSAGES = "X-Rockledge-Dropped-Messages"
"""Says how many messages of a conversation the answer was written without."""


@dataclass(frozen=True)
class Work:
    """What a request asks of its model. `reply` makes the shape of the answer; it is called in the event
    loop when the work begins. `keep_alive_s`: how long the model stays loaded afterwards, as for
    `Models.acquire`."""

    model: ServedModel
    generation: Generation
    reply: Callable[[], Reply]
    keep_alive_s: float | None = None


Find = Callable[[Models, object], ServedModel]
"""The model that the JSON value of a body asks for; raises ApiError 404."""


def named_model(models: Models, body: object) -> ServedModel:
    """The one that `model` names. What is no name is refused by the body's own schema."""
    name = body.get("model") if isinstance(body, dict) else None
    return models.find(name if isinstance(name, str) else None)


class Api:
    """Reads requests and answers them, for the routes of all APIs."""

    def __init__(self, models: Models, limits: Limits, *, strict: bool = False) -> None:
        """`strict`: requests may have only what the API that they use has, as it has it."""
        self.models = models
        self.limits = limits
        self.bodies: list[type[Schema]] = []
        """Schemas of all bodies that routes take."""
        self._strict = strict
        self._intake = Intake(limits, max(model.context for model in models))

    def close(self) -> None:
        """Waits for the threads that read bodies."""
        self._intake.close()

    def takes(self, *schemas: type[Schema], stream: bool = False) -> dict[str, Any]:
        """What the API's document says of a route whose body is one of `schemas` (FastAPI's
        `openapi_extra`)."""
        self.bodies += schemas
        return takes(*schemas, stream=stream)

    async def answer(
        self,
        request: Request,
        make: Callable[[ServedModel, object, Reading], Work],
        style: Style = OPENAI,
    ) -> Response:
        """The response to a request for generated text; failures too are responses."""

        async def respond() -> Response:
            self.models.require_room()
            work = await self.read(request, make, require=ServedModel.require_generates)
            return await self.generate(request, work, style)

        return await self.respond(respond, style)

    async def generate(self, request: Request, work: Work, style: Style) -> Response:
        """The generated text as a response.

        Raises:
            ApiError: it cannot be generated.
            DisconnectedError: the client has left meanwhile.
        """
        prompts, timeout_s = work.generation.prompts, work.generation.options.timeout_s
        running = await self.acquire(request, work.model, work.keep_alive_s, prompts, timeout_s)
        try:
            answers = Answers(
                running.front,
                work.model.tokenizer,
                work.generation,
                client_of(request),
                on_close=lambda: self.models.release(running),
            )
        except BaseException:
            self.models.release(running)
            raise
        response = await deliver(request, answers, work.reply(), work.generation.options, style)
        if work.generation.dropped:
            response.headers[DROPPED_MESSAGES] = str(work.generation.dropped)
        return response

    async def embed(
        self,
        request: Request,
        make: Callable[[ServedModel, object, Reading], EmbeddingWork],
        style: Style = OPENAI,
    ) -> Response:
        """The response to a request for what is made of embeddings."""
        return await self.gather(request, make, ServedModel.require_pools, style)

    async def gather(
        self,
        request: Request,
        make: Callable[[ServedModel, object, Reading], GatheredWork],
        require: Callable[[ServedModel], None],
        style: Style = OPENAI,
    ) -> Response:
        """The response to a request to models that meet `require`, which raises ApiError."""

        async def respond() -> Response:
            self.models.require_room()
            work = await self.read(request, make, require=require)
            return await self.run(request, work)

        return await self.respond(respond, style)

    async def run(self, request: Request, work: GatheredWork) -> Response:
        """What is made of all requests of `work` as a response.

        Raises:
            ApiError: one of them failed.
            DisconnectedError: the client has left meanwhile.
        """
        requests = work.requests()
        prompts, timeout_s = [asked.prompt for asked in requests], requests[0].deadline_s
        running = await self.acquire(request, work.model, work.keep_alive_s, prompts, timeout_s)
        work.begun()
        try:
            call = open_gathered(running.front, requests, client_of(request))
            try:
                found = await unless_disconnected(request, gather(running.front, call))
            finally:
                call.close()
        finally:
            self.models.release(running)
        body = await self._intake.compute(lambda: work.body(found))
        return Response(body, media_type="application/json")

    async def convert(
        self,
        request: Request,
        make: Callable[[ServedModel, object, Reading], Any],
        style: Style = OPENAI,
    ) -> Response:
        """The response to a request that needs no engine: what `make` makes of its body, as JSON."""

        async def respond() -> Response:
            return JSONResponse(await self.read(request, make))

        return await self.respond(respond, style)

    async def respond(self, work: Callable[[], Any], style: Style = OPENAI) -> Response:
        """The response of `work`, or that of its failure."""
        try:
            response: Response = await work()
            return response
        except DisconnectedError:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception as error:
            return failed(as_api_error(error), style)

    async def acquire(
        self,
        request: Request,
        model: ServedModel,
        keep_alive_s: float | None,
        prompts: Sequence[Sequence[int]] = (),
        timeout_s: float | None = None,
    ) -> Running:
        """The engine of a model, as `Models.acquire` gives it, unless the client leaves while it is loaded.

        Raises:
            ApiError: as `Models.acquire`.
            DisconnectedError: the client has left.
        """
        tokens = sum(map(len, prompts))
        acquiring = self.models.acquire(
            model, keep_alive_s, tokens=tokens, prompts=len(prompts), timeout_s=timeout_s
        )
        return await unless_disconnected(request, acquiring)

    async def read(
        self,
        request: Request,
        make: Callable[[ServedModel, object, Reading], T],
        find: Find = named_model,
        require: Callable[[ServedModel], None] = lambda _: None,
    ) -> T:
        """What `make` makes of the body, in a thread, if its model is one that meets `require`.

        Raises:
            ApiError: 4xx for a body that is not taken.
            DisconnectedError: the client has left meanwhile.
        """

        def read(body: object) -> T:
            model = find(self.models, body)
            require(model)
            return make(model, body, Reading(strict=self._strict, vocab=model.vocab))

        return await self._intake.read(request, read)


def failed(error: ApiError, style: Style = OPENAI) -> Response:
    """The response of a failure."""
    return JSONResponse(style.failure(error), status_code=error.status, headers=error.headers)
