"""Runs a command as the command line does, without the command line."""

from __future__ import annotations

import argparse
import json

from miniscope_xr.tools.cli import copying
from miniscope_xr.tools.flash.commands import register
from miniscope_xr.tools.flash.disks import find as disks


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        """What a failed assertion shows."""
        return f"<exit code {self.code}: {self.err.strip()[-600:]}>"

    @property
    def json(self) -> dict:
        return json.loads(self.out)


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="miniscope-xr")
    commands = root.add_subparsers(dest="command", required=True)
    register(commands)
    copying.register(commands)
    return root


def card_id(path) -> str:
    return disks.identify(str(path)).card_id


class Tool:
    """Calls commands; ``tool("prepare", card, "gain=2")`` fills in the flags that every test needs."""

    def __init__(self, capsys, backups) -> None:
        self.capsys, self.backups = capsys, backups

    def __call__(self, verb, card, *words, yes=True) -> Result:
        flags = ["--image", "--backup-dir", str(self.backups)]
        return self.raw(verb, card, *words, *flags, *(["--yes", "--card", card_id(card)] if yes else []))

    def raw(self, *words) -> Result:
        args = parser().parse_args([str(w) for w in words])
        self.capsys.readouterr()
        code = args.func(args)
        return Result(code, *self.capsys.readouterr())
