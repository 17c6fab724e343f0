"""The best of several pictures, as the model that drew them judges. Knows no family."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mmgen import tasks
from mmgen.errors import MmgenError
from mmgen.model import Model
from mmgen.request import Done, Picture, Piece, Progress, Request


def ranked(model: Model, asked: Sequence[tuple[int, Request]]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
    """Answer requests for one of the best of several pictures; those about the same ones draw them once.

    Candidate i has the request's seed + i.
    """
    alike: dict[object, list[tuple[int, Request]]] = {}
    for number, request in asked:
        what = (request.parts, request.image, request.seed, request.best_of)
        alike.setdefault(what, []).append((number, request))
    for some in alike.values():
        first_number, first = some[0]
        each = [replace(first, best_of=1, rank=0, seed=first.seed + i) for i in range(first.best_of)]
        try:
            candidates: list[Picture] = []
            for _, piece in model.replies(each):
                if isinstance(piece, MmgenError):
                    raise piece
                if isinstance(piece, Picture):
                    candidates.append(piece)
                    yield first_number, Progress(len(candidates), len(each))
            judged = [replace(picture, score=judge(model, first, picture)) for picture in candidates]
        except MmgenError as error:
            yield from ((number, error) for number, _ in some)
            continue
        # Equal ones in the order of their seeds
        judged.sort(key=lambda picture: (-(picture.score or 0.0), picture.seed))
        for number, request in some:
            if request.rank < len(judged):
                yield number, judged[request.rank]
            yield number, Done("end" if request.rank < len(judged) else "cancelled")


def judge(model: Model, request: Request, picture: Picture) -> float:
    """Say how well a picture shows what it was drawn from, in nats: between pictures of one prompt more is better.

    It is by how much likelier yes is than no, if the family has a question for that; else how likely the prompt is as
    a caption.
    """
    words = "".join(part for part in request.parts if isinstance(part, str))
    question = model.abilities.judge
    if question is None:
        return _log_sum(model.score(tasks.caption(picture.image, seed=0), ways_to_write(words)))
    asked = tasks.ask(question.format(words), [picture.image], seed=0)
    yes, no = ways_to_write("Yes"), ways_to_write("No")
    scores = model.score(asked, [*yes, *no])
    return _log_sum(scores[: len(yes)]) - _log_sum(scores[len(yes) :])


def ways_to_write(answer: str) -> list[str]:
    """Write an answer with a capital and without, with a full stop and without; as it is given first."""
    words = answer.rstrip(".")
    ways = [answer, *(f"{first}{words[1:]}{end}" for first in (words[:1], words[:1].swapcase()) for end in ("", "."))]
    return list(dict.fromkeys(ways))


def _log_sum(scores: Sequence[float]) -> float:
    most = max(scores)
    return most + math.log(sum(math.exp(score - most) for score in scores))
