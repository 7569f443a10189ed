"""Finding the broker and a credential: what wins over what, and what is too unsafe to use."""

from __future__ import annotations

import json

import pytest

from haltline_client import SettingError, discover
from haltline_client.discover import AGENTS_URL, data_folder, discover_agent


@pytest.fixture
def here(tmp_path):
    """A current folder with nothing in it but a default data folder with a local credential."""
    _token(tmp_path / "haltline-data" / "local-operator.token", "hl_o_local")
    return tmp_path


def _token(file, text, mode=0o600):
    file.parent.mkdir(exist_ok=True)
    file.write_text(text + "\n")
    file.chmod(mode)
    return file


def _endpoints(folder, url):
    folder.mkdir(exist_ok=True)
    file = folder / "endpoints.json"
    file.write_text(json.dumps({"agents": "http://127.0.0.1:1/mcp", "control": url, "pid": 1}))
    file.chmod(0o600)
    return file


def test_with_nothing_said_the_default_url_and_the_local_credential_are_used(here):
    found = discover(environ={}, folder=here)
    assert (found.url, found.token, found.local) == ("http://127.0.0.1:7401", "hl_o_local", True)
    assert found.token_from.endswith("haltline-data/local-operator.token")


def test_the_url_is_the_option_then_the_environment_then_the_running_brokers_then_the_default(here):
    endpoints = _endpoints(here / "haltline-data", "http://127.0.0.1:9000")
    environ = {"HALTLINE_URL": "http://127.0.0.1:8000"}
    assert discover(url="http://127.0.0.1:1", environ=environ, folder=here).url_from == "--url"
    assert discover(environ=environ, folder=here).url_from == "HALTLINE_URL"
    found = discover(environ={}, folder=here)
    assert (found.url, found.url_from) == ("http://127.0.0.1:9000", str(endpoints))
    endpoints.unlink()
    assert discover(environ={}, folder=here).url_from == "the default"


def test_the_credential_is_the_option_then_the_environment_then_its_file_then_the_local_one(here):
    option = _token(here / "option", "hl_o_option")
    environ = {
        "HALTLINE_OPERATOR_TOKEN": " hl_o_env\n",
        "HALTLINE_OPERATOR_TOKEN_FILE": str(_token(here / "file", "hl_o_file")),
    }
    assert discover(token_file=str(option), environ=environ, folder=here).token == "hl_o_option"
    assert discover(environ=environ, folder=here).token == "hl_o_env"
    environ["HALTLINE_OPERATOR_TOKEN"] = ""
    found = discover(environ=environ, folder=here)
    assert (found.token, found.local) == ("hl_o_file", False)
    assert discover(environ={}, folder=here).token == "hl_o_local"


def test_the_data_folder_is_the_option_then_the_environment_then_the_configuration_then_the_default(tmp_path):
    config = tmp_path / "conf" / "haltline.yaml"
    config.parent.mkdir()
    config.write_text('listen: x\ndata: "state"   # here\n')
    environ = {"HALTLINE_DATA": "/e", "HALTLINE_CONFIG": str(config)}
    assert str(data_folder(environ, data="/o", folder=tmp_path).path) == "/o"
    assert str(data_folder(environ, folder=tmp_path).path) == "/e"
    assert data_folder({"HALTLINE_CONFIG": str(config)}, folder=tmp_path).path == config.parent / "state"
    assert data_folder({}, folder=config.parent).path == config.parent / "state"
    assert data_folder({}, folder=tmp_path).path == tmp_path / "haltline-data"


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("data: state", "state"),
        ("data: /var/lib/haltline", "/var/lib/haltline"),
        ("data:   'my state'  # x", "my state"),
        ("# data: state", "haltline-data"),
        ("  data: nested", "haltline-data"),
        ("data:", "haltline-data"),
    ],
)
def test_the_data_line_is_read_from_the_top_level_of_the_configuration(tmp_path, line, path):
    (tmp_path / "haltline.yaml").write_text(f"policies: policies\n{line}\nupstreams: {{}}\n")
    assert data_folder({}, folder=tmp_path).path == tmp_path / path


@pytest.mark.promise("P9")
@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602])
def test_a_credential_file_that_others_can_read_or_write_is_not_used(here, mode):
    file = _token(here / "open", "hl_o_open", mode)
    with pytest.raises(SettingError, match="chmod 600") as caught:
        discover(token_file=str(file), environ={}, folder=here)
    assert "hl_o_open" not in str(caught.value)


def test_a_missing_credential_says_where_it_was_looked_for_and_what_to_do(tmp_path):
    with pytest.raises(SettingError, match=r"(?s)HALTLINE_OPERATOR_TOKEN is not set and .*haltline serve") as caught:
        discover(environ={}, folder=tmp_path)
    assert str(tmp_path / "haltline-data" / "local-operator.token") in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", None])
def test_an_unusable_credential_file_is_named(here, content):
    file = here / "given"
    if content is not None:
        file.write_bytes(content)
        file.chmod(0o600)
    with pytest.raises(SettingError, match="given"):
        discover(environ={"HALTLINE_OPERATOR_TOKEN_FILE": str(file)}, folder=here)


@pytest.mark.promise("R21")
def test_the_local_credential_is_not_sent_to_another_machine(here):
    with pytest.raises(SettingError, match="not sent there"):
        discover(environ={"HALTLINE_URL": "https://broker.example:7401"}, folder=here)
    own = {"HALTLINE_URL": "https://broker.example:7401", "HALTLINE_OPERATOR_TOKEN": "hl_o_own"}
    assert discover(environ=own, folder=here).token == "hl_o_own"


def test_an_address_that_others_could_have_written_is_not_followed(here):
    _endpoints(here / "haltline-data", "http://127.0.0.1:9000").chmod(0o666)
    with pytest.raises(SettingError, match="another user"):
        discover(environ={"HALTLINE_OPERATOR_TOKEN": "hl_o_own"}, folder=here)


def test_a_broken_endpoints_file_is_an_error_that_names_it(here):
    _endpoints(here / "haltline-data", "x").write_text("{")
    with pytest.raises(SettingError, match=r"endpoints\.json"):
        discover(environ={}, folder=here)


def test_a_wrong_config_variable_is_told_but_not_to_who_needs_no_data_folder(here):
    environ = {"HALTLINE_CONFIG": str(here / "gone.yaml")}
    with pytest.raises(SettingError, match="HALTLINE_CONFIG"):
        discover(environ=environ, folder=here)
    both = environ | {"HALTLINE_OPERATOR_TOKEN": "hl_o_own", "HALTLINE_URL": "http://127.0.0.1:1"}
    assert discover(environ=both, folder=here).token == "hl_o_own"


@pytest.mark.promise("P9")
def test_a_connection_does_not_print_its_credential(here):
    assert "hl_o_local" not in repr(discover(environ={}, folder=here))


# an agent's


def test_an_agents_url_is_the_option_then_the_environment_then_the_running_brokers_then_the_default(here):
    endpoints = _endpoints(here / "haltline-data", "http://127.0.0.1:9000")
    environ = {"HALTLINE_TOKEN": " hl_a_x\n"}
    given = {**environ, "HALTLINE_URL": "http://127.0.0.1:8000/mcp"}
    assert discover_agent(url="http://127.0.0.1:1", environ=given, folder=here).url_from == "--url"
    assert discover_agent(environ=given, folder=here).url_from == "HALTLINE_URL"
    found = discover_agent(environ=environ, folder=here)
    assert (found.url, found.url_from) == ("http://127.0.0.1:1/mcp", str(endpoints))
    endpoints.unlink()
    assert discover_agent(environ=environ, folder=here)[:3] == (AGENTS_URL, "the default", "hl_a_x")


def test_an_agents_credential_is_the_option_then_the_environment_then_its_file_and_never_a_local_one(here):
    option = _token(here / "option", "hl_s_option")
    environ = {"HALTLINE_TOKEN": "hl_a_env", "HALTLINE_TOKEN_FILE": str(_token(here / "file", "hl_a_file"))}
    assert discover_agent(token_file=str(option), environ=environ, folder=here).token == "hl_s_option"
    assert discover_agent(environ=environ, folder=here).token == "hl_a_env"
    environ["HALTLINE_TOKEN"] = ""
    assert discover_agent(environ=environ, folder=here).token == "hl_a_file"
    assert "hl_a_file" not in repr(discover_agent(environ=environ, folder=here))
    with pytest.raises(SettingError, match="set HALTLINE_TOKEN or HALTLINE_TOKEN_FILE"):
        discover_agent(environ={"HALTLINE_OPERATOR_TOKEN": "hl_o_x"}, folder=here)


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_an_agents_credential_that_others_can_read_or_write_is_not_used(here, mode):
    file = _token(here / "open", "hl_a_open", mode)
    with pytest.raises(SettingError, match="the credential in .* is open to other users"):
        discover_agent(token_file=str(file), environ={}, folder=here)


def test_an_operators_credential_is_not_taken_for_an_agents(here):
    with pytest.raises(SettingError, match="an operator's credential"):
        discover_agent(environ={"HALTLINE_TOKEN": "hl_o_x"}, folder=here)
