"""The table of a benchmark's scores, as a notebook shows it and as a data frame."""

import numpy as np
from helpers.html_outline import unstyled
from helpers.made_scores import made_table


def test_one_row_for_each_image_and_scorer() -> None:
    table = made_table({"A": [[1.0, 2.0], [3.0, np.nan]], "B": [[5.0, 6.0], [7.0, 8.0]]})
    frame = table.to_pandas()
    found = {(row.model, row.prompt, row.image): row.score for row in frame.itertuples()}
    assert len(frame) == 8
    assert set(frame["scorer"]) == {"made-up"}
    assert found["A", "00000", 1] == 2
    assert np.isnan(found["A", "00001", 1])
    assert found["B", "00001", 0] == 7


def test_a_notebook_shows_the_means() -> None:
    """A prompt counts once, however many images it has: (1.5 + 3) / 2, (5.5 + 7.5) / 2."""
    table = made_table({"A": [[1.0, 2.0], [3.0, np.nan]], "B": [[5.0, 6.0], [7.0, 8.0]]})
    html = table._repr_html_()
    assert "<td>A</td><td>2.25</td>" in unstyled(html)
    assert "<td>B</td><td>6.5</td>" in unstyled(html)


def test_a_model_without_scores_has_no_mean() -> None:
    html = made_table({"A": [[np.nan], [np.nan]], "B": [[1.0], [2.0]]})._repr_html_()
    assert "<td>A</td><td>-</td>" in unstyled(html)


def test_what_prompts_say_is_collected_once_for_all_of_them() -> None:
    """Asked for at each place, it took as many steps as there are pairs of prompts."""
    table = made_table({"A": [[1.0], [2.0]]})
    assert table.words is table.words
    assert table.words == tuple(one.prompt for one in table.prompts)
