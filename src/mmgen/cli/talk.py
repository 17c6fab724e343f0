"""The options of questions to chat models."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from mmgen.cli.options import MODEL
from mmgen.errors import UsageError
from mmgen.inputs.schemas import read_schema
from mmgen.request import WORDS, Request, TextSampling, option
from mmgen.tasks import system_turns


@dataclass(frozen=True)
class TalkOptions:
    """How a question is put to a chat model, and what is said of its thoughts."""

    system: str | None = option(None, "System prompt: how to answer.", metavar="WORDS")
    template_arg: list[str] | None = option(
        None, "A variable of the model's chat template, as in enable_thinking=false. Repeatable.",
        metavar="NAME=VALUE", heading=MODEL, env=False,
    )  # fmt: skip
    verbose: bool = option(False, "Say what a model thought before it answered.", "-v", "--verbose")

    def shape(self, text: TextSampling, *, completion: bool = False) -> Request:
        """Begin the request of every item: all but its own words and pictures."""
        given = tuple(map(_template_arg, self.template_arg or ()))
        before = () if self.system is None else system_turns(self.system)
        if text.json_schema is not None:
            text = replace(text, json_schema=read_schema(text.json_schema))
        return Request((), WORDS, text, completion=completion, history=before, template_args=given)


def _template_arg(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise UsageError(f"--template-arg {text} is not NAME=VALUE", "as in --template-arg enable_thinking=false")
    try:
        return name, json.loads(value)
    except ValueError:  # no JSON: then it is a text
        return name, value
