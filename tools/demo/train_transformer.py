"""Train the transformer on codes and words; resumable. One step is one batch of each of two kinds of rows."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from transformers import ChameleonForConditionalGeneration

from .model import hidden_states
from .scene import COLOURS, PLACES, SUBJECTS
from .sequences import IGNORED, Batch, Writer, collate
from .tokenizer import BEGIN_IMAGE, END_IMAGE, FIRST_CODE, FIRST_TEXT
from .vq_model import N_CODES


@dataclass(frozen=True)
class Training:
    """How the transformer is trained."""

    n_steps: int = 19_900
    muon_rate: float = 0.02  # of the hidden matrices (Jordan et al., "Muon", kellerjordan.github.io/posts/muon)
    embedding_rate: float = 8e-3
    adam_rate: float = 3e-3  # of head and norms
    warmup: int = 100
    words_weight: float = 2.0  # of a word's loss, a code's is 1
    scene_weight: float = 5.0  # of naming one attribute of a picture
    drawn_weight: float = 6.0  # of naming it at all of its codes, beside once
    average: float = 0.995  # of the weights that are kept
    seed: int = 2
    save_every: int = 200


# Kind of rows, rows a batch (even: two processes share them), share of the steps; each step also has drawings.
DRAWINGS = 8
OTHERS = (
    ("look", 8, 0.14), ("vary", 8, 0.50), ("two", 8, 0.12), ("pairs", 8, 0.05), ("story", 4, 0.16), ("talk", 8, 0.03)
)  # fmt: skip


def rate_at(step: int, options: Training) -> float:
    """Share of the full rate: warm-up, steady until 40 %, then a line to nothing."""
    done = step / options.n_steps
    return min(1.0, (step + 1) / options.warmup) * min(1.0, max(0.01, (1 - done) / 0.6))


class SceneHeads(nn.Module):
    """Used in training alone: say in the middle layers what pictures show, each time at one position.

    Where a picture ends, its scene is named, and what of it the picture before it in the row shares; where one is to
    begin, its scene too. So it is brought together early enough for later layers to compare it with words and other
    pictures, and to draw from it (deep supervision: Lee et al., arXiv 1409.5185). Without it the model learned
    captions, but hardly to compare or to carry a subject over to a variation. And at each code, what it is drawn for:
    the plan of a variation was right, but codes looked at their neighbours and not at the plan.
    """

    SEEN, PLANNED, SHARED, DRAWN = (1, 2), (2, 3), (3,), (4,)  # layers after which it is to be said

    def __init__(self, width: int) -> None:
        super().__init__()
        n_names = len(SUBJECTS) + len(COLOURS) + len(PLACES)
        self.seen = nn.ModuleList(nn.Linear(width, n_names) for _ in self.SEEN)
        self.planned = nn.ModuleList(nn.Linear(width, n_names) for _ in self.PLANNED)
        self.shared = nn.ModuleList(nn.Linear(width, 3) for _ in self.SHARED)
        self.drawn = nn.ModuleList(nn.Linear(width, n_names) for _ in self.DRAWN)

    def forward(self, layers: Sequence[Tensor], batch: Batch) -> Tensor:
        """Layers' outputs [B, T, D] -> mean losses of an attribute seen, planned, shared and drawn [4].

        Each is summed over the layers where it is said.
        """

        def at(layer: int, mark: int) -> Tensor:
            return where(layer, batch.ids == mark)  # [P, D]

        def where(layer: int, places: Tensor) -> Tensor:
            x = layers[layer][places]
            return F.rms_norm(x, (x.shape[-1],))

        seen = [name_loss(head(at(i, END_IMAGE)), batch.scenes) for head, i in zip(self.seen, self.SEEN, strict=True)]
        planned = [
            name_loss(head(at(i, BEGIN_IMAGE)), batch.scenes)
            for head, i in zip(self.planned, self.PLANNED, strict=True)
        ]
        rows = (batch.ids == END_IMAGE).nonzero()[:, 0]  # of each picture
        later = (rows[1:] == rows[:-1]).nonzero().flatten() + 1
        equal = (batch.scenes[later] == batch.scenes[later - 1]).float()  # [Q, 3]
        shared = [
            F.binary_cross_entropy_with_logits(head(at(i, END_IMAGE)[later]).float(), equal)
            for head, i in zip(self.shared, self.SHARED, strict=True)
            if len(later)
        ] or [seen[0] * 0]
        codes = (batch.labels >= FIRST_CODE) & (batch.labels < FIRST_CODE + N_CODES)  # [B, T]
        pictures = (batch.ids == BEGIN_IMAGE).flatten().cumsum(0).view_as(codes) - 1  # number of a place's picture
        drawn = [
            name_loss(head(where(i, codes)), batch.scenes[pictures[codes]])
            for head, i in zip(self.drawn, self.DRAWN, strict=True)
        ]
        return torch.stack([torch.stack(losses).sum() for losses in (seen, planned, shared, drawn)])


def name_loss(logits: Tensor, scenes: Tensor) -> Tensor:
    """Logits [P, names of subject, colour and place], scenes [P, 3] -> mean loss of an attribute."""
    parts = logits.float().split([len(SUBJECTS), len(COLOURS), len(PLACES)], -1)
    return torch.stack([F.cross_entropy(part, scenes[:, i]) for i, part in enumerate(parts)]).mean()


def loss_of(
    model: ChameleonForConditionalGeneration, heads: SceneHeads, batch: Batch, options: Training
) -> tuple[Tensor, Tensor]:
    """Return the sum of weighted losses, and for the log the means of codes, words and SceneHeads [6]."""
    hidden, layers = hidden_states(model, batch.ids, batch.positions, batch.visible, batch.early)
    hidden = hidden.flatten(0, 1)
    labels = batch.labels.flatten()
    learned = (labels != IGNORED).nonzero().flatten()
    logits = F.linear(hidden[learned], model.lm_head.weight).float()
    labels = labels[learned]
    losses = F.cross_entropy(logits, labels, reduction="none")
    words = (labels >= FIRST_TEXT) | (labels == BEGIN_IMAGE) | (labels < 4)
    weights = torch.where(words, options.words_weight, 1.0)
    total, scenes = (losses * weights).sum(), torch.full((4,), float("nan"))
    if len(batch.scenes):
        scenes = heads(layers, batch)
        named = torch.tensor([1.0, 1.0, 1.0, options.drawn_weight])
        total = total + options.scene_weight * 3 * len(batch.scenes) * (named * scenes).sum()
    return total, torch.cat([losses[~words].mean()[None], losses[words].mean()[None], scenes]).detach()


def start_weights(model: ChameleonForConditionalGeneration, codebook: Tensor) -> None:
    """Initialise: zero output projections, so that each layer begins as nothing; codes that look alike begin alike.

    codebook [K, z] of the VQ.
    """
    for name, p in model.named_parameters():
        if name.startswith("model.vqmodel"):
            p.requires_grad_(False)
        elif "embed_tokens" in name:
            nn.init.normal_(p, std=0.5)
        elif name.endswith(("o_proj.weight", "down_proj.weight")) or name.startswith("lm_head"):
            nn.init.zeros_(p)
        elif p.ndim == 2 and "norm" not in name:
            nn.init.normal_(p, std=p.shape[1] ** -0.5)
    looks = codebook - codebook.mean(0)
    looks = looks @ torch.randn(codebook.shape[1], model.config.hidden_size)
    with torch.no_grad():
        own = model.get_input_embeddings().weight[FIRST_CODE : FIRST_CODE + len(codebook)]
        own.copy_(0.5 * own + 0.45 * looks / looks.std())


def optimizers_of(
    model: ChameleonForConditionalGeneration, matrices: Sequence[nn.Parameter], options: Training
) -> list[torch.optim.Optimizer]:
    """Muon for these hidden matrices, AdamW for all that is no hidden matrix."""
    learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    embeddings = [p for name, p in learned if "embed_tokens" in name]
    others = [p for name, p in learned if "proj" not in name and "embed_tokens" not in name]
    muon = torch.optim.Muon(matrices, lr=options.muon_rate, momentum=0.95, weight_decay=0.02, ns_steps=5)
    groups = [{"params": embeddings, "lr": options.embedding_rate}, {"params": others, "lr": options.adam_rate}]
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return [muon, adam]


def write_batches(writer: Writer, seed: int, rank: int, n_ranks: int) -> list[Batch]:
    """Write this process's share of the two batches of one step."""
    rng = random.Random(seed)
    kind, size, _ = rng.choices(OTHERS, [share for _, _, share in OTHERS])[0]
    rng = random.Random(f"{seed}/{rank}")
    return [collate([writer.draw(rng) for _ in range(DRAWINGS // n_ranks)]),
            collate([getattr(writer, kind)(rng) for _ in range(size // n_ranks)])]  # fmt: skip


def share_gradients(learned: Sequence[nn.Parameter], total: int) -> None:
    """Sum gradients over all processes and divide by the number of labels; total is this process's."""
    gradients = [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in learned]
    flat = torch.cat([*gradients, torch.tensor([float(total)])])
    distributed.all_reduce(flat)
    flat /= flat[-1].item()
    for p, part in zip(learned, flat[:-1].split([p.numel() for p in learned]), strict=True):
        p.grad = part.view_as(p)


def share_matrices(matrices: Sequence[nn.Parameter], n_ranks: int) -> None:
    """Give every process the matrices that each has stepped: process r steps matrices[r::n_ranks]."""
    for owner in range(n_ranks):
        owned = matrices[owner::n_ranks]
        flat = torch.cat([p.detach().flatten() for p in owned])
        distributed.broadcast(flat, owner)
        for p, part in zip(owned, flat.split([p.numel() for p in owned]), strict=True):
            p.data.copy_(part.view_as(p))


def train(
    model: ChameleonForConditionalGeneration, writer: Writer, out: Path, options: Training, rank: int, n_ranks: int
) -> None:
    """Train to n_steps as one of several processes of one thread each; `out` holds what is needed to resume."""
    names, learned = zip(*[(name, p) for name, p in model.named_parameters() if p.requires_grad], strict=True)
    matrices = [p for name, p in zip(names, learned, strict=True) if "proj" in name]
    heads = SceneHeads(model.config.hidden_size)
    everything = [*learned, *heads.parameters()]
    optimizers = optimizers_of(model, matrices[rank::n_ranks], options)
    optimizers.append(torch.optim.AdamW(heads.parameters(), lr=options.adam_rate, weight_decay=0.01))
    full_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    averages = {name: p.detach().clone() for name, p in zip(names, learned, strict=True)}
    step, own = 0, out.with_suffix(f".{rank}.pt")
    if out.exists():
        saved = torch.load(out, weights_only=True)
        model.load_state_dict(saved["model"], strict=False)
        heads.load_state_dict(saved["heads"])
        averages, step = saved["averages"], saved["step"]
        if own.exists():
            for optimizer, state in zip(optimizers, torch.load(own, weights_only=True), strict=True):
                optimizer.load_state_dict(state)
    model.train()
    started, shown = time.monotonic(), []
    while step < options.n_steps:
        for optimizer, rates in zip(optimizers, full_rates, strict=True):
            for group, full in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = full * rate_at(step, options)
        batches = write_batches(writer, options.seed * 1_000_003 + step, rank, n_ranks)
        for number, batch in enumerate(batches):
            with torch.autocast("cpu", torch.bfloat16):
                loss, parts = loss_of(model, heads, batch, options)
            loss.backward()
            shown.append(parts if number == 0 else torch.cat([torch.tensor([float("nan")]), parts[1:]]))
        share_gradients(everything, sum(int((b.labels != IGNORED).sum()) for b in batches))
        torch.nn.utils.clip_grad_norm_(everything, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        share_matrices(matrices, n_ranks)
        model.zero_grad(set_to_none=True)
        step += 1
        keep = min(options.average, step / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(averages.values()), list(learned), 1 - keep)
        if step % 50 == 0 and rank == 0:
            codes, words, seen, planned, shared, drawn = np.nanmean(torch.stack(shown[-100:]).numpy(), axis=0)
            told = f"draw {codes:.3f} words {words:.3f} seen {seen:.3f} planned {planned:.3f} shared {shared:.3f}"
            print(f"transformer {step} {told} drawn {drawn:.3f} {time.monotonic() - started:.0f}s", flush=True)
        if step % options.save_every == 0 or step == options.n_steps:
            save([optimizer.state_dict() for optimizer in optimizers], own)
            if rank == 0:
                weights = {name: p.detach() for name, p in zip(names, learned, strict=True)}
                state = {"model": weights, "averages": averages, "heads": heads.state_dict(), "step": step}
                save(state, out)


def save(state: object, path: Path) -> None:
    """Write, then put in place."""
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)
