"""Prompts over HTTP: preview the metric of a prompt before `POST /metrics` stores it."""

from typing import Final

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Struct

from service.ask.generate import DraftAnswer, PromptCompiler
from service.errors import (
    Busy,
    DatabaseUnavailable,
    QueryTimeout,
    TooLarge,
    UnsupportedMediaType,
    UpstreamFailed,
    UpstreamTimeout,
)
from service.metrics.models import Prompt

PROBLEMS: Final = (
    TooLarge,
    UnsupportedMediaType,
    UpstreamFailed,
    Busy,
    DatabaseUnavailable,
    QueryTimeout,
    UpstreamTimeout,
)


class Asked(Struct, frozen=True, forbid_unknown_fields=True):
    """A prompt; with `fallback`, rules answer it when the language model fails."""

    prompt: Prompt
    fallback: bool = False


class AskController(Controller):
    path = "/metrics"
    tags = ("metrics",)

    @post(
        "/ask",
        operation_id="draftMetric",
        summary="What a prompt would become",
        description="Writes SQL for the prompt and runs it for its first rows; stores nothing.",
        status_code=200,
        opt={"scope": "metrics:write", "problems": PROBLEMS},
    )
    async def ask(self, data: JSONBody[Asked], compiler: NamedDependency[PromptCompiler]) -> DraftAnswer:
        draft = await compiler.draft(data.prompt, fallback=data.fallback)
        return draft.preview()
