"""Create the tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.create_table(
        "blocks",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.String(length=66), nullable=False),
        sa.Column("parent_hash", sa.String(length=66), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_table(
        "clock",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("paused_at", sa.BigInteger(), nullable=False),
        sa.Column("paused_until", sa.BigInteger(), nullable=False),
        sa.Column("paused_before", sa.BigInteger(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_table(
        "credits",
        sa.Column("account", sa.String(length=42), nullable=False),
        sa.Column("asset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("amount", sa.String(length=29), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "asset"),
    )
    op.create_table(
        "deployment",
        sa.Column("chain_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("market", sa.String(length=42), nullable=False),
        sa.Column("first_block", sa.BigInteger(), nullable=False),
        sa.Column("final_block", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("chain_id"),
    )
    op.create_table(
        "events",
        sa.Column("block_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("log_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("block_hash", sa.String(length=66), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("tx_hash", sa.String(length=66), nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("lease_id", sa.BigInteger(), nullable=True),
        sa.Column("operator", sa.BigInteger(), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("block_number", "log_index"),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index(
            "events_of_job", ["job_id", "block_number", "log_index"], unique=False
        )
        batch_op.create_index(
            "events_of_lease", ["lease_id", "block_number", "log_index"], unique=False
        )
        batch_op.create_index(
            "events_of_operator", ["operator", "block_number", "log_index"], unique=False
        )

    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("posted_at", sa.BigInteger(), nullable=False),
        sa.Column("requester", sa.String(length=42), nullable=False),
        sa.Column("spec_hash", sa.String(length=66), nullable=False),
        sa.Column("document", sa.String(length=80), nullable=False),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.Column("rounds", sa.BigInteger(), nullable=False),
        sa.Column("slots", sa.BigInteger(), nullable=False),
        sa.Column("segments", sa.BigInteger(), nullable=False),
        sa.Column("steps_per_segment", sa.BigInteger(), nullable=False),
        sa.Column("seed_block", sa.BigInteger(), nullable=False),
        sa.Column("escrow", sa.String(length=29), nullable=False),
        sa.Column("seed", sa.String(length=20), nullable=True),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("leases", sa.BigInteger(), nullable=False),
        sa.Column("active", sa.BigInteger(), nullable=False),
        sa.Column("cancelled", sa.Boolean(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_jobs_requester"), ["requester"], unique=False)

    op.create_table(
        "operators",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.String(length=42), nullable=False),
        sa.Column("payout", sa.String(length=42), nullable=False),
        sa.Column("proposed", sa.String(length=42), nullable=True),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("operators", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_operators_owner"), ["owner"], unique=False)

    op.create_table(
        "undo",
        sa.Column("block_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("table_name", sa.String(length=32), nullable=False),
        sa.Column("key", sa.JSON(), nullable=False),
        sa.Column("before", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("block_number", "number"),
    )
    op.create_table(
        "accounts",
        sa.Column("operator", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("asset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("staked", sa.String(length=29), nullable=False),
        sa.Column("locked", sa.String(length=29), nullable=False),
        sa.Column("earned", sa.String(length=29), nullable=False),
        sa.Column("leaving", sa.Boolean(), nullable=False),
        sa.Column("thawing", sa.String(length=29), nullable=False),
        sa.Column("thawed_at", sa.BigInteger(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["operator"], ["operators.id"], initially="DEFERRED", deferrable=True
        ),
        sa.PrimaryKeyConstraint("operator", "role", "asset"),
    )
    op.create_table(
        "leases",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("operator", sa.BigInteger(), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("price_bps", sa.BigInteger(), nullable=False),
        sa.Column("bounty", sa.String(length=29), nullable=False),
        sa.Column("claimed_at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=14), nullable=False),
        sa.Column("clock", sa.BigInteger(), nullable=False),
        sa.Column("auditor", sa.BigInteger(), nullable=True),
        sa.Column("root", sa.String(length=66), nullable=True),
        sa.Column("manifest", sa.String(length=66), nullable=True),
        sa.Column("segments", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("challenges", sa.BigInteger(), nullable=False),
        sa.Column("panels", sa.BigInteger(), nullable=False),
        sa.Column("rewarded", sa.String(length=29), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], initially="DEFERRED", deferrable=True),
        sa.ForeignKeyConstraint(
            ["operator"], ["operators.id"], initially="DEFERRED", deferrable=True
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("leases", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_leases_operator"), ["operator"], unique=False)
        batch_op.create_index(batch_op.f("ix_leases_status"), ["status"], unique=False)
        batch_op.create_index("leases_of_shard", ["job_id", "round", "first"], unique=False)

    op.create_table(
        "rounds",
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("taken", sa.String(length=78), nullable=False),
        sa.Column("attested", sa.String(length=78), nullable=False),
        sa.Column("abandoned", sa.String(length=78), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], initially="DEFERRED", deferrable=True),
        sa.PrimaryKeyConstraint("job_id", "number"),
    )
    op.create_table(
        "tickets",
        sa.Column("asset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("operator", sa.BigInteger(), nullable=False),
        sa.Column("leaving", sa.Boolean(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["operator"], ["operators.id"], initially="DEFERRED", deferrable=True
        ),
        sa.PrimaryKeyConstraint("asset", "id"),
    )
    with op.batch_alter_table("tickets", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tickets_operator"), ["operator"], unique=False)

    op.create_table(
        "workers",
        sa.Column("operator", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("worker", sa.String(length=42), nullable=False),
        sa.Column("authorized", sa.Boolean(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["operator"], ["operators.id"], initially="DEFERRED", deferrable=True
        ),
        sa.PrimaryKeyConstraint("operator", "worker"),
    )
    op.create_table(
        "challenges",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("lease_id", sa.BigInteger(), nullable=False),
        sa.Column("challenger", sa.String(length=42), nullable=False),
        sa.Column("by_auditor", sa.Boolean(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("bond", sa.String(length=29), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("clock", sa.BigInteger(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], initially="DEFERRED", deferrable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("challenges", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_challenges_lease_id"), ["lease_id"], unique=False)

    op.create_table(
        "panels",
        sa.Column("lease_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("deadline", sa.BigInteger(), nullable=False),
        sa.Column("withheld", sa.Boolean(), nullable=True),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], initially="DEFERRED", deferrable=True),
        sa.PrimaryKeyConstraint("lease_id", "number"),
    )
    op.create_table(
        "settlements",
        sa.Column("lease_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("asset", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.BigInteger(), nullable=False),
        sa.Column("auditor", sa.BigInteger(), nullable=False),
        sa.Column("shards", sa.BigInteger(), nullable=False),
        sa.Column("pay", sa.String(length=29), nullable=False),
        sa.Column("fee", sa.String(length=29), nullable=False),
        sa.Column("settled_at", sa.BigInteger(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], initially="DEFERRED", deferrable=True),
        sa.PrimaryKeyConstraint("lease_id"),
    )
    with op.batch_alter_table("settlements", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_settlements_settled_at"), ["settled_at"], unique=False)

    op.create_table(
        "seats",
        sa.Column("lease_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("panel", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("operator", sa.BigInteger(), nullable=False),
        sa.Column("available", sa.Boolean(), nullable=True),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["lease_id", "panel"],
            ["panels.lease_id", "panels.number"],
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["operator"], ["operators.id"], initially="DEFERRED", deferrable=True
        ),
        sa.PrimaryKeyConstraint("lease_id", "panel", "number"),
    )
    with op.batch_alter_table("seats", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_seats_operator"), ["operator"], unique=False)


def downgrade() -> None:
    """Bring the tables to the revision before."""
    with op.batch_alter_table("seats", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_seats_operator"))

    op.drop_table("seats")
    with op.batch_alter_table("settlements", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_settlements_settled_at"))

    op.drop_table("settlements")
    op.drop_table("panels")
    with op.batch_alter_table("challenges", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_challenges_lease_id"))

    op.drop_table("challenges")
    op.drop_table("workers")
    with op.batch_alter_table("tickets", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tickets_operator"))

    op.drop_table("tickets")
    op.drop_table("rounds")
    with op.batch_alter_table("leases", schema=None) as batch_op:
        batch_op.drop_index("leases_of_shard")
        batch_op.drop_index(batch_op.f("ix_leases_status"))
        batch_op.drop_index(batch_op.f("ix_leases_operator"))

    op.drop_table("leases")
    op.drop_table("accounts")
    op.drop_table("undo")
    with op.batch_alter_table("operators", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_operators_owner"))

    op.drop_table("operators")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_jobs_requester"))

    op.drop_table("jobs")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index("events_of_operator")
        batch_op.drop_index("events_of_lease")
        batch_op.drop_index("events_of_job")

    op.drop_table("events")
    op.drop_table("deployment")
    op.drop_table("credits")
    op.drop_table("clock")
    op.drop_table("blocks")
