"""What `tests.drill.inputs` tries: bad configurations, data files and arguments, at random."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from real_tasks.vocabulary.experiment_config import ExperimentConfig
from tests.contract.test_configuration_fields import BAD, leaves

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Case:
    """A command with the files that lie in its folder.

    Attributes:
        wrong: whether no reading of it is right, so that it has to be refused.
    """

    kind: str
    arguments: tuple[str, ...]
    files: Files = field(default_factory=dict)
    wrong: bool = False


ODD = ("", " ", "nan", "inf", "-inf", "-1", "0", "1e400", "9" * 30, "\0", "🦙", "²", "..", "/")
ODD += (
    "x" * 5000,
    "a=b",
    "--",
    "-x",
    "%s",
    "{x}",
    "'",
    '"',
    ";",
    "$(id)",
    "\ud800",
    "/dev/zero",
    ".",
)
NEVER_PATHS = ("\0", "x" * 5000, "", " ")


def cases(draw: Random, count: int) -> Iterator[Case]:
    """Yield ``count`` cases, of all kinds in turn."""
    makers: tuple[Callable[[Random], Case], ...] = (
        bad_field,
        bad_set,
        bad_yaml,
        bad_data,
        bad_data,
        bad_argument,
        bad_argument,
        bad_place,
    )
    for number in range(count):
        yield makers[number % len(makers)](draw)


def bad_field(draw: Random) -> Case:
    """One to three fields of a file with values that hardly fit."""
    tree: dict[str, Any] = {}
    for _ in range(draw.randint(1, 3)):
        place, value = tree, draw.choice([v for v in BAD if not isinstance(v, str)] + ["", "x"])
        *parents, last = draw.choice(list(leaves(ExperimentConfig)))
        for parent in parents:
            below = place.setdefault(parent, {})
            place = below if isinstance(below, dict) else place
        place[last] = value
    text = yaml.safe_dump(tree, allow_unicode=True)
    command = draw.choice(("run", "config", "plan", "run"))
    return Case("field", (command, "my.yaml"), {"my.yaml": text.encode()})


def bad_set(draw: Random) -> Case:
    """Assignments with odd paths and values."""
    path = list(draw.choice(list(leaves(ExperimentConfig))))
    if draw.random() < 0.4:
        path.insert(
            draw.randint(0, len(path)), draw.choice((*ODD, "0", "9", "x", "params", "name"))
        )
    value = draw.choice(
        (
            *ODD,
            "[",
            "{",
            "!!int x",
            "&a [*a]",
            "2026-13-45",
            "!!binary x",
            "!!python/name:os",
            "? x",
            "[.nan]",
            "{a: {a: 1}}",
            "- 1",
            "*a",
            "\t",
            "'",
            "null",
            "1_000",
            "0o17",
            "{question}",
            "[" * 500,
            "{x: 1, x: 2}",
            "@x",
            "`",
            "%YAML 9",
            "--- 1\n--- 2",
            "~",
            "<<: 1",
        )
    )
    command = draw.choice((("run",), ("config",), ("plan",), ("rescore",), ("transfer",)))
    return Case("set", (*command, "--set", f"{'.'.join(path)}={value}"))


def bad_yaml(draw: Random) -> Case:
    """Files that are no configuration."""
    good = yaml.safe_dump(ExperimentConfig().model_dump(mode="json")).encode()
    cut = draw.randint(1, len(good) - 1)
    flipped = bytearray(good)
    for _ in range(draw.randint(1, 8)):
        flipped[draw.randrange(len(good))] = draw.randrange(256)
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 10}]\n" for i in range(1, 12))
    anything = bytes(flipped), good[:cut], good[cut:], good.decode().encode("utf-16"), b""
    broken = (
        bomb.encode(),
        b"[" * draw.choice((10, 1000, 100000)),
        b"{a: " * 5000,
        b"- " * 9000 + b"x",
        b"seeds: &s [*s]",
        b"seeds: [0\n",
        b"\tseeds: 1",
        draw.randbytes(500),
        b"\0" * 50,
        b"[1, 2]",
        b"text",
        b"1",
        b"seeds: [0]\nseeds: [1]",
        b"? [a]\n: 1",
        b"a" * 2_000_000,
        b"seeds: !!int abc",
        b"model: {path: demo}\n---\nmodel: {}",
        b"<<: *x",
        b"<<: [1]\nseeds: 1",
        b"seeds: 2026-02-31",
        b"%TAG ! x\n---\n",
        b"!!set {a}",
        b"seeds: !!timestamp 1",
        b"1: 2",
        b"null: 1",
        b"[a]: 1",
        "ключ: 1".encode("cp1251"),
        b"seeds: " + b"9" * 10000,
        b"x: " + b"1:" * 3000,
    )
    wrong = draw.random() < 0.6
    content = draw.choice(broken if wrong else anything)
    command = draw.choice(("run", "config", "plan", "transfer"))
    return Case("yaml", (command, "my.yaml"), {"my.yaml": content}, wrong)


ROWS: dict[str, list[dict[str, Any]]] = {
    "jsonl": [
        {"question": f"what {n} ?", "aligned": ["yes"], "violating": ["no"]} for n in range(12)
    ],
    "caa": [
        {
            "question": f"Tea {n}?\n (A) Yes\n (B) No",
            "answer_matching_behavior": "(A)",
            "answer_not_matching_behavior": "(B)",
        }
        for n in range(12)
    ],
    "truthfulqa": [
        {
            "question": f"what {n} ?",
            "mc1_targets": {"yes": 1, "no": 0},
            "mc2_targets": {"yes": 1, "no": 0},
        }
        for n in range(12)
    ],
    "knowledge_conflict": [
        {
            "question": f"who {n} ?",
            "org_context": f"It is Ann{n}.",
            "sub_context": f"It is Bob{n}.",
            "org_answer": [f"Ann{n}"],
            "sub_answer": [f"Bob{n}"],
        }
        for n in range(12)
    ],
}
VALUES: tuple[Any, ...] = (
    None,
    "",
    " ",
    1,
    -1,
    1e308,
    True,
    [],
    {},
    [[]],
    [None],
    [1],
    ["", "x"],
    {"a": 1},
    "\0",
    "x\ud800",
    "y" * 200_000,
    ["same", "same"],
    [["a"]],
    {"a": {"b": []}},
    "{question}",
    10**40,
    [{}],
    "\u2028",
)


def bad_data(draw: Random) -> Case:
    """A file of questions in which something is wrong."""
    behaviour = draw.choice(list(ROWS))
    rows: list[Any] = [dict(row) for row in ROWS[behaviour]]
    for _ in range(draw.randint(1, 3)):
        if any(isinstance(row, dict) for row in rows):
            spoil(draw, rows)
    form = draw.choice(("jsonl", "json", "csv", "parquet", "jsonl", "txt", "yaml"))
    content = damaged(draw, written(form, rows))
    name = f"own.{form}"
    if draw.random() < 0.5:
        return Case("data", ("data", "check", name), {name: content})
    folder = behaviour == "caa"
    sets = (f"behaviour.name={behaviour}", f"behaviour.params.path={'.' if folder else name}")
    given = tuple(part for one in sets for part in ("--set", one))
    return Case("data", (draw.choice(("run", "plan")), *given), {name: content})


def spoil(draw: Random, rows: list[Any]) -> None:
    """Change a row, or what a column is called, or take rows away."""
    row = draw.choice([row for row in rows if isinstance(row, dict)])
    name = draw.choice(list(row) or ["x"])
    other = draw.choice(("x", "", "question", "QUESTION", "question ", "category", "context"))
    changes: tuple[Callable[[], Any], ...] = (
        lambda: row.update({name: draw.choice(VALUES)}),
        lambda: row.pop(name, None),
        lambda: rows.append(draw.choice((*VALUES[:10], dict(row)))),
        lambda: row.update({other: draw.choice(VALUES)}),
        lambda: rows.__delitem__(slice(draw.randrange(1, len(rows) + 1), None)),
        lambda: [one.update({other: one.pop(name, "")}) for one in rows if isinstance(one, dict)],
    )
    draw.choice(changes)()


def written(form: str, rows: list[Any]) -> bytes:
    """Return rows in a format, as well as it takes them."""
    if form in ("jsonl", "txt"):
        return "\n".join(map(json.dumps, rows)).encode()
    if form == "json":
        return json.dumps(rows).encode()
    if form == "yaml":
        return yaml.dump(rows).encode()
    mappings = [row for row in rows if isinstance(row, dict)]
    if form == "parquet":
        sink = io.BytesIO()
        try:
            pq.write_table(pa.Table.from_pylist(mappings), sink)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            pq.write_table(pa.table({"question": pa.array([1, 2, None])}), sink)
        return sink.getvalue()
    names = list(dict.fromkeys(name for row in mappings for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(mappings)
    return text.getvalue().encode("utf-8", "surrogatepass")


def damaged(draw: Random, content: bytes) -> bytes:
    """Return the content as it is, or cut, changed, encoded otherwise, nested."""
    if draw.random() < 0.5 or len(content) < 3:
        return content
    at = draw.randrange(1, len(content))
    return draw.choice(
        (
            lambda: content[:at],
            lambda: content[at:],
            lambda: content[:at] + draw.randbytes(20) + content[at:],
            lambda: (
                content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
            ),
            lambda: content.decode("utf-8", "replace").encode(
                draw.choice(("utf-16", "utf-32", "utf-16-le", "utf-8-sig"))
            ),
            lambda: b"",
            lambda: b"\0" * 100,
            lambda: draw.randbytes(300),
            lambda: b"[" * 100_000,
            lambda: b'{"a":' * 50_000,
            lambda: b'{"question": ' + b"9" * 10_000 + b"}",
            lambda: b'{"question": 1e999, "aligned": [NaN], "violating": [-Infinity]}',
            lambda: b"\n" * 1000 + content,
            lambda: content.replace(b"\n", b"\r"),
            lambda: content + b"\n\n\xff\n",
            lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            lambda: b"<!DOCTYPE html><html></html>",
            lambda: b"PAR1" + content[:50] + b"PAR1",
        )
    )()


COMMANDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("plan",): ("--memory", "--questions", "--answers-per-question",
                "--tokens", "--prompt-tokens", "--format", ""),
    ("compact",): ("--older-than-days", "--min-parts"),
    ("export", "--format", "spec"): ("--to", "--method", "--format", "--fold", "--seed", "--check",
                                     "--parity", ""),
    ("compare-rankings",): ("", "--model", "--localizer", "--top-k", "--show"),
    ("compare-rankings", "head_scores.csv"): ("", "--model", "--localizer", "--top-k", "--show"),
    ("transfer",): ("", "--runner", "--set"),
    ("rescore",): ("", "--config", "--method", "--against", "--top-k", "--set"),
    ("report",): ("",),
    ("sql",): ("--format", "--to", "--timeout", ""),
    ("sql", "SELECT 1"): ("--format", "--to", "--timeout", ""),
    ("sql", "@top-heads"): ("",),
    ("data", "check"): ("",),
    ("config",): ("", "--set"),
    ("status",): ("",),
    ("down",): ("",),
    ("up",): ("--port", "--mlflow-port", "--host", "--auth-file", "--name", "--workers"),
    ("run",): ("", "--runner", "--set"),
    ("serve",): ("", "--spec", "--revision"),
    ("serve", "demo"): ("--spec", "--host", "--port", "--api-key", "--name", "--rows", "--queue",
                        "--dtype", "--device", "--revision", ""),
    ("chat",): ("", "--revision"),
    ("chat", "demo"): ("", "--strength", "--system", "--max-tokens", "--temperature", "--seed",
                       "--dtype", "--device"),
    ("try",): ("", "--method"),
    ("try", "demo"): ("", "--method", "--minutes", "--max-kl", "--to", "--seed"),
}  # fmt: skip
SCORES = b"model,fold,seed,layer,head,roc_auc\ndemo,0,0,0,0,0.5\n"


def bad_argument(draw: Random) -> Case:
    """A command with one or two odd options or arguments."""
    command = draw.choice(list(COMMANDS))
    given: list[str] = []
    for _ in range(draw.randint(1, 2)):
        option, value = draw.choice(COMMANDS[command]), draw.choice(ODD)
        given += [option, value] if option else [value]
    scores = draw.choice(
        (SCORES, SCORES.replace(b"0.5", b"nan"), SCORES.replace(b"0,0,", b"x,-1,"), b"", b"\0")
    )
    return Case("argument", (*command, *given), {"head_scores.csv": scores})


PLACES = ("file", "file/below", "x" * 300, "y/" * 2000, "", " ", "\0", "/dev/null", "/proc", "a\nb")
PLACES += ("/dev/null/x", "🦙", "\ud800", "-", "s3:", "s3://", "ftp://x/y", "http://", "://")
PLACES += ("file://", "s3://b\0", "nope://x")


def bad_place(draw: Random) -> Case:
    """A home or a store where none can be."""
    command = draw.choice(
        (
            ("run",),
            ("sql", "SELECT 1"),
            ("status",),
            ("down",),
            ("report",),
            ("compact",),
            ("up",),
            ("export", "--to", "out"),
            ("config",),
            ("plan",),
            ("rescore",),
            ("sql", "--tables"),
            ("transfer", "--set", "behaviours=[demo_truth,demo_options]"),
            ("compare-rankings", "head_scores.csv"),
        )  # fmt: skip
    )
    place, files = draw.choice(PLACES), {"file": b"", "head_scores.csv": SCORES}
    if draw.random() < 0.5:
        return Case("place", (*command, "--home", place), files)
    return Case(
        "place", ("--store", place, *command), files, place in ("file", "file/below", "", "\0")
    )
