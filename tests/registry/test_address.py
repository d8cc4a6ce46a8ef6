"""Addresses of databases: what is one, and where a password may and may not go."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.address import VARIABLE, parse_address
from registry.binding import Binding, find_binding, write_binding
from registry.entities import Version
from registry.errors import DatabaseAddressInvalid, DriverMissing, RegistryError, RegistryPathError, WrongDatabase
from registry.layout import BINDING
from registry.lookup import Lookup
from registry.store import Registry

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://ada@db.example:5432/models", "postgresql://ada@db.example:5432/models"),
        ("postgres://ada@db.example/models", "postgresql://ada@db.example/models"),
        ("postgresql+psycopg://db.example/models", "postgresql://db.example/models"),
        (f"postgresql://ada:{SECRET}@db.example/models", "postgresql://ada@db.example/models"),
        (f"postgresql://ada:{SECRET}:x@db.example/models", "postgresql://ada@db.example/models"),
        (f"postgresql://db.example/models?password={SECRET}&sslmode=require", "postgresql://db.example/models?sslmode=require"),
        (f"postgresql://ada@db.example/models?password={SECRET}", "postgresql://ada@db.example/models"),
        (f"postgresql://db.example/m?sslpassword={SECRET}&user=ada", "postgresql://db.example/m?user=ada"),
        (f"postgresql://ada:{SECRET}%40x@one,two:5433/m", "postgresql://ada@one,two:5433/m"),
        ("postgresql://ada:@/m?host=/run/postgresql", "postgresql://ada@/m?host=/run/postgresql"),
    ],
)  # fmt: skip
def test_password_goes_to_the_driver_alone(given: str, shown: str) -> None:
    address = parse_address(given)
    assert address.url == shown
    assert address.has_password == (SECRET in given)
    assert (SECRET in address.secret) == (SECRET in given)
    assert SECRET not in repr(address) + str(address)


def _marked_as_secret() -> list[str]:
    import psycopg

    options = psycopg.pq.Conninfo.get_defaults()
    # 'D' hides an option from users; of those only SCRAM's keys are as good as a password
    return [o.keyword.decode() for o in options if o.dispchar == b"*" or o.keyword.startswith(b"scram_")]


@pytest.mark.parametrize("keyword", _marked_as_secret())
def test_nothing_that_the_driver_marks_as_secret_is_shown_or_noted_down(
    keyword: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = f"postgresql://ada@127.0.0.1:1/models?{keyword}={SECRET}&sslmode=disable"
    address = parse_address(given)
    assert address.url == "postgresql://ada@127.0.0.1:1/models?sslmode=disable"
    assert address.has_password
    assert SECRET in address.secret
    with pytest.raises(DatabaseAddressInvalid, match="with a password") as caught:
        Registry.open(tmp_path / "registry", database=given)
    assert SECRET not in str(caught.value)
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(RegistryError) as failed:
        Registry.open(tmp_path / "registry")
    assert SECRET not in str(failed.value) + str(failed.value.__cause__)
    write_binding(tmp_path, Binding(address, "a", made=True))
    assert SECRET not in (tmp_path / BINDING).read_text()


def test_the_driver_marks_secrets_as_it_did() -> None:
    assert {"password", "sslpassword"} <= {*_marked_as_secret()}


@pytest.mark.parametrize(
    "given",
    [
        "",
        "models",
        f"mysql://ada:{SECRET}@db/models",
        f"ada:{SECRET}@db/models",
        f"host=db password={SECRET}",
        f"postgresql://ada:{SECRET}%zz@db/models",
        f"postgresql://ada:{SECRET}@db/models?pasword={SECRET}",
        f"postgresql://ada:{SECRET}/{SECRET}@db/models",
        f"postgresql://ada:1/{SECRET}@db/models",
        f"postgresql://ada:1@{SECRET}@db/models",
        f"postgresql://ada:{SECRET}/1",
        f"postgresql://ada@db/models?%70assword={SECRET}",
        f"postgresql://[::1/m?password={SECRET}",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(given: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(DatabaseAddressInvalid) as caught:
        parse_address(given)
    assert caught.value.exit_status == 2
    assert caught.value.allowed
    assert caught.value.next_step
    assert SECRET not in str(caught.value) + caplog.text
    # nor may --debug show it, which prints what an error came from
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_address_that_may_be_noted_down_has_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"postgresql://ada:{SECRET}@db/models"
    with pytest.raises(DatabaseAddressInvalid, match="PGPASSWORD") as caught:
        Registry.open(tmp_path / "registry", database=address)
    assert SECRET not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv(VARIABLE, address)
    found = find_binding(tmp_path)
    assert found is not None
    assert found.address.secret == address
    monkeypatch.delenv(VARIABLE)
    (tmp_path / BINDING).write_text(json.dumps({"database": address, "registry": "a", "made": True}))
    with pytest.raises(RegistryPathError, match="holds a password") as wrong:
        Lookup(tmp_path)
    assert SECRET not in str(wrong.value)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"database": "postgresql://db/m"}', '{"database": 1, "registry": "a", "made": true}']
)
def test_damaged_memory_of_the_database_is_an_input_error(tmp_path: Path, content: str) -> None:
    (tmp_path / BINDING).write_text(content)
    for use in (Lookup, Registry.open):
        with pytest.raises(RegistryPathError, match=BINDING):
            use(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [BINDING]


def test_sqlite_registry_is_not_given_another_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Registry.open(tmp_path).close()
    with pytest.raises(WrongDatabase, match=r"registry\.db") as caught:
        Registry.open(tmp_path, database="postgresql://db/models")
    assert caught.value.exit_status == 2
    monkeypatch.setenv(VARIABLE, "postgresql://db/models")
    for use in (Lookup, Registry.open):
        with pytest.raises(WrongDatabase, match="unset TUNEWRIGHT_REGISTRY_DATABASE"):
            use(tmp_path)
    monkeypatch.setenv(VARIABLE, "")
    Lookup(tmp_path).close()
    (tmp_path / BINDING).write_text('{"database": "postgresql://db/m", "registry": "a", "made": true}')
    with pytest.raises(WrongDatabase, match="names another database"):
        Lookup(tmp_path)


def test_without_the_driver_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DriverMissing, match=r"\[postgres\]") as caught:
        Registry.open(tmp_path, database="postgresql://db/models")
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("text", ["a\0b", "half \ud83d", "x" * 129])
def test_text_that_a_database_would_not_keep_is_refused_by_both(registry: Registry, text: str) -> None:
    from registry.errors import ReferenceInvalid

    with pytest.raises(ReferenceInvalid, match="actor"):
        registry.promote("text2sql", "champion", actor=text)


@pytest.mark.parametrize("name", ["u" * 200, "half \udc80"])
def test_login_name_is_held_to_the_rules_of_a_given_actor(
    registry: Registry, add_base: Callable[..., Version], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from registry.errors import ReferenceInvalid

    version = add_base()
    monkeypatch.setenv("LOGNAME", name)
    acts: list[Callable[[], object]] = [
        lambda: add_base("other", content="other"),
        lambda: registry.record_evaluation(version.digest, {"note": "x"}),
        lambda: registry.record_run("m", "s", 0, base_fingerprint="0" * 64, content_key=None, document={}),
    ]
    for act in acts:
        with pytest.raises(ReferenceInvalid, match="actor"):
            act()
    with pytest.raises(ReferenceInvalid, match="base_fingerprint"):
        registry.record_run("m", "s", 0, base_fingerprint="0" * 65, content_key=None, document={}, actor="ada")
    assert len(registry.audit()) == 1
