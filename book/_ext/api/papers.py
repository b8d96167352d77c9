"""Source papers in docstrings, "Hu et al. (2021, Eq. 3)", and the bibliography's entries.

A paper is found by its authors and year. A docstring often names the year of the preprint and
the bibliography that of the conference, so the year of an arXiv number counts too.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pybtex.database import Person, parse_file
from pybtex.richtext import Text

NAME = r"[A-Z][\w'-]+"
MENTION = re.compile(
    rf"(?P<first>{NAME})(?:\s+(?:&|and)\s+(?P<second>{NAME})|(?P<others>\s+et\s+al\.))?"
    r"(?:,\s+(?P<year>(?:19|20)\d\d)\b|\s+\((?P<year2>(?:19|20)\d\d)\b[^()]*\))"
)
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class Paper:
    """An entry of the bibliography."""

    key: str
    names: tuple[str, ...]
    has_others: bool
    year: int
    arxiv: str
    doi: str
    url: str

    @property
    def preprint_year(self) -> int:
        """The year in the arXiv number, or 0."""
        return 2000 + int(self.arxiv[:2]) if re.match(r"\d{4}\.", self.arxiv) else 0

    @property
    def address(self) -> str:
        """Where the paper lies, or an empty text."""
        if self.arxiv:
            return f"https://arxiv.org/abs/{self.arxiv}"
        return f"https://doi.org/{self.doi}" if self.doi else self.url


@dataclass(frozen=True)
class Mention:
    """A paper that a text names: where, and by what."""

    start: int
    end: int
    text: str
    first: str
    second: str
    has_others: bool
    year: int
    arxiv: str

    def is_of(self, paper: Paper) -> bool:
        """Compare the arXiv number or the authors, not the year."""
        if self.arxiv:
            return self.arxiv == paper.arxiv
        names = [name.casefold() for name in paper.names]
        if not names or names[0] != self.first.casefold():
            return False
        if self.second:
            return len(names) == 2 and names[1] == self.second.casefold()
        return self.has_others == (len(names) > 2 or paper.has_others)


def mentions(text: str) -> Iterator[Mention]:
    """Find the papers that a text names, each with an arXiv number that follows its year."""
    for match in MENTION.finditer(text):
        rest = match[0] if match["year2"] else text[match.end() :].partition(")")[0]
        arxiv = ARXIV.search(rest)
        yield Mention(
            match.start(),
            match.end(),
            " ".join(match[0].split()),
            match["first"],
            match["second"] or "",
            bool(match["others"]),
            int(match["year"] or match["year2"]),
            arxiv[1] if arxiv else "",
        )


def _last_name(person: Person) -> str:
    names = [*person.prelast_names, *person.last_names]
    return " ".join(str(Text.from_latex(name)) for name in names)


def read_bibliography(*files: Path) -> list[Paper]:
    """Read BibTeX files."""
    papers = []
    for file in files:
        for key, entry in parse_file(str(file), bib_format="bibtex").entries.items():
            names = [_last_name(person) for person in entry.persons.get("author", [])]
            papers.append(
                Paper(
                    key,
                    tuple(name for name in names if name != "others"),
                    "others" in names,
                    int(entry.fields.get("year", 0)),
                    entry.fields.get("eprint", ""),
                    entry.fields.get("doi", ""),
                    entry.fields.get("url", ""),
                )
            )
    return papers


def find(mention: Mention, papers: list[Paper]) -> Paper | None:
    """Return the one paper that is meant; none if no entry fits, or two do.

    The year is the entry's or, where no entry has it, that of an entry's preprint.
    """
    fitting = [paper for paper in papers if mention.is_of(paper)]
    if not mention.arxiv:
        same_year = [paper for paper in fitting if paper.year == mention.year]
        fitting = same_year or [p for p in fitting if p.preprint_year == mention.year]
    return fitting[0] if len(fitting) == 1 else None
