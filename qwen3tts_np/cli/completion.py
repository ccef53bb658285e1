"""``qwen3tts-np completion``: a script that teaches a shell the commands and their options.

The scripts are made from the parsers that read the command line, so they know what it knows, and say nothing when
the shell is asked to complete free text. For the speakers and languages of a model they run this command again.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.config_file import read_model_config
from ..checkpoint.hub import cached, published_names
from ..errors import QwenTTSError
from ..text.prompt import supported_languages
from .options import Parser, new_parser
from .output import print_text

EXAMPLES = (
    "source <(qwen3tts-np completion bash)",
    "qwen3tts-np completion zsh > ~/.zfunc/_qwen3tts-np",
    "qwen3tts-np completion fish > ~/.config/fish/completions/qwen3tts-np.fish",
)
SHELLS = ("bash", "zsh", "fish")
OF_A_MODEL = {"speaker": "speakers", "language": "languages"}  # options whose values the model defines


@dataclass(frozen=True)
class Option:
    """An option, or a positional argument, which has no flags."""

    flags: tuple[str, ...]
    help: str
    takes_value: bool
    choices: tuple[str, ...]
    files: bool
    of_model: str = ""  # a value of OF_A_MODEL: the choices are those of the model on the command line


@dataclass(frozen=True)
class Command:
    """A command by its words: ("say",), ("voice", "create"), or () for the program."""

    words: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    positionals: tuple[Option, ...]
    commands: tuple[str, ...] = ()  # words that may stand in place of the first positional

    @property
    def flags(self) -> list[str]:
        return [flag for option in self.options for flag in option.flags]

    @property
    def suggestions(self) -> list[str]:
        """Words that can stand where no option does: subcommands, choices, names of models."""
        return [*self.commands, *(choice for positional in self.positionals for choice in positional.choices)]

    @property
    def files(self) -> bool:
        return any(positional.files for positional in self.positionals)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "completion",
        EXAMPLES,
        help="teach a shell to complete this program's arguments",
        description="Print a script for a shell. The first example is for the current session; add it to ~/.bashrc "
        "for all. The zsh file needs a folder of $fpath.",
    )
    parser.add_argument("shell", choices=SHELLS).required = False
    asked = parser.add_mutually_exclusive_group()
    for names in OF_A_MODEL.values():
        asked.add_argument(f"--{names}", type=Path, metavar="MODEL", help=f"print the {names} of a model that is here")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    model = args.speakers or args.languages
    if model is not None:
        for name in names_of(model, "speakers" if args.speakers else "languages"):
            print_text(name)
    elif args.shell is None:
        args.own_parser.error(f"name a shell: {', '.join(SHELLS)}")
    else:
        print({"bash": bash, "zsh": zsh, "fish": fish}[args.shell](args.parser))


def names_of(model: Path, what: str) -> list[str]:
    """The speakers or languages of a directory, or of a model that has been downloaded; [] where there is none."""
    folder = model if os.path.isdir(model) else cached(model.as_posix())
    if folder is None:
        return []
    try:
        talker = read_model_config(folder).talker_config
    except QwenTTSError:
        return []
    return sorted(talker.spk_id) if what == "speakers" else supported_languages(talker)


def tree(parser: argparse.ArgumentParser, words: tuple[str, ...] = (), help_: str = "") -> Iterator[Command]:
    """A parser and the parsers of its subcommands."""
    actions = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    options = tuple(map(_option, actions))
    commands = parser.commands if isinstance(parser, Parser) else {}
    flags, positionals = tuple(o for o in options if o.flags), tuple(o for o in options if not o.flags)
    yield Command(words, help_, flags, positionals, tuple(commands))
    for name, child in commands.items():
        yield from tree(child, (*words, name), child.description or "")
    for action in actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {str(choice.dest): choice.help or "" for choice in action._choices_actions}
            for name, child in action.choices.items():
                yield from tree(child, (*words, name), helps.get(name, ""))


def _option(action: argparse.Action) -> Option:
    choices = tuple(map(str, action.choices or ()))
    if action.metavar == "MODEL" and not action.option_strings:
        choices = tuple(published_names())
    files = action.type is Path or action.metavar in ("FILE", "CLIP", "AUDIO")
    of_model = "" if choices else OF_A_MODEL.get(action.dest, "")
    return Option(tuple(action.option_strings), _plain(action), action.nargs != 0, choices, files, of_model)


def _plain(action: argparse.Action) -> str:
    """The help of an argument, with what argparse would fill in."""
    return re.sub(r"%\((\w+)\)s", lambda name: str(getattr(action, name[1])), action.help or "").replace("%%", "%")


# --- bash -----------------------------------------------------------------------------------------

BASH = """# bash completion for {program}; made by '{program} completion bash'
_{name}_reply() {{
    local reply
    while IFS= read -r reply; do COMPREPLY+=("$reply"); done < <(compgen "$@" -- "$cur")
}}
_{name}_ask() {{
    local word IFS=$'\\n'
    for word in "${{COMP_WORDS[@]:2:COMP_CWORD - 2}}"; do
        word="${{word/#\\~/$HOME}}"
        [[ -d $word || $word == [!-]*/* ]] || continue
        _{name}_reply -W "$({program} completion "--$1" "$word" 2>/dev/null)"
        return
    done
}}
_{name}() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD - 1]}}" at= word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD - 1}}"; do
        case "$at:$word" in
{subcommands}
        esac
    done
    COMPREPLY=()
    case "$at:$prev" in
{values}
    esac
    case "$at:$cur" in
{words}
    esac
}}
complete -o filenames -F _{name} {program}"""


def bash(parser: argparse.ArgumentParser) -> str:
    commands = list(tree(parser))
    values, words = [], []
    for command in commands:
        at = " ".join(command.words)
        for option in command.options:
            if option.takes_value:
                patterns = "|".join(f"{_quoted(f'{at}:{flag}')}" for flag in option.flags)
                values.append(f"        {patterns}) {_bash_values(option)} return ;;")
        words.append(f"        {_quoted(f'{at}:-')}*) {_bash_reply(tuple(command.flags), False)} ;;")
        words.append(f"        {_quoted(f'{at}:')}*) {_bash_reply(tuple(command.suggestions), command.files)} ;;")
    subcommands = []
    for command in commands[1:]:
        before, at = " ".join(command.words[:-1]), " ".join(command.words)
        subcommands.append(f"            {_quoted(f'{before}:{command.words[-1]}')}) at={_quoted(at)} ;;")
    return BASH.format(
        program=parser.prog,
        name=_name(parser),
        subcommands="\n".join(subcommands),
        values="\n".join(values),
        words="\n".join(words),
    )


def _bash_values(option: Option) -> str:
    return f"_qwen3tts_np_ask {option.of_model};" if option.of_model else _bash_reply(option.choices, option.files)


def _bash_reply(words: tuple[str, ...], files: bool) -> str:
    asked = [*([f"-W {_quoted(' '.join(words))}"] if words else []), *(["-f"] if files else [])]
    return f"_qwen3tts_np_reply {' '.join(asked)};" if asked else ""


# --- zsh ------------------------------------------------------------------------------------------


ZSH = """#compdef {program}
# zsh completion for {program}; made by '{program} completion zsh'

_qwen3tts_np_models() {{
    _alternative 'names:name:({models})' 'directories:directory:_files -/'
}}
_{name}_ask() {{
    local word
    for word in $words; do
        word=${{word/#\\~/$HOME}}
        [[ -d $word || $word == [^-]*/* ]] || continue
        compadd -- ${{(f)"$({program} completion --$1 $word 2>/dev/null)"}}
        return
    done
}}

{functions}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _{name} "$@"
else
    compdef _{name} {program}
fi"""


def zsh(parser: argparse.ArgumentParser) -> str:
    commands = list(tree(parser))
    functions = "\n\n".join(_zsh_function(command, commands, _name(parser)) for command in commands)
    models = " ".join(published_names())
    return ZSH.format(program=parser.prog, name=_name(parser), models=models, functions=functions)


def _zsh_function(command: Command, commands: list[Command], program: str) -> str:
    name = "_".join([program, *command.words])
    children = [c for c in commands if c.words[:-1] == command.words and c.words]
    arguments = [_quoted(line) for option in command.options for line in _zsh_option(option)]
    if not children:
        arguments += [_quoted(f":{_zsh_text(p.help)}:{_zsh_values(p)}") for p in command.positionals]
        return f"_{name}() {{\n    _arguments -s {_lines(arguments)}\n}}"
    arguments += ["'1: :->command'", "'*:: :->arguments'"]
    described = [_quoted(f"{c.words[-1]}:{c.help}") for c in children]
    cases = "\n".join(f"            {c.words[-1]}) _{name}_{c.words[-1]} ;;" for c in children)
    return (
        f"_{name}() {{\n    local state line curcontext=$curcontext\n    local -a commands=({_lines(described)})\n"
        f"    _arguments -C {_lines(arguments)} && return\n"
        "    case $state in\n"
        f"        command) _describe command commands{'; _files' if command.files else ''} ;;\n"
        f"        arguments) case $words[1] in\n{cases}\n        esac ;;\n    esac\n}}"
    )


def _zsh_option(option: Option) -> Iterator[str]:
    for flag in option.flags:
        value = f":value:{_zsh_values(option)}" if option.takes_value else ""
        yield f"{flag}[{_zsh_text(option.help)}]{value}"


def _zsh_values(option: Option) -> str:
    if option.of_model:
        return f"{{_qwen3tts_np_ask {option.of_model}}}"
    if option.choices and option.files:
        return "_qwen3tts_np_models"
    if option.choices:
        return f"({' '.join(option.choices)})"
    return "_files" if option.files else " "


def _zsh_text(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text)


# --- fish -----------------------------------------------------------------------------------------

FISH = """# fish completion for {program}; made by '{program} completion fish'
function __{name}_ask
    for word in (commandline -opc)[3..]
        if test -d $word; or string match -qr '^[^-].*/' -- $word
            {program} completion --$argv[1] $word 2>/dev/null
            return
        end
    end
end
complete -c {program} -f"""


def fish(parser: argparse.ArgumentParser) -> str:
    lines = [FISH.format(program=parser.prog, name=_name(parser))]
    commands = list(tree(parser))
    for command in commands:
        children = [c for c in commands if c.words[:-1] == command.words and c.words]
        seen = [f"__fish_seen_subcommand_from {word}" for word in command.words]
        if children:
            seen.append(f"not __fish_seen_subcommand_from {' '.join(c.words[-1] for c in children)}")
        begin = f"complete -c {parser.prog} -n {_quoted('; and '.join(seen))}"
        lines += [f"{begin} -a {c.words[-1]} -d {_quoted(c.help)}" for c in children]
        lines += [f"{begin} {_fish_option(option)}" for option in command.options]
        if not children and command.suggestions:
            lines.append(f"{begin} -a {_quoted(' '.join(command.suggestions))}")
        if command.files:
            lines.append(f"{begin} -F")
    return "\n".join(lines)


def _fish_option(option: Option) -> str:
    flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
    choices = f"(__qwen3tts_np_ask {option.of_model})" if option.of_model else " ".join(option.choices)
    values = f" -a {_quoted(choices)}" if choices else ""
    kind = "" if not option.takes_value else " -r -F" if option.files else " -x"
    return f"{flags}{kind}{values} -d {_quoted(option.help)}"


def _name(parser: argparse.ArgumentParser) -> str:
    return parser.prog.replace("-", "_")


def _lines(parts: list[str]) -> str:
    return " \\\n        ".join(parts)


def _quoted(text: str) -> str:
    """A word for any of the shells, in single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"
