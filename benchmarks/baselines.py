"""transformers' `generate` as it comes, to draw with: what mmgen is compared with. Knows nothing of mmgen's loops.

A: a Chameleon that does not mask its image codes, `guidance_scale` for guidance (a second forward of each step), and
the default cache. B: the same with `cache_implementation="static"`, which compiles the step on a GPU. The weights are
those of the model that mmgen draws with; sampling is the same: temperature, top-p, image codes alone. No
end of sequence: always the full count of codes. Pixels and PNG are made as mmgen makes them, so only the codes differ.
"""

import copy
import multiprocessing
import os
import tempfile
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.chameleon.modeling_chameleon import ChameleonForConditionalGeneration

from mmgen.decoding.body import JOINED
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.outputs.pictures import encode_image
from mmgen.request import ImageSampling

from .checkpoints import open_subject
from .measures import Clock, Run, forget_peak, peak_bytes
from .subject import make_request, to_image


class Unmasked(ChameleonForConditionalGeneration):
    """Stock Chameleon, except that image codes keep their logits."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Ids [B, T] -> logits [B, T, V], or of the last `logits_to_keep` places alone."""
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.lm_head(out.last_hidden_state[:, -logits_to_keep:])
        return CausalLMOutputWithPast(logits=logits, past_key_values=out.past_key_values)


def unmasked(model: AutoregressiveModel) -> Unmasked:
    """Build the stock network of a model: with its very tensors, except that weights are put back as stored."""
    ours = model.model
    config = copy.deepcopy(ours.config)
    with torch.device("meta"):
        network = Unmasked(config)
    weights = {name: tensor.to_dense() if tensor.is_mkldnn else tensor for name, tensor in ours.state_dict().items()}
    for joined, parts in JOINED.items():
        for name in [name for name in weights if joined in name]:
            rows = weights.pop(name).chunk(len(parts))  # here there are as many key heads as heads
            weights |= {name.replace(joined, part): row for part, row in zip(parts, rows, strict=True)}
    network.load_state_dict(weights, strict=False, assign=True)  # Anole's decoder has no place there
    for name, buffer in ours.named_buffers():
        if name not in weights and not name.endswith(".stored"):  # what is computed, and no part of a checkpoint
            parent, _, own = name.rpartition(".")
            network.get_submodule(parent).register_buffer(own, buffer, persistent=False)
    network.generation_config = GenerationConfig()  # no end of sequence
    return network.eval()


class Stock:
    """Draws with `generate`.

    Args:
        model: whose prompts and codec are used.
        network: with its weights, as transformers has them.
        static: with the static cache (B).
    """

    def __init__(self, model: AutoregressiveModel, network: Unmasked, *, static: bool) -> None:
        self._subject, self._model, self._static = model, network, static

    @torch.inference_mode()
    def draw(self, n: int, sampling: ImageSampling, seed: int, n_codes: int | None = None) -> Run:
        """Draw n pictures in one batch.

        Args:
            n_codes: stop after so many; the cache has room for a whole picture all the same.
        """
        v, device = self._subject.language_model.vocabulary, self._subject.model.device
        [prompt] = self._subject.prompts([make_request(seed, sampling)])
        ids = torch.tensor([[*prompt.ids, v.begin_image]] * n, device=device)
        away = torch.tensor([[v.bos, v.begin_image]] * n, device=device)
        n_codes = n_codes or v.canvas.n_codes
        clock, vq, png = Clock(device), Clock(device), Clock(device)
        codes_only = _CodesOnly(torch.tensor(v.code_ids, device=device), clock)
        arguments: dict[str, Any] = {"cache_implementation": "static"} if self._static else {}
        if sampling.guidance != 1:
            arguments |= {"guidance_scale": sampling.guidance, "negative_prompt_ids": away}
        forget_peak(device)
        torch.manual_seed(seed)
        started = clock.now()
        out = self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=v.canvas.n_codes,
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            pad_token_id=v.bos,
            logits_processor=[codes_only],
            stopping_criteria=[_StopAfter(ids.shape[1] + n_codes)],
            **arguments,
        )
        decoded = clock.now()
        code_of = {id_: code for code, id_ in enumerate(v.code_ids)}
        codes = [tuple(code_of[id_] for id_ in row) for row in out[:, ids.shape[1] :].tolist()]
        assert all(len(row) == n_codes for row in codes)
        vq_decode, encode = vq.around(self._subject.decode), png.around(encode_image)
        for row in codes:
            whole = (row * v.canvas.n_codes)[: v.canvas.n_codes]  # whatever it shows, the codec's work is the same
            encode(to_image(vq_decode, whole))
        prefill = codes_only.first - started
        run = Run(
            n_pictures=n,
            prefill=prefill,
            decode=decoded - started - prefill,
            vq=vq.seconds,
            png=png.seconds,
            n_codes=n_codes,
            passes=None,
            peak_bytes=peak_bytes(device),
            codes=tuple(codes),
        )
        return run.scaled_to(v.canvas.n_codes)


class Apart:
    """A baseline in a process of its own.

    Args:
        static: B.
        opened: what `checkpoints.open_subject` is to open there.
    """

    def __init__(self, static: bool, *opened: object) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_work, args=(theirs, static, opened), daemon=True)
        process.start()
        self._threads = 0

    def warm_up(self, n: int, sampling: ImageSampling, n_codes: int) -> None:
        """Draw a little with one thread and with as many as there are cores; the quicker number is used from now on."""
        spent: dict[int, float] = {}
        for self._threads in sorted({1, os.cpu_count() or 1}):
            self.draw(n, sampling, 0, n_codes)
            spent[self._threads] = min(self.draw(n, sampling, seed, n_codes).decode for seed in range(2))
        self._threads = min(spent, key=lambda n_threads: spent[n_threads])

    def draw(self, n: int, sampling: ImageSampling, seed: int, n_codes: int | None = None) -> Run:
        """Draw as `Stock` does."""
        self._pipe.send((self._threads, n, sampling, seed, n_codes))
        run = self._pipe.recv()
        assert isinstance(run, Run), run
        return run


def _work(pipe: Connection, static: bool, opened: tuple[Any, ...]) -> None:
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder, suppress(EOFError):  # nobody asks any more
        subject = open_subject(*opened, Path(folder))
        stock = Stock(subject, unmasked(subject), static=static)
        while True:
            n_threads, *asked = pipe.recv()
            torch.set_num_threads(n_threads)
            try:
                pipe.send(stock.draw(*asked))
            except RuntimeError as failure:  # as when memory does not suffice
                pipe.send(failure)


class _CodesOnly(LogitsProcessor):
    """Leaves nothing but image codes to choose from, and notes when it was first asked: after the prompt."""

    def __init__(self, code_ids: Tensor, clock: Clock) -> None:
        self._code_ids, self._clock = code_ids, clock
        self._closed: Tensor | None = None  # [V], minus infinity where no code is
        self.first = 0.0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._closed is None:
            self.first = self._clock.now()
            self._closed = torch.full_like(scores[0], -torch.inf).index_fill_(0, self._code_ids, 0.0)
        return scores + self._closed


class _StopAfter(StoppingCriteria):
    """Stops at a length, where `max_new_tokens` would also make the static cache smaller."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return torch.full((len(input_ids),), input_ids.shape[1] >= self._length, device=input_ids.device)
