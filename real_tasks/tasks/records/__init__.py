"""What is kept of a run, and shown: tables, folder, MLflow, pages."""
