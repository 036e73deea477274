"""What is remembered, and what is refused."""

import sqlite3
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine

from longtake.core.errors import InputError
from longtake.serve.errors import NotFoundError
from longtake.serve.store import SCOPES, Store, Table, VideoRow


def video(name: str, owner: str | None = None, **more: object) -> VideoRow:
    facts = {"prompt": "a", "model": "test", "seconds": "4", "size": "48x32", "seed": 1, "created_at": 1, "request": {}}
    return VideoRow(id=name, owner=owner, **(facts | more))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "deep" / "store.db")


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Store(tmp_path / "store.db")
    first.add_video(video("one", request={"opening": {"prompt": "ä"}}))
    first.update_video("one", status="in_progress", progress=40)
    first.close()
    row = Store(tmp_path / "store.db").video("one")
    assert (row.status, row.progress, row.request) == ("in_progress", 40, {"opening": {"prompt": "ä"}})


def test_pages_have_neither_gaps_nor_doubles(store: Store) -> None:
    names = [f"video {i}" for i in range(7)]
    for name in names:
        store.add_video(video(name))
    for newest_first, expected in ((True, names[::-1]), (False, names)):
        seen: list[str] = []
        while page := store.videos(after=seen[-1] if seen else None, limit=3, newest_first=newest_first):
            seen += [row.id for row in page]
        assert seen == expected
    with pytest.raises(NotFoundError, match="none"):
        store.videos(after="none")


def test_owners_see_their_own(store: Store) -> None:
    store.add_video(video("ours", "us"))
    store.add_video(video("theirs", "them", status="completed"))
    assert [row.id for row in store.videos(owner="us")] == ["ours"]
    assert [row.id for row in store.unfinished_videos()] == ["ours"]
    assert not store.unfinished_videos("them")
    assert store.num_videos() == {"queued": 1, "completed": 1}
    with pytest.raises(NotFoundError):
        store.video("theirs", "us")
    store.delete_video("theirs")
    store.update_video("theirs", status="failed")
    with pytest.raises(NotFoundError):
        store.video("theirs")


def test_a_key_opens_until_it_is_revoked_and_its_secret_is_not_kept(store: Store, tmp_path: Path) -> None:
    row, text = store.create_key("laptop", takes=3)
    found = store.check_key(text)
    assert found is not None
    assert (found.id, found.name, found.takes) == (row.id, "laptop", 3)
    for wrong in ("", "lt_", text[:-1], text + "x", text.replace(row.id, "other"), f"lt_{row.id}_", "sk-abc"):
        assert store.check_key(wrong) is None
    secret = text.split("_", 2)[2].encode()
    store.close()
    assert all(secret not in path.read_bytes() for path in (tmp_path / "deep").iterdir())
    store.revoke_key(row.id)
    assert store.check_key(text) is None
    assert [key.revoked_at is not None for key in store.all_keys()] == [True]
    with pytest.raises(NotFoundError, match="revoked"):
        store.revoke_key(row.id)
    with pytest.raises(InputError, match="at least 1"):
        store.create_key("none", takes=0)


def test_each_scope_includes_those_before_it(store: Store) -> None:
    for i, scope in enumerate(SCOPES):
        found = store.check_key(store.create_key("k", scope=scope)[1])
        assert found is not None
        assert [found.allows(other) for other in SCOPES] == [True] * (i + 1) + [False] * (3 - i)


def test_many_threads_write_at_the_same_time(store: Store) -> None:
    failures: list[Exception] = []

    def write(i: int) -> None:
        try:
            for k in range(10):
                store.add_video(video(f"{i} {k}"))
                store.update_video(f"{i} {k}", progress=k)
        except Exception as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert store.num_videos() == {"queued": 40}


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    Store(tmp_path / "later.db").close()
    with sqlite3.connect(tmp_path / "later.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(InputError, match=r"later version of longtake.*9999"):
        Store(tmp_path / "later.db")
    (tmp_path / "bad.db").write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="cannot open"):
        Store(tmp_path / "bad.db")


def test_migrations_give_the_tables_of_the_code(tmp_path: Path) -> None:
    Store(tmp_path / "new.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'new.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
    engine.dispose()


def test_a_database_from_before_there_were_migrations_is_opened_with_its_rows(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", "longtake.serve:migrations")
    engine = create_engine(f"sqlite:///{tmp_path / 'old.db'}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql("DROP TABLE alembic_version")
        connection.exec_driver_sql(
            "INSERT INTO keys (id, name, salt, digest, created_at, takes, requests_per_minute) "
            "VALUES ('k', 'ann', x'00', x'00', 1, 2, 600)"
        )
    engine.dispose()
    for _ in range(2):
        store = Store(tmp_path / "old.db")
        assert [(key.name, key.scope) for key in store.all_keys()] == [("ann", "create")]
        store.close()
