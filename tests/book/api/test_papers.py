"""book/_ext/api/papers.py: the papers that docstrings name, found in the bibliography."""

from pathlib import Path

import pytest

pytest.importorskip("pybtex")
from book._ext.api import papers

ROOT = Path(__file__).resolve().parents[3]

BIB = r"""
@inproceedings{hu2022lora,
  author = {Hu, Edward J. and Shen, Yelong and Wallis, Phillip},
  year = {2022}, eprint = {2106.09685}}
@inproceedings{loshchilov2019decoupled,
  author = {Loshchilov, Ilya and Hutter, Frank}, year = {2019}, eprint = {1711.05101}}
@inproceedings{loshchilov2017sgdr,
  author = {Loshchilov, Ilya and Hutter, Frank}, year = {2017}, eprint = {1608.03983}}
@article{wilson1927probable, author = {Wilson, Edwin B.}, year = {1927}, doi = {10.1/wilson}}
@misc{olsson2022context, author = {Olsson, Catherine and others}, year = {2022},
  url = {https://example.org/heads}}
@techreport{rozi2023, author = {Rozi{\`e}re, Baptiste}, year = {2023}}
"""


@pytest.fixture
def library(tmp_path: Path):
    file = tmp_path / "references.bib"
    file.write_text(BIB, encoding="utf-8")
    return papers.read_bibliography(file)


@pytest.mark.parametrize(
    ("text", "shown", "key"),
    [
        ("an update (Hu et al., 2022, Eq. 3).", "Hu et al., 2022", "hu2022lora"),
        ("of Hu et al. (2021, Eq. 3) are", "Hu et al. (2021, Eq. 3)", "hu2022lora"),
        ("(Hu\n    et al.,\n    2021)", "Hu et al., 2021", "hu2022lora"),
        ("(Hu, 2022)", "Hu, 2022", None),  # three authors
        ("(Hu & Shen, 2022)", "Hu & Shen, 2022", None),
        ("(Hu et al., 2020)", "Hu et al., 2020", None),
        ("(Hu et al., 2020, arXiv:2106.09685)", "Hu et al., 2020", "hu2022lora"),
        ("(Hu et al., 2022, arXiv:2106.00001)", "Hu et al., 2022", None),
        # The conference's year counts more than that of the other paper's preprint.
        ("(Loshchilov & Hutter, 2017)", "Loshchilov & Hutter, 2017", "loshchilov2017sgdr"),
        (
            "(Loshchilov and Hutter, 2019)",
            "Loshchilov and Hutter, 2019",
            "loshchilov2019decoupled",
        ),
        ("(Loshchilov & Kingma, 2019)", "Loshchilov & Kingma, 2019", None),
        ("score interval (Wilson, 1927).", "Wilson, 1927", "wilson1927probable"),
        ("(Olsson et al., 2022)", "Olsson et al., 2022", "olsson2022context"),
        ("(Rozière, 2023)", "Rozière, 2023", "rozi2023"),
    ],
)
def test_a_paper_is_found_by_authors_and_year(library, text: str, shown: str, key: str | None):
    (mention,) = papers.mentions(text)
    paper = papers.find(mention, library)
    assert (mention.text, paper.key if paper else None) == (shown, key)


@pytest.mark.parametrize(
    "text", ["in 2022, Python 3.11", "float32 (2022)", "Text, 1,024 tokens"]
)
def test_what_is_no_paper(text: str):
    assert list(papers.mentions(text)) == []


def test_where_a_paper_lies(library):
    assert {paper.key: paper.address for paper in library} == {
        "hu2022lora": "https://arxiv.org/abs/2106.09685",
        "loshchilov2019decoupled": "https://arxiv.org/abs/1711.05101",
        "loshchilov2017sgdr": "https://arxiv.org/abs/1608.03983",
        "wilson1927probable": "https://doi.org/10.1/wilson",
        "olsson2022context": "https://example.org/heads",
        "rozi2023": "",
    }


def test_two_entries_that_fit_are_no_answer(library):
    (mention,) = papers.mentions("(Wilson, 1927)")
    twice = [*library, *[paper for paper in library if paper.key == "wilson1927probable"]]
    assert papers.find(mention, twice) is None
