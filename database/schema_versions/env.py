"""
Alembic's environment: runs the versions on the connection that `database.schema` hands over.

In an empty database that is one transaction. Beside running programs each version runs steps of its own (`database.online`), and
the connection, which commits each statement, writes down which versions are done.
"""

from alembic import context

connection = context.config.attributes["connection"]
online = context.config.attributes["online"]
context.configure(connection=connection, transactional_ddl=online is None)
with context.begin_transaction():
    if online is None:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('synapse schema'))")
    context.run_migrations()
