"""Copies of the whole database: backups, restores, moves between servers and between PostgreSQL's major versions."""
