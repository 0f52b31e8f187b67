"""The MLflow record and its model registry."""
