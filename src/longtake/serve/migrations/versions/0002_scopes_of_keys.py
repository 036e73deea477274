"""Keys have a scope; those that exist may create."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("keys", sa.Column("scope", sa.String(), nullable=False, server_default="create"))
