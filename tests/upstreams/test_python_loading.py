"""Where Python functions come from, and what an operator is told where they cannot be offered."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import pytest

from haltline.upstreams.catalog import Catalog
from haltline.upstreams.model import NotSent, UpstreamError, UpstreamSpec
from haltline.upstreams.open import open_all, open_upstream, tool_defaults
from haltline.upstreams.python import PythonUpstream
from support.upstream_calls import Sent, closing, text_of

ONE = """
import haltline

@haltline.tool(price="0.01")
def hello(name: str) -> str:
    return f"hello {name}"
"""


@pytest.fixture
def trouble(tmp_path: Path) -> Callable[..., Any]:
    """What an operator reads of a file with this text, without the folder that it is in."""

    async def trouble(text: str | None, **settings: Any) -> str:
        path = tmp_path / "tools.py"
        if text is not None:
            path.write_text(dedent(text), encoding="utf-8")
        upstream = PythonUpstream(UpstreamSpec("t", **{"python": str(path), **settings}))
        with pytest.raises(NotSent) as caught:
            await upstream.list_tools()
        assert (caught.value.code, str(caught.value)) == ("upstream.starting_failed", "t does not start")
        sent = Sent()
        with pytest.raises(NotSent):
            await sent(upstream, "x")
        assert (sent.asked, upstream.declared) == (0, {})
        return str(caught.value.detail).replace(str(tmp_path), "…")

    return trouble


def marked(signature: str, *, declared: str = "", before: str = "") -> str:
    return f"import haltline\n{before}\n@haltline.tool{declared}\ndef f{signature}:\n    pass\n"


# Mistakes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "…/tools.py: cannot be read: No such file or directory"),
        ("x = 1\ndef f(:\n", "…/tools.py:2: SyntaxError: invalid syntax"),
        ("\n\nx = nowhere\n", "…/tools.py:3: NameError: name 'nowhere' is not defined"),
        ("import json\n\njson.loads('{')\n", "…/tools.py:3: JSONDecodeError: Expecting property name"),
        ("import sys\nsys.exit(2)\n", "…/tools.py:2: SystemExit: 2"),
        ("import not_here_at_all\n", "…/tools.py:1: ModuleNotFoundError: No module named 'not_here_at_all'"),
        ("def f(): pass\n", "…/tools.py: no function in it is marked with @haltline.tool"),
        (b"\xff".decode("latin-1") + "\0", "…/tools.py: "),
        (
            ONE + "\n@haltline.tool(name='hello')\ndef other() -> str:\n    return ''\n",
            "…/tools.py:8: a second tool named 'hello', after …/tools.py:4; rename one",
        ),
        (ONE + ONE.replace("import haltline", ""), "…/tools.py:10: a second tool named 'hello', after …/tools.py:4"),
        (marked("(x)"), "…/tools.py:3: f: parameter x needs an annotation"),
        (marked("(*x: int)"), "…/tools.py:3: f: parameter x: arguments come by name"),
        (marked("(**x: int)"), "…/tools.py:3: f: parameter x: arguments come by name"),
        (marked("(x: int, /)"), "…/tools.py:3: f: parameter x: arguments come by name"),
        (marked("(x: 'Nowhere')"), "…/tools.py:3: f: its annotations cannot be read: name 'Nowhere' is not defined"),
        (marked("(y: int, x: threading.Thread)", before="import threading"), "…/tools.py:3: f: parameter x: "),
        (marked("(x: Callable[[], int])", before="from typing import Callable"), "…/tools.py:3: f: parameter x: "),
        (marked("() -> bytes"), "…/tools.py:3: f: it returns bytes"),
        (marked("() -> threading.Thread", before="import threading"), "…/tools.py:3: f: what it returns: "),
        (marked("()", declared="(price=0.05)"), "…/tools.py:3: ValueError: price=0.05: must be text"),
        (marked("()", declared="(price='-1')"), "…/tools.py:3: ValueError: price='-1': must be text"),
        (marked("()", declared="(price={'argument': 3})"), "…/tools.py:3: ValueError: price={'argument': 3}: its keys"),
        (marked("()", declared="(price={'per_hour': '1'})"), "…/tools.py:3: price of f: per_hour: unknown key"),
        (marked("()", declared="(name='a b')"), "…/tools.py:3: ValueError: name='a b': a tool's name has"),
        (marked("()", declared="(side_effects='no')"), "…/tools.py:3: ValueError: side_effects='no': must be True"),
        (marked("()", declared="(timeout_s=0)"), "…/tools.py:3: ValueError: timeout_s=0: must be seconds"),
        (marked("()", declared="(timeout_s=True)"), "…/tools.py:3: ValueError: timeout_s=True: must be seconds"),
        (marked("()", declared="(destination=3)"), "…/tools.py:3: ValueError: destination=3: must be text"),
        (marked("()", declared="(destination='args.to')"), "…/tools.py:3: f: destination: args.to begins with none"),
        (marked("()", declared="(destination='..')"), "…/tools.py:3: f: destination: "),
        (marked("()", declared="(destination='')"), "…/tools.py:3: f: destination: "),
        (marked("()", declared="(prise='1')"), "…/tools.py:3: TypeError: tool() got an unexpected keyword argument 'prise'"),
        ("import haltline\nhaltline.tool(3)\n", "…/tools.py:2: TypeError: @haltline.tool marks functions; 3 is none"),
        ("import haltline\n@haltline.tool\nclass A: pass\n", "…/tools.py:2: TypeError: @haltline.tool marks functions; "),
        ("import haltline\n@haltline.tool\ndef f():\n    yield 1\n", "…/tools.py:2: TypeError: f yields, and a tool"),
        ("import haltline\nhaltline.tool(lambda: 1)\n", "…/tools.py:2: ValueError: name='<lambda>': a tool's name"),
    ],
)  # fmt: skip
async def test_a_mistake_is_said_with_file_and_line(trouble, text, says):
    assert (await trouble(text)).startswith(says)


async def test_a_module_beside_the_file_is_not_found_and_that_is_explained(trouble, tmp_path):
    (tmp_path / "prices.py").write_text("x = 1")
    said = await trouble("import prices")
    assert "tools.py:1: ModuleNotFoundError: No module named 'prices' (a file of tools stands alone" in said
    assert "haltline_tools_t" not in sys.modules


async def test_loading_that_does_not_end_is_given_up(trouble, tmp_path):
    text = "import threading\nthreading.Event().wait(30)\n"
    assert await trouble(text, connect_timeout_s=0.05) == "loading it has not ended within 0.15 s"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"python": "no_such_package.tools"}, "there is no module no_such_package where haltline is installed"),
        ({"python": "json.nothing"}, "there is no module json.nothing where"),
        ({"python": "json"}, "module json: no function in it is marked"),
        ({"python": None, "entry_point": "nobody"}, "no installed package offers 'nobody' in the group haltline.tools; offered:"),
    ],
)  # fmt: skip
async def test_what_is_not_installed_is_said(trouble, settings, says):
    assert (await trouble(None, **settings)).startswith(says)


@pytest.mark.promise("P5")
async def test_a_mistake_takes_down_its_own_upstream_alone(tmp_path):
    (tmp_path / "good.py").write_text(ONE)
    (tmp_path / "bad.py").write_text("raise RuntimeError('not today')")
    specs = [
        UpstreamSpec("good", python=str(tmp_path / "good.py")),
        UpstreamSpec("bad", python=str(tmp_path / "bad.py"), price="1"),
        UpstreamSpec("off", python=str(tmp_path / "nowhere.py"), disabled=True),
    ]
    upstreams = await open_all(specs)
    catalog = Catalog(upstreams)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(catalog.run)
        with anyio.fail_after(30):
            await catalog.tried()
        tasks.cancel_scope.cancel()
    states = {state.name: (state.kind, state.state, state.tools, state.detail) for state in catalog.states()}
    assert states["good"] == ("python", "ready", 1, None)
    assert states["bad"] == ("python", "down", 0, f"{tmp_path}/bad.py:1: RuntimeError: not today")
    defaults = tool_defaults(specs, upstreams)
    assert {name: list(one.declared) for name, one in defaults.items()} == {
        "good": ["good__hello"],
        "bad": [],
        "off": [],
    }
    assert (defaults["good"].declared["good__hello"].price, defaults["bad"].price) == ("0.01", "1")
    with pytest.raises(UpstreamError):
        await catalog.refresh("bad")


# Places to come from


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python looks into, as if what is in it were installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def package(folder: Path, name: str, entry_points: str = "") -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("")
    (folder / name / "parts.py").write_text(ONE)
    (folder / name / "tools.py").write_text(
        f"import haltline\nfrom {name}.parts import hello\nfrom {name}.parts import hello as again\n"
        "@haltline.tool\ndef bye() -> str:\n    return 'bye'\n"
        "several = [hello, bye, len]\n"
    )
    importlib.invalidate_caches()
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[haltline.tools]\n{entry_points}\n")


async def test_a_module_offers_what_it_marks_and_what_it_imports_marked(installed):
    package(installed, "acme_one")
    async with closing(open_upstream(UpstreamSpec("acme", python="acme_one.tools"))) as acme:
        assert sorted(one["name"] for one in await acme.list_tools()) == ["bye", "hello"]
        assert text_of(await Sent()(acme, "hello", {"name": "you"})) == "hello you"


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("acme_two.tools", ["bye", "hello"]),
        ("acme_two.tools:hello", ["hello"]),
        ("acme_two.tools:several", ["bye", "hello"]),
    ],
)
async def test_an_entry_point_names_a_module_a_function_or_a_list(installed, value, names):
    package(installed, "acme_two", f"shop = {value}")
    async with closing(open_upstream(UpstreamSpec("acme", entry_point="shop"))) as acme:
        assert sorted(one["name"] for one in await acme.list_tools()) == names


async def test_an_entry_point_that_names_nothing_or_that_two_packages_offer_is_said(installed, trouble):
    package(installed, "acme_three", "shop = acme_three.tools:nothing\nown = acme_three.tools")
    said = await trouble(None, python=None, entry_point="shop")
    assert said == "entry point shop: acme_three.tools:nothing has no nothing"
    package(installed, "acme_four", "own = acme_four.tools")
    said = await trouble(None, python=None, entry_point="own")
    assert said == "several installed packages offer 'own' in the group haltline.tools: acme_four, acme_three"


async def test_two_upstreams_of_one_file_have_each_its_own_copy_and_it_is_read_once(tmp_path):
    path = tmp_path / "counter.py"
    path.write_text(
        "import haltline\nseen = []\n@haltline.tool\ndef count() -> int:\n    seen.append(1)\n    return len(seen)\n"
    )
    one, two = (PythonUpstream(UpstreamSpec(name, python=str(path))) for name in ("one", "two"))
    assert [text_of(await Sent()(upstream, "count")) for upstream in (one, one, two)] == ["1", "2", "1"]
    path.write_text("raise RuntimeError")
    assert [tool["name"] for tool in await one.list_tools()] == ["count"]


async def test_it_is_loaded_beside_the_event_loop(tmp_path):
    path = tmp_path / "slow.py"
    path.write_text(
        f"import threading\nmain = threading.current_thread() is threading.main_thread()\n{ONE}\nassert not main"
    )
    assert threading.current_thread() is threading.main_thread()
    assert [tool["name"] for tool in await PythonUpstream(UpstreamSpec("s", python=str(path))).list_tools()] == [
        "hello"
    ]
