"""Write the blocks of a page, such as lists, tables and boxes, as Markdown for a notebook."""

import re
from html import escape as escape_html
from pathlib import Path

from docutils import nodes

from tools.notebooks.inline import InlineWriter, escape_start, fail, unknown, without_tags

BOXES = (nodes.Admonition, nodes.topic, nodes.sidebar)
LANGUAGES = {".py": "python", ".sh": "bash", ".json": "json", ".yml": "yaml", ".toml": "toml"}
SITE_ONLY = {"pt-times", "pt-launch"}
"""Classes of lines that extensions add to pages of the site."""
NO_LANGUAGE = {"", "default", "none", "text", "output"}
# What LaTeX calls a display of its own is, inside $$, a part of one.
INNER = {
    "align": "aligned",
    "alignat": "alignedat",
    "eqnarray": "aligned",
    "gather": "gathered",
}


class BlockWriter(InlineWriter):
    """Turns block nodes into blocks of Markdown, which a blank line separates."""

    def block(self, node: nodes.Node) -> list[str]:
        """Write one block node.

        Returns:
            Its blocks; none for what a notebook does not show.
        """
        for kind in type(node).__mro__:
            write = getattr(self, f"block_{kind.__name__}", None)
            if write is not None:
                found = write(node)
                return [text for text in found if text]
        if isinstance(node, nodes.Inline | nodes.image) and hasattr(
            self, f"inline_{type(node).__name__}"
        ):
            return [text] if (text := self.inline(node).strip()) else []
        raise unknown(self.page, node)

    def blocks(self, parent: nodes.Node | list[nodes.Node]) -> list[str]:
        """Write all that a node holds, or each of a list's nodes."""
        children = parent if isinstance(parent, list) else parent.children
        return [text for child in children for text in self.block(child)]

    def joined(self, parent: nodes.Node | list[nodes.Node]) -> str:
        """Write all that a node holds as one piece of Markdown."""
        return "\n\n".join(self.blocks(parent))

    # --- text ---

    def block_paragraph(self, node: nodes.paragraph) -> list[str]:
        if SITE_ONLY & {*node.get("classes", ())}:
            return []
        return [escape_start(self.children(node).strip())]

    def block_rubric(self, node: nodes.rubric) -> list[str]:
        return [f"**{self.children(node).strip()}**"]

    def block_transition(self, node: nodes.transition) -> list[str]:
        return ["---"]

    def block_line_block(self, node: nodes.line_block) -> list[str]:
        return ["  \n".join(self.children(line).strip() for line in node.findall(nodes.line))]

    def block_block_quote(self, node: nodes.block_quote) -> list[str]:
        return [quoted(self.joined(node))]

    def block_attribution(self, node: nodes.attribution) -> list[str]:
        return [f"— {self.children(node).strip()}"]

    def block_compound(self, node: nodes.Element) -> list[str]:
        return self.blocks(node)

    block_legend = block_only = block_section = block_compound

    def nothing_to_show(self, node: nodes.Node) -> list[str]:
        return []

    block_comment = block_target = block_index = block_meta = nothing_to_show
    block_substitution_definition = block_pending = block_toctree = nothing_to_show
    block_tabular_col_spec = block_docinfo = block_colspec = nothing_to_show

    def block_raw(self, node: nodes.raw) -> list[str]:
        return [self.inline_raw(node).strip()]

    def block_system_message(self, node: nodes.system_message) -> list[str]:
        raise fail(self.page, node, f"Sphinx says {node.astext()!r}: mend the page")

    # --- lists ---

    def block_bullet_list(self, node: nodes.bullet_list) -> list[str]:
        return [self.items(node, ["-"] * len(node))]

    def block_enumerated_list(self, node: nodes.enumerated_list) -> list[str]:
        start = node.get("start", 1)
        return [self.items(node, [f"{start + i}." for i in range(len(node))])]

    def items(self, node: nodes.Element, markers: list[str]) -> str:
        texts = [self.joined(item) for item in node.children]
        loose = any("\n\n" in text for text in texts)
        written = [
            f"{marker} " + text.replace("\n", "\n" + " " * (len(marker) + 1))
            for marker, text in zip(markers, texts, strict=True)
        ]
        return without_trailing_blanks(("\n\n" if loose else "\n").join(written))

    def block_definition_list(self, node: nodes.definition_list) -> list[str]:
        return [text for item in node.children for text in self.definition(item)]

    block_glossary = block_compound

    def definition(self, item: nodes.Node) -> list[str]:
        terms = [self.children(t).strip() for t in item.children if isinstance(t, nodes.term)]
        body = [d for d in item.children if isinstance(d, nodes.definition)]
        first, *rest = self.blocks([child for d in body for child in d.children]) or [""]
        return [f"**{', '.join(terms)}**: {first}", *rest]

    def block_field_list(self, node: nodes.field_list) -> list[str]:
        return [
            f"**{self.children(name).strip()}**: {self.joined(body)}"
            for name, body in (entry.children for entry in node.children)
        ]

    def block_footnote(self, node: nodes.footnote) -> list[str]:
        label = node.children[0].astext()
        return [f"<sup>{label}</sup> {self.joined(list(node.children[1:]))}"]

    # --- code and formulas ---

    def block_literal_block(self, node: nodes.literal_block) -> list[str]:
        language = node.get("language", "")
        if language in NO_LANGUAGE:
            language = LANGUAGES.get(Path(node.get("source", "")).suffix, "")
        code = fenced(node.astext(), language)
        return [self.origin(node), code] if node.get("source") else [code]

    block_doctest_block = block_literal_block

    def origin(self, node: nodes.literal_block) -> str:
        """Say where included code comes from, with a link to its lines."""
        file = Path(node["source"]).resolve()
        try:
            name = file.relative_to(Path(self.page.root).resolve()).as_posix()
        except ValueError:
            raise fail(
                self.page,
                node,
                f"{file.name} lies outside the repository: include a file of it",
            ) from None
        first = node.get("highlight_args", {}).get("linenostart")
        if first is None:
            return f"From [{name}]({self.page.file_address(name)}):"
        last = first + len(node.astext().rstrip("\n").splitlines()) - 1
        where = f"line {first}" if last == first else f"lines {first}–{last}"
        return f"From [{name}]({self.page.file_address(name, f'#L{first}-L{last}')}), {where}:"

    def block_math_block(self, node: nodes.math_block) -> list[str]:
        # On one line: in a box, the mark of each line would get into the formula.
        number = self.page.number("displaymath", node)
        formula = without_tags(" ".join(display(node).split()))
        tag = f" \\tag{{{number}}}" if number else ""
        return [f"$$ {formula}{tag} $$"]

    # --- pictures and tables ---

    def block_figure(self, node: nodes.figure) -> list[str]:
        pictures = [c for c in node.children if not isinstance(c, nodes.caption)]
        return [*self.blocks(pictures), *self.caption(node)]

    def caption(self, node: nodes.Element) -> list[str]:
        """Write a figure's caption, in italics, with the number that it has on the site."""
        captions = [c for c in node.children if isinstance(c, nodes.caption)]
        label = self.page.label("figure", node)
        with self.inside("in_emphasis"):
            text = " ".join(self.children(caption).strip() for caption in captions)
        words = f"{label}. {text}" if label and text else label or text
        return [f"*{words}*"] if words else []

    def block_table(self, node: nodes.table) -> list[str]:
        title = [self.children(c).strip() for c in node.children if isinstance(c, nodes.title)]
        label = self.page.label("table", node)
        head = f"**{label}.** {' '.join(title)}" if label else " ".join(title)
        heads = [self.cells(row) for part in node.findall(nodes.thead) for row in part.children]
        rows = [self.cells(row) for part in node.findall(nodes.tbody) for row in part.children]
        columns = max(map(len, heads + rows))
        first, *more = heads or [[""] * columns]
        lines = [first, ["---"] * columns, *more, *rows]
        return [head, "\n".join(f"| {' | '.join(line)} |" for line in lines)]

    def cells(self, row: nodes.Node) -> list[str]:
        found = []
        for entry in row.children:
            if isinstance(entry, nodes.Element) and (entry.get("morerows")):
                raise fail(self.page, entry, "a cell over several rows has no form in Markdown")
            with self.inside("in_table"):
                text = "<br>".join(self.blocks(entry))
            found.append(re.sub(r"\s*\n\s*", "<br>", text))
            found += [""] * int(entry.get("morecols", 0))
        return found

    # --- boxes ---

    def block_Admonition(self, node: nodes.Element) -> list[str]:
        title, body = self.titled(node)
        text = self.joined(body)
        if "dropdown" in node.get("classes", []):
            return [folded(plain_title(node), text)]
        return [quoted(f"**{title}**\n\n{text}" if title else text)]

    block_topic = block_sidebar = block_Admonition

    def titled(self, node: nodes.Element) -> tuple[str, list[nodes.Node]]:
        """Split a box into its title, with its number, and the rest."""
        kind = node.get("countertype") or node.get("type") or ""
        label = self.page.label(kind, node) if kind else ""
        kind = str(node.get("realtype", ""))
        children = list(node.children)
        if children and isinstance(children[0], nodes.title):
            text = self.children(children.pop(0))
        else:
            text = type(node).__name__.capitalize()
        if kind and not label:
            label = kind.capitalize()
        return re.sub(r"\s+", " ", f"{label} {text}" if label else text).strip(), children

    def block_container(self, node: nodes.container) -> list[str]:
        children = list(node.children)
        if node.get("design_component") == "dropdown":
            title = plain_title(node)
            if children and isinstance(children[0], nodes.rubric):
                children.pop(0)
            return [folded(title, self.joined(children))]
        if node.get("nb_element") == "cell_code":
            raise fail(self.page, node, "a code cell inside a box or list: put it outside")
        captions = [c for c in children if isinstance(c, nodes.caption)]
        rest = [c for c in children if not isinstance(c, nodes.caption)]
        return [*(f"**{self.children(c).strip()}**" for c in captions), *self.blocks(rest)]


def quoted(text: str) -> str:
    """Indent a piece of Markdown as a quotation."""
    return "\n".join(f"> {line}" if line else ">" for line in text.splitlines())


def plain_title(node: nodes.Element) -> str:
    """Return the title of a box without markup, which a summary would show as it is."""
    named = [c for c in node.children[:1] if isinstance(c, nodes.title | nodes.rubric)]
    return escape_html(" ".join(named[0].astext().split()) if named else "Details")


def folded(title: str, text: str) -> str:
    """Hide a piece of Markdown behind its title until the reader opens it."""
    return f"<details><summary><b>{title}</b></summary>\n\n{text}\n\n</details>"


def fenced(code: str, language: str) -> str:
    """Put code between fences that are longer than any in it."""
    longest = max(map(len, re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code.rstrip()}\n{fence}"


def without_trailing_blanks(text: str) -> str:
    """Remove the indentation of empty lines."""
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)


def display(node: nodes.math_block) -> str:
    """Return a formula as it may stand between ``$$``."""
    text = node.astext().strip()
    outer = re.fullmatch(r"\\begin\{(\w+)\*?\}(.*)\\end\{\1\*?\}", text, re.DOTALL)
    if outer and outer[1] == "equation":
        return outer[2].strip()
    if outer and outer[1] in INNER:
        name = INNER[outer[1]]
        return f"\\begin{{{name}}}{outer[2]}\\end{{{name}}}"
    parts = [" ".join(part.split("\n")) for part in re.split(r"\n\s*\n", text)]
    if len(parts) > 1:
        return "\\begin{gathered}\n" + " \\\\\n".join(parts) + "\n\\end{gathered}"
    if not outer and re.search(r"\\\\(?![a-zA-Z])", re.sub(ENVIRONMENT, "", text, flags=re.S)):
        return f"\\begin{{aligned}}\n{text}\n\\end{{aligned}}"
    return re.sub(r"\n\s*\n", "\n", text)


ENVIRONMENT = r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}"
