"""An artificial language pair, for translation without a download and with a known correct translation.

A source clause is determiner, adjectives, noun, verb, object and an optional adverb; the target puts the adverb first,
the verb last, and adjectives and determiner after their noun:

    a cold child praises the ships often and it falls
    netfo dlihcou dlocou ynaou pihsain ehtain esiarpu ke lou llafu

The target words are the source words spelled backwards and inflected: each word of a noun phrase is marked for gender
(o, a), number (u, i) and, in the object, case (n). A target pronoun agrees in gender with the subject of the previous
clause, which the source pronoun does not show.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from spaces.tasks.sources.parallel_texts import Pair

NOUNS = {  # with their gender in the target
    "dog": "o", "cat": "a", "bird": "a", "horse": "o", "king": "o", "queen": "a", "child": "o", "farmer": "o",
    "singer": "a", "river": "a", "tree": "o", "house": "o", "ship": "a", "stone": "o", "cloud": "a", "letter": "a",
}  # fmt: skip
ADJECTIVES = ("old", "red", "small", "loud", "wise", "cold", "bright", "slow")
TRANSITIVE = ("see", "hear", "follow", "find", "want", "paint", "fear", "praise")
INTRANSITIVE = ("sleep", "sing", "fall", "wait")
ADVERBS = ("today", "often", "never", "there", "quietly")
PLURAL, SINGULAR, CASE = "i", "u", "n"  # inflections of the target


class Noun(NamedTuple):
    """A noun phrase."""

    stem: str
    plural: bool
    definite: bool
    adjectives: tuple[str, ...]


class Clause(NamedTuple):
    """A clause; ``subject`` None is a pronoun for the previous subject, ``object`` None an intransitive verb."""

    subject: Noun | None
    verb: str
    object: Noun | None
    adverb: str | None


def draw_sentence(generator: random.Random, clauses: int) -> list[Clause]:
    """A random sentence with this number of clauses."""
    sentence: list[Clause] = []
    for number in range(clauses):
        subject = None if number and generator.random() < 0.4 else _noun(generator)
        transitive = generator.random() < 0.7
        verb = generator.choice(TRANSITIVE if transitive else INTRANSITIVE)
        direct_object = _noun(generator) if transitive else None
        adverb = generator.choice(ADVERBS) if generator.random() < 0.4 else None
        sentence.append(Clause(subject, verb, direct_object, adverb))
    return sentence


def _noun(generator: random.Random) -> Noun:
    adjectives = generator.sample(ADJECTIVES, generator.choices((0, 1, 2), weights=(5, 3, 2))[0])
    return Noun(generator.choice(list(NOUNS)), generator.random() < 0.5, generator.random() < 0.5, tuple(adjectives))


def source_text(sentence: list[Clause]) -> str:
    """The sentence in the source language."""
    clauses = []
    referent = sentence[0].subject
    for subject, verb, direct_object, adverb in sentence:
        referent = subject or referent
        assert referent is not None, "the first clause has a subject"
        words = _source_noun(subject) if subject else ["they" if referent.plural else "it"]
        words.append(verb if referent.plural else f"{verb}s")
        words += _source_noun(direct_object) if direct_object else []
        clauses.append(" ".join([*words, *([adverb] if adverb else [])]))
    return " and ".join(clauses)


def _source_noun(noun: Noun) -> list[str]:
    determiner = "the" if noun.definite else "some" if noun.plural else "a"
    return [determiner, *noun.adjectives, f"{noun.stem}s" if noun.plural else noun.stem]


def target_text(sentence: list[Clause]) -> str:
    """The sentence in the target language."""
    clauses = []
    referent = sentence[0].subject
    for subject, verb, direct_object, adverb in sentence:
        referent = subject or referent
        assert referent is not None, "the first clause has a subject"
        words = [adverb[::-1]] if adverb else []
        number = PLURAL if referent.plural else SINGULAR
        words += _target_noun(subject, "") if subject else [f"l{NOUNS[referent.stem]}{number}"]
        words += _target_noun(direct_object, CASE) if direct_object else []
        clauses.append(" ".join([*words, f"{verb[::-1]}{number}"]))
    return " ke ".join(clauses)


def _target_noun(noun: Noun, case: str) -> list[str]:
    """Noun, adjectives and determiner, all inflected for the noun's gender, number and case."""
    ending = f"{NOUNS[noun.stem]}{PLURAL if noun.plural else SINGULAR}{case}"
    return [f"{word[::-1]}{ending}" for word in (noun.stem, *noun.adjectives, "the" if noun.definite else "any")]


def draw_pairs(
    generator: random.Random, count: int, *, clauses: int, known: set[str], fits: Callable[[Pair], bool]
) -> list[Pair]:
    """``count`` pairs of random sentences of up to ``clauses`` clauses.

    Args:
        generator: draws them.
        count: how many.
        clauses: at most so many, at least 1.
        known: source sentences that are not drawn again, as short ones would be; the new ones are added.
        fits: which pairs to keep.
    """
    pairs = list[Pair]()
    while len(pairs) < count:
        sentence = draw_sentence(generator, generator.randint(1, clauses))
        pair = Pair(source_text(sentence), target_text(sentence))
        if pair.source not in known and fits(pair):
            known.add(pair.source)
            pairs.append(pair)
    return pairs
