"""A conversation under way: what a line asks or commands, and what was said. Refuses to know where lines come from."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen import tasks
from mmgen.cli import given, naming
from mmgen.errors import MmgenError, TooLongError, UsageError
from mmgen.files import check_writable, whole_file
from mmgen.inputs.images import open_image
from mmgen.inputs.messages import Messages, entry, read_messages, written
from mmgen.jobs import Job
from mmgen.limits import Limits
from mmgen.model import Model
from mmgen.outputs.markdown import link
from mmgen.outputs.pictures import save_image
from mmgen.outputs.records import Item, Origin, plain_name
from mmgen.outputs.terminal import Notes, emit
from mmgen.outputs.writers import Lines, PictureFiles, Writer
from mmgen.request import MAX_SEED, ImageSampling, Request, Turn
from mmgen.tasks import insert_images
from mmgen.text import clean, folded

if TYPE_CHECKING:
    from PIL import Image

_PATH = "path"  # of a picture, in its info
_SMALL = 24  # cells of a picture that is confirmed
_TITLE = "title"  # of a picture, in its info: its path, or the words that it was drawn from


@dataclass(frozen=True)
class _Command:
    usage: str
    help: str
    run: Callable[[str], None]


class Session:
    """A conversation with a model.

    Args:
        model: opened.
        shape: of its questions.
        seed: of the first reply; each one after it has the next.
        shown: pictures that the first question is about.
        history: a conversation in a file, which this one goes on with: what is said is added to it.

    Attributes:
        ended: it was left with /quit.
        is_saved: nothing was answered since it was saved, loaded or cleared.
        commands: by their names.
    """

    def __init__(
        self,
        model: Model,
        notes: Notes,
        shape: Request,
        image: ImageSampling,
        seed: int,
        shown: Sequence[Image.Image] = (),
        history: Messages | None = None,
    ) -> None:
        self.ended, self.is_saved = False, True
        self._model, self._notes = model, notes
        self._shape, self._image, self._seed = shape, image, seed
        self._talk: list[Turn] = []  # user and assistant in turn
        self._history = history
        self._waiting = list(shown)  # pictures that the next question is about
        self._own: set[str] = set()  # files that /save has written
        self.commands = {
            "image": _Command("/image PATH", "show it a picture: your next question is about it", self.show),
            "show": _Command("/show", "look at the last picture", self.look),
            "draw": _Command("/draw PROMPT", "draw a picture, as if you showed it then", self.draw),
            "vary": _Command("/vary [PROMPT]", "draw the last picture anew, or changed", self.vary),
            "clear": _Command("/clear", "forget all that was said", self.clear),
            "system": _Command("/system WORDS", "say how to answer, from now on", self.system),
            "set": _Command("/set NAME VALUE", "change a setting, as in /set temperature 0.7", self.set),
            "load": _Command("/load FILE.json", "take up a conversation that was saved", self.load),
            "undo": _Command("/undo", "take back the last picture, or question with its answer", self.undo),
            "save": _Command("/save FILE", "save it with its pictures: .md to read, .json to take up again", self.save),
            "help": _Command("/help", "list the commands", self.help),
            "exit": _Command("", "", self.quit),
            "quit": _Command("/quit", "leave; so do /exit and the end of input, Ctrl-D", self.quit),
        }
        if history is not None:
            self._take_up(history.history)

    def clear(self, _: str) -> None:
        """Forget the conversation, but for its system prompt."""
        self._talk, self._waiting, self.is_saved = [], [], True
        self._notes.say("a new conversation")

    def system(self, words: str) -> None:
        """Say how to answer from now on."""
        self._shape = replace(self._shape, history=tasks.system_turns(words))

    def set(self, words: str) -> None:
        """Change how words or pictures are chosen; of words where both have a setting, image_… is that of pictures."""
        name, _, value = words.partition(" ")
        values: dict[str, Any] = {**asdict(self._image), **asdict(self._shape.text)}
        values |= {f"image_{key}": each for key, each in asdict(self._image).items() if key != "image_guidance"}
        del values["json_schema"]
        if name not in values or not value:
            raise UsageError("/set takes a NAME and a VALUE", f"names are {', '.join(sorted(values))}")
        kinds = {"max_thought_tokens": int, "negative_prompt": str, "ratio": str}
        kind = kinds.get(name.removeprefix("image_")) or type(values[name])
        try:
            given: Any = kind(value.strip())
        except ValueError:  # which is how int and float refuse
            raise UsageError(f"{name} {value} is not a number", f"it is {values[name]} now") from None
        own = name.removeprefix("image_") if name != "image_guidance" else name
        if own in asdict(self._image) and (own != name or name not in asdict(self._shape.text)):
            self._image = replace(self._image, **{own: given})
        else:
            self._shape = replace(self._shape, text=replace(self._shape.text, **{name: given}))

    def load(self, path: str) -> None:
        """Take up a conversation from a file of messages."""
        if not path:
            raise UsageError("no file to load", "name one, as in /load talk.json")
        messages = read_messages(_as_path(path))
        if not messages.history:
            raise UsageError(f"{path} has no conversation in it", "/save FILE.json writes one")
        self._take_up(messages.history)
        self._history = None  # which it no longer belongs to

    def _take_up(self, turns: Sequence[Turn]) -> None:
        if turns and turns[0].role == "system":
            self._shape = replace(self._shape, history=(turns[0],))
        self._talk = [turn for turn in turns if turn.role != "system"]
        self._waiting, self.is_saved = [], True
        if self._talk:
            self._notes.say(f"{len(self._talk) // 2} earlier questions with their answers")

    def take(self, line: str) -> None:
        """Do what a line says.

        Raises:
            MmgenError: it cannot be done; the conversation is as it was, and can go on.
            KeyboardInterrupt: it was stopped; what was answered until then is part of the conversation.
        """
        if not line.startswith("/"):
            if line.strip():
                self.ask(line.strip())
            return
        name, rest = [*line[1:].split(maxsplit=1), "", ""][:2]
        command = self.commands.get(name)
        if command is None:
            raise UsageError(f"no command /{name}", "see /help; a space before the / makes the line a question")
        command.run(rest.strip())

    def ask(self, words: str) -> None:
        """Ask about the pictures that wait, and about all that was said."""
        given.check_prompt(words, "show it with /image")
        request = replace(
            self._shape,
            parts=insert_images(words, self._waiting),
            seed=self._next_seed(),
            history=(*self._shape.history, *self._talk),
        )
        answer = Lines(streamed=True)
        try:
            self._run("ask", Item(request, words), answer)
        except TooLongError as error:
            can_undo = self._talk or self._waiting
            hint = f"/undo: {self.commands['undo'].help}" if can_undo else error.hint
            raise MmgenError(error.message, hint) from error
        except KeyboardInterrupt:
            if answer.said:
                if not sys.stdout.isatty():  # where it is, Enter follows Ctrl-C
                    emit("\n")
                self._keep(request, answer.said)
            raise
        self._keep(request, answer.said)

    def show(self, path: str) -> None:
        """Open a picture for the next question."""
        if not path:
            raise UsageError("no picture to show", "name one, as in /image cat.png")
        image = show(_as_path(path))
        self._waiting.append(image)
        if self._notes.is_live:
            self._notes.say(f"{image.info[_TITLE]}, {image.width} x {image.height}")
            self._notes.picture(image, _SMALL)

    def look(self, _: str) -> None:
        """Look at the last picture."""
        image = self._last("look at")
        self._notes.say(image.info.get(_TITLE, "picture"))  # one that was loaded has none
        self._notes.picture(image)

    def _last(self, what_for: str) -> Image.Image:
        pictures = [part for turn in self._talk for part in turn.parts if not isinstance(part, str)] + self._waiting
        if not pictures:
            raise UsageError(f"no picture to {what_for}", "/image PATH or /draw PROMPT gives one")
        return pictures[-1]

    def draw(self, words: str) -> None:
        """Draw a picture, and show it."""
        if not words:
            raise UsageError("nothing to draw", "say what, as in /draw a snowman")
        self._draw("draw", tasks.draw(words, image=self._image, seed=self._next_seed()), words, words)

    def vary(self, words: str) -> None:
        """Draw the last picture anew or changed, and show it."""
        prompt = words or tasks.VARY
        request = tasks.vary(self._last("vary"), prompt, image=self._image, seed=self._next_seed())
        self._draw("vary", request, prompt, words or "variation")

    def undo(self, _: str) -> None:
        """Take back the last picture that waits or, where none does, the last question and its answer."""
        if self._waiting:
            self._notes.say(f"took back {self._waiting.pop().info.get(_TITLE, 'picture')}")
        elif self._talk:
            *self._talk, asked, _answer = self._talk
            words = folded(" ".join(part for part in asked.parts if isinstance(part, str)))
            n_pictures = sum(not isinstance(part, str) for part in asked.parts)
            pictures = f" and {n_pictures} picture{'s' * (n_pictures > 1)}" if n_pictures else ""
            self._notes.say(f'took back "{words}"{pictures}')
        else:
            raise UsageError("nothing to take back", "the conversation is at its beginning")

    def save(self, path: str) -> None:
        """Save the conversation. Files that this conversation saved before may be overwritten."""
        if not path:
            raise UsageError("no file to save to", "name one, as in /save story.md")
        talk = [*self._talk, *([Turn("user", tuple(self._waiting))] if self._waiting else [])]
        if not talk:
            raise UsageError("nothing to save yet", "ask something first")
        written = _save(_as_path(path), self._model.name, talk, self._own)
        self.is_saved = True
        self._notes.say("saved " + ", ".join(written))

    def help(self, _: str) -> None:
        """List the commands that the model is good for."""
        notes = Notes()  # it was asked for, so even if the rest is quiet
        lacking = {"draw", "vary"} - set(self._model.abilities.tasks)
        for name, command in self.commands.items():
            if name not in lacking and command.help:
                notes.say(f"{command.usage:<16}{command.help}")
        notes.say(f"{'Ctrl-C':<16}stop an answer, or a drawing")

    def quit(self, _: str) -> None:
        """End the conversation."""
        self.ended = True

    def _draw(self, command: str, request: Request, prompt: str, title: str) -> None:
        self._model.abilities.check(self._model.name, request.want, [request])
        check_writable(Path().absolute())
        path = naming.free_path(f"{naming.slug(title)}-{request.seed}")
        self._run(command, Item(request, prompt, output=path), PictureFiles())
        self._waiting.append(show(path, title))

    def _run(self, command: str, item: Item, writer: Writer) -> None:
        origin = Origin(command, self._model.name, self._model.revision)
        Job(origin, writer, self._notes, lambda _: self._model, Limits()).run([item], 1)

    def _keep(self, request: Request, answer: str) -> None:
        self._talk += [Turn("user", request.parts), Turn("assistant", (answer,) if answer else ())]
        self._waiting = []
        if self._history is not None and answer:
            file = self._history.path
            asked = [part if isinstance(part, str) else entry(part.info[_PATH], file) for part in request.parts]
            self._history = self._history.add(asked, answer, self._shape.system)
        self.is_saved = self._history is not None

    def _next_seed(self) -> int:
        seed = self._seed
        self._seed = (seed + 1) % (MAX_SEED + 1)
        return seed


def show(source: str, title: str = "") -> Image.Image:
    """Open a picture, a file or a web address, and give it its title."""
    image = open_image(source)
    image.info[_TITLE], image.info[_PATH] = title or source, source
    return image


def _as_path(typed: str) -> str:
    """Take a path as it is or, if there is none, as a shell would: a terminal quotes what is dropped onto it."""
    if os.path.lexists(typed):
        return typed
    try:
        words: Sequence[str] = shlex.split(typed)
    except ValueError:  # a lonely quote
        words = ()
    return os.path.expanduser(words[0] if len(words) == 1 else typed)  # noqa: PTH111 -- pathlib raises on ~nobody


def _save(path: str, model: str, talk: Sequence[Turn], own: set[str]) -> list[str]:
    """Save a conversation as Markdown or as messages, with its pictures as PNG beside it, and say what was written.

    Args:
        own: files that may be overwritten, to which those that are written are added.

    Raises:
        MmgenError: a file exists or cannot be written, or the name is of neither.
    """
    page = Path(path)
    if page.suffix.lower() not in (".md", ".markdown", ".json"):
        raise UsageError(
            f"{path} is not a name for Markdown or for messages", "end it in .md to read it, .json to take it up"
        )
    name = plain_name(model)
    blocks = [f"# A conversation with {name}"]
    pictures: dict[str, Image.Image] = {}
    for turn in talk:
        blocks.append(f"**{'You' if turn.role == 'user' else name}:**")
        for part in turn.parts:
            if isinstance(part, str):
                blocks.append(clean(part).strip())
                continue
            beside = page.with_name(f"{page.stem}-{len(pictures) + 1}.png")
            pictures[str(beside)] = part
            blocks.append(f"![{_plain(part.info.get(_TITLE, 'picture'))}]({link(Path(beside.name))})")
    for file in (path, *pictures):
        if file not in own and os.path.lexists(file):
            raise UsageError(f"{file} exists", "choose another name")
    check_writable(page.absolute().parent)
    for file, image in pictures.items():
        save_image(image, file)
        own.add(file)
    data = ("\n\n".join(filter(None, blocks)) + "\n").encode(errors="replace")
    if page.suffix.lower() == ".json":
        names = iter(pictures)
        data = written(
            [
                (turn.role, [part if isinstance(part, str) else entry(next(names), path) for part in turn.parts])
                for turn in talk
            ]
        )
    with whole_file(path) as opened:
        opened.write(data)
    own.add(path)
    return [path, *pictures]


def _plain(title: str) -> str:
    """Make words fit for a link's text (CommonMark 6.3)."""
    return " ".join("".join(f"\\{letter}" if letter in "\\[]" else letter for letter in clean(title)).split())
