"""Questions, neutral texts, folds and samples."""
