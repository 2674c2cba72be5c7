"""BLEU, chrF and exact matches of translations, as implemented in sacrebleu, which is imported at first use."""

from __future__ import annotations

from collections.abc import Sequence

Outputs = Sequence[list[tuple[str, str]]]  # of each batch: the translations and their references


def bleu(outputs: Outputs) -> float:
    """Corpus BLEU, 0 to 100. The other metrics take three times as long."""
    import sacrebleu

    translations, references = _columns(outputs)
    return float(sacrebleu.corpus_bleu(translations, [references], force=True).score)


def bleu_and_others(outputs: Outputs) -> dict[str, float]:
    """Corpus BLEU and chrF, and the share of exact matches."""
    import sacrebleu

    translations, references = _columns(outputs)
    return {
        "bleu": bleu(outputs),
        "chrf": sacrebleu.corpus_chrf(translations, [references]).score,
        "exact": sum(a == b for a, b in zip(translations, references, strict=True)) / len(translations),
    }


def _columns(outputs: Outputs) -> tuple[list[str], list[str]]:
    pairs = [pair for batch in outputs for pair in batch]
    return [translation for translation, _ in pairs], [reference for _, reference in pairs]
