"""The table of docs/engines.md that says which engine can do what is what the engines declare."""

import re
from pathlib import Path

from manyhands.core.model import Capabilities
from manyhands.engines.dask.engine import DaskCluster
from manyhands.engines.inline import InlineEngine
from manyhands.engines.local.engine import LocalEngine
from manyhands.engines.parsl.cluster import ParslBase
from manyhands.engines.ray.engine import RayCluster
from manyhands.engines.threads import ThreadsEngine

ENGINES = {
    "local": LocalEngine.capabilities,
    "threads": ThreadsEngine.capabilities,
    "inline": InlineEngine.capabilities,
    "dask": DaskCluster.capabilities,
    "ray": RayCluster.capabilities,
    "parsl": ParslBase.capabilities,
}

DOCUMENT = Path(__file__).parents[2] / "docs" / "engines.md"


def make_table() -> str:
    """As it has to stand there; the sentences are those of `Capabilities`."""
    sentences = re.findall(
        r"^    (\w+)\n((?:        .+\n)+)", Capabilities.__doc__ or "", re.MULTILINE
    )
    names = " | ".join(f"`{name}`" for name in ENGINES)
    lines = [f"| | | {names} |", "|---|---|" + "---|" * len(ENGINES)]
    for name, text in sentences:
        sentence = " ".join(text.split()).rstrip(".")
        has = [
            "without a global lock" if _depends(name, engine) else _say(name, engine)
            for engine in ENGINES
        ]
        lines.append(f"| `{name}` | {sentence} | {' | '.join(has)} |")
    return "\n".join(lines)


def _depends(name: str, engine: str) -> bool:
    return (engine, name) == ("threads", "parallel")


def _say(name: str, engine: str) -> str:
    return "yes" if getattr(ENGINES[engine], name) else "no"


def test_the_table_is_what_the_engines_declare() -> None:
    begin, end = "<!-- capabilities: begin -->\n", "<!-- capabilities: end -->"
    _, _, rest = DOCUMENT.read_text().partition(begin)
    found, marker, _ = rest.partition(end)
    assert marker
    assert found.strip() == make_table(), f"it has to be\n\n{make_table()}"


def test_every_capability_has_its_line() -> None:
    assert set(re.findall(r"^\| `(\w+)`", make_table(), re.MULTILINE)) == set(
        Capabilities.__slots__
    )
