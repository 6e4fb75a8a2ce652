"""Standard error: lines for people, and on a terminal a live status below them.

Control codes go to terminals alone. Color follows NO_COLOR (no-color.org) and FORCE_COLOR (force-color.org), of which
the first wins; FORCE_COLOR without a terminal gives color and nothing that moves.
"""

from collections.abc import Mapping
from typing import Literal, TextIO, cast

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from searchr1.cli.ask.output import silence
from searchr1.printable import one_line, printable

_DUMB_TERMINALS = ("dumb", "unknown")
_REFRESHES_PER_S = 10
_SPINNER_CELLS = 4


class Screen:
    """Prints styled lines. Text of models and passages loses its control characters, so it can't steer the terminal."""

    def __init__(self, stderr: TextIO | None, environ: Mapping[str, str]) -> None:
        """Write to ``stderr``; None is what Python gives where standard error was closed before it began."""
        is_terminal = stderr is not None and stderr.isatty() and environ.get("TERM") not in _DUMB_TERMINALS
        self._console = Console(
            file=cast(TextIO, _Patient(stderr)),
            force_terminal=is_terminal,
            force_interactive=is_terminal,
            color_system=_color_system(is_terminal, environ),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        unicode = self._console.encoding.lower().startswith("utf")
        self._spinner = Spinner("dots" if unicode else "line", style="cyan")
        self._live: Live | None = None
        self._in_text = False

    def line(self, text: str, style: str) -> None:
        """Print one line, whatever ``text`` holds."""
        self._end_text()
        self._console.print(Text(one_line(text), style=style))

    def note(self, text: str) -> None:
        """Print a line of less weight."""
        self.line(text, "dim")

    def error(self, text: str) -> None:
        """Print a line that says what went wrong."""
        self.line(f"error: {text}", "bold red")

    def text(self, text: str, style: str) -> None:
        """Print a piece of text that streams; the next line begins below it."""
        self.hide_status()
        self._in_text = True
        self._console.print(Text(printable(text), style=style), end="")
        self._console.file.flush()

    def status(self, text: str) -> None:
        """Show what goes on now, below all lines, until the next call. Without a terminal, do nothing."""
        if not self._console.is_terminal:
            return
        self._end_text()
        label = Text(one_line(text), style="dim")
        label.truncate(self._console.width - _SPINNER_CELLS, overflow="ellipsis")
        self._spinner.update(text=label)
        if self._live is None:
            self._live = Live(
                self._spinner,
                console=self._console,
                refresh_per_second=_REFRESHES_PER_S,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def hide_status(self) -> None:
        """Clear the status, so that standard output may be written to the same terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.hide_status()
        self._end_text()

    def _end_text(self) -> None:
        if self._in_text:
            self._in_text = False
            self._console.print()


class _Patient:
    """A file for the console that drops everything once it can't be written: the answer goes elsewhere."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file
        self.encoding = (file.encoding if file is not None else None) or "utf-8"

    def fileno(self) -> int:
        """Return the descriptor, by which the console asks the terminal how wide it is."""
        if self._file is None:
            raise OSError("standard error is closed")
        return self._file.fileno()

    def write(self, text: str) -> int:
        """Write, or drop the text where that can't be done."""
        if self._file is not None:
            try:
                self._file.write(text)
            except OSError:
                self._give_up(self._file)
        return len(text)

    def flush(self) -> None:
        """Flush, where that can be done."""
        if self._file is not None:
            try:
                self._file.flush()
            except OSError:
                self._give_up(self._file)

    def _give_up(self, file: TextIO) -> None:
        self._file = None
        silence(file)


def _color_system(is_terminal: bool, environ: Mapping[str, str]) -> Literal["auto", "standard"] | None:
    if environ.get("NO_COLOR"):
        return None
    if is_terminal:
        return "auto"
    return "standard" if environ.get("FORCE_COLOR") else None
