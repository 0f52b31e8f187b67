"""Paths, artifacts, tables, SQL and the MLflow record. Knows neither torch nor Prefect."""
