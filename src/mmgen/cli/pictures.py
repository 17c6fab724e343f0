"""One question about each of many pictures: what `caption` and `ask --each` share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

from mmgen.cli import arguments, naming
from mmgen.cli.options import SidecarOptions
from mmgen.errors import MmgenError, UsageError
from mmgen.inputs.finding import Found, NotFoundError, is_url
from mmgen.outputs.live import Answer
from mmgen.outputs.records import Item, Job
from mmgen.outputs.writers import Lines, Sidecars, Sink
from mmgen.request import Request


def ask_of_each(
    command: arguments.Command,
    shape: Request,
    prompt: str,
    look: Callable[[], Iterator[Found | NotFoundError]],
    texts: SidecarOptions,
    *,
    is_one: bool,
    n_items: int | None,
) -> None:
    """Ask the same of every picture; of one alone the answer is streamed as it comes.

    Args:
        shape: what is wanted, and the sampling.
        look: finds the pictures.
        is_one: exactly one is named.
    """

    def items(first_seed: int) -> Iterator[Item]:
        taken: set[int] = set()
        for found in look():
            if isinstance(found, NotFoundError):
                yield Item(shape, prompt, image=found.name, error=found)
                continue
            output = naming.sidecar_path(found.name, found.below, texts.outdir, texts.ext) if texts.sidecar else None
            if problem := _problem(found, output, texts, taken):
                yield Item(shape, prompt, image=found.name, error=problem)
                continue
            yield Item(
                replace(shape, seed=first_seed),
                prompt,
                image=found.name,
                sources=(found.name,),
                output=output,
                own_seed=command.job.seed is not None,
            )

    kept = command.job.jsonl is not None or texts.sidecar

    def sink(job: Job) -> Sink:
        if texts.sidecar:
            return Sidecars(texts.prefix, texts.suffix, overwrite=texts.existing == "overwrite")
        return Lines(shown=not (command.job.as_json or kept))

    if is_one and not (kept or command.job.as_json or command.job.is_batch):
        _answer_one(command, next(items(command.first_seed)))
    else:
        arguments.run_batch(command, sink, items, n_items)


def _problem(found: Found, output: str | None, texts: SidecarOptions, taken: set[int]) -> MmgenError | None:
    """Say why a picture cannot have this sidecar; taken: hashes of those that others have."""
    if output is None:
        return None
    if is_url(found.name) and texts.outdir is None:
        return UsageError(f"nothing can stand beside {found.name}", "name a folder for sidecars with --outdir")
    if os.path.abspath(output) == os.path.abspath(found.name):  # noqa: PTH100 -- as named, not where a link leads
        return UsageError(f"{output} is the picture itself", "choose another --ext")
    mark = hash(output)
    if mark in taken:
        return UsageError(
            f"{found.name}: {output} is another picture's already",
            "rename one, or give folders, which --outdir mirrors",
        )
    taken.add(mark)
    return None


def _answer_one(command: arguments.Command, item: Item) -> None:
    request = item.open()
    opened = arguments.open_for(command, [request], command.first_seed)
    with Answer(request.completion) as answer:
        arguments.stream(opened, request, command.notes, answer.take)
