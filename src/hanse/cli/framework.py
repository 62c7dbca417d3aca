"""Click with Hanse's manners.

Every command and group made here has `--home` and `--json`, an "Examples" section in its help, and
errors reported by `hanse.cli.failures`. Commands that wait for the network are coroutines.

    @command("offers", examples=(("Everything on offer", "hanse offers"),))
    @click.option("-m", "--model")
    @pass_session
    async def offers(session: Session, model: str | None) -> None: ...
"""

import asyncio
import difflib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, NoReturn, ParamSpec

import click

from hanse.cli.failures import is_json_asked, report_failure
from hanse.cli.session import KEY_DEFAULT, Session
from hanse.cli.settings import config_option

Example = tuple[str, str]
"""What it shows, and the command line."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
"""An option, or several."""

SILENCE_S = 1.5
"""How long a command may leave a person at a terminal without a word: most are done by then."""

P = ParamSpec("P")

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Documented(click.Command):
    """A command or group with the shared options and examples."""

    def __init__(
        self,
        *args: Any,
        examples: Sequence[Example] = (),
        has_settings: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("context_settings", _HELP)
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        if has_settings:
            self.params.append(config_option())
        self.params += [_home_option(), _json_option()]
        for param in self.params:
            if isinstance(param, click.Option) and param.show_default is None:
                param.show_default = _has_worthwhile_default(param)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples below the options."""
        with formatter.section("Examples"):
            for meaning, line in self.examples:
                formatter.write_text(f"# {meaning}")
                # not write_text: a command line must be copied as it is, never wrapped
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        super().format_epilog(ctx, formatter)


class HanseCommand(_Documented):
    """A command of Hanse."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; the session notes whom it acts for, which advice has to name."""
        session = ctx.ensure_object(Session)
        session.key = ctx.params.get("key") or KEY_DEFAULT
        signer = ctx.params.get("signer")
        session.signer = signer if isinstance(signer, str) else None
        return super().invoke(ctx)


class HanseGroup(_Documented, click.Group):
    """A group of commands; as the root it also reports failures and sets the exit code."""

    def command_of(
        self, name: str, *, examples: Sequence[Example], **extra: Any
    ) -> Callable[..., HanseCommand]:
        """Decorator: a command of this group."""

        def decorate(function: Callable[..., Any]) -> HanseCommand:
            made = command(name, examples=examples, **extra)(function)
            self.add_command(made)
            return made

        return decorate

    def group_of(
        self, name: str, *, examples: Sequence[Example], **extra: Any
    ) -> Callable[..., "HanseGroup"]:
        """Decorator: a group within this group."""

        def decorate(function: Callable[..., Any]) -> HanseGroup:
            made = group(name, examples=examples, **extra)(function)
            self.add_command(made)
            return made

        return decorate

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit with its code."""
        arguments = list(sys.argv[1:] if args is None else args)
        session = Session()
        extra |= {"standalone_mode": False, "obj": session}
        try:
            code = super().main(arguments, *rest, **extra)
        except (Exception, KeyboardInterrupt) as error:
            sys.exit(
                report_failure(
                    error,
                    as_json=is_json_asked(arguments),
                    home=session.home,
                    key=session.key,
                    signer=session.signer,
                )
            )
        sys.exit(code if isinstance(code, int) else 0)


class LazyGroup(HanseGroup):
    """A group whose commands are imported when they are used.

    Args:
        lazy: command name -> ("module:attribute", one line of help). A test holds the lines equal
            to what the commands say of themselves.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the table's order."""
        return [*self.lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command), f"{module}:{attribute} is no command"
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; an unknown name is answered with the nearest one of the table."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.lazy.items()])


def command(name: str, *, examples: Sequence[Example], **extra: Any) -> Callable[..., HanseCommand]:
    """Decorator: a command; a coroutine function is run to its end."""

    def decorate(function: Callable[..., Any]) -> HanseCommand:
        made = click.command(name, cls=HanseCommand, examples=examples, **extra)(_to_sync(function))
        assert isinstance(made, HanseCommand)
        return made

    return decorate


def group(name: str, *, examples: Sequence[Example], **extra: Any) -> Callable[..., HanseGroup]:
    """Decorator: a group of commands."""

    def decorate(function: Callable[..., Any]) -> HanseGroup:
        made = click.group(name, cls=HanseGroup, examples=examples, **extra)(function)
        assert isinstance(made, HanseGroup)
        return made

    return decorate


def option_block(*options: Decorator) -> Decorator:
    """One decorator of several options, in the order in which help is to list them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def pass_session(
    function: Callable[Concatenate[Session, P], Any],
) -> Callable[P, Any]:
    """Decorator: give the function this invocation's Session as its first argument."""
    if inspect.iscoroutinefunction(function):

        async def passed_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            return await function(_get_session(), *args, **kwargs)

        return functools.update_wrapper(passed_async, function)

    def passed(*args: P.args, **kwargs: P.kwargs) -> Any:
        return function(_get_session(), *args, **kwargs)

    return functools.update_wrapper(passed, function)


def _get_session() -> Session:
    return click.get_current_context().ensure_object(Session)


def _to_sync(function: Callable[..., Any]) -> Callable[..., Any]:
    if not inspect.iscoroutinefunction(function):
        return function

    def run(*args: Any, **kwargs: Any) -> Any:
        work = _break_silence(click.get_current_context(), function(*args, **kwargs))
        import uvloop

        # the runner turns Ctrl-C into a cancellation, so that open things are closed, and then into
        # KeyboardInterrupt
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)

    return functools.update_wrapper(run, function)


async def _break_silence(context: click.Context, work: Coroutine[Any, Any, Any]) -> Any:
    """The work's result; a command that says nothing for so long says that it is at work."""
    text = f"{context.command_path} is at work; Ctrl-C ends it ..."
    output = context.ensure_object(Session).output
    note = asyncio.get_running_loop().call_later(SILENCE_S, output.note_silence, text)
    try:
        return await work
    finally:
        note.cancel()


def _has_worthwhile_default(option: click.Option) -> bool:
    """Whether help should show it: not one that the text names, nor what is merely off."""
    if "[default:" in (option.help or ""):
        return False
    if option.is_flag:
        return bool(option.secondary_opts)
    return isinstance(option.default, str | int | float) and option.default != ""


def _home_option() -> click.Option:
    def remember(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
        session = ctx.ensure_object(Session)
        if value is not None:
            session.home = value

    return click.Option(
        ["--home"],
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        expose_value=False,
        is_eager=True,
        callback=remember,
        help="Folder of network, keys, books and logs. [default: $HANSE_HOME or ./.hanse]",
    )


def _json_option() -> click.Option:
    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        session = ctx.ensure_object(Session)
        if value:
            session.output.as_json = True

    return click.Option(
        ["--json"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=remember,
        help="One JSON document on standard output; amounts in base units, as text.",
    )
