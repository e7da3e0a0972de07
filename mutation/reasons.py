"""Comments `# mutant: reason` in the kernels: why mutants of a line may survive."""

import io
import re
import tokenize

MARK = re.compile(r"\s*# mutant: (.+)")


def reasons_of(source: str) -> dict[int, str]:
    """The reasons in a file by line number. A comment on a line of its own belongs to the line below it."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (match := MARK.search(token.string)):
            (row, column), line = token.start, token.line
            found[row if line[:column].strip() else row + 1] = match[1]
    return found


def without_reasons(source: str) -> str:
    """The source as it is without these comments, so that a mutant has the same text before and after one is added."""
    return MARK.sub("", source)
