"""posttrain.sft.data.report_lines: lines that fit a terminal and do nothing to it."""

from posttrain.sft.data.report_lines import counted, field_lines, listed


def test_a_finding_fits_and_is_indented() -> None:
    lines = field_lines("leaks", "word " * 60)
    assert len(lines) > 2 and all(len(line) <= 80 for line in lines)
    assert lines[0].startswith("leaks           word")
    assert all(line.startswith(" " * 16 + "word") for line in lines[1:])


def test_what_a_terminal_would_act_on_is_a_sign() -> None:
    (line,) = field_lines("first", "red\x1b[31m and\ta tab")
    assert "\x1b" not in line and "\t" not in line and "red\ufffd[31m" in line


def test_numbers_and_lists_are_words() -> None:
    assert counted(1, "row") == "1 row" and counted(0, "row") == "0 rows"
    assert counted(2000, "row") == "2,000 rows"
    assert listed([1, 2, 3]) == "1, 2, 3" and listed([]) == ""
    assert listed(range(1, 13)) == "1, 2, 3, 4, 5 and 7 more"
