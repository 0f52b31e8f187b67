"""Thin Prefect tasks: read by reference, call one pure function, write, return a reference."""
