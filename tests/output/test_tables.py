"""Tables where there is no terminal: nothing is wrapped or cut."""

import io
from contextlib import redirect_stdout

from stablepref.output.tables import print_results


def test_a_title_that_is_longer_than_its_table() -> None:
    title = "a-model-with-a-long-name: logit_scale x cosine"
    row = {"rank": 1, "score": 2.0, "image": "a.png", "prompt": "x", "error": None}
    out = io.StringIO()
    with redirect_stdout(out):
        print_results([row], title=title)
    first, *rest = out.getvalue().rstrip().splitlines()
    assert first == title
    assert max(map(len, rest)) < len(title)
    assert rest[-1].split() == ["1", "2.0000", "a.png"]
