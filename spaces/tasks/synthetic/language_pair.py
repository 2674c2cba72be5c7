"""A made-up pair of languages, so that translating can be tried with nothing to download and every answer is known.

The source says clauses as determiner, adjectives, noun, verb, object and, perhaps, an adverb; the target puts the
adverb first, the verb last, and adjectives and determiner behind their noun:

    a cold child praises the ships often and it falls
    netfo dlihcou dlocou ynaou pihsain ehtain esiarpu ke lou llafu

Words of the target are those of the source spelt backwards and inflected: gender (o, a), number (u, i) and, of the
object, case (n) show on each word of a noun phrase. A pronoun has the gender of what the clause before was about, which
the source doesn't say on the spot.
"""

from __future__ import annotations

import random
from typing import NamedTuple

NOUNS = {  # and their gender in the target
    "dog": "o", "cat": "a", "bird": "a", "horse": "o", "king": "o", "queen": "a", "child": "o", "farmer": "o",
    "singer": "a", "river": "a", "tree": "o", "house": "o", "ship": "a", "stone": "o", "cloud": "a", "letter": "a",
}  # fmt: skip
ADJECTIVES = ("old", "red", "small", "loud", "wise", "cold", "bright", "slow")
TRANSITIVE = ("see", "hear", "follow", "find", "want", "paint", "fear", "praise")
INTRANSITIVE = ("sleep", "sing", "fall", "wait")
ADVERBS = ("today", "often", "never", "there", "quietly")
PLURAL, SINGULAR, CASE = "i", "u", "n"  # endings of the target


class Noun(NamedTuple):
    """A noun with what belongs to it."""

    stem: str
    many: bool
    known: bool  # the, not a
    adjectives: tuple[str, ...]


class Clause(NamedTuple):
    """Who does what to whom; ``subject`` None is a pronoun for the subject before."""

    subject: Noun | None
    verb: str
    whom: Noun | None
    adverb: str | None


def draw(generator: random.Random, clauses: int) -> list[Clause]:
    """A sentence of so many clauses, all of whose choices are ``generator``'s."""
    said: list[Clause] = []
    for number in range(clauses):
        subject = None if number and generator.random() < 0.4 else _noun(generator)
        transitive = generator.random() < 0.7
        verb = generator.choice(TRANSITIVE if transitive else INTRANSITIVE)
        whom = _noun(generator) if transitive else None
        adverb = generator.choice(ADVERBS) if generator.random() < 0.4 else None
        said.append(Clause(subject, verb, whom, adverb))
    return said


def _noun(generator: random.Random) -> Noun:
    adjectives = generator.sample(ADJECTIVES, generator.choices((0, 1, 2), weights=(5, 3, 2))[0])
    return Noun(generator.choice(list(NOUNS)), generator.random() < 0.5, generator.random() < 0.5, tuple(adjectives))


def source(sentence: list[Clause]) -> str:
    """The sentence in the source language."""
    clauses = []
    about = sentence[0].subject
    for subject, verb, whom, adverb in sentence:
        about = subject or about
        assert about is not None, "the first clause has a subject"
        words = _source_noun(subject) if subject else ["they" if about.many else "it"]
        words.append(verb if about.many else f"{verb}s")
        words += _source_noun(whom) if whom else []
        clauses.append(" ".join([*words, *([adverb] if adverb else [])]))
    return " and ".join(clauses)


def _source_noun(noun: Noun) -> list[str]:
    determiner = "the" if noun.known else "some" if noun.many else "a"
    return [determiner, *noun.adjectives, f"{noun.stem}s" if noun.many else noun.stem]


def target(sentence: list[Clause]) -> str:
    """The same in the target language."""
    clauses = []
    about = sentence[0].subject
    for subject, verb, whom, adverb in sentence:
        about = subject or about
        assert about is not None, "the first clause has a subject"
        words = [adverb[::-1]] if adverb else []
        number = PLURAL if about.many else SINGULAR
        words += _target_noun(subject, "") if subject else [f"l{NOUNS[about.stem]}{number}"]
        words += _target_noun(whom, CASE) if whom else []
        clauses.append(" ".join([*words, f"{verb[::-1]}{number}"]))
    return " ke ".join(clauses)


def _target_noun(noun: Noun, case: str) -> list[str]:
    """Noun, adjectives, and last the determiner, all with the noun's gender, number and case."""
    ending = f"{NOUNS[noun.stem]}{PLURAL if noun.many else SINGULAR}{case}"
    return [f"{word[::-1]}{ending}" for word in (noun.stem, *noun.adjectives, "the" if noun.known else "any")]
