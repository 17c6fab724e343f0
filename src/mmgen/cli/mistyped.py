"""What people type that is not meant so: the word for it here, in place of the parser's guess."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import typer

from mmgen.errors import UsageError
from mmgen.inputs.selection import PICTURE_ENDINGS

# Flags of other programs. The second is what is said of them.
_FOREIGN = {
    ("cfg", "cfg-scale", "guidance-scale", "scale"): "--guidance G is the CFG scale",
    ("steps", "num-inference-steps", "sampler"): "there are no steps: each image token is drawn once; leave it out",
    ("size", "width", "height", "resolution"): "the model says how large; --ratio W:H changes the shape, if it can",
    ("aspect", "aspect-ratio"): "--ratio W:H, if the model can",
    ("count", "num", "num-images", "n-images", "batch-count"): "-n N is how many pictures",
    ("negative", "negative_prompt"): "--negative-prompt WORDS, if the model can",
    ("out", "outfile", "output-dir", "output-file"): "-o FILE, or -o FOLDER/",
    ("temp",): "--temperature T",
    ("max-new-tokens", "max-length"): "--max-tokens N",
    ("device",): "--device-map cpu, cuda or cuda:N",
    ("load-in-4bit", "load-in-8bit", "bits"): "--quantize 4bit or 8bit",
    ("overwrite",): "-f overwrites pictures, --existing overwrite sidecars",
    ("trigger", "trigger-word"): "--prefix WORDS puts a trigger word before captions",
}
_NUMBERS = {"valid number": "a number", "valid integer": "a whole number", "valid boolean": "true or false"}


def explain(error: typer.TyperException, arguments: Sequence[str], command: str | None) -> UsageError:
    """Say what is wrong with a command line, and what was meant, in our own words."""
    said = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    help_hint = f"see {f'mmgen {command}' if command else 'mmgen'} --help"
    if unknown := re.match(r"No such option: --?([\w-]+)", said):
        foreign = (hint for names, hint in _FOREIGN.items() if unknown[1] in names)
        return (
            UsageError(said[:1].lower() + said[1:].partition(" (Possible")[0], hint)
            if (hint := next(foreign, ""))
            else UsageError(said[:1].lower() + said[1:], help_hint)
        )
    if said.startswith("Got unexpected extra argument") and command in ("ask", "interleave"):
        if picture := next((word for word in arguments if word.lower().endswith(PICTURE_ENDINGS)), None):
            return UsageError(f"a picture stands beside the question: {picture}", "pictures go after --image")
        return UsageError("the question is several words", f'quote it: mmgen {command} "what color is it?"')
    if wrong := re.match(r"Invalid value for '(?:.*/ )?(-[\w-]+)'(?: \(env var: '(\w+)'\))?: (.*)", said):
        flag, variable, why = wrong.groups()
        value = _given(flag, arguments)
        name = flag if value is not None else variable or flag
        value = os.environ.get(name, "") if value is None else value
        for theirs, ours in _NUMBERS.items():
            if theirs in why:
                return UsageError(f"{name} {value} is not {ours}", help_hint)
        if choice := re.match(r"'(.*)' is not one of (.*)", why):
            return UsageError(f"{name} {choice[1]} is unknown", f"one of {choice[2].replace(chr(39), '')}")
    return UsageError(said[:1].lower() + said[1:], help_hint)


def _given(flag: str, arguments: Sequence[str]) -> str | None:
    """Find the value that was given with a flag; None: it came from elsewhere."""
    for at, word in enumerate(arguments):
        if word == flag and at + 1 < len(arguments):
            return arguments[at + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
        if len(flag) == 2 and word.startswith(flag):
            return word[2:]
    return None


def quoting(prompts: Sequence[str]) -> str:
    """Say how to quote, if prompts look like the words of one; else nothing."""
    if len(prompts) < 2 or any(len(each.split()) > 1 for each in prompts):
        return ""
    return f'{len(prompts)} prompts of one word each; for one picture of them quote them: "{" ".join(prompts)}"'
