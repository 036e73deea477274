"""The persistent data of the server: videos and keys, in one SQLite file.

A change of the tables is a new file in `migrations/versions`; a server brings an older database to the newest form.
"""

import hashlib
import hmac
import secrets
import string
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import JSON, Connection, Engine, create_engine, delete, event, func, inspect, select, update
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from longtake.core.errors import InputError
from longtake.serve.errors import NotFoundError

DATABASE = "longtake.db"  # file name in the server's folder
UNFINISHED = ("queued", "in_progress")
Scope = Literal["watch", "direct", "create", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)  # each includes those before it
VideoStatus = Literal["queued", "in_progress", "completed", "failed"]


class Table(DeclarativeBase):
    """Base of all tables; `n` numbers the rows in order of insertion."""

    n: Mapped[int] = mapped_column(primary_key=True)


class VideoRow(Table):
    """A requested video and its state."""

    __tablename__ = "videos"

    id: Mapped[str] = mapped_column(unique=True)
    session_id: Mapped[str | None]
    owner: Mapped[str | None] = mapped_column(index=True)  # id of the key that requested it
    prompt: Mapped[str]
    model: Mapped[str]
    seconds: Mapped[str]  # as OpenAI writes it: a number in a string
    size: Mapped[str]
    seed: Mapped[int]
    status: Mapped[str] = mapped_column(default="queued", index=True)
    progress: Mapped[int] = mapped_column(default=0)  # percent
    error: Mapped[str | None]
    created_at: Mapped[int]  # seconds since 1970
    completed_at: Mapped[int | None]
    expires_at: Mapped[int | None]
    remixed_from: Mapped[str | None]
    request: Mapped[dict[str, Any]] = mapped_column(JSON)  # the `JobPlan`


class KeyRow(Table):
    """A key, without its secret."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    salt: Mapped[bytes]
    digest: Mapped[bytes]  # sha256 of salt and secret: the secret is random and long, so a slow hash is not needed
    created_at: Mapped[int]
    takes: Mapped[int]  # limit of unfinished live takes, and of unfinished videos
    requests_per_minute: Mapped[int]
    revoked_at: Mapped[int | None]
    scope: Mapped[str] = mapped_column(server_default="create")  # one of SCOPES

    def allows(self, scope: Scope) -> bool:
        """Whether the key's scope includes another one."""
        return SCOPES.index(scope) <= SCOPES.index(cast("Scope", self.scope))


class Store:
    """The database, with short transactions from any thread. Returned rows are copies: changes go through methods.

    Raises:
        InputError: the file cannot be opened, or another version of longtake wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._engine = _opened(path)
        self._begin = sessionmaker(self._engine, expire_on_commit=False).begin

    def close(self) -> None:
        self._engine.dispose()

    # Videos.

    def add_video(self, row: VideoRow) -> VideoRow:
        with self._begin() as session:
            session.add(row)
        return row

    def video(self, video_id: str, owner: str | None = None) -> VideoRow:
        """Return a video.

        Args:
            video_id: its id.
            owner: id of the key that must own it; None: any key.

        Raises:
            NotFoundError: there is no such video.
        """
        query = select(VideoRow).where(VideoRow.id == video_id)
        if owner is not None:
            query = query.where(VideoRow.owner == owner)
        with self._begin() as session:
            row = session.scalar(query)
        if row is None:
            raise NotFoundError(f"there is no video {video_id}")
        return row

    def videos(
        self, *, after: str | None = None, limit: int = 20, newest_first: bool = True, owner: str | None = None
    ) -> Sequence[VideoRow]:
        """Return a page of at most `limit` videos that follow the video `after`.

        Raises:
            NotFoundError: there is no video `after`.
        """
        order = VideoRow.n.desc() if newest_first else VideoRow.n.asc()
        query = select(VideoRow).order_by(order).limit(limit)
        if owner is not None:
            query = query.where(VideoRow.owner == owner)
        if after is not None:
            n = self.video(after, owner).n
            query = query.where(VideoRow.n < n if newest_first else VideoRow.n > n)
        with self._begin() as session:
            return session.scalars(query).all()

    def unfinished_videos(self, owner: str | None = None) -> Sequence[VideoRow]:
        """Return the videos that are queued or in progress, oldest first."""
        query = select(VideoRow).where(VideoRow.status.in_(UNFINISHED)).order_by(VideoRow.n)
        if owner is not None:
            query = query.where(VideoRow.owner == owner)
        with self._begin() as session:
            return session.scalars(query).all()

    def finished_videos(self) -> Sequence[VideoRow]:
        """Return the videos that are completed or have failed."""
        with self._begin() as session:
            return session.scalars(select(VideoRow).where(VideoRow.status.not_in(UNFINISHED))).all()

    def update_video(self, video_id: str, **changes: Any) -> None:
        """Write changed columns; no effect if the video was deleted meanwhile."""
        with self._begin() as session:
            session.execute(update(VideoRow).where(VideoRow.id == video_id).values(**changes))

    def delete_video(self, video_id: str) -> None:
        with self._begin() as session:
            session.execute(delete(VideoRow).where(VideoRow.id == video_id))

    def drop_sessions(self) -> Sequence[str]:
        """Clear the session ids of all videos, and return them."""
        with self._begin() as session:
            known = session.scalars(select(VideoRow.session_id).where(VideoRow.session_id.is_not(None))).all()
            session.execute(update(VideoRow).values(session_id=None))
        return [session_id for session_id in known if session_id is not None]

    def num_videos(self) -> dict[str, int]:
        """Return the number of videos by state."""
        query = select(VideoRow.status, func.count()).group_by(VideoRow.status)
        with self._begin() as session:
            return {row[0]: row[1] for row in session.execute(query)}

    # Keys.

    def create_key(
        self, name: str, *, scope: Scope = "create", takes: int = 2, requests_per_minute: int = 600
    ) -> tuple[KeyRow, str]:
        """Create a key; returns its row and its text "lt_<id>_<secret>", which is not stored.

        Args:
            name: whose it is.
            scope: "watch": read, and watch takes whose ids are known; "direct": also direct them; "create": also open
                takes and videos, upload and delete; "admin": also see and delete those of all keys, and the metrics.
            takes: limit of unfinished live takes, and of unfinished videos.
            requests_per_minute: limit of requests.

        Raises:
            InputError: a limit is not positive.
        """
        if takes < 1 or requests_per_minute < 1:
            raise InputError(f"a key's limits must be at least 1, got {takes} and {requests_per_minute}")
        secret, salt = secrets.token_urlsafe(32), secrets.token_bytes(16)
        row = KeyRow(
            id=random_id(8),
            name=name,
            salt=salt,
            digest=_digest(salt, secret),
            created_at=int(time.time()),
            takes=takes,
            requests_per_minute=requests_per_minute,
            scope=scope,
        )
        with self._begin() as session:
            session.add(row)
        return row, f"lt_{row.id}_{secret}"

    def check_key(self, text: str) -> KeyRow | None:
        """Return the key with this text; None if there is none or it has been revoked."""
        prefix, _, rest = text.partition("_")
        key_id, _, secret = rest.partition("_")
        if prefix != "lt":
            return None
        with self._begin() as session:
            row = session.scalar(select(KeyRow).where(KeyRow.id == key_id, KeyRow.revoked_at.is_(None)))
        if row is None or not hmac.compare_digest(row.digest, _digest(row.salt, secret)):
            return None
        return row

    def all_keys(self) -> Sequence[KeyRow]:
        with self._begin() as session:
            return session.scalars(select(KeyRow).order_by(KeyRow.n)).all()

    def revoke_key(self, key_id: str) -> None:
        """Revoke a key.

        Raises:
            NotFoundError: there is no such key, or it has been revoked.
        """
        change = update(KeyRow).where(KeyRow.id == key_id, KeyRow.revoked_at.is_(None))
        with self._begin() as session:
            if session.scalar(change.values(revoked_at=int(time.time())).returning(KeyRow.n)) is None:
                raise NotFoundError(f"there is no key {key_id} that could be revoked")


def random_id(length: int) -> str:
    """Return a random id of lowercase letters and digits that cannot be guessed."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(length))


def _digest(salt: bytes, secret: str) -> bytes:
    return hashlib.sha256(salt + secret.encode()).digest()


def _opened(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 10})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
        connection.execute("PRAGMA synchronous=NORMAL")  # safe with WAL

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with engine.begin() as connection:
            _migrate(connection)
    except (DatabaseError, OSError) as error:
        engine.dispose()
        raise InputError(f"cannot open {path} as the server's database: {error}; move it away to begin anew") from error
    except CommandError as error:  # a revision that is not among the migrations
        engine.dispose()
        raise InputError(
            f"{path} was written by a later version of longtake ({error}); use that version, or move the file away to "
            "begin anew"
        ) from error
    return engine


def _migrate(connection: Connection) -> None:
    """Bring the tables to the newest form, by the migrations in `migrations/versions`."""
    config = Config()
    config.set_main_option("script_location", "longtake.serve:migrations")
    config.attributes["connection"] = connection
    tables = inspect(connection).get_table_names()
    if "videos" in tables and "alembic_version" not in tables:  # tables of a version without migrations
        command.stamp(config, "0001")
    command.upgrade(config, "head")
