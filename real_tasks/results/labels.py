"""How numbers and comparisons are put in words."""

BASIS_LABELS = {"tuned": "each at its tuned setting", "matched_kl": "at equal KL"}


def basis_label(basis: str) -> str:
    """Return in words on what footing two methods are compared."""
    return BASIS_LABELS.get(basis, basis.replace("_", " "))


def duration(seconds: float) -> str:
    """Format a duration: 0.4 s, 12 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
