"""How commands are grouped and how their arguments are read, beyond what click does."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any

import click


def pairs(given: Sequence[str]) -> dict[str, str]:
    """Read NAME=VALUE arguments."""
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not (name and equals):
            raise click.UsageError(f"{each!r} is not NAME=VALUE", click.get_current_context())
        if name in found:
            raise click.UsageError(f"{name} is given twice", click.get_current_context())
        found[name] = value
    return found


class SeveralValues(click.Option):
    """An option that takes all values up to the next option: `--scope a b`. It can also be repeated."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, multiple=True, **kwargs)


class Command(click.Command):
    """Refuses an option of one value that is given twice, because the intended value is unclear."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = self._spread(args)
        if not ctx.resilient_parsing:
            self._refuse_repeated(ctx, args)
        return super().parse_args(ctx, args)

    def _spread(self, args: list[str]) -> list[str]:
        """Repeat the name of an option of several values before each of its values."""
        names = {name for each in self.params if isinstance(each, SeveralValues) for name in each.opts}
        spread: list[str] = []
        option = ""
        for arg in args:
            if arg.startswith("-"):
                option = arg if arg in names else ""
            elif option and spread[-1] != option:
                spread.append(option)
            spread.append(arg)
        return spread

    def _refuse_repeated(self, ctx: click.Context, args: list[str]) -> None:
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for option in given:
            once = isinstance(option, click.Option) and not option.multiple and not option.is_flag
            if once and given.count(option) > 1:
                raise click.UsageError(f"{option.opts[-1]} is given twice", ctx)


class Group(click.Group):
    """Lists commands in the order in which they were added, and names the right ones after a wrong one."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            near = get_close_matches(error.command_name, self.commands, cutoff=0.5)
            known = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(self.commands)}"
            raise click.UsageError(f"there is no command {error.command_name!r}; {known}", ctx) from None


class Root(Group):
    """The group of all commands, listed by section."""

    def __init__(self, *, sections: Mapping[str, Sequence[click.Command]], **attributes: Any) -> None:
        super().__init__(**attributes)
        self._sections = sections
        for each in chain.from_iterable(sections.values()):
            self.add_command(each)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        limit = formatter.width - 6 - max(map(len, self.commands))
        for title, commands in self._sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(each.name or "", each.get_short_help_str(limit)) for each in commands],
                    col_max=max(map(len, self.commands)),
                )
