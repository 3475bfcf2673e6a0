"""`depo check-env` and `depo doctor`."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from depo.config.base import ConfigError, plain


def environment(options: argparse.Namespace) -> int:
    from depo.envs.check import check_env

    if options.cases is not None:
        return _cases(options)
    if options.catalogue is not None:
        options.misused("--catalogue goes with --cases")
    try:
        arguments = plain(json.loads(options.options, object_pairs_hook=_each_once))
    except json.JSONDecodeError as error:
        raise ConfigError(f"--options: not JSON ({error.msg} at {error.pos})") from None
    except ValueError as error:
        raise ConfigError(f"--options: {error}") from None
    if not isinstance(arguments, dict):
        raise ConfigError('--options: give an object, such as \'{"levels": ["GoToRedBall"]}\'')
    if options.compat is not None:
        arguments["compat"] = options.compat
    checks = check_env(options.env, arguments)
    if options.json:
        print(json.dumps([{"check": c.name, "ok": c.ok, "detail": c.detail} for c in checks]))
    else:
        for c in checks:
            print(f"{'ok  ' if c.ok else 'FAIL'} {c.name}" + (f": {c.detail}" if c.detail else ""))
    return 0 if all(c.ok for c in checks) else 1


def _cases(options: argparse.Namespace) -> int:
    from depo.envs.cases import REPLAYED, replay_cases

    if options.env not in REPLAYED:
        options.misused(f"--cases: {options.env} has no recorded cases; {' and '.join(REPLAYED)} have")
    if options.compat is None:
        options.misused("--cases needs --compat, the rules that the cases were recorded under")
    if options.catalogue is not None and options.env != "webshop":
        options.misused("--catalogue goes with webshop's cases")
    if options.options != "{}":
        options.misused("--options does not go with --cases; the cases tell what is played")
    report = replay_cases(options.env, options.cases, options.compat, options.catalogue)
    if options.json:
        print(json.dumps(dataclasses.asdict(report)))
    else:
        note = f"; {report.note}" if report.note else ""
        print(report.difference or f"{report.checked} cases agree{note}")
    return 1 if report.difference else 0


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose keys stand there once each."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for at, (key, _) in enumerate(pairs) if key in dict(pairs[:at]))
        raise ValueError(f"key {twice!r} stands there twice; leave one out")
    return found


def doctor(options: argparse.Namespace) -> int:
    from depo.doctor import examine

    findings = examine()
    if options.json:
        print(json.dumps([{"what": f.what, "ok": f.ok, "detail": f.detail} for f in findings]))
    else:
        for f in findings:
            print(f"{'ok  ' if f.ok else 'MISS'} {f.what}: {f.detail}")
    return 0 if all(f.ok or f.optional for f in findings) else 1
