"""Make the built-in checkpoint from nothing: `python -m tools.demo.build`. Seeded; each stage is resumed or skipped.

Stages: render, vq, codes, transformer, refine (the decoder), judge, export, evaluate. About seven hours on two cores.
"""

import argparse
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
from transformers import ChameleonForConditionalGeneration, PreTrainedTokenizerFast

from .card import TRAINING, write_card
from .dataset import CHUNK, N_PICTURES, load_dataset, render_chunk, render_dataset
from .export import check_stock, export, rounded
from .judge import WEIGHTS, JudgeTraining, save_judge, train_judge
from .model import model_config
from .sequences import Writer
from .tokenizer import build_tokenizer
from .train_transformer import Training, start_weights, train
from .train_vq import VQTraining, encoder_input, refine_decoder, train_vq
from .vq_model import VQ, vq_config

REPOSITORY = Path(__file__).parents[2]
N_PROCESSES = 2  # that train the transformer together
N_ENCODED = 200_000  # pictures that the transformer sees: it learns fewer by heart, background and all
CHECKPOINT = REPOSITORY / "src" / "mmgen" / "checkpoints" / "demo"


def tokenizer_of(work: Path) -> PreTrainedTokenizerFast:
    """Make the tokenizer once, and read it from then on."""
    folder = work / "tokenizer"
    if not folder.exists():
        build_tokenizer().save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def trained_vq(work: Path) -> VQ:
    """Read the averaged weights of the VQ, rounded as they will be stored."""
    vq = VQ(vq_config())
    vq.load_state_dict(torch.load(work / "vq.pt", weights_only=True)["averages"])
    if (work / "decoder.pt").exists():
        vq.load_state_dict(torch.load(work / "decoder.pt", weights_only=True))
    return rounded(vq).eval()


def refine(work: Path, options: VQTraining) -> None:
    """Train the decoder on; encoder and codebook, and so the codes, stay as they are."""
    if not (work / "decoder.pt").exists():
        vq = trained_vq(work)
        refine_decoder(vq, work / "data", np.load(work / "codes.npy")[:N_PICTURES], options)
        torch.save(vq.state_dict(), work / "decoder.pt")


def make_codes(work: Path) -> None:
    """Render and encode training pictures once: codes.npy [N, 144] int16, scenes.npy [N] as in dataset.Pictures."""
    if (work / "codes.npy").exists():
        return
    with ProcessPoolExecutor(N_PROCESSES) as pool:
        parts = list(pool.map(partial(_encode_chunk, work), range(0, N_ENCODED, CHUNK)))
    codes, scenes = zip(*parts, strict=True)
    np.save(work / "scenes.npy", np.concatenate(scenes))
    np.save(work / "codes.npy", np.concatenate(codes))


@torch.inference_mode()
def _encode_chunk(work: Path, start: int) -> tuple[np.ndarray, np.ndarray]:
    torch.set_num_threads(1)
    vq, (pixels, _, scenes) = trained_vq(work), render_chunk(start)
    some = (encoder_input(torch.from_numpy(pixels[i : i + 20])) for i in range(0, CHUNK, 20))
    return np.concatenate([vq.codes(each).flatten(1).short().numpy() for each in some]), scenes


def train_the_transformer(rank: int, work: Path, options: Training, meeting: str) -> None:
    """Train, or go on training, the transformer on the codes; run in two processes of one thread, which is faster."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=N_PROCESSES)
    torch.manual_seed(options.seed)
    tokenizer = tokenizer_of(work)
    model = ChameleonForConditionalGeneration(model_config(tokenizer))
    start_weights(model, trained_vq(work).quantize.embedding.weight)
    writer = Writer(tokenizer, np.load(work / "codes.npy"), np.load(work / "scenes.npy"))
    train(model, writer, work / "transformer.pt", options, rank, N_PROCESSES)
    torch.distributed.destroy_process_group()


def export_to(folder: Path, work: Path, training: str) -> None:
    """Write the checkpoint from what has been trained so far."""
    weights = torch.load(work / "transformer.pt", weights_only=True)["averages"]
    export(folder, tokenizer_of(work), trained_vq(work), weights, write_card("(not measured yet)", training))
    check_stock(folder)


def main() -> None:
    """Run all stages, or one."""
    stages = ("render", "vq", "codes", "transformer", "refine", "judge", "export", "evaluate")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=REPOSITORY / "build" / "demo", help="folder for what is in between"
    )
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="the checkpoint folder")
    parser.add_argument("--only", choices=stages, nargs="+", default=stages, help="stages to run; default all")
    parser.add_argument("--vq-steps", type=int, default=VQTraining.n_steps)
    parser.add_argument("--steps", type=int, default=Training.n_steps)
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_flush_denormal(True)  # tiny numbers are slow on a CPU
    work, todo = arguments.work, arguments.only
    work.mkdir(parents=True, exist_ok=True)
    if "render" in todo:
        render_dataset(work / "data")
    if "vq" in todo:
        train_vq(work / "data", work / "vq.pt", VQTraining(n_steps=arguments.vq_steps))
    if "codes" in todo:
        make_codes(work)
    if "transformer" in todo:
        tokenizer_of(work)
        with tempfile.TemporaryDirectory() as folder:
            options = (work, Training(n_steps=arguments.steps), f"{folder}/meeting")
            torch.multiprocessing.spawn(train_the_transformer, options, N_PROCESSES)
    if "refine" in todo:
        refine(work, VQTraining())
    if "judge" in todo and not WEIGHTS.exists():
        save_judge(train_judge(load_dataset(work / "data"), JudgeTraining()))
    if "export" in todo:
        export_to(arguments.out, work, TRAINING)
    if "evaluate" in todo:
        from .evaluate import evaluate, write_results  # loads mmgen's model families

        results = evaluate(arguments.out)
        write_results(arguments.out / "README.md", results)
        print(results)


if __name__ == "__main__":
    main()
