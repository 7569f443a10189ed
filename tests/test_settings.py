"""haltline.yaml, the environment and the command line: which wins, what is refused, and where each problem is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from haltline.errors import ConfigError
from haltline.setup.settings import Settings, load_settings
from haltline_client.discover import data_folder

Load = Callable[..., Settings]
Refused = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, environ: Mapping[str, str] | None = None, **overrides: str) -> Settings:
        (tmp_path / "haltline.yaml").write_text(text, encoding="utf-8")
        return load_settings(tmp_path / "haltline.yaml", environ=environ or {}, overrides=overrides)

    return load


@pytest.fixture
def refused(load: Load, tmp_path: Path) -> Refused:
    """Every problem of a text, each without the folder that it is in."""

    def refused(text: str, environ: Mapping[str, str] | None = None, **overrides: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, environ, **overrides)
        assert caught.value.exit_code == 3
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return refused


# Where a setting comes from


def test_without_a_file_the_defaults_are_this_machine_s(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load_settings(environ={})
    assert settings.config_file is None
    assert (settings.agents.host, settings.agents.port) == ("127.0.0.1", 7400)
    assert (settings.control.host, settings.control.port) == ("127.0.0.1", 7401)
    assert (settings.data, settings.policies) == (tmp_path / "haltline-data", tmp_path / "policies")
    assert (settings.upstreams, settings.alerts.webhooks) == ((), ())
    assert (settings.drain_s, settings.grace_s, settings.checkpoint_to) == (10.0, 900.0, None)


def test_the_file_in_the_current_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("haltline.yaml").write_text("data: here")
    assert load_settings(environ={}).data == tmp_path / "here"


def test_haltline_config_names_another_file_and_the_command_line_another_still(tmp_path):
    (tmp_path / "a.yaml").write_text("data: a")
    (tmp_path / "b.yaml").write_text("data: b")
    environ = {"HALTLINE_CONFIG": str(tmp_path / "a.yaml")}
    assert load_settings(environ=environ).data == tmp_path / "a"
    assert load_settings(tmp_path / "b.yaml", environ=environ).data == tmp_path / "b"


@pytest.mark.parametrize("how", ["--config", "HALTLINE_CONFIG"])
def test_a_named_file_that_is_not_there_is_an_error(tmp_path, how):
    gone = tmp_path / "gone.yaml"
    with pytest.raises(ConfigError, match=rf"does not exist \({how}\).*haltline init"):
        load_settings(
            gone if how == "--config" else None,
            environ={"HALTLINE_CONFIG": str(gone)} if how == "HALTLINE_CONFIG" else {},
        )


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(load, tmp_path):
    text = "data: file\nagents: {listen: '127.0.0.1:1'}\ncontrol: {listen: '127.0.0.1:2'}\n"
    environ = {
        "HALTLINE_DATA": str(tmp_path / "environment"),
        "HALTLINE_AGENTS_LISTEN": "127.0.0.1:3",
        "HALTLINE_CONTROL_LISTEN": "127.0.0.1:4",
    }
    settings = load(text)
    assert (settings.data.name, settings.agents.port, settings.control.port) == ("file", 1, 2)
    settings = load(text, environ)
    assert (settings.data.name, settings.agents.port, settings.control.port) == ("environment", 3, 4)
    settings = load(text, environ, data="given", agents="[::1]:5", control="localhost:6")
    assert (settings.data.name, settings.agents.port, settings.control.port) == ("given", 5, 6)
    assert settings.agents.host == "::1"


def test_an_address_that_is_none_is_told_by_where_it_came_from(refused):
    said = refused("agents: {listen: 7400x}", {"HALTLINE_CONTROL_LISTEN": "nowhere"})
    assert said[0].startswith("HALTLINE_CONTROL_LISTEN: 'nowhere' is not HOST:PORT")
    assert said[1].startswith("haltline.yaml:1: agents.listen: '7400x' is not HOST:PORT")
    assert refused("", agents="1.2.3.4:99999")[0].startswith("--agents: ")


@pytest.mark.parametrize(
    "line",
    ["data: some/where", 'data: "some/where"', "data: 'some/where'   # here", "data: ${ROOM}/x", "data: /var/x y"],
)
def test_the_client_finds_the_same_data_folder_in_the_file(load, tmp_path, monkeypatch, line):
    monkeypatch.setenv("ROOM", "room")
    environ = {"ROOM": "room", "HALTLINE_CONFIG": str(tmp_path / "haltline.yaml")}
    settings = load(f"version: '1'\n{line}\n", environ)
    assert data_folder(environ, folder=tmp_path).path == settings.data


@pytest.mark.parametrize(
    "text", ["{data: x}", "data:\n  x", "data: ${X:-y}", "data: >\n  x", "data: $X/y", 'data: "a\\u0062"']
)
def test_a_data_line_that_the_client_would_read_otherwise_is_refused(refused, text):
    assert any(": data: " in problem for problem in refused(text, {"X": "x"}))


# What is wrong, and where


def test_every_problem_is_told_at_once_with_its_line_and_key(refused):
    said = refused(
        "version: 2\n"
        "datas: x\n"
        "agents:\n"
        "  lisen: 127.0.0.1:1\n"
        "control: {listen: 7401}\n"
        "limits: {drain_s: -1, grace_s: soon}\n"
        "upstreams:\n"
        "  time:\n"
        "    comand: x\n"
        "    args: [1]\n"
        "alerts: {webhooks: [{name: A B, url: nowhere}]}\n"
    )
    assert said == [
        'haltline.yaml:1: version: this haltline reads version "1" only',
        "haltline.yaml:2: datas: unknown key; did you mean 'data'?",
        "haltline.yaml:4: agents.lisen: unknown key; did you mean 'listen'?",
        "haltline.yaml:5: control.listen: must be text; put it in quotes",
        "haltline.yaml:6: limits.drain_s: must be greater than 0",
        "haltline.yaml:6: limits.grace_s: must be a valid number",
        "haltline.yaml:9: upstreams.time.comand: unknown key; did you mean 'command'?",
        "haltline.yaml:10: upstreams.time.args.0: must be text; put it in quotes",
        "haltline.yaml:11: alerts.webhooks.0.name: needs 1 to 40 of a-z, 0-9 and -",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "haltline.yaml:1: must be a mapping"),
        ("just words", "haltline.yaml:1: must be a mapping"),
        ("a: [1", "haltline.yaml:1: not valid YAML"),
        ("data: x\n\tdata: y", "a tab where YAML wants spaces"),
        ("data: x\ndata: y", "haltline.yaml:2: data: given twice (first on line 1)"),
        ("data: !!python/object x", "the tag"),
        ("upstreams: &a {}\nalerts: *a", "aliases"),
        ("data: x\n---\ndata: y", "another document"),
        ("upstreams: " + "{a: " * 5000 + "1" + "}" * 5000, "nested too deeply"),
        ("x: " + "y" * 1_048_576, "longer than"),
    ],
)
def test_what_is_no_settings_file_is_said_calmly(refused, text, says):
    assert any(says in problem for problem in refused(text))


def test_a_file_that_is_not_text_or_a_folder_is_said_calmly(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path, says in ((tmp_path / "binary", "not UTF-8"), (tmp_path, "cannot be read")):
        with pytest.raises(ConfigError, match=says):
            load_settings(path, environ={})


def test_an_empty_file_and_empty_blocks_are_the_defaults(load):
    assert load("").agents.port == 7400
    assert load("version: 1\nupstreams:\nalerts:\nlimits:\nagents:\n").drain_s == 10.0


# Reachable from elsewhere


def test_an_address_that_others_can_reach_needs_host_names_and_tls_or_a_stated_proxy(refused, load):
    said = refused("agents: {listen: '0.0.0.0:7400'}")
    assert [problem.split(": ")[1] for problem in said] == ["agents.allowed_hosts", "agents.listen"]
    assert "can be reached from other machines" in said[0]
    assert "behind_proxy: true" in said[1]
    assert len(refused("agents: {listen: '0.0.0.0:7400', behind_proxy: true}")) == 1
    assert len(refused("control: {listen: 'broker:7401', allowed_hosts: [broker.example.org]}")) == 1
    settings = load("agents: {listen: '[::]:7400', allowed_hosts: ['broker.example.org:443'], behind_proxy: true}")
    assert settings.agents.allowed_hosts == ("broker.example.org:443",)
    assert settings.agents.behind_proxy
    assert not settings.agents.loopback


def test_tls_files_must_be_there(refused, load, tmp_path):
    text = "agents: {listen: '0.0.0.0:1', allowed_hosts: [a.example.org], tls: {cert: c.pem, key: k.pem}}"
    assert [problem.split(": ")[1] for problem in refused(text)] == ["agents.tls.cert", "agents.tls.key"]
    (tmp_path / "c.pem").touch()
    (tmp_path / "k.pem").touch()
    assert load(text).agents.tls_cert == tmp_path / "c.pem"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "[::1]", "localhost"])
def test_loopback_needs_nothing_more(load, host):
    assert load("", agents=f"{host}:0").agents.loopback


@pytest.mark.parametrize(
    "entry",
    ["allowed_hosts: ['*']", "allowed_hosts: ['http://x']", "allowed_origins: ['*']", "allowed_origins: [x.org]"],
)
def test_allowed_names_are_exact(refused, entry):
    assert len(refused(f"agents: {{{entry}}}")) == 1


def test_both_listeners_on_one_port_are_refused_unless_the_system_chooses(refused, load):
    assert "each needs its own" in refused("control: {listen: '127.0.0.1:7400'}")[0]
    assert load("", agents="127.0.0.1:0", control="127.0.0.1:0").control.port == 0


# Upstreams

PASTED = """{
\t"mcpServers": {
\t\t"time": {"command": "uvx", "args": ["mcp-server-time"], "env": {"TZ": "UTC"}, "disabled": false,
\t\t         "autoApprove": ["get_current_time"], "alwaysAllow": [], "timeout": 60},
\t\t"Brave Search": {"type": "stdio", "command": "npx", "args": ["-y", "brave"], "cwd": "/srv"},
\t\t"payments": {"type": "http", "url": "https://payments.example.org/mcp", "headers": {"Authorization": "Bearer x"}},
\t\t"windsurf": {"serverUrl": "http://127.0.0.1:9/mcp"},
\t\t"later": {"command": "${NOT_SET}", "disabled": true}
\t}
}"""


def test_a_pasted_mcpservers_object_works_unchanged(load):
    specs = {spec.name: spec for spec in load(f"upstreams:\n {PASTED}\n".replace("\n}", "\n }")).upstreams}
    assert list(specs) == ["time", "brave-search", "payments", "windsurf", "later"]
    assert (specs["time"].command, specs["time"].args, specs["time"].env) == (
        "uvx",
        ("mcp-server-time",),
        {"TZ": "UTC"},
    )
    assert specs["time"].timeout_s == 60.0, "the host's own timeout is not ours"
    assert specs["brave-search"].cwd == "/srv"
    assert specs["payments"].headers == {"Authorization": "Bearer x"}
    assert specs["windsurf"].url == "http://127.0.0.1:9/mcp"
    assert [spec.name for spec in specs.values() if spec.disabled] == ["later"]


def test_a_problem_in_a_pasted_object_has_its_line(refused):
    broken = json.dumps({"mcpServers": {"a": {"command": "x", "arg": []}, "b": {"url": "nowhere"}}}, indent=1)
    said = refused("upstreams:\n " + broken.replace("\n", "\n "))
    assert said == [
        "haltline.yaml:6: upstreams.a.arg: unknown key; did you mean 'args'?",
        "haltline.yaml:9: upstreams.b.url: must begin with http:// or https:// and name a host",
    ]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{type: sse, url: 'http://127.0.0.1/sse'}", "replaced in 2025"),
        ("{}", "needs either command"),
        ("{command: x, url: 'http://127.0.0.1'}", "needs either command"),
        ("{type: http, command: x}", "does not go with command"),
        ("{type: carrier-pigeon, command: x}", "must be 'stdio'"),
        ("{command: x, headers: {a: b}}", "headers go with url and openapi only"),
        ("{url: 'http://127.0.0.1', env: {a: b}}", "go with command only"),
        ("{url: 'http://me:secret@127.0.0.1'}", "must not hold a user or password"),
        ("{url: 'file:///etc/passwd'}", "must begin with http"),
        ("{url: 'http://127.0.0.1:99999'}", "is not an address"),
        ("{command: x, python: tools.py}", "exactly one of them, but command and python are given"),
        ("{python: tools.py, entry_point: billing}", "exactly one of them, but python and entry_point are given"),
        ("{type: http, python: tools.py}", "type http does not go with python"),
        ("{type: stdio, entry_point: billing}", "type stdio does not go with entry_point"),
        ("{python: tools.py, env: {A: b}}", "go with command only"),
        ("{python: tools.py, headers: {A: b}}", "headers go with url and openapi only"),
        ("{python: tools.py, isolation: agent}", "isolation does not go with python: its functions run in the broker"),
        ("{python: ./tools}", "is neither a file that ends in .py nor the name of a module"),
        ("{python: ''}", "is neither a file that ends in .py nor the name of a module"),
        ("{entry_point: ''}", "must not be empty"),
        ("{command: x, price: 0.05}", "quoted amount"),
        ("{command: x, price: '-1'}", "quoted amount"),
        ("{command: x, price: 'NaN'}", "quoted amount"),
        ("{command: x, price: {argument: amount, fixed: '1'}}", "exactly one of fixed, argument, result, per_second"),
        ("{command: x, timeout_s: 0}", "greater than 0"),
        ("{command: x, timeout_s: .inf}", "less than or equal"),
        ("{command: x, max_concurrent: 0}", "greater than or equal to 1"),
        ("{command: x, isolation: none}", "must be 'session', 'agent' or 'shared'"),
        ("{command: x, prefix: 'a b'}", "letters, digits"),
        ("{command: x, disabled: 'yes'}", "must be true or false"),
        ("just-a-word", "must be a mapping"),
    ],
)
def test_an_upstream_that_cannot_work_is_refused_with_what_to_write(refused, entry, says):
    said = refused(f"upstreams:\n  one: {entry}\n")
    assert len(said) == 1
    assert says in said[0]
    assert said[0].startswith("haltline.yaml:2: upstreams.one")


@pytest.mark.parametrize(
    "names",
    [("pay", "pay"), ("Pay", "pay"), ("brave search", "brave_search"), ("mcp__a", "mcp-a")],
)
def test_two_upstreams_with_one_name_are_refused(refused, names):
    text = "upstreams:\n" + "".join(f"  {name}: {{command: x}}\n" for name in names)
    said = refused(text)
    assert said[0].startswith("haltline.yaml:3: ")
    assert "given twice" in said[0] or "a second upstream named" in said[0]


def test_python_functions_are_named_by_file_module_or_entry_point(load, tmp_path):
    text = (
        "upstreams:\n  billing: {python: ./tools/billing.py, price: '0.01', isolation: shared}\n"
        "  acme: {python: acme.tools}\n  shop: {entry_point: shop}\n  abs: {python: /srv/x.py}\n"
    )
    specs = {spec.name: spec for spec in load(text).upstreams}
    assert {spec.kind for spec in specs.values()} == {"python"}
    assert specs["billing"].python == str(tmp_path / "tools/billing.py")
    assert (specs["acme"].python, specs["shop"].entry_point, specs["abs"].python) == ("acme.tools", "shop", "/srv/x.py")


@pytest.mark.parametrize("name", ["'***'", "''", "'" + "x" * 33 + "'"])
def test_a_name_of_which_nothing_is_left_or_too_long_is_refused(refused, name):
    assert "needs 1 to 32" in refused(f"upstreams: {{{name}: {{command: x}}}}")[0]


# Secrets


@pytest.mark.promise("P9")
def test_references_are_filled_in_from_the_environment(load):
    text = (
        "upstreams:\n"
        "  a: {command: '${HOME_OF}/run', args: ['--key=${KEY}', '$${KEY}'], env: {K: '${env:KEY}', D: '${NONE:-dflt}'}}\n"
        "  b: {url: 'http://${HOST}/mcp', headers: {Authorization: 'Bearer ${KEY}'}}\n"
        "alerts: {webhooks: [{name: ops, url: 'https://x.example.org', secret: '${KEY}'}]}\n"
    )
    settings = load(text, {"KEY": "s3cret", "HOST": "127.0.0.1:9", "HOME_OF": "/opt"})
    a, b = settings.upstreams
    assert (a.command, a.args) == ("/opt/run", ("--key=s3cret", "${KEY}"))
    assert a.env == {"K": "s3cret", "D": "dflt"}
    assert (b.url, b.headers["Authorization"]) == ("http://127.0.0.1:9/mcp", "Bearer s3cret")
    assert settings.alerts.webhooks[0].secret == "s3cret"
    assert "s3cret" not in repr(settings.alerts)


@pytest.mark.promise("P9")
def test_a_variable_that_is_not_set_is_named_and_no_other_value_is_shown(refused):
    text = (
        "upstreams:\n  a: {command: x, env: {K: '${MISSING}-${PRESENT}'}}\n  b: {url: '${ELSEWHERE}'}\n"
        "  c: {command: x, args: ['${input:key}']}\n"
    )
    said = refused(text, {"PRESENT": "s3cret"})
    assert said[0] == "haltline.yaml:2: upstreams.a.env.K: the environment variable MISSING is not set"
    assert said[1] == "haltline.yaml:3: upstreams.b.url: the environment variable ELSEWHERE is not set"
    assert "${input:key} cannot be filled in here" in said[2]
    assert "s3cret" not in "".join(said)


@pytest.mark.promise("P9")
def test_secrets_may_lie_in_files(load, tmp_path):
    (tmp_path / "h").write_text("# theirs\nAuthorization: Bearer x:y\n\n")
    (tmp_path / "e").write_text("KEY=a=b\n")
    (tmp_path / "s").write_text("shared\n")
    settings = load(
        "upstreams:\n  a: {url: 'http://127.0.0.1', headers: {X: z}, headers_file: h}\n  b: {command: x, envFile: e}\n"
        "alerts: {webhooks: [{name: ops, url: 'https://x.example.org', secret_file: s}]}\n"
    )
    assert settings.upstreams[0].headers == {"Authorization": "Bearer x:y", "X": "z"}
    assert settings.upstreams[1].env == {"KEY": "a=b"}
    assert settings.alerts.webhooks[0].secret == "shared"


@pytest.mark.promise("P9")
def test_a_secret_s_file_that_cannot_be_used_is_named_and_not_quoted(refused, tmp_path):
    (tmp_path / "words").write_text("s3cret without a colon\n")
    (tmp_path / "empty").write_text("\n")
    said = refused(
        "upstreams:\n  a: {url: 'http://127.0.0.1', headers_file: words}\n  b: {command: x, env_file: gone}\n"
        "alerts: {webhooks: [{name: ops, url: 'https://x.example.org', secret_file: empty}]}\n"
    )
    assert [problem.split(": ")[1] for problem in said] == [
        "upstreams.a.headers_file",
        "upstreams.b.env_file",
        "alerts.webhooks.0.secret_file",
    ]
    assert "words:1: not of the form Name: value" in said[0]
    assert "s3cret" not in "".join(said)


def test_a_header_cannot_smuggle_another(refused):
    text = "upstreams: {a: {url: 'http://127.0.0.1', headers: {X: '${V}'}}}"
    assert "line break" in refused(text, {"V": "a\r\nHost: b"})[0]


def test_two_webhooks_with_one_name_and_two_secrets_for_one_are_refused(refused):
    hook = "{name: ops, url: 'https://x.example.org'}"
    assert "a second webhook" in refused(f"alerts: {{webhooks: [{hook}, {hook}]}}")[0]
    both = "{name: ops, url: 'https://x.example.org', secret: a, secret_file: b}"
    assert "not both" in refused(f"alerts: {{webhooks: [{both}]}}")[0]
