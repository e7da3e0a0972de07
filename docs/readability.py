"""How readable the pages are: `python docs/readability.py [--worst N] [PAGE ...]` measures README and docs/.

Counted is prose: paragraphs and items of lists, without code, formulas, images and tables. The cells of tables have a
line of their own. A piece of code counts as one word. Flesch reading ease is 206.835 - 1.015 words per sentence - 84.6
syllables per word: 60 is plain English, 30 is hard. Syllables are groups of vowels, a silent e at the end left out.
"""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

HOUSE = Path(__file__).resolve().parents[1]
LONG = 30  # words; the longest sentence that is understood the first time
ABBREVIATIONS = re.compile(r"\b(al|e\.g|i\.e|vs|cf|No|approx)\.")


class Readability(NamedTuple):
    """sentences  how many; mean  words per sentence; long  share of those over 30 words; ease  Flesch reading ease"""

    sentences: int
    mean: float
    long: float
    ease: float


def pages() -> list[Path]:
    """README and every page of docs/ that is written by hand."""
    return [HOUSE / "README.md", *sorted(page for page in (HOUSE / "docs").rglob("*.md") if page.name != "report.md")]


def measure(sentences: list[str]) -> Readability:
    words = [_words(sentence) for sentence in sentences]
    n_words = sum(map(len, words))
    mean = n_words / len(words)
    syllables = sum(_syllables(word) for sentence in words for word in sentence)
    long = sum(len(sentence) > LONG for sentence in words) / len(words)
    return Readability(len(words), mean, long, 206.835 - 1.015 * mean - 84.6 * syllables / n_words)


def sentences_of(text: str, *, cells: bool = False) -> list[str]:
    """The sentences of a page, of three words or more: those of its prose, or those in the cells of its tables."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"^ *```.*?^ *```$", "\n", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^(?:    .*|#.*|<.*|\|[ :|-]+\|)$", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|<[^>]+>", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = ABBREVIATIONS.sub(r"\1", re.sub(r"`[^`]+`", "code", text))
    tables = re.findall(r"^\|(.*)\|$", text, flags=re.MULTILINE)
    prose = re.sub(r"^\|.*\|$", "\n", text, flags=re.MULTILINE)
    blocks = "|".join(tables).split("|") if cells else re.split(r"\n\s*\n|\n(?=\s*(?:[-*>]|\d+\.) )", prose)
    ends = r"(?<=[.!?])[\")*]*\s+"
    plain = [each.replace("*", "") for block in blocks for each in re.split(ends, " ".join(block.split()))]
    return [sentence for sentence in plain if len(_words(sentence)) > 2]


def _words(sentence: str) -> list[str]:
    return re.findall(r"[A-Za-z0-9][\w.,'^-]*", sentence)


def _syllables(word: str) -> int:
    groups = re.findall(r"[aeiouy]+", re.sub(r"(?<=[^aeiouyl])e$", "", word.lower()))
    return max(1, len(groups))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("pages", nargs="*", type=Path, default=pages())
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="print the N longest sentences too")
    options = parser.parse_args()
    texts = {page: page.read_text() for page in options.pages}
    found = {str(page): sentences_of(text) for page, text in texts.items()}
    found["prose of all"] = [sentence for sentences in found.values() for sentence in sentences]
    found["tables of all"] = [sentence for text in texts.values() for sentence in sentences_of(text, cells=True)]
    lines = [f"{'sentences':>9} {'words':>6} {'over 30':>8} {'ease':>5}"]
    for name, sentences in found.items():
        if sentences:
            n, mean, long, ease = measure(sentences)
            lines.append(f"{n:9} {mean:6.1f} {long:8.1%} {ease:5.0f}  {name}")
    longest = sorted(found["prose of all"] + found["tables of all"], key=lambda sentence: -len(_words(sentence)))[
        : options.worst
    ]
    lines += [f"{len(_words(sentence)):3} {sentence}" for sentence in longest]
    print("\n".join(lines))  # noqa: T201 - a program


if __name__ == "__main__":
    main()
